//! Writes the rows of one range of keys, in files of its own.

use std::cmp::Ordering;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt64Array};
use arrow::datatypes::{Field, SchemaRef};
use parquet::arrow::ArrowWriter;

use super::file::PartChecksums;
use super::layout::{Layout, writer_properties};
use super::manifest::{SnapshotFile, checksum_text};
use crate::durable::DurableFile;
use crate::error::{Error, Result};
use crate::keys::{Ascent, Keys};
use crate::row_hash::row_hashes;

/// Bytes that go to a file at once. The Parquet library writes page by page, and each page of a few kilobytes by itself costs the
/// system as much as a large piece does; more than this falls out of the processor's cache before it is written.
const WRITE_BYTES: usize = 256 << 10;

/// A file of a range.
type RangeFile = ArrowWriter<BufWriter<DurableFile>>;

/// What all ranges of a snapshot have in common.
pub(super) struct Stored {
    pub(super) folder: PathBuf,
    /// The columns that rows come with.
    pub(super) schema: SchemaRef,
    /// The columns that are stored: those, and the row hash.
    pub(super) stored_schema: SchemaRef,
    pub(super) key: Vec<String>,
    pub(super) key_positions: Vec<usize>,
    pub(super) layout: Layout,
}

/// Writes the rows of one range in key order.
pub(crate) struct RangeWriter {
    stored: Arc<Stored>,
    /// What its files' names begin with.
    prefix: String,
    file: Option<RangeFile>,
    file_rows: u64,
    files: Vec<SnapshotFile>,
    rows: u64,
    duplicate_keys: u64,
    first: Option<Keys>,
    last: Option<LastKey>,
}

/// A range that is on disk as a whole.
#[derive(Default)]
pub(crate) struct WrittenRange {
    pub(super) files: Vec<SnapshotFile>,
    pub(super) rows: u64,
    pub(super) duplicate_keys: u64,
    /// Its first key and its last, if it was written just now.
    first: Option<Keys>,
    last: Option<LastKey>,
}

/// The key of the last row written.
struct LastKey {
    key: Keys,
    /// Whether the row before it had the same key, so that the key is counted already.
    repeated: bool,
}

impl RangeWriter {
    pub(super) fn new(stored: Arc<Stored>, prefix: String) -> Self {
        Self {
            stored,
            prefix,
            file: None,
            file_rows: 0,
            files: Vec::new(),
            rows: 0,
            duplicate_keys: 0,
            first: None,
            last: None,
        }
    }

    /// Writes the next rows, whose keys must not be smaller than any before.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.check_schema(batch)?;
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.check_keys(batch)?;
        let stored = self.stored(batch)?;
        let file_rows_max = self.stored.layout.file_rows_max;
        let mut start = 0;
        while start < stored.num_rows() {
            let room = (file_rows_max - self.file_rows) as usize;
            let rows = room.min(stored.num_rows() - start);
            self.write_rows(&stored.slice(start, rows))?;
            start += rows;
            if self.file_rows == file_rows_max {
                self.finish_file()?;
            }
        }
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// How many rows have been written.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Brings what is buffered to the disk. A range without rows has no file.
    pub(crate) fn finish(mut self) -> Result<WrittenRange> {
        self.finish_file()?;
        let Self { files, rows, duplicate_keys, first, last, .. } = self;
        Ok(WrittenRange { files, rows, duplicate_keys, first, last })
    }

    /// The same, with a file even if there are no rows.
    pub(super) fn finish_with_file(mut self) -> Result<WrittenRange> {
        if self.files.is_empty() && self.file.is_none() {
            let empty = RecordBatch::new_empty(self.stored.stored_schema.clone());
            self.write_rows(&empty)?;
        }
        self.finish()
    }

    fn check_schema(&self, batch: &RecordBatch) -> Result<()> {
        let found = batch.schema_ref().fields();
        let expected = self.stored.schema.fields();
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
            Some(detail) => Err(Error::BatchSchema { path: self.stored.folder.clone(), detail }),
        }
    }

    fn check_keys(&mut self, batch: &RecordBatch) -> Result<()> {
        for &position in &self.stored.key_positions {
            let nulls = batch.column(position).logical_nulls();
            if let Some(row) = nulls.and_then(|nulls| nulls.iter().position(|valid| !valid)) {
                return Err(Error::KeyNull {
                    path: self.stored.folder.clone(),
                    row: self.rows + row as u64,
                    column: batch.schema_ref().field(position).name().clone(),
                });
            }
        }
        let columns =
            self.stored.key_positions.iter().map(|&position| batch.column(position).clone()).collect();
        let keys = Keys::new(columns, batch.num_rows(), &self.stored.key)?;

        let mut repeated = false;
        if self.first.is_none() {
            self.first = Some(keys.slice(0, 1));
        }
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
            path: self.stored.folder.clone(),
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
        RecordBatch::try_new(self.stored.stored_schema.clone(), columns)
            .map_err(Error::arrow("add the row hash"))
    }

    fn write_rows(&mut self, rows: &RecordBatch) -> Result<()> {
        let path = self.stored.folder.join(self.file_name());
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(begin_file(path, rows, &self.stored)?),
        };
        file.write(rows).map_err(|source| Error::parquet_write(path_of(file))(source))?;
        self.file_rows += rows.num_rows() as u64;
        Ok(())
    }

    fn finish_file(&mut self) -> Result<()> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        let metadata = file.finish().map_err(|source| Error::parquet_write(path_of(&file))(source))?;
        let written = file.inner_mut().get_mut().finish()?;
        let parts = PartChecksums::of_file(path_of(&file), &metadata, &self.stored.key_positions)?;
        self.files.push(SnapshotFile {
            name: self.file_name(),
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

    /// The name of the file that is being written, or comes next.
    fn file_name(&self) -> String {
        format!("{}{:05}.parquet", self.prefix, self.files.len())
    }
}

impl WrittenRange {
    /// A range whose files are there already.
    pub(crate) fn taken_over(files: Vec<SnapshotFile>, rows: u64, duplicate_keys: u64) -> Self {
        Self { files, rows, duplicate_keys, first: None, last: None }
    }

    /// How many rows it has.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Puts the range that comes next behind this one.
    ///
    /// # Errors
    /// [`Error::KeyOrder`] if it does not come next.
    pub(super) fn append(&mut self, next: WrittenRange, folder: &Path) -> Result<()> {
        if let (Some(last), Some(first)) = (&self.last, &next.first)
            && last.key.compare(0, first, 0) != Ordering::Less
        {
            // Ranges are cut between scopes, so that equal keys would be as wrong as descending ones.
            return Err(Error::KeyOrder {
                path: folder.to_owned(),
                row: self.rows,
                key: first.display(0),
                previous: last.key.display(0),
            });
        }
        self.files.extend(next.files);
        self.rows += next.rows;
        self.duplicate_keys += next.duplicate_keys;
        self.first = self.first.take().or(next.first);
        self.last = next.last.or(self.last.take());
        Ok(())
    }
}

fn begin_file(path: PathBuf, first_rows: &RecordBatch, stored: &Stored) -> Result<RangeFile> {
    let properties = writer_properties(stored.layout, &stored.key, first_rows)?;
    let file = BufWriter::with_capacity(WRITE_BYTES, DurableFile::create(path.clone())?);
    ArrowWriter::try_new(file, first_rows.schema(), Some(properties)).map_err(Error::parquet_write(path))
}

fn path_of(file: &RangeFile) -> &Path {
    file.inner().get_ref().path()
}

fn column(field: &Field) -> String {
    format!("{} {}", field.name(), field.data_type())
}
