//! Export: both stores as of one moment, into a pair of snapshots.
//!
//! One transaction holds the moment. Each side is cut into ranges of keys, which as many connections as there may be
//! read under it at the same time; each range goes into files of its own. A range whose connection is lost is read
//! again, as long as the moment is held. A moment ends with the process that holds it: an export that was killed
//! is gone on with at another moment, for which it takes over the finished ranges that surely have not changed.
//!
//! Files: `replica` (where to read), `side` (the ranges of both sides in parallel), `lanes` (the connections that they are read
//! over), `since` (what is taken over from an earlier snapshot or an interrupted export), `limits` (how fast, and how long).

mod lanes;
mod limits;
mod replica;
mod side;
mod since;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use crossfade_migration_core::phase::{Side as StoreSide, Standing};
use crossfade_migration_core::rows::{ConsistentRead, ScopeRange};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::migration::Migration;
use crate::progress::{Meter, Progress, Stage};
use crate::snapshot::{
    MANIFEST_FILE, Record, Side, SnapshotHeader, SnapshotPair, discard, forget_record, is_unfinished,
};
use crate::workspace::lock;

use since::{Earlier, EarlierSide};

pub use limits::{CONNECTIONS, ExportOptions, REPLICA_PATIENCE, SNAPSHOT_AGE_MAX};

/// Batches on their way from the database to the file: enough that neither waits for the other's hiccups, a few
/// megabytes at most.
const BATCHES_IN_FLIGHT: usize = 4;

/// A finished export.
#[derive(Debug)]
pub struct Exported {
    /// The snapshots.
    pub pair: SnapshotPair,
    /// Where the migration stood at their moment.
    pub standing: Standing,
    /// What of the old side was taken over from an earlier export.
    pub reuse_old: Reuse,
    /// What of the new side was taken over from an earlier export.
    pub reuse_new: Reuse,
}

/// What of a side was taken over from an earlier snapshot, or from an interrupted export into the same folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reuse {
    /// How many ranges the side has.
    pub ranges: usize,
    /// How many of them were taken over, as nothing in them had changed.
    pub taken_over: usize,
    /// How many of these an interrupted export had left.
    pub resumed: usize,
    /// Why none could be taken over from an earlier snapshot, where one was given.
    pub full_because: Option<String>,
    /// Why none could be taken over from an interrupted export, where one has left something.
    pub anew_because: Option<String>,
}

/// What an interrupted export has left in a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Interrupted {
    /// When it began, by the database's clock, where it has left a record of what it did.
    pub started_at: Option<String>,
    /// How many ranges it had finished, of both sides.
    pub finished: usize,
    /// How many ranges there are in all, as far as it had come to cut the sides.
    pub ranges: usize,
}

/// What an interrupted export has left in a folder, if one has. Whether any of that can be taken over only the database knows.
pub fn interrupted(out: &Path) -> Option<Interrupted> {
    let sides = [Side::Old, Side::New].map(|side| side.folder(out));
    let is_finished = sides.iter().all(|folder| folder.join(MANIFEST_FILE).exists());
    if is_finished || !sides.iter().any(|folder| has_begun(folder)) {
        return None;
    }
    let records: Vec<Record> = sides.iter().filter_map(|folder| Record::read(folder)).collect();
    Some(Interrupted {
        started_at: records.first().map(|record| record.started_at.clone()),
        finished: records.iter().map(|record| record.finished.iter().flatten().count()).sum(),
        ranges: records.iter().map(|record| record.ranges.len()).sum(),
    })
}

fn has_begun(folder: &Path) -> bool {
    is_unfinished(folder) || folder.join(MANIFEST_FILE).exists()
}

