//! What an export takes over: the files of ranges that surely have not changed, from an earlier snapshot or from what an
//! interrupted export has left in the same folder.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crossfade_migration_core::rows::{ConsistentRead, Horizon, ScopeRange};

use tokio::task::spawn_blocking;

use super::about;
use crate::durable::duplicate;
use crate::error::{Error, Result};
use crate::migration::Migration;
use crate::snapshot::{
    Cut, FinishedRange, Record, Requirements, Side, SnapshotHeader, SnapshotManifest, SnapshotPair,
    WrittenRange, is_unfinished,
};

/// By how much a side may have more ranges by its size than the earlier snapshot has, before it is cut anew. Ranges that are
/// this much too long still keep all connections busy.
const OUTGROWN: usize = 2;

/// An earlier pair of snapshots of the same migration, rows and store.
pub(super) struct Earlier {
    pair: Arc<SnapshotPair>,
}

impl Earlier {
    /// Opens the pair in a folder.
    ///
    /// # Errors
    /// What [`SnapshotPair::open`] gives; [`Error::OtherMigration`], [`Error::OtherManifest`], [`Error::OtherStore`] or
    /// [`Error::OtherColumns`] when it is of something else.
    pub(super) async fn open(folder: &Path, migration: &Migration, store: &str) -> Result<Earlier> {
        let opening = folder.to_owned();
        let pair =
            spawn_blocking(move || SnapshotPair::open(opening)).await.map_err(|_| Error::WorkerLost)??;
        let plan = &migration.subject.plan;
        pair.require(&Requirements {
            migration: plan.name().to_owned(),
            manifest_hash: plan.fingerprint().to_owned(),
            // Of any: what a row is does not depend on it.
            epoch_min: 0,
        })?;
        let expected = SnapshotManifest::columns_of(&plan.schema());
        for side in [Side::Old, Side::New] {
            let manifest = pair.side(side).manifest();
            if manifest.store != store {
                let (expected, found) = (store.to_owned(), manifest.store.clone());
                return Err(Error::OtherStore { path: folder.to_owned(), expected, found });
            }
            let found = &manifest.columns;
            let differs = |(found, expected): &(_, _)| found != expected;
            let difference = found.iter().zip(&expected).find(differs);
            if difference.is_some() || found.len() != expected.len() || manifest.key != plan.order() {
                let detail = match difference {
                    Some((found, expected)) => format!(
                        "{} {} where {} {} is expected",
                        found.name, found.data_type, expected.name, expected.data_type
                    ),
                    None => "their number or the key is another".to_owned(),
                };
                return Err(Error::OtherColumns { path: side.folder(folder), detail });
            }
        }
        Ok(Earlier { pair: Arc::new(pair) })
    }

    /// What one side may take over, or in words why nothing. `ranges_wanted` is how many ranges the side would be cut into.
    pub(super) fn side(
        &self,
        side: Side,
        present: &std::result::Result<Horizon, String>,
        ranges_wanted: usize,
    ) -> std::result::Result<EarlierSide, String> {
        let present = present.as_ref().map_err(Clone::clone)?;
        let manifest = self.pair.side(side).manifest();
        if !manifest.is_of_this_version() {
            return Err("the earlier snapshot was written by another version".to_owned());
        }
        let Some(horizon) = manifest.horizon.as_ref().filter(|_| !manifest.ranges.is_empty()) else {
            return Err("the earlier snapshot does not say what a later one could be held against".to_owned());
        };
        if let Some(obstacle) = present.obstacle(horizon) {
            return Err(obstacle.to_owned());
        }
        if ranges_wanted > OUTGROWN * manifest.ranges.len() {
            return Err("the table has outgrown the earlier snapshot's ranges".to_owned());
        }
        let folder: Arc<Path> = self.pair.side(side).folder().into();
        let files = manifest.files_of_ranges().unwrap_or_default();
        let known = manifest.ranges.iter().zip(files).enumerate().map(|(number, (range, files))| {
            let range = FinishedRange {
                range: number,
                horizon: horizon.clone(),
                rows: range.rows,
                duplicate_keys: range.duplicate_keys,
                files: manifest.files[files].to_vec(),
            };
            Some(Known { range, lies: Lies::Elsewhere(folder.clone()) })
        });
        let bounds = manifest.ranges.iter().map(|range| range.bounds.clone()).collect();
        Ok(EarlierSide { side, bounds, known: known.collect() })
    }
}

/// One side of what was exported earlier, all of whose ranges are asked for again.
pub(super) struct EarlierSide {
    side: Side,
    bounds: Vec<ScopeRange>,
    /// What there is of each range.
    known: Vec<Option<Known>>,
}

