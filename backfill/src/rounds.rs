//! A whole backfill: snapshot, scan, copy and verify, round after round, until nothing is found.
//!
//! Keeps no state of its own: a killed run is gone on with from what the job queue, the evidence and the work folder
//! say. An unfinished copy is finished first; everything else is cheap enough to be done again.

use std::path::{Path, PathBuf};

use crossfade_migration_core::gate::{Evidence, EvidenceKind};
use serde::Serialize;

use crate::cancel::Cancel;
use crate::cleanup::{closing, folder, verified};
use crate::copy::{CopyReport, copy};
use crate::error::{Error, Result};
use crate::findings::Findings;
use crate::migration::Migration;
use crate::progress::Progress;
use crate::queue::{Change, Job, JobKind, Request, Tunables};
use crate::scan::ScanOptions;
use crate::verify::{Verification, compare, confirm};
use crate::workspace::Workspace;

/// Rounds before a backfill gives up. The first finds nearly everything; a later one finds only what is written past
/// crossfade, and where that goes on for ten rounds, more rounds are not what is missing.
pub const ROUNDS_MAX: u32 = 10;

/// How a backfill runs.
#[derive(Debug, Clone)]
pub struct BackfillOptions {
    /// Rounds before it gives up.
    pub rounds_max: u32,
    /// How copies run; the engine's defaults where it is not said.
    pub tunables: Option<Tunables>,
    /// How scans run.
    pub scan: ScanOptions,
}

impl Default for BackfillOptions {
    fn default() -> Self {
        BackfillOptions { rounds_max: ROUNDS_MAX, tunables: None, scan: ScanOptions::default() }
    }
}

/// What a backfill has done.
#[derive(Debug, Clone, Serialize)]
pub struct Backfilled {
    /// Whether the last verification found nothing.
    pub clean: bool,
    /// How many rounds it took.
    pub rounds: u32,
    /// Rows inserted because they were absent.
    pub copied: u64,
    /// Rows inserted or updated by repairs.
    pub repaired: u64,
    /// Rows removed by repairs.
    pub removed: u64,
    /// The last verification.
    pub verification: Verification,
}

