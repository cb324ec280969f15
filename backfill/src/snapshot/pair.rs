//! The two sides of one migration, which belong together.

use std::path::{Path, PathBuf};

use super::{Side, Snapshot, SnapshotManifest};
use crate::error::{Error, Result};
use crate::keys::mergeable;
use crate::row_hash::comparable;

/// The snapshots of both sides of one migration, checked to be comparable.
#[derive(Debug)]
pub struct SnapshotPair {
    folder: PathBuf,
    old: Snapshot,
    new: Snapshot,
}

/// What a pair must be to count for a migration as it stands now.
#[derive(Debug, Clone)]
pub struct Requirements {
    /// The migration.
    pub migration: String,
    /// Hash of its manifest now.
    pub manifest_hash: String,
    /// The oldest epoch that still counts.
    pub epoch_min: u64,
}

impl SnapshotPair {
    /// Opens `folder/old` and `folder/new`, and checks that the two belong together: one migration, one manifest, one
    /// epoch, the same columns with comparable types, the same key.
    ///
    /// # Errors
    ///
    /// What [`Snapshot::open`] gives, and [`Error::SidesDiffer`].
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self> {
        let folder = folder.into();
        let old = Snapshot::open(Side::Old.folder(&folder))?;
        let new = Snapshot::open(Side::New.folder(&folder))?;
        let pair = Self { folder, old, new };
        pair.check()?;
        Ok(pair)
    }

    /// Checks that this pair counts for a migration as it stands now.
    ///
    /// # Errors
    ///
    /// [`Error::OtherMigration`], [`Error::OtherManifest`] or [`Error::OlderEpoch`].
    pub fn require(&self, requirements: &Requirements) -> Result<()> {
        let path = self.folder.clone();
        let found = self.old.manifest();
        if found.migration != requirements.migration {
            let (expected, found) = (requirements.migration.clone(), found.migration.clone());
            return Err(Error::OtherMigration { path, expected, found });
        }
        if found.manifest_hash != requirements.manifest_hash {
            let (expected, found) = (requirements.manifest_hash.clone(), found.manifest_hash.clone());
            return Err(Error::OtherManifest { path, expected, found });
        }
        if found.epoch < requirements.epoch_min {
            return Err(Error::OlderEpoch { path, expected: requirements.epoch_min, found: found.epoch });
        }
        Ok(())
    }

    /// The pair's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// One of the two.
    pub fn side(&self, side: Side) -> &Snapshot {
        match side {
            Side::Old => &self.old,
            Side::New => &self.new,
        }
    }

    /// What the projection gives.
    pub fn old(&self) -> &Snapshot {
        &self.old
    }

    /// What the new table holds.
    pub fn new_side(&self) -> &Snapshot {
        &self.new
    }

    /// Whether both show the same point in time, so that a difference is a difference and not a write in between.
    pub fn is_simultaneous(&self) -> bool {
        let (old, new) = (self.old.manifest(), self.new.manifest());
        old.store == new.store && old.consistent_point == new.consistent_point
    }

    fn check(&self) -> Result<()> {
        let (old, new) = (self.old.manifest(), self.new.manifest());
        let side = |manifest: &SnapshotManifest| manifest.side.to_string();
        if (old.side, new.side) != (Side::Old, Side::New) {
            return Err(self.differ("side", side(old), side(new)));
        }
        let same = [
            ("migration", &old.migration, &new.migration),
            ("manifest", &old.manifest_hash, &new.manifest_hash),
            ("epoch", &old.epoch.to_string(), &new.epoch.to_string()),
            ("row hash version", &old.row_hash_version.to_string(), &new.row_hash_version.to_string()),
            ("key", &old.key.join(", "), &new.key.join(", ")),
            ("scope", &old.scope.join(", "), &new.scope.join(", ")),
        ];
        for (what, old, new) in same {
            if old != new {
                return Err(self.differ(what, old.clone(), new.clone()));
            }
        }
        self.check_columns()
    }

    fn check_columns(&self) -> Result<()> {
        let names = |snapshot: &Snapshot| {
            snapshot
                .schema()
                .fields()
                .iter()
                .map(|field| field.name().as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        let (old, new) = (names(&self.old), names(&self.new));
        if old != new {
            return Err(self.differ("the list of columns", old, new));
        }
        for (old, new) in self.old.schema().fields().iter().zip(self.new.schema().fields()) {
            let is_key = self.old.manifest().key.contains(old.name());
            let (old_type, new_type) = (old.data_type(), new.data_type());
            if !comparable(old_type, new_type) || (is_key && !mergeable(old_type, new_type)) {
                let column = |data_type| format!("{} {data_type}", old.name());
                return Err(self.differ("the type of a column", column(old_type), column(new_type)));
            }
        }
        Ok(())
    }

    fn differ(&self, what: &'static str, old: String, new: String) -> Error {
        Error::SidesDiffer { path: self.folder.clone(), what, old, new }
    }
}
