//! Export: both stores as of one moment, into a pair of snapshots.

use std::path::Path;

use arrow::array::RecordBatch;
use crossfade_migration_core::phase::{Side as StoreSide, Standing};
use crossfade_migration_core::rows::ConsistentRead;
use tokio::sync::mpsc;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::migration::Migration;
use crate::progress::{Meter, Progress, Stage};
use crate::snapshot::{MANIFEST_FILE, Side, SnapshotHeader, SnapshotPair, SnapshotWriter, discard};

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
}

/// Exports both sides of a migration into `out/old` and `out/new`, as of one moment.
///
/// What an earlier, unfinished export left in `out` is replaced. Until the export is finished there is no pair of
/// snapshots in `out`.
///
/// # Errors
/// [`Error::SnapshotPresent`] when `out` holds a finished pair; [`Error::Stopped`]; whatever the database or the disk
/// answers.
pub async fn export(
    migration: &Migration,
    out: &Path,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Exported> {
    clear_unfinished(out)?;
    let read = migration.store.read_both(&migration.subject).await?;
    export_read(migration, read, out, progress, cancel).await
}

/// Exports what a consistent read sees, into a folder without a finished pair.
pub(crate) async fn export_read(
    migration: &Migration,
    mut read: Box<dyn ConsistentRead>,
    out: &Path,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Exported> {
    let standing = read.standing();
    for side in [Side::Old, Side::New] {
        let meter = {
            let (_, stage) = about(side);
            let estimate = read.estimate(about(side).0).await?;
            Meter::estimated(progress, stage, estimate)
        };
        export_side(migration, read.as_mut(), side, out, &meter, cancel).await?;
        meter.finish();
    }
    let out = out.to_owned();
    let pair = tokio::task::spawn_blocking(move || SnapshotPair::open(out))
        .await
        .map_err(|_| Error::WorkerLost)??;
    Ok(Exported { pair, standing })
}

async fn export_side(
    migration: &Migration,
    read: &mut dyn ConsistentRead,
    side: Side,
    out: &Path,
    meter: &Meter<'_>,
    cancel: &Cancel,
) -> Result<()> {
    let header = header(migration, read, side);
    let folder = side.folder(out);
    let (to_writer, mut at_writer) = mpsc::channel::<RecordBatch>(BATCHES_IN_FLIGHT);
    // Told apart from a reader that failed: only a whole side is finished into a snapshot.
    let (whole, is_whole) = tokio::sync::oneshot::channel::<()>();
    let writing = tokio::task::spawn_blocking(move || -> Result<()> {
        let mut writer = SnapshotWriter::create(folder, header)?;
        while let Some(batch) = at_writer.blocking_recv() {
            writer.write(&batch)?;
        }
        match is_whole.blocking_recv() {
            Ok(()) => writer.finish().map(|_| ()),
            Err(_) => Ok(()),
        }
    });

    let read_rows = read_side(read, about(side).0, meter, cancel, |batch| to_writer.send(batch));
    let outcome = read_rows.await;
    if outcome.is_ok() {
        // A writer that is gone has an error to tell, which comes out below.
        let _ = whole.send(());
    } else {
        drop(whole);
    }
    drop(to_writer);
    // A writer's error is the cause of the reader's end, not the other way round.
    writing.await.map_err(|_| Error::WorkerLost)??;
    outcome.map(|_| ())
}

/// Reads one side, batch by batch, until its end, until it is cancelled, or until nobody takes it any more.
pub(crate) async fn read_side<F>(
    read: &mut dyn ConsistentRead,
    side: StoreSide,
    meter: &Meter<'_>,
    cancel: &Cancel,
    mut take: impl FnMut(RecordBatch) -> F,
) -> Result<u64>
where
    F: Future<Output = std::result::Result<(), mpsc::error::SendError<RecordBatch>>>,
{
    let (from_store, rows) = mpsc::channel(BATCHES_IN_FLIGHT);
    let reading = read.read(side, from_store);
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

fn header(migration: &Migration, read: &dyn ConsistentRead, side: Side) -> SnapshotHeader {
    let plan = &migration.subject.plan;
    let standing = read.standing();
    SnapshotHeader {
        migration: plan.name().to_owned(),
        manifest_hash: plan.fingerprint().to_owned(),
        side,
        store: migration.store_name.clone(),
        consistent_point: read.point().to_owned(),
        // Epochs begin at 1 and grow.
        epoch: u64::try_from(standing.epoch.0).unwrap_or(0),
        phase: standing.phase.as_str().to_owned(),
        started_at: read.began_at().to_owned(),
        schema: plan.schema(),
        key: plan.order().to_vec(),
        scope_columns: plan.scope().len(),
    }
}

/// Makes sure that the two sides in `out` will be of one export: half a pair is the rest of an interrupted one.
fn clear_unfinished(out: &Path) -> Result<()> {
    let finished = |side: &Side| side.folder(out).join(MANIFEST_FILE).exists();
    let sides = [Side::Old, Side::New];
    if sides.iter().all(finished) {
        return Err(Error::SnapshotPresent { path: out.to_owned() });
    }
    sides.iter().filter(|side| finished(side)).try_for_each(|side| discard(&side.folder(out)))
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
        clear_unfinished(out.path()).unwrap();
        assert!(!manifest(Side::Old).exists());
        for side in [Side::Old, Side::New] {
            fs::write(manifest(side), b"{}").unwrap();
        }
        assert!(matches!(clear_unfinished(out.path()), Err(Error::SnapshotPresent { .. })));
        assert!(manifest(Side::Old).exists());
    }
}
