//! Rows on their way out of a store, as Arrow record batches in the plan's order.

pub(crate) mod postgres;
pub(crate) mod sqlite;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::error::Result;
use crate::mirror::Subject;
use crate::phase::{Side, Standing};

/// How many rows a record batch holds: large enough that the cost per batch vanishes, small enough
/// that a few in flight stay within a few megabytes.
pub const BATCH_ROWS: usize = 8192;

/// Both stores at one moment.
///
/// # Contract
/// Everything read through it is as of [`ConsistentRead::point`], on both sides, however long it takes and
/// whatever is written meanwhile. Nothing is locked against writers.
#[async_trait]
pub trait ConsistentRead: Send {
    /// The moment in the engine's words.
    fn point(&self) -> &str;

    /// The database's time at the moment, in ISO 8601 and UTC.
    fn began_at(&self) -> &str;

    /// Where the migration stood at the moment: the epoch that everything read belongs to.
    fn standing(&self) -> Standing;

    /// About how many rows a side will give, for progress.
    async fn estimate(&mut self, side: Side) -> Result<u64>;

    /// Sends the rows of one side in the plan's order and schema: what the projection gives for every
    /// key of the old table, or the projection's columns of every row of the new one. Rows travel in batches of at most
    /// [`BATCH_ROWS`]; the caller bounds memory by the channel's capacity. Gives the number of rows.
    ///
    /// # Errors
    /// When the database fails, or a value does not fit its column. A receiver that was dropped ends
    /// the read without an error.
    async fn read(&mut self, side: Side, rows: mpsc::Sender<RecordBatch>) -> Result<u64>;
}

/// A store that both sides can be read from at one moment.
#[async_trait]
pub trait Rows: Send + Sync {
    /// Opens a consistent read of both sides.
    async fn read_both(&self, subject: &Subject) -> Result<Box<dyn ConsistentRead>>;
}
