//! The record of an unfinished snapshot: which of its ranges are finished, and as of which moment.
//!
//! Lines, each a checksum and then JSON: first what the snapshot is of and how it is cut, then one for each range whose files
//! are on the disk. The record is believed only as far as it is whole. A last line without its end was being written when the
//! process died, and says nothing; if any other line is not what its checksum says, none of them says anything. What it
//! says of a file is the file's length and checksum, so that a file that was replaced or lost since is noticed as well.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crossfade_migration_core::rows::{Horizon, ScopeRange};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::manifest::{FORMAT_VERSION, WRITER, checksum_text, is_plain_name};
use super::{Side, SnapshotColumn, SnapshotFile, SnapshotHeader, SnapshotManifest};
use crate::durable::{DurableFile, temporary_name};
use crate::error::{Error, Result};
use crate::row_hash::ROW_HASH_VERSION;

/// Its name in the snapshot's folder.
pub(crate) const JOURNAL_FILE: &str = "part-journal";

/// Hexadecimal digits of a line's checksum, which a space follows.
const CHECKSUM_CHARS: usize = 16;

/// What a snapshot is of, in everything that must be the same for files of one to stand in another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cut {
    format_version: u32,
    row_hash_version: u32,
    writer: String,
    migration: String,
    manifest_hash: String,
    side: Side,
    store: String,
    columns: Vec<SnapshotColumn>,
    key: Vec<String>,
    scope_columns: usize,
}

/// A range that is on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FinishedRange {
    /// Its number.
    pub(crate) range: usize,
    /// What the moment at which it was read, or found unchanged, is known by.
    pub(crate) horizon: Horizon,
    /// How many rows it has.
    pub(crate) rows: u64,
    /// How many of its keys more than one row has.
    pub(crate) duplicate_keys: u64,
    pub(crate) files: Vec<SnapshotFile>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    #[serde(flatten)]
    cut: Cut,
    /// When the export began that wrote this.
    started_at: String,
    ranges: Vec<ScopeRange>,
}

/// What an unfinished snapshot has left.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) cut: Cut,
    pub(crate) started_at: String,
    pub(crate) ranges: Vec<ScopeRange>,
    /// For each of the ranges the last that was said of it.
    pub(crate) finished: Vec<Option<FinishedRange>>,
}

/// The record, while it is written.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: Mutex<File>,
}

impl Cut {
    pub(crate) fn of(header: &SnapshotHeader) -> Cut {
        Cut {
            format_version: FORMAT_VERSION,
            row_hash_version: ROW_HASH_VERSION,
            writer: WRITER.to_owned(),
            migration: header.migration.clone(),
            manifest_hash: header.manifest_hash.clone(),
            side: header.side,
            store: header.store.clone(),
            columns: SnapshotManifest::columns_of(&header.schema),
            key: header.key.clone(),
            scope_columns: header.scope_columns,
        }
    }
}

impl Journal {
    /// Begins a record, in the place of an earlier one: either that is there as a whole, or this is.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::DiskFull`].
    pub(super) fn begin(
        folder: &Path,
        header: &SnapshotHeader,
        ranges: &[ScopeRange],
        kept: &[FinishedRange],
    ) -> Result<Journal> {
        let path = folder.join(JOURNAL_FILE);
        let head =
            Head { cut: Cut::of(header), started_at: header.started_at.clone(), ranges: ranges.to_vec() };
        let mut text = line(&path, &head)?;
        for range in kept {
            text.extend(line(&path, range)?);
        }
        let mut file = DurableFile::create(path.clone())?;
        file.write_all(&text).map_err(Error::io("write", &path))?;
        file.finish()?;
        let file = OpenOptions::new().append(true).open(&path).map_err(Error::io("open", &path))?;
        Ok(Journal { path, file: Mutex::new(file) })
    }

    /// Records a range whose files are on the disk.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::DiskFull`].
    pub(super) fn add(&self, range: &FinishedRange) -> Result<()> {
        let text = line(&self.path, range)?;
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&text).and_then(|()| file.sync_data()).map_err(Error::io("write", &self.path))
    }
}

impl Record {
    /// Reads what an unfinished snapshot has left in its folder; nothing where that is not to be believed, or not there.
    pub(crate) fn read(folder: &Path) -> Option<Record> {
        let text = fs::read(folder.join(JOURNAL_FILE)).ok()?;
        let mut lines =
            text.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"));
        let Head { cut, started_at, ranges } = decode(lines.next()?)?;
        let mut finished: Vec<Option<FinishedRange>> = ranges.iter().map(|_| None).collect();
        for line in lines {
            let range: FinishedRange = decode(line)?;
            // A record must not lead its reader out of the folder.
            if range.files.iter().any(|file| !is_plain_name(&file.name)) {
                return None;
            }
            let place = finished.get_mut(range.range)?;
            *place = Some(range);
        }
        Some(Record { cut, started_at, ranges, finished })
    }
}

