//! Copy: brings over what a scan has found, with workers in any number of processes.
//!
//! Owns which findings may be copied where a migration stands, and what each key needs. Every key is read again under
//! lock before anything is written, so that findings may be as old as they like within their epoch: they say where to
//! look, not what to write.

mod work;

use std::path::Path;

use crossfade_migration_core::phase::Standing;
use serde::Serialize;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::findings::{Findings, SUMMARY_FILE, ScanSummary};
use crate::migration::Migration;
use crate::progress::{Progress, Stage};
use crate::queue::{JobId, JobKind, JobSpec, Opened, Tunables};
use crate::verify::Differences;
use crate::workers::work_off;
use work::CopyWork;

/// What a copy has done.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CopyReport {
    /// The job; `None` where there was nothing to do.
    pub job: Option<JobId>,
    /// What was to be mended.
    #[serde(flatten)]
    pub differences: Differences,
    /// Keys that were looked at under lock.
    pub keys: u64,
    /// Rows inserted because they were absent.
    pub copied: u64,
    /// Rows inserted or updated by a repair.
    pub repaired: u64,
    /// Rows removed by a repair.
    pub removed: u64,
}

/// Copies what is missing and repairs what differs, of the findings in a folder.
///
/// A job that was begun on these findings, by whatever process, is gone on with; others may work on it at the same
/// time. `tunables` are for a new job alone.
///
/// # Errors
/// [`Error::WrongPhase`] where nothing may be copied; [`Error::OtherMigration`], [`Error::OtherManifest`] or
/// [`Error::OtherEpoch`] for findings that do not belong here; [`Error::FindingsAbsent`] and the like for findings that
/// cannot be read; [`Error::JobInTheWay`]; [`Error::MovedOn`] when the migration moves on meanwhile;
/// [`Error::JobFailed`], [`Error::JobCancelled`], [`Error::Stopped`].
pub async fn copy(
    migration: &Migration,
    findings: &Path,
    tunables: Option<Tunables>,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<CopyReport> {
    let folder = std::path::absolute(findings).map_err(Error::io("find", findings))?;
    let (findings, digest) = tokio::task::spawn_blocking(move || -> Result<_> {
        let findings = Findings::open(folder)?;
        let digest = digest(&findings)?;
        Ok((findings, digest))
    })
    .await
    .map_err(|_| Error::WorkerLost)??;
    let standing = migration.standing().await?;
    let flow = migration.flow(standing.phase)?;
    let summary = findings.summary();
    belongs(migration, standing, findings.folder(), summary)?;
    let differences = Differences::of(summary, findings.folder());
    if findings.chunks() == 0 {
        return Ok(CopyReport { job: None, differences, keys: 0, copied: 0, repaired: 0, removed: 0 });
    }
    let spec = JobSpec {
        migration: migration.subject.id,
        name: migration.name().to_owned(),
        kind: JobKind::Copy,
        epoch: standing.epoch,
        source: findings.folder().to_owned(),
        digest,
        tunables: tunables.unwrap_or(migration.tunables).clamped(),
        chunks: summary.chunks.iter().map(|chunk| chunk.scope_keys).collect(),
    };
    let (Opened::Created(job) | Opened::Resumed(job)) = migration.queue.open(&spec).await?;
    let work = CopyWork::new(migration, flow, standing.epoch, findings);
    let job = work_off(migration, job, work, Stage::Copy, progress, cancel).await?;
    let done = job.done;
    Ok(CopyReport {
        job: Some(job.id),
        differences,
        keys: job.keys,
        copied: done.copied,
        repaired: done.repaired,
        removed: done.removed,
    })
}

/// What tells these findings from all others, wherever their folder is mounted: their summary names the checksum of
/// every chunk.
fn digest(findings: &Findings) -> Result<String> {
    let path = findings.folder().join(SUMMARY_FILE);
    let text = std::fs::read(&path).map_err(Error::io("read", path))?;
    Ok(crate::snapshot::checksum_text(xxhash_rust::xxh3::xxh3_64(&text)))
}

fn belongs(migration: &Migration, standing: Standing, folder: &Path, summary: &ScanSummary) -> Result<()> {
    let plan = &migration.subject.plan;
    let path = folder.to_owned();
    if summary.migration != plan.name() {
        let (expected, found) = (plan.name().to_owned(), summary.migration.clone());
        return Err(Error::OtherMigration { path, expected, found });
    }
    if summary.manifest_hash != plan.fingerprint() {
        let (expected, found) = (plan.fingerprint().to_owned(), summary.manifest_hash.clone());
        return Err(Error::OtherManifest { path, expected, found });
    }
    let found = i64::try_from(summary.epoch).unwrap_or(i64::MAX);
    if found != standing.epoch.0 {
        return Err(Error::OtherEpoch { path, expected: standing.epoch.0, found });
    }
    Ok(())
}
