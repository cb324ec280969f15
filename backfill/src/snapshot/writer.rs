//! Writes a snapshot: in one go, or range by range on several threads.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use crossfade_migration_core::rows::{Horizon, ScopeRange};

use super::journal::{self, FinishedRange, Journal};
use super::layout::Layout;
use super::manifest::{FORMAT_VERSION, SnapshotManifest, SnapshotRange, WRITER};
use super::range::{RangeWriter, Stored, WrittenRange};
use super::{MANIFEST_FILE, ROW_HASH_COLUMN, Side};
use crate::durable::{claim, claim_again, disclaim, is_claimed, release, write_json};
use crate::error::{Error, Result};
use crate::keys::key_type;
use crate::row_hash::{ROW_HASH_VERSION, row_hashes};

/// What snapshot files' names begin with.
pub(crate) const FILE_PREFIX: &str = "part-";

/// What a snapshot is of, and when it is taken: everything about it that its rows do not say.
#[derive(Debug, Clone)]
pub struct SnapshotHeader {
    /// The migration.
    pub migration: String,
    /// Hash of the migration's manifest.
    pub manifest_hash: String,
    /// Which side.
    pub side: Side,
    /// The store, with its secrets masked.
    pub store: String,
    /// The point in the store's time that the snapshot shows, in the store's own words. Equal on both sides when
    /// one exported snapshot serves both.
    pub consistent_point: String,
    /// The migration's epoch now.
    pub epoch: u64,
    /// The migration's phase now.
    pub phase: String,
    /// Now, by the database's clock, as RFC 3339.
    pub started_at: String,
    /// The projection's columns.
    pub schema: SchemaRef,
    /// The columns that rows come sorted by: scope first, then the rest of the new table's key.
    pub key: Vec<String>,
    /// How many of the key's columns are the scope.
    pub scope_columns: usize,
}

/// Writes a snapshot from batches in key order.
///
/// Until [`finish`](Self::finish) has returned there is no snapshot in the folder, whatever happens: dropping the
/// writer, or the process, leaves files that nobody takes for one and that the next writer removes.
pub struct SnapshotWriter {
    ranges: RangesWriter,
    rows: RangeWriter,
}

impl SnapshotWriter {
    /// Begins a snapshot in `folder`, which is created if it is not there, and otherwise must not hold one.
    ///
    /// # Errors
    ///
    /// [`Error::SnapshotPresent`] or [`Error::FolderTaken`]; [`Error::KeyColumnAbsent`], [`Error::KeyType`] or [`Error::ColumnType`] if the
    /// header's columns cannot be a snapshot; [`Error::Io`] or [`Error::DiskFull`].
    pub fn create(folder: impl Into<PathBuf>, header: SnapshotHeader) -> Result<Self> {
        Self::create_with_layout(folder.into(), header, Layout::default())
    }

    pub(crate) fn create_with_layout(
        folder: PathBuf,
        header: SnapshotHeader,
        layout: Layout,
    ) -> Result<Self> {
        let ranges = RangesWriter::create_with_layout(folder, header, layout)?;
        let rows = RangeWriter::new(ranges.stored.clone(), FILE_PREFIX.to_owned());
        Ok(Self { ranges, rows })
    }

    /// Writes the next rows, whose keys must not be smaller than any before.
    ///
    /// # Errors
    ///
    /// [`Error::BatchSchema`], [`Error::KeyNull`] or [`Error::KeyOrder`] if the rows do not belong here;
    /// [`Error::Io`], [`Error::DiskFull`] or [`Error::ParquetWrite`] if they could not be written.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows.write(batch)
    }

    /// How many rows have been written.
    pub fn rows(&self) -> u64 {
        self.rows.rows()
    }

    /// Completes the snapshot: writes what is buffered, brings it to the disk, and then the manifest.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::DiskFull`] or [`Error::ParquetWrite`].
    pub fn finish(self) -> Result<SnapshotManifest> {
        let rows = self.rows.finish()?;
        self.ranges.finish(vec![rows], Origin::default())
    }
}

