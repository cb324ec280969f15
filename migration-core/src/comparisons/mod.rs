//! What shadow reads have seen, over all instances: tallies by epoch and a bounded list of mismatches.

mod postgres;
mod sqlite;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::control::MigrationId;
use crate::error::Result;
use crate::phase::Epoch;

/// How many mismatches are kept per migration: enough to see every kind of difference, little enough
/// that a wholly wrong candidate cannot fill the control store.
pub const MISMATCHES_MAX: u32 = 1_000;

/// What one experiment of one instance has counted at one epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// The experiment's name.
    pub experiment: String,
    /// The counts and latency sketches, as the experiment crate serialises them. They merge over instances.
    pub totals: serde_json::Value,
}

/// One mismatch, with what differed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mismatch {
    /// When it was recorded, by the database's clock, in ISO 8601 and UTC; empty until it is.
    pub at: String,
    /// The epoch at which it was seen.
    pub epoch: Epoch,
    /// The experiment's name.
    pub experiment: String,
    /// The key that was read.
    pub key: String,
    /// The fields that differ, as JSON: a list of path, kind and (unless redacted) both values.
    pub differences: serde_json::Value,
}

/// Keeps tallies and mismatches.
#[async_trait]
pub trait ComparisonLog: Send + Sync {
    /// Replaces an instance's tallies at an epoch.
    async fn tally(&self, id: MigrationId, instance: &str, epoch: Epoch, tallies: &[Tally]) -> Result<()>;

    /// All tallies at an epoch.
    async fn tallies(&self, id: MigrationId, epoch: Epoch) -> Result<Vec<Tally>>;

    /// Adds mismatches, and forgets the oldest beyond [`MISMATCHES_MAX`].
    async fn mismatch(&self, id: MigrationId, mismatches: &[Mismatch]) -> Result<()>;

    /// The latest mismatches, newest first.
    async fn mismatches(&self, id: MigrationId, limit: u32) -> Result<Vec<Mismatch>>;
}
