//! Verification: fresh snapshots, a scan, and a second look under lock at whatever it found.
//!
//! Owns what counts as a fault: a finding whose key still differs when both stores are locked for it. Writes those
//! findings down for a copy to work on, and records the evidence that gates look at. It compares with the same code as
//! any scan: there is no second notion of equal.

mod confirm;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crossfade_migration_core::gate::{Evidence, EvidenceKind};
use crossfade_migration_core::phase::{Epoch, Phase, Standing};
use serde::Serialize;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::export::{Exported, export};
use crate::findings::{FindingKind, Findings, ScanSummary};
use crate::migration::Migration;
use crate::progress::Progress;
use crate::scan::{ScanOptions, watch};
use crate::snapshot::SnapshotPair;
use crate::workspace::Round;

/// How two snapshots differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Differences {
    /// Rows in the old snapshot.
    pub rows_old: u64,
    /// Rows in the new snapshot.
    pub rows_new: u64,
    /// Keys that old has and new lacks.
    pub missing: u64,
    /// Keys whose values differ.
    pub mismatched: u64,
    /// Keys that new has and old lacks.
    pub orphaned: u64,
    /// Keys that more than one row of a side has.
    pub duplicated: u64,
    /// The folder that they are written down in.
    pub findings: PathBuf,
}

/// What a verification found.
#[derive(Debug, Clone, Serialize)]
pub struct Verification {
    /// What was confirmed: findings whose keys still differed when both stores were locked for them.
    #[serde(flatten)]
    pub differences: Differences,
    /// Findings of the scan whose keys did not differ any more.
    pub healed: u64,
    /// The epoch that the snapshots belong to.
    pub epoch: Epoch,
    /// The phase at that epoch.
    pub phase: Phase,
    /// The folder of the pair of snapshots.
    pub snapshot: PathBuf,
}

impl Differences {
    /// What a scan's summary says, whose findings lie in `folder`.
    pub fn of(summary: &ScanSummary, folder: &Path) -> Differences {
        Differences {
            rows_old: summary.rows_old,
            rows_new: summary.rows_new,
            missing: summary.missing,
            mismatched: summary.mismatched,
            orphaned: summary.orphaned,
            duplicated: summary.duplicated,
            findings: folder.to_owned(),
        }
    }

    /// How many there are.
    pub fn found(&self) -> u64 {
        self.missing + self.mismatched + self.orphaned + self.duplicated
    }
}

impl Verification {
    /// Whether nothing differs.
    pub fn is_clean(&self) -> bool {
        self.differences.found() == 0
    }
}

/// Verifies a migration in the folder of a round, and records the evidence.
///
/// # Errors
/// [`Error::WrongPhase`] from `new_only` on, where the old store is stale by design; [`Error::MovedOn`] when the
/// migration moves on before everything was looked at again; [`Error::Stopped`]; whatever database or disk answer.
pub async fn verify(
    migration: &Migration,
    round: &Round,
    options: &ScanOptions,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Verification> {
    let compared = compare(migration, round, options, progress, cancel).await?;
    confirm(migration, round, compared, progress, cancel).await
}

/// Fresh snapshots, and what their scan found.
pub(crate) struct Compared {
    pub(crate) summary: ScanSummary,
    standing: Standing,
    /// Taken before the snapshots' moment, so that evidence is never younger than it says.
    began: Instant,
    began_at: String,
}

/// Exports and scans.
pub(crate) async fn compare(
    migration: &Migration,
    round: &Round,
    options: &ScanOptions,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Compared> {
    let began = Instant::now();
    let phase = migration.standing().await?.phase;
    if !phase.is_old_path_open() {
        let (why, hint) = match phase {
            Phase::Complete => ("the old data has been removed", "nothing is left to be done".to_owned()),
            _ => (
                "the old store is a stale archive, so that there is nothing to compare the new one with",
                format!("crossfade cleanup {} removes what was moved", migration.name()),
            ),
        };
        return Err(Error::WrongPhase { migration: migration.name().to_owned(), phase, why, hint });
    }
    let Exported { pair, standing, .. } = export(migration, round.folder(), progress, cancel).await?;
    let began_at = pair.old().manifest().started_at.clone();
    let summary = scan_pair(pair, round.findings(), options, progress, cancel).await?;
    Ok(Compared { summary, standing, began, began_at })
}

/// Looks again at every finding under lock, writes down what still differs, and records the evidence.
pub(crate) async fn confirm(
    migration: &Migration,
    round: &Round,
    compared: Compared,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Verification> {
    let Compared { summary, standing, began, began_at } = compared;
    let scanned = Differences::of(&summary, &round.findings());
    let differences = if summary.is_clean() {
        scanned.clone()
    } else {
        let findings = Findings::open(round.findings())?;
        let out = round.confirmed();
        let confirmed =
            confirm::confirmed(migration, standing.epoch, findings, out, progress, cancel).await?;
        Differences::of(&confirmed, &round.confirmed())
    };
    let verification = Verification {
        healed: scanned.found().saturating_sub(differences.found()),
        differences,
        epoch: standing.epoch,
        phase: standing.phase,
        snapshot: round.folder().to_owned(),
    };
    let details = serde_json::json!({
        "rows_old": scanned.rows_old,
        "rows_new": scanned.rows_new,
        "missing": verification.differences.missing,
        "mismatched": verification.differences.mismatched,
        "orphaned": verification.differences.orphaned,
        "duplicated": verification.differences.duplicated,
        "confirmed": verification.differences.found(),
        "healed": verification.healed,
        "simultaneous": summary.simultaneous,
        "began_at": began_at,
        "consistent_point": summary.old.consistent_point,
        "snapshot": verification.snapshot,
        "findings": verification.differences.findings,
    });
    record(
        migration,
        EvidenceKind::Verification,
        standing,
        verification.differences.found(),
        began.elapsed(),
        details,
    )
    .await?;
    Ok(verification)
}

pub(crate) async fn record(
    migration: &Migration,
    kind: EvidenceKind,
    standing: Standing,
    faults: u64,
    age: Duration,
    details: serde_json::Value,
) -> Result<()> {
    let evidence = Evidence { kind, epoch: standing.epoch, phase: standing.phase, faults, age, details };
    Ok(migration.control.record(migration.subject.id, &evidence).await?)
}

/// Scans on threads of its own, and tells how far it is.
pub(crate) async fn scan_pair(
    pair: SnapshotPair,
    findings: PathBuf,
    options: &ScanOptions,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<ScanSummary> {
    match watch(pair, findings, options, progress, cancel).await {
        Err(Error::Cancelled { .. }) => Err(Error::Stopped { what: "scan" }),
        done => done,
    }
}

/// Keys of one kind are counted under its name.
pub(crate) fn set_count(summary: &mut ScanSummary, kind: FindingKind, count: u64) {
    *match kind {
        FindingKind::Missing => &mut summary.missing,
        FindingKind::Mismatched => &mut summary.mismatched,
        FindingKind::Orphaned => &mut summary.orphaned,
        FindingKind::Duplicated => &mut summary.duplicated,
    } = count;
}