/// Exports both sides of a migration into `out/old` and `out/new`, as of one moment, as [`export_with`] does, with the
/// default options.
///
/// # Errors
/// What [`export_with`] gives.
pub async fn export(
    migration: &Migration,
    out: &Path,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Exported> {
    export_with(migration, out, &ExportOptions::default(), progress, cancel).await
}

/// Exports both sides of a migration into `out/old` and `out/new`, as of one moment.
///
/// Of what an interrupted export has left in `out`, the finished ranges that surely have not changed are taken over, unless
/// [`ExportOptions::fresh`] says otherwise; the rest is replaced. Until the export is finished there is no pair of snapshots in
/// `out`.
///
/// # Errors
/// [`Error::SnapshotPresent`] when `out` holds a finished pair; [`Error::SnapshotTooOld`] and [`Error::SnapshotLost`]
/// when the moment could not be held long enough; [`Error::ReplicaBehind`]; [`Error::OtherMigration`], [`Error::OtherManifest`],
/// [`Error::OtherStore`] or [`Error::OtherColumns`] when an earlier snapshot is of something else; [`Error::FolderInUse`] while
/// another process exports into `out`; [`Error::Stopped`]; whatever the database or the disk answers.
pub async fn export_with(
    migration: &Migration,
    out: &Path,
    options: &ExportOptions,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Exported> {
    if finished(out).len() == 2 {
        return Err(Error::SnapshotPresent { path: out.to_owned() });
    }
    let source = replica::source(migration, options, cancel).await?;
    let opened = Instant::now();
    let read = source.store.read_both(&migration.subject).await?;
    export_read(migration, Open { store: source.name, read, at: opened }, out, options, progress, cancel)
        .await
}

/// A consistent read of both sides that somebody has opened.
pub(crate) struct Open {
    /// The store that is read, as the snapshot names it.
    pub(crate) store: String,
    pub(crate) read: Box<dyn ConsistentRead>,
    /// When it was opened, which its age counts from.
    pub(crate) at: Instant,
}

/// Exports what a consistent read sees, into a folder without a finished pair.
pub(crate) async fn export_read(
    migration: &Migration,
    open: Open,
    out: &Path,
    options: &ExportOptions,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Exported> {
    let read: Arc<dyn ConsistentRead> = Arc::from(open.read);
    let standing = read.moment().standing;
    let limits = options.limits(open.at);
    let earlier = match &options.since {
        Some(folder) => Some(Earlier::open(folder, migration, &open.store).await?),
        None => None,
    };
    std::fs::create_dir_all(out).map_err(Error::io("create", out))?;
    // Whoever goes on with an interrupted export must know that it is over.
    let in_use = lock(out)?;
    take_apart(out)?;
    let team = side::Team::new(options.connections.get(), &limits);
    let begin = async |side: Side| {
        let (store_side, stage) = about(side);
        let horizon = match read.changes() {
            Some(changes) => changes.horizon(store_side).await?,
            None => Err("only Postgres tells which rows have changed".to_owned()),
        };
        let estimate = read.estimate(store_side).await?;
        let count = options.range_count(estimate);
        let header = header(migration, &open.store, read.as_ref(), side);
        let left = if options.fresh {
            None
        } else {
            EarlierSide::interrupted(&side.folder(out), &header, &horizon, count.get())
        };
        let since = earlier.as_ref().map(|earlier| earlier.side(side, &horizon, count.get()));
        let because = |outcome: Option<std::result::Result<EarlierSide, String>>| {
            outcome.transpose().map_or_else(|why| (None, Some(why)), |found| (found, None))
        };
        let ((left, anew_because), (since, full_because)) = (because(left), because(since));
        let earlier = match (left, since) {
            (Some(left), Some(since)) => Some(left.or(since)),
            (left, since) => left.or(since),
        };
        let ranges = match &earlier {
            Some(earlier) => earlier.ranges(),
            None => read.ranges(store_side, count).await?,
        };
        let reuse = Reuse { ranges: ranges.len(), taken_over: 0, resumed: 0, full_because, anew_because };
        let horizon = horizon.ok();
        let plan = side::SidePlan {
            read: read.clone(),
            side: store_side,
            stage,
            estimate,
            ranges,
            earlier,
            horizon,
        };
        Ok::<_, Error>((side::Job::begin(plan, side.folder(out), header, &team)?, reuse))
    };
    let ((old, reuse_old), (new, reuse_new)) = futures::try_join!(begin(Side::Old), begin(Side::New))?;
    let counts = side::run(vec![old, new], &team, &limits, progress, cancel).await?;
    let mut reuses = [reuse_old, reuse_new];
    for (reuse, counts) in reuses.iter_mut().zip(counts) {
        (reuse.taken_over, reuse.resumed) = (counts.taken_over, counts.resumed);
    }
    let [reuse_old, reuse_new] = reuses;
    for side in [Side::Old, Side::New] {
        forget_record(&side.folder(out))?;
    }
    let opening = out.to_owned();
    let pair = tokio::task::spawn_blocking(move || SnapshotPair::open(opening))
        .await
        .map_err(|_| Error::WorkerLost)??;
    drop(in_use);
    Ok(Exported { pair, standing, reuse_old, reuse_new })
}

/// Reads one side, batch by batch, until its end, until it is cancelled, or until nobody takes it any more.
pub(crate) async fn read_side<F>(
    read: &dyn ConsistentRead,
    side: StoreSide,
    meter: &Meter<'_>,
    cancel: &Cancel,
    mut take: impl FnMut(RecordBatch) -> F,
) -> Result<u64>
where
    F: Future<Output = std::result::Result<(), mpsc::error::SendError<RecordBatch>>>,
{
    let (from_store, rows) = mpsc::channel(BATCHES_IN_FLIGHT);
    let reading = read.read(side, &ScopeRange::WHOLE, from_store);
    let taking = async move {
        // Owned here, so that a reader whose rows nobody takes any more hears of it.
        let mut rows = rows;
        loop {
            let batch = tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(Error::Stopped { what: "export" }),
                batch = rows.recv() => batch,
            };
            let Some(batch) = batch else { return Ok(()) };
            let count = batch.num_rows() as u64;
            if take(batch).await.is_err() {
                return Ok(());
            }
            meter.add(count);
        }
    };
    tokio::pin!(reading, taking);
    tokio::select! {
        taken = &mut taking => {
            // The channel is closed, or nobody listens: either way the reader is through, or will be at once.
            taken?;
            Ok(reading.await?)
        }
        read = &mut reading => {
            let count = read?;
            taking.await?;
            Ok(count)
        }
    }
}

fn about(side: Side) -> (StoreSide, Stage) {
    match side {
        Side::Old => (StoreSide::Old, Stage::ExportOld),
        Side::New => (StoreSide::New, Stage::ExportNew),
    }
}

fn header(migration: &Migration, store: &str, read: &dyn ConsistentRead, side: Side) -> SnapshotHeader {
    let plan = &migration.subject.plan;
    let standing = read.moment().standing;
    SnapshotHeader {
        migration: plan.name().to_owned(),
        manifest_hash: plan.fingerprint().to_owned(),
        side,
        store: store.to_owned(),
        consistent_point: read.moment().point.clone(),
        // Epochs begin at 1 and grow.
        epoch: u64::try_from(standing.epoch.0).unwrap_or(0),
        phase: standing.phase.as_str().to_owned(),
        started_at: read.moment().began_at.clone(),
        schema: plan.schema(),
        key: plan.order().to_vec(),
        scope_columns: plan.scope().len(),
    }
}

/// The sides of which there is a finished snapshot.
fn finished(out: &Path) -> Vec<Side> {
    let sides = [Side::Old, Side::New];
    sides.into_iter().filter(|side| side.folder(out).join(MANIFEST_FILE).exists()).collect()
}

/// Makes sure that the two sides in `out` will be of one export: half a pair is the rest of an interrupted one.
fn take_apart(out: &Path) -> Result<()> {
    match finished(out).as_slice() {
        [Side::Old, Side::New] => Err(Error::SnapshotPresent { path: out.to_owned() }),
        half => half.iter().try_for_each(|side| discard(&side.folder(out))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn half_a_pair_is_taken_apart_and_a_whole_one_is_not() {
        let out = tempfile::tempdir().unwrap();
        let manifest = |side: Side| side.folder(out.path()).join(MANIFEST_FILE);
        for side in [Side::Old, Side::New] {
            fs::create_dir_all(side.folder(out.path())).unwrap();
        }
        fs::write(manifest(Side::Old), b"{}").unwrap();
        take_apart(out.path()).unwrap();
        assert!(!manifest(Side::Old).exists());
        for side in [Side::Old, Side::New] {
            fs::write(manifest(side), b"{}").unwrap();
        }
        assert!(matches!(take_apart(out.path()), Err(Error::SnapshotPresent { .. })));
        assert!(manifest(Side::Old).exists());
    }
}
