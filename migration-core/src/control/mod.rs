//! The control store: where each migration stands, who moved it there, and on what evidence.
//!
//! Standings change by compare-and-set under the fence; the audit is only ever added to.

pub(crate) mod postgres;
mod schema;
pub(crate) mod sqlite;

use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;

use crate::error::Result;
use crate::gate::Evidence;
use crate::manifest::Manifest;
use crate::phase::Standing;
use crate::plan::Plan;

/// The number of a migration in its control store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct MigrationId(pub i32);

/// A migration as the control store has it.
#[derive(Debug, Clone)]
pub struct Registered {
    /// Its number.
    pub id: MigrationId,
    /// Its manifest, as registered.
    pub manifest: Manifest,
    /// Where it stands.
    pub standing: Standing,
    /// How long it has stood there, by the database's clock.
    pub stood: Duration,
}

/// What registering did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Registration {
    /// The migration is new.
    Created,
    /// The manifest is the registered one.
    Unchanged,
    /// Thresholds, or in `old_only` the mapping, were replaced.
    Updated,
}

/// Who changed something, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Account {
    /// The operator: a login and host, or what `--as` said.
    pub actor: String,
    /// Why, where a reason was given.
    pub reason: Option<String>,
    /// Whether a shut gate was passed by force.
    pub forced: bool,
    /// The gate's verdict and whatever else the decision rested on.
    pub evidence: serde_json::Value,
}

/// One line of the audit.
#[derive(Debug, Clone, Serialize)]
pub struct AuditRecord {
    /// When, by the database's clock, in ISO 8601 and UTC.
    pub at: String,
    /// Where the migration stood; `None` for its registration.
    pub from: Option<Standing>,
    /// Where it stood afterwards.
    pub to: Standing,
    /// Who and why.
    #[serde(flatten)]
    pub account: Account,
    /// How long writers could be held up by the change.
    #[serde(serialize_with = "as_milliseconds")]
    pub pause_ms: Duration,
}

/// How a change of standing went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    /// From the first try to the commit.
    pub waited: Duration,
    /// How long the last try queued for and held the fence: the longest that a writer can have been held up.
    pub pause: Duration,
}

/// Keeps the definitions of migrations.
///
/// # Contract
/// Idempotent, and never touches an object that it did not create: tables of crossfade's name that
/// crossfade did not make are an error.
#[async_trait]
pub trait Registry: Send + Sync {
    /// Creates crossfade's own tables where they are missing, and brings older ones up to date.
    async fn install(&self) -> Result<()>;

    /// Registers a migration, or replaces its thresholds (in any phase) or its mapping (in
    /// `old_only`), and installs what its statements need. Each is a line of the audit.
    async fn register(&self, manifest: &Manifest, plan: &Plan, account: &Account) -> Result<Registration>;

    /// The migration of this name.
    ///
    /// # Errors
    /// [`crate::Error::UnknownMigration`], [`crate::Error::ControlStore`].
    async fn migration(&self, name: &str) -> Result<Registered>;

    /// The names of all migrations, in order.
    async fn names(&self) -> Result<Vec<String>>;
}

/// Sees the stores at the very moment of a change.
///
/// # Contract
/// Called while the fence is held alone and before the standing changes: a read that begins then sees every write of the
/// standing that is left, and none of the next. All writers wait meanwhile, so it must return within milliseconds.
/// A try that fails later is made again, and calls it again.
#[async_trait]
pub trait Witness: Send + Sync {
    /// Looks; an error gives the change up.
    async fn see(&self) -> Result<()>;
}

/// Nobody looks.
#[derive(Debug, Clone, Copy)]
pub struct Unseen;

#[async_trait]
impl Witness for Unseen {
    async fn see(&self) -> Result<()> {
        Ok(())
    }
}

/// Keeps where migrations stand.
///
/// # Contract
/// [`StandingStore::change`] holds the fence alone, so that it waits for every write transaction in
/// flight; it takes the fence by short tries, none of which holds up writers for long, until
/// `patience` is over. Standing and audit change in one transaction.
#[async_trait]
pub trait StandingStore: Send + Sync {
    /// Where the migration stands.
    async fn standing(&self, id: MigrationId) -> Result<Standing>;

    /// Moves the migration from exactly `from` to `to`.
    ///
    /// # Errors
    /// [`crate::Error::Conflict`] when it does not stand at `from` any more,
    /// [`crate::Error::FenceTimeout`] when transactions in flight outlast `patience`.
    async fn change(
        &self,
        migration: &Registered,
        to: Standing,
        account: &Account,
        patience: Duration,
    ) -> Result<Changed> {
        self.change_before(migration, to, account, patience, &Unseen).await
    }

    /// As [`StandingStore::change`], before a witness.
    ///
    /// # Errors
    /// Those of [`StandingStore::change`], and the witness's own: nothing has changed then.
    async fn change_before(
        &self,
        migration: &Registered,
        to: Standing,
        account: &Account,
        patience: Duration,
        witness: &dyn Witness,
    ) -> Result<Changed>;

    /// The audit, oldest first.
    async fn history(&self, id: MigrationId) -> Result<Vec<AuditRecord>>;
}

/// Keeps measurements.
#[async_trait]
pub trait EvidenceLog: Send + Sync {
    /// Adds a measurement that began `evidence.age` ago.
    async fn record(&self, id: MigrationId, evidence: &Evidence) -> Result<()>;

    /// The latest measurement of each kind at each epoch, newest first.
    async fn evidence(&self, id: MigrationId) -> Result<Vec<Evidence>>;
}

fn as_milliseconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64() * 1e3)
}
