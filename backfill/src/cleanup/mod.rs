//! Cleanup: takes moved data out of the old store, once the new one stands alone.
//!
//! Owns which old data may be removed. The old store is a stale archive by then, so that equality with the new one cannot
//! be asked of it. A key is retired only while what the projection gives for it, under lock, is what crossfade has
//! vouched for: what was equal in both stores when the old one was closed ([`crate::closing`]), what the verification
//! before that saw, or what the new store holds. Anything else was written behind crossfade's back: it is left, and reported.

mod baseline;
mod key_hashes;
mod last_scan;
mod plan;
mod work;

use std::path::{Path, PathBuf};

use crossfade_migration_core::phase::{Epoch, Phase};
use serde::Serialize;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::export::{Exported, export};
use crate::migration::Migration;
use crate::progress::{Progress, Stage};
use crate::queue::{Change, Job, JobId, JobKind, JobSpec, Opened, Tunables};
use crate::rounds::prune;
use crate::snapshot::{Side, Snapshot, SnapshotPair};
use crate::workers::work_off;
use crate::workspace::{Round, Workspace};
use baseline::Baseline;
pub(crate) use baseline::{closing, folder, verified};
use plan::WorkPlan;
use work::RetireWork;

/// How a cleanup runs.
#[derive(Debug, Clone, Default)]
pub struct CleanupOptions {
    /// A pair of snapshots whose old side says what may be removed, in place of the verification's.
    pub baseline: Option<PathBuf>,
    /// How the job runs; the engine's defaults where it is not said.
    pub tunables: Option<Tunables>,
}

/// What a cleanup has done.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cleaned {
    /// Whether the projection gives no rows any more.
    pub clean: bool,
    /// The job; `None` where there was nothing to do.
    pub job: Option<JobId>,
    /// Keys whose old data was removed by the job.
    pub retired: u64,
    /// Keys whose old data the job left, because it is nothing that crossfade has vouched for.
    pub kept: u64,
    /// Rows that the projection still gives.
    pub rows_left: u64,
    /// Keys that they belong to.
    pub keys_left: u64,
    /// The first of these keys.
    pub left: Vec<String>,
    /// What old data was compared with, and why.
    pub baseline: String,
}

