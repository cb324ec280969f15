//! Keyed statements: everything that is done to the two stores for a set of keys inside one
//! transaction. All of it is derived from the plan.
//!
//! Locks are taken in one order everywhere: fence, then old rows in key order, then new rows.

pub(crate) mod functions;
pub(crate) mod postgres;
pub(crate) mod sqlite;

use arrow::array::RecordBatch;
use futures::future::BoxFuture;
use serde::Serialize;

use crate::control::MigrationId;
use crate::error::Result;
use crate::fence::Fence;
use crate::key::Key;
use crate::phase::Epoch;
use crate::plan::Plan;

/// Which store follows which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The new store is made equal to the projection of the old one.
    OldToNew,
    /// The old store is brought up to date by the manifest's reverse statements.
    NewToOld,
}

/// How many rows a mirror has touched in the secondary store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Mirrored {
    /// Rows inserted, or updated because they differed.
    pub written: u64,
    /// Rows removed because the projection no longer gives them.
    pub removed: u64,
}

impl std::ops::AddAssign for Mirrored {
    fn add_assign(&mut self, other: Self) {
        self.written += other.written;
        self.removed += other.removed;
    }
}

/// A migration as statements need it: its identity and its plan.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The number of the migration in its control store.
    pub id: MigrationId,
    /// What its statements are derived from.
    pub plan: Plan,
}

/// An engine that can mirror, copy, compare and retire keys.
///
/// # Contract
/// Keys have been coerced by [`Plan::coerce`]. Every method locks the old rows of its keys, in key
/// order, in a statement *before* the one that reads them, so that what is read is the newest
/// committed state; a key whose old row does not exist is serialised by other means. Locks are held
/// until the transaction ends. An empty list of keys does nothing but what the method says of the
/// fence.
pub trait Mirror: Fence {
    /// Fences the transaction (failing on another epoch than `expected`), locks the keys and makes
    /// the secondary store equal to the primary for these keys: the late fence.
    fn mirror<'c>(
        connection: &'c mut Self::Connection,
        subject: &'c Subject,
        direction: Direction,
        keys: &'c [Key],
        expected: Epoch,
    ) -> BoxFuture<'c, Result<Mirrored>>;

    /// Inserts what the projection gives and the new store lacks; gives the number of rows. Rows
    /// that are there are never touched (I4).
    fn copy<'c>(
        connection: &'c mut Self::Connection,
        subject: &'c Subject,
        keys: &'c [Key],
    ) -> BoxFuture<'c, Result<u64>>;

    /// Ends a batch of a job: to be called last in its transaction, after [`Mirror::copy`] or
    /// [`Mirror::mirror`]. Writers whose snapshot is older than its commit will not overlook its rows.
    fn end_batch(connection: &mut Self::Connection) -> BoxFuture<'_, Result<()>>;

    /// The keys whose projection and new rows differ, with both stores locked for them.
    fn differing<'c>(
        connection: &'c mut Self::Connection,
        subject: &'c Subject,
        keys: &'c [Key],
    ) -> BoxFuture<'c, Result<Vec<Key>>>;

    /// What the projection gives for these keys, in the plan's order and schema, with the old rows
    /// locked.
    fn projected<'c>(
        connection: &'c mut Self::Connection,
        subject: &'c Subject,
        keys: &'c [Key],
    ) -> BoxFuture<'c, Result<RecordBatch>>;

    /// Runs the manifest's retire statements on these keys.
    fn retire<'c>(
        connection: &'c mut Self::Connection,
        subject: &'c Subject,
        keys: &'c [Key],
    ) -> BoxFuture<'c, Result<()>>;
}
