//! The fence: the lock by which no write commits in a phase that has passed.
//!
//! Every write transaction holds the migration's fence shared when it commits, and has read the
//! standing *after* it got it; a change of phase holds it alone. So a change waits for the
//! transactions in flight, and what begins later sees the new standing (I2).

pub(crate) mod postgres;
pub(crate) mod sqlite;

use futures::future::BoxFuture;
use sqlx::{Database, Pool, Transaction};

use crate::control::MigrationId;
use crate::error::Result;
use crate::phase::{Epoch, Standing};

/// An engine whose transactions can be fenced.
///
/// # Contract
/// - From the moment [`Fence::fence`] returns until the transaction ends, the standing cannot change.
/// - The standing is read after the lock was granted, from a snapshot that is not older than that; where
///   the transaction's own snapshot is older (repeatable read, serializable) and the standing has
///   changed since, the call fails with a retryable error.
/// - It may be called in a transaction that the application has begun and already written in, and
///   any number of times.
pub trait Fence: Database {
    /// Begins a transaction that may write. It never has to be upgraded from a read lock later.
    fn begin_write(pool: &Pool<Self>) -> BoxFuture<'_, Result<Transaction<'static, Self>>>;

    /// Takes the fence shared until the transaction ends, and reads the standing.
    ///
    /// # Errors
    /// [`crate::Error::StaleEpoch`] when `expected` is given and is not the present epoch.
    fn fence<'c>(
        connection: &'c mut Self::Connection,
        migration: MigrationId,
        name: &'c str,
        expected: Option<Epoch>,
    ) -> BoxFuture<'c, Result<Standing>>;
}