/// Removes moved data from the old store, looks what is left, and records the evidence.
///
/// A job that was begun is gone on with.
///
/// # Errors
/// [`Error::WrongPhase`] but in `new_only`; [`Error::NotRetirable`] without `mapping.retire`; [`Error::Baseline`];
/// [`Error::FolderInUse`]; [`Error::JobFailed`], [`Error::JobCancelled`], [`Error::Stopped`]; whatever database or disk
/// answer.
pub async fn cleanup(
    migration: &Migration,
    root: &Path,
    options: &CleanupOptions,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Cleaned> {
    let epoch = permitted(migration).await?;
    let workspace = Workspace::open(root, migration.name())?;
    let (round, plan) = match unfinished(migration, epoch).await? {
        Some((round, plan)) => (round, plan),
        None => {
            if let Some(folder) = &options.baseline {
                // Said before both tables are exported for nothing.
                Snapshot::open(Side::Old.folder(folder))?;
            }
            let round = workspace.begin_cleanup()?;
            let Exported { pair, standing, .. } = export(migration, round.folder(), progress, cancel).await?;
            if standing.epoch != epoch {
                let (from, to) = (epoch.0, standing.epoch.0);
                return Err(Error::MovedOn {
                    migration: migration.name().to_owned(),
                    what: "cleanup",
                    from,
                    to,
                });
            }
            let baseline = Baseline::find(migration, options.baseline.as_deref(), &pair).await?;
            let plan = planned(migration, pair, baseline, round.work(), progress, cancel).await?;
            (round, plan)
        }
    };
    let job = if plan.chunks.is_empty() {
        None
    } else {
        Some(retire(migration, epoch, &round, &plan, options, progress, cancel).await?)
    };
    let left = last_scan::last_scan(migration, job.as_ref(), &plan.baseline, progress, cancel).await?;
    prune(migration, &workspace).await?;
    Ok(Cleaned {
        clean: left.rows == 0,
        job: job.as_ref().map(|job| job.id),
        retired: job.as_ref().map_or(0, |job| job.done.retired),
        kept: job.as_ref().map_or(0, |job| job.done.kept),
        rows_left: left.rows,
        keys_left: left.keys,
        left: left.first,
        baseline: plan.baseline,
    })
}

async fn permitted(migration: &Migration) -> Result<Epoch> {
    let standing = migration.standing().await?;
    let name = migration.name();
    let refused =
        |why, hint| Error::WrongPhase { migration: name.to_owned(), phase: standing.phase, why, hint };
    match standing.phase {
        Phase::NewOnly => {}
        Phase::Complete => {
            return Err(refused("the old data has been removed", "nothing is left to be done".to_owned()));
        }
        _ => {
            return Err(refused(
                "the old store is still read or written, so that nothing may be removed from it",
                format!("crossfade status {name} says what it takes to reach new_only"),
            ));
        }
    }
    let plan = &migration.subject.plan;
    if plan.retire().is_empty() {
        return Err(Error::NotRetirable { migration: plan.name().to_owned(), old: plan.old().to_string() });
    }
    Ok(standing.epoch)
}

/// The work of an unfinished cleanup that can be gone on with from here. One whose folder is gone is given up: its chunks
/// mean nothing without it, and everything that it has left is found again.
async fn unfinished(migration: &Migration, epoch: Epoch) -> Result<Option<(Round, WorkPlan)>> {
    let jobs = migration.queue.jobs(migration.subject.id).await?;
    let Some(job) = jobs.into_iter().find(|job| job.kind == JobKind::Cleanup && !job.state.is_finished())
    else {
        return Ok(None);
    };
    let plan = match WorkPlan::read(&job.source) {
        Ok(plan) if job.epoch == epoch && plan.digest == job.digest => plan,
        Err(error) if !error.is_bad_input() => return Err(error),
        Ok(_) | Err(_) => {
            let why = format!("its work in {} is gone, damaged or of another cleanup", job.source.display());
            migration.queue.change(job.id, Change::Fail(why)).await?;
            return Ok(None);
        }
    };
    let folder = job.source.parent().unwrap_or(&job.source).to_owned();
    Ok(Some((Round::at(folder), plan)))
}

async fn planned(
    migration: &Migration,
    pair: SnapshotPair,
    baseline: Baseline,
    out: PathBuf,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<WorkPlan> {
    let rows = pair.old().rows();
    let meter = crate::progress::Meter::new(progress, Stage::Baseline, 0, Some(rows));
    let (subject, stop) = (migration.subject.clone(), cancel.clone());
    let planning =
        tokio::task::spawn_blocking(move || plan::write(&subject.plan, &pair, &baseline, out, &stop));
    let plan = planning.await.map_err(|_| Error::WorkerLost)??;
    meter.at(rows);
    meter.finish();
    Ok(plan)
}

async fn retire(
    migration: &Migration,
    epoch: Epoch,
    round: &Round,
    plan: &WorkPlan,
    options: &CleanupOptions,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Job> {
    let spec = JobSpec {
        migration: migration.subject.id,
        name: migration.name().to_owned(),
        kind: JobKind::Cleanup,
        epoch,
        source: round.work(),
        digest: plan.digest.clone(),
        tunables: options.tunables.unwrap_or(migration.tunables).clamped(),
        chunks: plan.chunks.iter().map(|chunk| chunk.keys).collect(),
    };
    let (Opened::Created(job) | Opened::Resumed(job)) = migration.queue.open(&spec).await?;
    let work = RetireWork::new(migration, epoch, round.work(), plan.clone());
    work_off(migration, job, work, Stage::Retire, progress, cancel).await
}
