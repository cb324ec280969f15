//! Rows on their way out of a store, as Arrow record batches in the plan's order.

mod changes;
pub(crate) mod postgres;
mod ranges;
pub(crate) mod sqlite;

use std::num::NonZeroUsize;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sqlx::Connection;
use tokio::sync::mpsc;

use crate::error::{Error, Result};
use crate::mirror::Subject;
use crate::phase::{Side, Standing};

pub use changes::{Changes, Horizon};

/// How many rows a record batch holds: large enough that the cost per batch vanishes, small enough
/// that a few in flight stay within a few megabytes.
pub const BATCH_ROWS: usize = 8192;

/// What a consistent read shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// The moment in the engine's words.
    pub point: String,
    /// The database's time at the moment, in ISO 8601 and UTC.
    pub began_at: String,
    /// Where the migration stood at the moment: the epoch that everything read belongs to.
    pub standing: Standing,
}

/// How far the writes of a store have come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WritePosition {
    /// Which store, in a word that its replicas share with it.
    pub origin: String,
    /// Where, in the engine's words.
    pub position: String,
}

/// The rows of one side whose scope is not smaller than `from` and smaller than `to`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ScopeRange {
    /// The scope's columns in the engine's own text form; the first rows where there is none.
    pub from: Option<Vec<String>>,
    /// The scope's columns in the engine's own text form; the last rows where there is none.
    pub to: Option<Vec<String>>,
}

impl ScopeRange {
    /// All rows.
    pub const WHOLE: ScopeRange = ScopeRange { from: None, to: None };

    /// The ranges that these ascending bounds cut all rows into.
    pub fn between(bounds: Vec<Vec<String>>) -> Vec<ScopeRange> {
        let from = std::iter::once(None).chain(bounds.iter().cloned().map(Some));
        let to = bounds.iter().cloned().map(Some).chain(std::iter::once(None));
        from.zip(to).map(|(from, to)| ScopeRange { from, to }).collect()
    }
}

/// Both stores at one moment.
///
/// # Contract
/// Everything read through it is as of [`ConsistentRead::moment`], on both sides, however long it takes and
/// whatever is written meanwhile. Nothing is locked against writers. Several ranges may be read at once; an engine that
/// cannot do so reads them one after the other.
#[async_trait]
pub trait ConsistentRead: Send + Sync {
    /// What it shows.
    fn moment(&self) -> &Moment;

    /// Whether the moment can still be read: an error says that it is gone for good.
    async fn hold(&self) -> Result<()>;

    /// About how many rows a side will give, for progress.
    async fn estimate(&self, side: Side) -> Result<u64>;

    /// Cuts a side into ascending ranges that together hold every row once: `count` of them of about the same size, or
    /// fewer where more would cost the store much more than reading it in one go.
    async fn ranges(&self, side: Side, count: NonZeroUsize) -> Result<Vec<ScopeRange>>;

    /// Sends the rows of one side in the plan's order and schema: what the projection gives for every
    /// key of the old table, or the projection's columns of every row of the new one. Rows travel in batches of at most
    /// [`BATCH_ROWS`]; the caller bounds memory by the channel's capacity. Gives the number of rows.
    ///
    /// # Errors
    /// When the database fails, or a value does not fit its column. A receiver that was dropped ends
    /// the read without an error.
    async fn read(&self, side: Side, range: &ScopeRange, rows: mpsc::Sender<RecordBatch>) -> Result<u64>;

    /// The same, for one range after the other: over the connection that was kept, if one was, which is kept again for the
    /// next range. Where an engine has no connection for each reader, this is [`read`](Self::read).
    ///
    /// # Errors
    /// As [`read`](Self::read); nothing is kept then.
    async fn read_next(
        &self,
        _kept: &mut Kept,
        side: Side,
        range: &ScopeRange,
        rows: mpsc::Sender<RecordBatch>,
    ) -> Result<u64> {
        self.read(side, range, rows).await
    }

    /// What tells how the rows differ from those of an earlier moment, where the engine knows.
    fn changes(&self) -> Option<&dyn Changes> {
        None
    }
}

/// A connection that is kept from one range to the next: opening one, and what the server's process behind it has to look up
/// anew, costs as much as reading some ten thousand rows. It belongs to the runtime that it was opened on.
#[derive(Debug, Default)]
pub struct Kept {
    connection: Option<sqlx::PgConnection>,
}

impl Kept {
    /// Takes leave of the server.
    ///
    /// # Errors
    /// When the connection was lost meanwhile.
    pub async fn close(self) -> Result<()> {
        match self.connection {
            Some(connection) => connection.close().await.map_err(Error::database("closing a connection")),
            None => Ok(()),
        }
    }
}

/// A store that both sides can be read from at one moment.
#[async_trait]
pub trait Rows: Send + Sync {
    /// Opens a consistent read of both sides.
    async fn read_both(&self, subject: &Subject) -> Result<Box<dyn ConsistentRead>>;

    /// How far this store's writes have come, for [`Rows::has_replayed`] of its replicas.
    ///
    /// # Errors
    /// When the engine knows no replicas, or this store is one itself.
    async fn written(&self) -> Result<WritePosition>;

    /// Whether this store, a replica, shows everything that was committed up to a position of the store that it follows.
    ///
    /// # Errors
    /// When it is no replica of that store.
    async fn has_replayed(&self, position: &WritePosition) -> Result<bool>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_meet_and_leave_nothing_out() {
        assert_eq!(ScopeRange::between(Vec::new()), [ScopeRange::WHOLE]);
        let bound = |text: &str| vec![text.to_owned()];
        let ranges = ScopeRange::between(vec![bound("3"), bound("7")]);
        assert_eq!(ranges.len(), 3);
        assert_eq!((&ranges[0].from, &ranges[2].to), (&None, &None));
        assert!(ranges.windows(2).all(|pair| pair[0].to == pair[1].from && pair[0].to.is_some()));
    }
}
