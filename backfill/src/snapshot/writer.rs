//! Writes a snapshot from batches in key order.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;

use super::file::PartChecksums;
use super::layout::{Layout, writer_properties};
use super::manifest::{FORMAT_VERSION, SnapshotFile, SnapshotManifest, checksum_text};
use super::{MANIFEST_FILE, ROW_HASH_COLUMN, Side};
use crate::durable::{DurableFile, claim, disclaim, release, write_json};
use crate::error::{Error, Result};
use crate::keys::{Ascent, Keys, key_type};
use crate::row_hash::{ROW_HASH_VERSION, row_hashes};

/// What snapshot files' names begin with.
const FILE_PREFIX: &str = "part-";

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
    folder: PathBuf,
    header: SnapshotHeader,
    layout: Layout,
    stored_schema: SchemaRef,
    key_positions: Vec<usize>,
    file: Option<ArrowWriter<DurableFile>>,
    file_rows: u64,
    files: Vec<SnapshotFile>,
    rows: u64,
    duplicate_keys: u64,
    last: Option<LastKey>,
}

/// The key of the last row written.
struct LastKey {
    key: Keys,
    /// Whether the row before it had the same key, so that the key is counted already.
    repeated: bool,
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
        let key_positions = key_positions(&header)?;
        // An empty batch finds out whether every column has a canonical encoding.
        row_hashes(&RecordBatch::new_empty(header.schema.clone()))?;