/// Writes a snapshot range by range: ranges of keys that ascend and do not overlap, each in files of its own.
///
/// Until [`finish`](Self::finish) has returned there is no snapshot in the folder, whatever happens.
pub(crate) struct RangesWriter {
    stored: Arc<Stored>,
    header: SnapshotHeader,
    /// What finished ranges are recorded in, if a later run could make anything of it, and the moment's horizon.
    journal: Option<(Journal, Horizon)>,
}

impl RangesWriter {
    /// Begins a snapshot, as [`SnapshotWriter::create`] does.
    pub(crate) fn create(folder: PathBuf, header: SnapshotHeader) -> Result<Self> {
        Self::create_with_layout(folder, header, Layout::default())
    }

    /// Begins a snapshot of these ranges that records what is finished, so that a later run can go on with it: with the horizon
    /// of its moment. Of what an unfinished snapshot has left in the folder it keeps the files of these ranges, and removes the
    /// rest.
    ///
    /// # Errors
    /// As [`SnapshotWriter::create`].
    pub(crate) fn create_recorded(
        folder: PathBuf,
        header: SnapshotHeader,
        ranges: &[ScopeRange],
        horizon: Horizon,
        kept: &[FinishedRange],
    ) -> Result<Self> {
        let mut writer = Self::prepare(folder, header, Layout::default())?;
        let folder = &writer.stored.folder;
        if kept.is_empty() {
            claim(folder, FILE_PREFIX)?;
        } else {
            let names: Vec<&str> =
                kept.iter().flat_map(|range| &range.files).map(|file| file.name.as_str()).collect();
            claim_again(folder, FILE_PREFIX, &names)?;
        }
        writer.journal = Some((Journal::begin(folder, &writer.header, ranges, kept)?, horizon));
        Ok(writer)
    }

    fn create_with_layout(folder: PathBuf, header: SnapshotHeader, layout: Layout) -> Result<Self> {
        let writer = Self::prepare(folder, header, layout)?;
        claim(&writer.stored.folder, FILE_PREFIX)?;
        // What is recorded there is of files that are gone now.
        journal::remove(&writer.stored.folder)?;
        Ok(writer)
    }

    fn prepare(folder: PathBuf, header: SnapshotHeader, layout: Layout) -> Result<Self> {
        let key_positions = key_positions(&header)?;
        // An empty batch finds out whether every column has a canonical encoding.
        row_hashes(&RecordBatch::new_empty(header.schema.clone()))?;

        if folder.join(MANIFEST_FILE).exists() {
            return Err(Error::SnapshotPresent { path: folder });
        }
        let stored = Stored {
            folder,
            schema: header.schema.clone(),
            stored_schema: stored_schema(&header.schema, &key_positions),
            key: header.key.clone(),
            key_positions,
            layout,
        };
        Ok(Self { stored: Arc::new(stored), header, journal: None })
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.stored.folder
    }

    /// A writer for the range of this number. A second one for the same number overwrites what the first has written.
    pub(crate) fn range(&self, number: usize) -> RangeWriter {
        RangeWriter::new(self.stored.clone(), format!("{FILE_PREFIX}{number:05}-"))
    }

    /// Records that a range is finished, for a run that goes on with this snapshot should this one be killed.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::DiskFull`].
    pub(crate) fn record(&self, number: usize, range: &WrittenRange) -> Result<()> {
        let Some((journal, horizon)) = &self.journal else { return Ok(()) };
        let WrittenRange { files, rows, duplicate_keys, .. } = range;
        journal.add(&FinishedRange {
            range: number,
            horizon: horizon.clone(),
            rows: *rows,
            duplicate_keys: *duplicate_keys,
            files: files.clone(),
        })
    }

