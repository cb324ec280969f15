//! Proof of a manifest on sample rows: nothing that a check does is ever committed.

mod constraints;
mod dependence;
mod explain;
mod postgres;
mod projection;
mod sqlite;

use async_trait::async_trait;
use serde::Serialize;

use crate::error::Result;
use crate::key::Key;
use crate::mirror::Subject;

/// A fault that a check has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckFault {
    /// What is wrong, with an example where there is one.
    pub message: String,
    /// What would mend it.
    pub hint: String,
}

/// What a check has looked at, and found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct CheckReport {
    /// How many keys were sampled.
    pub keys: u64,
    /// How many rows the projection gave for them.
    pub rows: u64,
    /// The database's plan for the projection of one key.
    pub explain: String,
    /// Whether that plan reads the whole old table.
    pub is_scan: bool,
    /// Everything that is wrong.
    pub faults: Vec<CheckFault>,
    /// What need not be wrong: values that depend on who computes them, and when.
    pub warnings: Vec<CheckFault>,
}

/// A store on which a manifest can be proven.
///
/// # Contract
/// Neither method leaves anything behind: [`Proof::check_projection`] reads in a read-only
/// transaction, [`Proof::check_reverse`] rolls back what it did.
#[async_trait]
pub trait Proof: Send + Sync {
    /// Up to `count` keys of the old table, spread over it.
    async fn sample_keys(&self, subject: &Subject, count: u32) -> Result<Vec<Key>>;

    /// Runs the projection on the keys and looks for: values that their columns cannot hold or would shorten or round, NULL
    /// in a column that is not null, two rows for one new key, rows outside the scope of the keys that
    /// were asked for (one key's rows claimed by another), rows that a constraint of the new table refuses, and a plan that
    /// reads the whole table. Warns of values that depend on the session, the moment or chance.
    async fn check_projection(&self, subject: &Subject, keys: &[Key]) -> Result<CheckReport>;

    /// For each key, in a transaction that is rolled back: makes new equal to old, runs the reverse
    /// statements, and looks whether the projection still gives the same. Then, for a key with
    /// new rows, takes one away, reverses, and looks whether the projection follows.
    async fn check_reverse(&self, subject: &Subject, keys: &[Key]) -> Result<CheckReport>;
}
