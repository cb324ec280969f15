//! `scan.json`: what was compared, how, and how much was found.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{FindingKind, SUMMARY_FILE};
use crate::error::{Error, Result};
use crate::snapshot::SnapshotManifest;

/// The summary's format. It changes when an older reader would misunderstand it.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// What a scan compared, how, and how much it found.
///
/// It has no time in it, so that the same inputs give the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanSummary {
    /// The version of this format.
    pub format_version: u32,
    /// The program that scanned, with its version.
    pub writer: String,
    /// The migration that the snapshots were taken for.
    pub migration: String,
    /// Hash of the migration's manifest when they were taken.
    pub manifest_hash: String,
    /// The migration's epoch when they began.
    pub epoch: u64,
    /// The migration's phase when they began.
    pub phase: String,
    /// Whether both show the same point in time; if not, each finding may be a write in between.
    pub simultaneous: bool,
    /// The old snapshot.
    pub old: ScanInput,
    /// The new snapshot.
    pub new: ScanInput,
    /// The key columns: scope first, then the rest.
    pub key: Vec<String>,
    /// The scope columns.
    pub scope: Vec<String>,
    /// The columns that were compared, where it was not all of a snapshot's; none of them if only keys were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    /// How many scope keys a chunk has at most.
    pub chunk_keys_max: u64,
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
    /// The chunks, in key order.
    pub chunks: Vec<FindingsFile>,
    /// The folder that the findings are in. Not in the file: folders are moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub findings: Option<PathBuf>,
}

/// One of the two snapshots that were compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanInput {
    /// The store, with its secrets masked.
    pub store: String,
    /// The point in time that it shows, in the store's own words.
    pub consistent_point: String,
    /// Its content as one number.
    pub checksum: String,
}

/// One chunk of findings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingsFile {
    /// Its name in the findings' folder.
    pub name: String,
    /// How many findings it has.
    pub findings: u64,
    /// How many scope keys they are about.
    pub scope_keys: u64,
    /// How many bytes it has.
    pub bytes: u64,
    /// XXH3-64 of all its bytes, as 16 hexadecimal digits.
    pub checksum: String,
}

impl ScanSummary {
    /// Reads the summary of the scan in `folder`.
    ///
    /// # Errors
    ///
    /// [`Error::FindingsAbsent`], [`Error::FindingsSummary`] or [`Error::FindingsVersion`].
    pub fn read(folder: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let path = folder.join(SUMMARY_FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::FindingsAbsent { path: folder.to_owned() });
            }
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        let unreadable = |source| Error::FindingsSummary { path: path.clone(), source };
        let version: Version = serde_json::from_slice(&text).map_err(unreadable)?;
        if version.format_version != FORMAT_VERSION {
            let found = version.format_version;
            return Err(Error::FindingsVersion { path, found, supported: FORMAT_VERSION });
        }
        let mut summary: Self = serde_json::from_slice(&text).map_err(unreadable)?;
        summary.findings = Some(folder.to_owned());
        Ok(summary)
    }

    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.found() == 0
    }

    /// How many keys something is wrong with.
    pub fn found(&self) -> u64 {
        self.missing + self.mismatched + self.orphaned + self.duplicated
    }

    /// How many findings of one kind there are.
    pub fn count(&self, kind: FindingKind) -> u64 {
        match kind {
            FindingKind::Missing => self.missing,
            FindingKind::Mismatched => self.mismatched,
            FindingKind::Orphaned => self.orphaned,
            FindingKind::Duplicated => self.duplicated,
        }
    }
}

impl From<&SnapshotManifest> for ScanInput {
    fn from(manifest: &SnapshotManifest) -> Self {
        Self {
            store: manifest.store.clone(),
            consistent_point: manifest.consistent_point.clone(),
            checksum: manifest.content_checksum(),
        }
    }
}
