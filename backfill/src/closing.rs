//! Closing the old store: the step after which nothing writes it, and what it was at that moment.
//!
//! Cleanup removes a key only while its old data is what crossfade has vouched for. The verification that the gate asked
//! for is minutes or hours older than the step behind the gate: on a busy table many keys are written between the two,
//! through the mirror, and again afterwards in the new store alone; their old data is then neither what was verified nor
//! what the new store holds. So both stores are read once more as of the change of phase itself, while the fence keeps all
//! writers out: a key whose rows are equal on both sides there has been vouched for, for good. Only the moment is
//! taken under the fence; the export goes on at leisure.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use crossfade_migration_core::Error as CoreError;
use crossfade_migration_core::control::Witness;
use crossfade_migration_core::gate::EvidenceKind;
use crossfade_migration_core::operate::{Moved, Operator, Order};
use serde::Serialize;
use tokio::sync::Mutex;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::export::{ExportOptions, Exported, Open, export_read};
use crate::migration::Migration;
use crate::progress::Progress;
use crate::verify::record;
use crate::workspace::{Round, Workspace};

/// How long the witness may hold up all writers. It takes milliseconds; where the database has no connection left, the
/// change is given up rather than everybody made to wait for one.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// How the old store was closed.
#[derive(Debug, Serialize)]
pub struct Closed {
    /// The step.
    #[serde(flatten)]
    pub moved: Moved,
    /// The folder with both stores as they were at the step.
    pub snapshot: Option<PathBuf>,
    /// Why there is none: the step has been made all the same, and cleanup goes by the verification before it.
    pub unrecorded: Option<String>,
}

/// Carries out the order that closes the old store, and keeps what both stores were at that moment.
///
/// # Errors
/// Before anything has changed: [`Error::FolderInUse`], [`Error::Io`], what
/// [`Operator::carry_out`] gives, what opening a consistent read gives. [`CoreError::Unadopted`] when the step *was*
/// made, and instances lag behind it.
pub async fn close(
    operator: &Operator,
    migration: &Migration,
    order: &Order,
    root: &Path,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Closed> {
    let workspace = Workspace::open(root, migration.name())?;
    let round = workspace.begin_closing()?;
    let witness = Reader { migration, seen: Mutex::default() };
    let outcome = operator.carry_out_before(migration.name(), order, &witness).await;
    let has_moved = match &outcome {
        Ok(moved) => !moved.dry_run,
        Err(error) => matches!(error, CoreError::Unadopted { .. }),
    };
    let seen = witness.seen.into_inner().filter(|_| has_moved);
    let kept = match seen {
        Some(seen) => keep(migration, &round, seen, progress, cancel).await,
        None => Err(Error::Stopped { what: "closing" }),
    };
    if kept.is_err() {
        // Half of a snapshot is of no use to anybody.
        let _ = std::fs::remove_dir_all(round.folder());
    }
    let moved = outcome?;
    Ok(match kept {
        Ok(snapshot) => Closed { moved, snapshot: Some(snapshot), unrecorded: None },
        Err(error) => Closed { moved, snapshot: None, unrecorded: Some(error.to_string()) },
    })
}

/// Exports what the witness has seen, and records where it is.
async fn keep(
    migration: &Migration,
    round: &Round,
    seen: Open,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<PathBuf> {
    let at = seen.at;
    let options = ExportOptions::default();
    let Exported { pair, standing, .. } =
        export_read(migration, seen, round.folder(), &options, progress, cancel).await?;
    let details = serde_json::json!({
        "snapshot": round.folder(),
        "rows_old": pair.old().rows(),
        "rows_new": pair.new_side().rows(),
        "consistent_point": pair.old().manifest().consistent_point,
        "began_at": pair.old().manifest().started_at,
    });
    record(migration, EvidenceKind::Closing, standing, 0, at.elapsed(), details).await?;
    Ok(round.folder().to_owned())
}

/// Begins to read both stores in the moment of the change.
struct Reader<'a> {
    migration: &'a Migration,
    seen: Mutex<Option<Open>>,
}

#[async_trait]
impl Witness for Reader<'_> {
    async fn see(&self) -> Result<(), CoreError> {
        let Migration { store, subject, store_name, .. } = self.migration;
        let at = Instant::now();
        let read = tokio::time::timeout(LOOK_MAX, store.read_both(subject)).await;
        let read = read.map_err(|_| CoreError::Database {
            doing: "opening a snapshot at the change of phase".to_owned(),
            source: sqlx::Error::PoolTimedOut,
        })??;
        *self.seen.lock().await = Some(Open { store: store_name.clone(), read, at });
        Ok(())
    }
}