/// Removes the record of a snapshot that is one now.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    let path = folder.join(JOURNAL_FILE);
    // Also what is left of one that was being begun.
    for path in [temporary_name(&path), path] {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn line(path: &Path, document: &impl Serialize) -> Result<Vec<u8>> {
    let encode = |source| Error::Encode { path: path.to_owned(), source };
    // Line breaks in values are escaped in JSON, so that the only one is at the end.
    let json = serde_json::to_string(document).map_err(encode)?;
    Ok(format!("{} {json}\n", checksum_text(xxh3_64(json.as_bytes()))).into_bytes())
}

fn decode<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    let (checksum, rest) = line.split_at_checked(CHECKSUM_CHARS)?;
    let json = rest.strip_prefix(b" ")?;
    (checksum == checksum_text(xxh3_64(json)).as_bytes()).then(|| serde_json::from_slice(json).ok())?
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn header() -> SnapshotHeader {
        SnapshotHeader {
            migration: "moving\nhouse".to_owned(),
            manifest_hash: "00".to_owned(),
            side: Side::Old,
            store: "postgres:///app".to_owned(),
            consistent_point: "snapshot 1:1:".to_owned(),
            epoch: 1,
            phase: "dual_write".to_owned(),
            started_at: "2026-01-01T00:00:00Z".to_owned(),
            schema: Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)])),
            key: vec!["id".to_owned()],
            scope_columns: 1,
        }
    }

    fn finished(range: usize, rows: u64) -> FinishedRange {
        let named = |name: &str| name.to_owned();
        let horizon = Horizon {
            ended_below: rows,
            begun_below: rows,
            server: named("s"),
            table: named("t"),
            columns: named("c"),
        };
        let file = SnapshotFile {
            name: format!("part-{range:05}-00000.parquet"),
            rows,
            bytes: 1,
            checksum: named("0"),
            footer_bytes: 0,
            footer_checksum: named("0"),
            scan_checksums: Vec::new(),
        };
        FinishedRange { range, horizon, rows, duplicate_keys: 0, files: vec![file] }
    }

    fn three_ranges() -> Vec<ScopeRange> {
        ScopeRange::between(vec![vec!["3".to_owned()], vec!["7\n".to_owned()]])
    }

    /// A folder with the record of three ranges, two of which are finished, one of them twice.
    fn written() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::begin(folder.path(), &header(), &three_ranges(), &[finished(2, 5)]).unwrap();
        journal.add(&finished(0, 6)).unwrap();
        journal.add(&finished(2, 7)).unwrap();
        folder
    }

    #[test]
    fn the_last_that_was_said_of_a_range_counts() {
        let folder = written();
        let record = Record::read(folder.path()).unwrap();
        assert_eq!((record.cut, record.ranges), (Cut::of(&header()), three_ranges()));
        assert_eq!(record.finished, [Some(finished(0, 6)), None, Some(finished(2, 7))]);
        remove(folder.path()).unwrap();
        remove(folder.path()).unwrap();
        assert!(Record::read(folder.path()).is_none());
    }

    /// Wherever the process dies, what is there is a beginning of what was to be said, and nothing else.
    #[test]
    fn a_torn_record_says_what_its_whole_lines_say() {
        let folder = written();
        let path = folder.path().join(JOURNAL_FILE);
        let whole = fs::read(&path).unwrap();
        let ends: Vec<usize> = (1..=whole.len()).filter(|&end| whole[end - 1] == b'\n').collect();
        assert_eq!(ends.len(), 4);
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let lines = ends.iter().filter(|&&end| end <= length).count();
            let expected = match lines {
                0 => None,
                1 => Some([None, None, None]),
                2 => Some([None, None, Some(finished(2, 5))]),
                _ => Some([Some(finished(0, 6)), None, Some(finished(2, 5))]),
            };
            let found = Record::read(folder.path()).map(|record| record.finished);
            assert_eq!(found, expected.map(Vec::from), "{length} bytes");
        }
    }

    #[test]
    fn a_damaged_record_says_nothing_that_was_not_written() {
        let folder = written();
        let path = folder.path().join(JOURNAL_FILE);
        let whole = fs::read(&path).unwrap();
        let last_end = whole.len() - 1;
        for position in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[position] ^= 0x10;
            fs::write(&path, &damaged).unwrap();
            let found = Record::read(folder.path()).map(|record| record.finished);
            // Without its end the last line is one that was never written to its end.
            let torn = vec![Some(finished(0, 6)), None, Some(finished(2, 5))];
            assert_eq!(found, (position == last_end).then_some(torn), "byte {position}");
        }
    }

    #[test]
    fn a_record_leads_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["../part-0.parquet", "/etc/passwd", ""] {
            let mut range = finished(0, 1);
            name.clone_into(&mut range.files[0].name);
            Journal::begin(folder.path(), &header(), &three_ranges(), &[range]).unwrap();
            assert!(Record::read(folder.path()).is_none(), "{name}");
        }
        Journal::begin(folder.path(), &header(), &three_ranges(), &[finished(3, 1)]).unwrap();
        assert!(Record::read(folder.path()).is_none(), "there is no fourth range");
    }
}
