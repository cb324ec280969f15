//! What an export takes over from an earlier snapshot: the files of ranges that surely have not changed.

use std::path::Path;
use std::sync::Arc;

use crossfade_migration_core::rows::{ConsistentRead, Horizon, ScopeRange};

use tokio::task::spawn_blocking;

use super::about;
use crate::durable::duplicate;
use crate::error::{Error, Result};
use crate::migration::Migration;
use crate::snapshot::{Requirements, Side, SnapshotManifest, SnapshotPair, WrittenRange};

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
        Ok(EarlierSide { pair: self.pair.clone(), side, horizon: horizon.clone() })
    }
}

/// One side of it, all of whose ranges are asked for again.
pub(super) struct EarlierSide {
    pair: Arc<SnapshotPair>,
    side: Side,
    horizon: Horizon,
}

impl EarlierSide {
    /// The bounds of its ranges.
    pub(super) fn ranges(&self) -> Vec<ScopeRange> {
        self.manifest().ranges.iter().map(|range| range.bounds.clone()).collect()
    }

    /// Whether the rows of a range are still the same.
    pub(super) async fn is_unchanged(&self, read: &dyn ConsistentRead, number: usize) -> Result<bool> {
        let range = &self.manifest().ranges[number];
        let Some(changes) = read.changes() else { return Ok(false) };
        Ok(changes.is_unchanged(about(self.side).0, &range.bounds, &self.horizon, range.rows).await?)
    }

    /// Gives a range's files a place in another folder, after all their bytes have been looked at.
    pub(super) fn take_over(&self, number: usize, folder: &Path) -> Result<WrittenRange> {
        let snapshot = self.pair.side(self.side);
        let manifest = snapshot.manifest();
        let files =
            manifest.files_of_ranges().and_then(|files| files.get(number).cloned()).unwrap_or_default();
        for file in &snapshot.files()[files.clone()] {
            file.verify()?;
        }
        for file in &manifest.files[files.clone()] {
            duplicate(&snapshot.folder().join(&file.name), &folder.join(&file.name))?;
        }
        let range = &manifest.ranges[number];
        Ok(WrittenRange::taken_over(manifest.files[files].to_vec(), range.rows, range.duplicate_keys))
    }

    fn manifest(&self) -> &SnapshotManifest {
        self.pair.side(self.side).manifest()
    }
}
