//! Snapshots: one side of a migration at one point in time, as a folder of Parquet files in key order.
//!
//! Owns the format on disk: what is in the folder, how it is written so that half of one is never taken for a
//! whole, how it is validated, and how its rows are found again. Its callers bring the rows, as Arrow batches in key
//! order. A pair on disk is `DIR/old/` and `DIR/new/`.

mod chunk_bytes;
mod file;
mod hashes;
mod journal;
mod layout;
mod manifest;
mod pair;
mod positioned;
mod range;
mod reader;
mod row_groups;
mod writer;

pub use manifest::{SnapshotColumn, SnapshotFile, SnapshotManifest, SnapshotRange};
pub use pair::{Requirements, SnapshotPair};
pub use reader::Snapshot;
pub use writer::{SnapshotHeader, SnapshotWriter};

pub(crate) use chunk_bytes::ChunkBytes;
pub(crate) use file::{DataFile, PageMetadata};
pub(crate) use hashes::Hashes;
pub(crate) use journal::{Cut, FinishedRange, Record};
#[cfg(test)]
pub(crate) use layout::Layout;
pub(crate) use manifest::checksum_text;
pub(crate) use positioned::{Pooled, Positioned};
pub(crate) use range::{RangeWriter, WrittenRange};
pub(crate) use row_groups::RowGroups;
pub(crate) use writer::{FILE_PREFIX, Origin, RangesWriter, discard, forget_record, is_unfinished};

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The file that makes a folder a snapshot. It is written last.
pub const MANIFEST_FILE: &str = "snapshot.json";

/// The column that a snapshot has beside the projection's: each row's hash (see [`crate::row_hash`]).
pub const ROW_HASH_COLUMN: &str = "__crossfade_row_hash";

/// Which store a snapshot, a row or a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The store that is faded out; its rows are what the projection gives.
    Old,
    /// The store that is faded in.
    New,
}

impl Side {
    /// Where this side's snapshot lies in a pair's folder.
    pub fn folder(self, pair: &Path) -> PathBuf {
        pair.join(self.name())
    }

    fn name(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::New => "new",
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests;