        if folder.join(MANIFEST_FILE).exists() {
            return Err(Error::SnapshotPresent { path: folder });
        }
        claim(&folder, FILE_PREFIX)?;
        let stored_schema = stored_schema(&header.schema, &key_positions);
        Ok(Self {
            folder,
            header,
            layout,
            stored_schema,
            key_positions,
            file: None,
            file_rows: 0,
            files: Vec::new(),
            rows: 0,
            duplicate_keys: 0,
            last: None,
        })
    }

    /// Writes the next rows, whose keys must not be smaller than any before.
    ///
    /// # Errors
    ///
    /// [`Error::BatchSchema`], [`Error::KeyNull`] or [`Error::KeyOrder`] if the rows do not belong here;
    /// [`Error::Io`], [`Error::DiskFull`] or [`Error::ParquetWrite`] if they could not be written.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.check_schema(batch)?;
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.check_keys(batch)?;
        let stored = self.stored(batch)?;
        let mut start = 0;
        while start < stored.num_rows() {
            let room = (self.layout.file_rows_max - self.file_rows) as usize;
            let rows = room.min(stored.num_rows() - start);
            self.write_rows(&stored.slice(start, rows))?;
            start += rows;
            if self.file_rows == self.layout.file_rows_max {
                self.finish_file()?;
            }
        }
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// How many rows have been written.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Completes the snapshot: writes what is buffered, brings it to the disk, and then the manifest.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::DiskFull`] or [`Error::ParquetWrite`].
    pub fn finish(mut self) -> Result<SnapshotManifest> {
        // A snapshot without rows still has a file, because that is where its columns' types are.
        if self.files.is_empty() && self.file.is_none() {
            let empty = RecordBatch::new_empty(self.stored_schema.clone());
            self.write_rows(&empty)?;
        }
        self.finish_file()?;
        let SnapshotHeader { key, scope_columns, .. } = &self.header;
        let manifest = SnapshotManifest {
            format_version: FORMAT_VERSION,
            row_hash_version: ROW_HASH_VERSION,
            writer: concat!("crossfade ", env!("CARGO_PKG_VERSION")).to_owned(),
            migration: self.header.migration.clone(),
            manifest_hash: self.header.manifest_hash.clone(),
            side: self.header.side,
            store: self.header.store.clone(),
            consistent_point: self.header.consistent_point.clone(),
            epoch: self.header.epoch,
            phase: self.header.phase.clone(),
            started_at: self.header.started_at.clone(),
            columns: SnapshotManifest::columns_of(&self.stored_schema),
            key: key.clone(),
            scope: key[..*scope_columns].to_vec(),
            rows: self.rows,
            duplicate_keys: self.duplicate_keys,
            files: self.files,
        };
        write_json(&self.folder.join(MANIFEST_FILE), &manifest)?;
        release(&self.folder, FILE_PREFIX)?;
        Ok(manifest)
    }

    fn check_schema(&self, batch: &RecordBatch) -> Result<()> {
        let found = batch.schema_ref().fields();
        let expected = self.header.schema.fields();
        let detail = if found.len() == expected.len() {
            found
                .iter()
                .zip(expected)
                .find(|(found, expected)| {
                    found.name() != expected.name() || found.data_type() != expected.data_type()
                })
                .map(|(found, expected)| format!("{} where {} was expected", column(found), column(expected)))
        } else {
            Some(format!("{} columns where {} were expected", found.len(), expected.len()))
        };
        match detail {
            None => Ok(()),
            Some(detail) => Err(Error::BatchSchema { path: self.folder.clone(), detail }),
        }
    }

    fn check_keys(&mut self, batch: &RecordBatch) -> Result<()> {
        for &position in &self.key_positions {
            let nulls = batch.column(position).logical_nulls();
            if let Some(row) = nulls.and_then(|nulls| nulls.iter().position(|valid| !valid)) {
                return Err(Error::KeyNull {
                    path: self.folder.clone(),
                    row: self.rows + row as u64,
                    column: batch.schema_ref().field(position).name().clone(),
                });
            }
        }
        let columns = self.key_positions.iter().map(|&position| batch.column(position).clone()).collect();
        let keys = Keys::new(columns, batch.num_rows(), &self.header.key)?;

        let mut repeated = false;
        if let Some(last) = &self.last {
            match last.key.compare(0, &keys, 0) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => {
                    repeated = true;
                    self.duplicate_keys += u64::from(!last.repeated);
                }
                std::cmp::Ordering::Greater => {
                    return Err(self.out_of_order(&keys, 0, last.key.display(0)));
                }
            }
        }
        match keys.ascent() {
            Ascent::Strict => repeated &= keys.rows() == 1,
            Ascent::WithDuplicates => {
                for row in 1..keys.rows() {
                    let equal = keys.compare(row - 1, &keys, row).is_eq();
                    self.duplicate_keys += u64::from(equal && !repeated);
                    repeated = equal;
                }
            }
            Ascent::BrokenAt(row) => return Err(self.out_of_order(&keys, row, keys.display(row - 1))),
        }
        self.last = Some(LastKey { key: keys.slice(keys.rows() - 1, 1), repeated });
        Ok(())
    }

    fn out_of_order(&self, keys: &Keys, row: usize, previous: String) -> Error {
        Error::KeyOrder {
            path: self.folder.clone(),
            row: self.rows + row as u64,
            key: keys.display(row),
            previous,
        }
    }

    /// The batch as it is stored: with the row hash.
    fn stored(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let mut columns = batch.columns().to_vec();
        let hashes: ArrayRef = Arc::new(UInt64Array::from(row_hashes(batch)?));
        columns.push(hashes);
        RecordBatch::try_new(self.stored_schema.clone(), columns).map_err(Error::arrow("add the row hash"))
    }

    fn write_rows(&mut self, rows: &RecordBatch) -> Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                none.insert(begin_file(&self.folder, self.files.len(), rows, &self.header.key, self.layout)?)
            }
        };
        file.write(rows).map_err(|source| Error::parquet_write(file.inner().path())(source))?;
        self.file_rows += rows.num_rows() as u64;
        Ok(())
    }

    fn finish_file(&mut self) -> Result<()> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        let metadata = file.finish().map_err(|source| Error::parquet_write(file.inner().path())(source))?;
        let written = file.inner_mut().finish()?;
        let parts = PartChecksums::of_file(file.inner().path(), &metadata, &self.key_positions)?;
        self.files.push(SnapshotFile {
            name: file_name(self.files.len()),
            rows: self.file_rows,
            bytes: written.bytes,
            checksum: checksum_text(written.checksum),
            footer_bytes: parts.footer_bytes,
            footer_checksum: checksum_text(parts.footer),
            scan_checksums: parts.scan_columns.into_iter().map(checksum_text).collect(),
        });
        self.file_rows = 0;
        Ok(())
    }
}

/// Makes a finished snapshot an unfinished one, which the next writer replaces.
pub(crate) fn discard(folder: &Path) -> Result<()> {
    // In this order: in between, it is still a snapshot.
    disclaim(folder, FILE_PREFIX)?;
    let manifest = folder.join(MANIFEST_FILE);
    fs::remove_file(&manifest).map_err(Error::io("remove", manifest))
}

fn begin_file(
    folder: &Path,
    index: usize,
    first_rows: &RecordBatch,
    key: &[String],
    layout: Layout,
) -> Result<ArrowWriter<DurableFile>> {
    let path = folder.join(file_name(index));
    let properties = writer_properties(layout, key, first_rows)?;
    let file = DurableFile::create(path.clone())?;
    ArrowWriter::try_new(file, first_rows.schema(), Some(properties)).map_err(Error::parquet_write(path))
}

fn file_name(index: usize) -> String {
    format!("{FILE_PREFIX}{index:05}.parquet")
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

fn column(field: &Field) -> String {
    format!("{} {}", field.name(), field.data_type())
}