/// A range that was exported earlier.
struct Known {
    range: FinishedRange,
    lies: Lies,
}

/// Where the files of such a range are.
enum Lies {
    /// In another snapshot, which must be whole, and stays as it is.
    Elsewhere(Arc<Path>),
    /// In the folder that is written, left by an interrupted export: as long as they are what they should be.
    Here,
}

/// Files that have a place in the folder now, and whether they were there before.
pub(super) struct TakenOver {
    pub(super) range: WrittenRange,
    pub(super) is_resumed: bool,
}

impl EarlierSide {
    /// What an interrupted export of the same has left in the folder that is to be written, or in words why that is of no use;
    /// nothing where there was none.
    pub(super) fn interrupted(
        folder: &Path,
        header: &SnapshotHeader,
        present: &std::result::Result<Horizon, String>,
        ranges_wanted: usize,
    ) -> Option<std::result::Result<EarlierSide, String>> {
        is_unfinished(folder).then(|| {
            let present = present.as_ref().map_err(Clone::clone)?;
            let record =
                Record::read(folder).ok_or("the interrupted export has left no record, or a damaged one")?;
            if record.cut != Cut::of(header) {
                return Err("the interrupted export was of something else, or by another version".to_owned());
            }
            if ranges_wanted > OUTGROWN * record.ranges.len() {
                return Err("the table has outgrown the interrupted export's ranges".to_owned());
            }
            let mut why = "the interrupted export had finished no range";
            let mut known = Vec::with_capacity(record.finished.len());
            for range in record.finished {
                let obstacle = range.as_ref().and_then(|range| present.obstacle(&range.horizon));
                why = obstacle.unwrap_or(why);
                let range = range.filter(|_| obstacle.is_none());
                known.push(range.map(|range| Known { range, lies: Lies::Here }));
            }
            if known.iter().all(Option::is_none) {
                return Err(why.to_owned());
            }
            Ok(EarlierSide { side: header.side, bounds: record.ranges, known })
        })
    }

    /// Fills gaps with ranges of another that are cut alike.
    pub(super) fn or(mut self, other: EarlierSide) -> EarlierSide {
        let others = other.bounds.into_iter().zip(other.known);
        for ((bounds, known), (other_bounds, other)) in self.bounds.iter().zip(&mut self.known).zip(others) {
            if known.is_none() && *bounds == other_bounds {
                *known = other;
            }
        }
        self
    }

    /// The bounds of its ranges.
    pub(super) fn ranges(&self) -> Vec<ScopeRange> {
        self.bounds.clone()
    }

    /// The ranges whose files lie in the folder that is written.
    pub(super) fn resumable(&self) -> Vec<FinishedRange> {
        let known = self.known.iter().flatten();
        known.filter(|known| matches!(known.lies, Lies::Here)).map(|known| known.range.clone()).collect()
    }

    /// Whether the rows of a range are still the same.
    pub(super) async fn is_unchanged(&self, read: &dyn ConsistentRead, number: usize) -> Result<bool> {
        let (Some(changes), Some(known)) = (read.changes(), &self.known[number]) else { return Ok(false) };
        let FinishedRange { horizon, rows, .. } = &known.range;
        Ok(changes.is_unchanged(about(self.side).0, &self.bounds[number], horizon, *rows).await?)
    }

    /// Gives a range's files a place in the folder, after all their bytes have been looked at. What an interrupted export has left
    /// may have been lost with the machine that it ran on: then there is nothing to take over.
    pub(super) fn take_over(&self, number: usize, folder: &Path) -> Result<Option<TakenOver>> {
        let Some(Known { range, lies }) = &self.known[number] else { return Ok(None) };
        match lies {
            Lies::Here => {
                if range.files.iter().any(|file| file.verify(folder).is_err()) {
                    return Ok(None);
                }
            }
            Lies::Elsewhere(earlier) => {
                range.files.iter().try_for_each(|file| file.verify(earlier))?;
                for file in &range.files {
                    duplicate(&earlier.join(&file.name), &folder.join(&file.name))?;
                }
            }
        }
        let is_resumed = matches!(lies, Lies::Here);
        let range = WrittenRange::taken_over(range.files.clone(), range.rows, range.duplicate_keys);
        Ok(Some(TakenOver { range, is_resumed }))
    }

    /// Removes the files of a range that is read again: it may have fewer of them.
    pub(super) fn forget(&self, number: usize, folder: &Path) -> Result<()> {
        let Some(Known { range, lies: Lies::Here }) = &self.known[number] else { return Ok(()) };
        for file in &range.files {
            let path = folder.join(&file.name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