/// Brings the secondary store up to date and proves it.
///
/// # Errors
/// [`Error::FolderInUse`] while another process works in the same folder; [`Error::WrongPhase`]; [`Error::MovedOn`] when
/// the migration moves on meanwhile; [`Error::JobInTheWay`] when an unfinished copy cannot be gone on with from here;
/// and what export, scan, copy and verification give.
pub async fn backfill(
    migration: &Migration,
    root: &Path,
    options: &BackfillOptions,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Backfilled> {
    let workspace = Workspace::open(root, migration.name())?;
    let mut totals = Totals::default();
    let standing = migration.standing().await?;
    // Says at once where nothing may be copied, before anything is exported.
    migration.flow(standing.phase)?;
    if let Some(source) = unfinished(migration, standing.epoch.0).await? {
        totals.add(&copy(migration, &source, options.tunables, progress, cancel).await?);
    }
    let mut rounds = 0;
    loop {
        rounds += 1;
        // Before the next snapshots: what earlier ones took of the disk may be what these need.
        prune(migration, &workspace).await?;
        let round = workspace.begin_round()?;
        let compared = compare(migration, &round, &options.scan, progress, cancel).await?;
        if goes_straight_to_copy(rounds, options.rounds_max, totals.has_copied, compared.summary.found()) {
            totals.add(&copy(migration, &round.findings(), options.tunables, progress, cancel).await?);
            continue;
        }
        let verification = confirm(migration, &round, compared, progress, cancel).await?;
        prune(migration, &workspace).await?;
        if verification.is_clean() || rounds >= options.rounds_max {
            return Ok(totals.into_backfilled(rounds, verification));
        }
        let findings = verification.differences.findings.clone();
        totals.add(&copy(migration, &findings, options.tunables, progress, cancel).await?);
    }
}

/// Whether what a scan has found is copied without a second look. A run's first findings may be all rows there are, and
/// a copy looks at every key under lock anyway; looking twice would only be slower. The last round must say what is left.
fn goes_straight_to_copy(round: u32, rounds_max: u32, has_copied: bool, found: u64) -> bool {
    found > 0 && !has_copied && round < rounds_max
}

/// The findings of an unfinished copy at this epoch that can be gone on with from here.
async fn unfinished(migration: &Migration, epoch: i64) -> Result<Option<PathBuf>> {
    let jobs = migration.queue.jobs(migration.subject.id).await?;
    let Some(job) = jobs.into_iter().find(|job| job.kind == JobKind::Copy && !job.state.is_finished()) else {
        return Ok(None);
    };
    if job.epoch.0 != epoch {
        let why = Error::superseded(job.epoch, crossfade_migration_core::phase::Epoch(epoch));
        migration.queue.change(job.id, Change::Fail(why)).await?;
        return Ok(None);
    }
    if job.requested == Request::Cancel {
        // Settled now where its workers' leases have run out since.
        let job = migration.queue.change(job.id, Change::Request(Request::Cancel)).await?;
        if job.state.is_finished() {
            return Ok(None);
        }
    }
    let source = job.source.clone();
    match tokio::task::spawn_blocking(move || Findings::open(source)).await.map_err(|_| Error::WorkerLost)? {
        Ok(_) => return Ok(Some(job.source)),
        // On another host, or behind another mount: somebody there can go on with it.
        Err(_) if !job.source.exists() => {}
        // Here, and of no use any more: what it had left is found again.
        Err(error) if error.is_bad_input() => {
            migration.queue.change(job.id, Change::Fail(error.to_string())).await?;
            return Ok(None);
        }
        Err(error) => return Err(error),
    }
    let Job { id, state, source, kind, .. } = job;
    Err(Error::JobInTheWay {
        migration: migration.name().to_owned(),
        kind,
        job: id,
        state,
        source_path: source,
    })
}

/// Removes every round that nothing can need any more. Gates go by what is recorded, never by a folder, so that there are
/// four reasons to keep one: the latest verification's findings can be looked at and copied; the latest clean one from before
/// the old store was closed, and the closing itself, say what cleanup may remove; an unfinished job works on it.
///
/// # Errors
/// [`Error::Io`], or what the database answers.
pub async fn prune(migration: &Migration, workspace: &Workspace) -> Result<()> {
    let evidence = migration.control.evidence(migration.subject.id).await?;
    let mut kept = needed(&evidence);
    let jobs = migration.queue.jobs(migration.subject.id).await?;
    kept.extend(jobs.into_iter().filter(|job| !job.state.is_finished()).map(|job| job.source));
    workspace.prune(&kept)
}

/// The folders that evidence, newest first, is still needed with.
fn needed(evidence: &[Evidence]) -> Vec<PathBuf> {
    let latest = evidence.iter().find(|evidence| evidence.kind == EvidenceKind::Verification);
    let folders = [latest.and_then(folder), verified(evidence), closing(evidence)];
    folders.into_iter().flatten().map(Path::to_owned).collect()
}

#[derive(Default)]
struct Totals {
    has_copied: bool,
    copied: u64,
    repaired: u64,
    removed: u64,
}

impl Totals {
    fn add(&mut self, report: &CopyReport) {
        self.has_copied = true;
        self.copied += report.copied;
        self.repaired += report.repaired;
        self.removed += report.removed;
    }

    fn into_backfilled(self, rounds: u32, verification: Verification) -> Backfilled {
        let Totals { copied, repaired, removed, .. } = self;
        Backfilled { clean: verification.is_clean(), rounds, copied, repaired, removed, verification }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_kept_for_the_latest_findings_and_for_cleanup_alone() {
        use crossfade_migration_core::phase::{Epoch, Phase};
        let evidence = |kind, phase, faults, folder: &str| Evidence {
            kind,
            epoch: Epoch(1),
            phase,
            faults,
            age: std::time::Duration::ZERO,
            details: serde_json::json!({ "snapshot": folder }),
        };
        use EvidenceKind::{Check, Closing, Verification};
        let mut all = vec![
            evidence(Verification, Phase::NewPrimary, 3, "found"),
            evidence(Check, Phase::NewPrimary, 0, "no folder of ours"),
            evidence(Verification, Phase::NewPrimary, 0, "clean"),
            evidence(Verification, Phase::ReadNew, 0, "before"),
            evidence(Verification, Phase::DualWrite, 2, "long before"),
        ];
        assert_eq!(needed(&all), ["found", "clean"].map(PathBuf::from));
        all.insert(0, evidence(Closing, Phase::NewPrimary, 0, "closed"));
        assert_eq!(needed(&all), ["found", "clean", "closed"].map(PathBuf::from));
        assert!(needed(&[]).is_empty());
    }

    #[test]
    fn only_the_first_findings_are_copied_without_a_second_look() {
        assert!(goes_straight_to_copy(1, 10, false, 5));
        assert!(!goes_straight_to_copy(2, 10, true, 5));
        assert!(!goes_straight_to_copy(1, 10, true, 5), "an unfinished copy was finished first");
        assert!(!goes_straight_to_copy(1, 10, false, 0), "nothing found is evidence");
        assert!(!goes_straight_to_copy(1, 1, false, 5), "the last round says what is left");
    }
}