    /// Completes the snapshot out of its ranges in ascending order, and writes the manifest. The record of its ranges stays until
    /// [`forget_record`]: half a pair is no pair, and a run that goes on with the other half goes on with this one too.
    ///
    /// # Errors
    ///
    /// [`Error::KeyOrder`] if the ranges overlap; [`Error::Io`], [`Error::DiskFull`] or [`Error::ParquetWrite`].
    pub(crate) fn finish(&self, ranges: Vec<WrittenRange>, origin: Origin) -> Result<SnapshotManifest> {
        let mut whole = WrittenRange::default();
        let mut recorded = Vec::with_capacity(origin.ranges.len());
        for (number, range) in ranges.into_iter().enumerate() {
            recorded.extend(origin.ranges.get(number).map(|bounds| SnapshotRange {
                bounds: bounds.clone(),
                files: range.files.len(),
                rows: range.rows,
                duplicate_keys: range.duplicate_keys,
            }));
            whole.append(range, &self.stored.folder)?;
        }
        if whole.files.is_empty() {
            // A snapshot without rows still has a file, because that is where its columns' types are.
            let empty = RangeWriter::new(self.stored.clone(), FILE_PREFIX.to_owned());
            whole.append(empty.finish_with_file()?, &self.stored.folder)?;
        }
        let SnapshotHeader { key, scope_columns, .. } = &self.header;
        let manifest = SnapshotManifest {
            format_version: FORMAT_VERSION,
            row_hash_version: ROW_HASH_VERSION,
            writer: WRITER.to_owned(),
            migration: self.header.migration.clone(),
            manifest_hash: self.header.manifest_hash.clone(),
            side: self.header.side,
            store: self.header.store.clone(),
            consistent_point: self.header.consistent_point.clone(),
            epoch: self.header.epoch,
            phase: self.header.phase.clone(),
            started_at: self.header.started_at.clone(),
            columns: SnapshotManifest::columns_of(&self.stored.stored_schema),
            key: key.clone(),
            scope: key[..*scope_columns].to_vec(),
            rows: whole.rows,
            duplicate_keys: whole.duplicate_keys,
            files: whole.files,
            ranges: recorded,
            horizon: origin.horizon,
        };
        let folder = &self.stored.folder;
        write_json(&folder.join(MANIFEST_FILE), &manifest)?;
        release(folder, FILE_PREFIX)?;
        Ok(manifest)
    }
}

/// How a snapshot's rows were read, where a later export may want to know.
#[derive(Default)]
pub(crate) struct Origin {
    /// The bounds of its ranges.
    pub(crate) ranges: Vec<ScopeRange>,
    pub(crate) horizon: Option<Horizon>,
}

/// Whether an unfinished snapshot lies in a folder.
pub(crate) fn is_unfinished(folder: &Path) -> bool {
    is_claimed(folder, FILE_PREFIX)
}

/// Removes the record by which a run could have gone on with a snapshot.
pub(crate) fn forget_record(folder: &Path) -> Result<()> {
    journal::remove(folder)
}

/// Makes a finished snapshot an unfinished one, which the next writer goes on with or replaces.
pub(crate) fn discard(folder: &Path) -> Result<()> {
    // In this order: in between, it is still a snapshot.
    disclaim(folder, FILE_PREFIX)?;
    let manifest = folder.join(MANIFEST_FILE);
    fs::remove_file(&manifest).map_err(Error::io("remove", manifest))
}

fn key_positions(header: &SnapshotHeader) -> Result<Vec<usize>> {
    let absent = |name: &String| Error::KeyColumnAbsent {
        side: header.side,
        column: name.clone(),
        found: header
            .schema
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect::<Vec<_>>()
            .join(", "),
    };
    let mut positions = Vec::with_capacity(header.key.len());
    for name in &header.key {
        let (position, field) = header.schema.column_with_name(name).ok_or_else(|| absent(name))?;
        if key_type(field.data_type()).is_none() {
            return Err(Error::KeyType { column: name.clone(), data_type: field.data_type().to_string() });
        }
        positions.push(position);
    }
    if positions.is_empty() || header.scope_columns == 0 || header.scope_columns > positions.len() {
        return Err(Error::SnapshotInconsistent {
            path: MANIFEST_FILE.into(),
            detail: format!("{} scope columns of a key with {}", header.scope_columns, positions.len()),
        });
    }
    Ok(positions)
}

/// Keys are never NULL in a snapshot, whatever the projection promised: a reader need not look.
fn stored_schema(schema: &Schema, key_positions: &[usize]) -> SchemaRef {
    let mut fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    for &position in key_positions {
        fields[position].set_nullable(false);
    }
    fields.push(Field::new(ROW_HASH_COLUMN, DataType::UInt64, false));
    Arc::new(Schema::new(fields))
}
