//! One Parquet file of a snapshot: its validation, its row groups for the first pass of a scan, single rows of it for
//! the second.

use std::fs::File;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
    RowSelection,
};
use parquet::basic::Encoding;
use parquet::column::page::Page;
use parquet::file::metadata::{ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::SchemaDescriptor;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use super::chunk_bytes::ChunkBytes;
use super::hashes::Hashes;
use super::manifest::{SnapshotFile, SnapshotManifest, checksum_text};
use super::positioned::Positioned;
use crate::error::{Error, Result};
use crate::row_hash::column_hashes;

/// Bytes read at a time while a whole file is checked.
const CHECK_BYTES: u64 = 4 * 1024 * 1024;

/// One open, validated file of a snapshot.
#[derive(Debug)]
pub(crate) struct DataFile {
    path: PathBuf,
    input: Positioned,
    metadata: ArrowReaderMetadata,
    /// Key columns in key order, as positions among the file's columns.
    key_positions: Vec<usize>,
    /// Where each row group begins, and then where the file ends, in the snapshot's rows.
    row_group_starts: Vec<u64>,
    scan_checksums: Vec<String>,
    checksum: String,
}

/// The part of a row group that a scan reads first.
pub(crate) struct ScanColumns {
    pub(crate) keys: Vec<ArrayRef>,
    pub(crate) hashes: Hashes,
}

/// A file's metadata with the places of its pages, without which single rows cannot be found. Large: held by who needs
/// it, for one file at a time.
pub(crate) struct PageMetadata(ArrowReaderMetadata);

impl DataFile {
    /// Opens a file and checks it against what its manifest says: length, footer, columns, rows.
    pub(super) fn open(
        folder: &Path,
        manifest: &SnapshotManifest,
        entry: &SnapshotFile,
        first_row: u64,
    ) -> Result<Self> {
        let path = folder.join(&entry.name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::FileAbsent { path });
            }
            Err(error) => return Err(Error::io("open", path)(error)),
        };
        let input = Positioned::new(file).map_err(Error::io("open", &path))?;
        if input.len() != entry.bytes {
            return Err(Error::FileLength { path, expected: entry.bytes, found: input.len() });
        }
        check_footer(&path, &input, entry)?;
        let metadata = load(&path, &input, PageIndexPolicy::Skip)?;
        let found = SnapshotManifest::columns_of(metadata.schema());
        if found != manifest.columns {
            return Err(Error::FileSchema { path, detail: first_difference(&found, &manifest.columns) });
        }
        let has_hash = metadata.schema().fields().last().is_some_and(|field| {
            field.name() == super::ROW_HASH_COLUMN && field.data_type() == &arrow::datatypes::DataType::UInt64
        });
        if !has_hash {
            return Err(Error::FileSchema { path, detail: "its last column is not the row hash".into() });
        }
        let mut key_positions = Vec::with_capacity(manifest.key.len());
        for name in &manifest.key {
            // The manifest was checked to have its keys among its columns, and these columns to be the file's.
            key_positions.extend(manifest.columns.iter().position(|column| column.name == *name));
        }
        let row_group_starts = row_group_starts(&path, metadata.metadata(), first_row)?;
        let rows = row_group_starts.last().map_or(0, |end| end - first_row);
        if rows != entry.rows || entry.scan_checksums.len() + 1 != row_group_starts.len() {
            let detail = format!(
                "it has {rows} rows in {} row groups, its manifest says {} in {}",
                row_group_starts.len() - 1,
                entry.rows,
                entry.scan_checksums.len()
            );
            return Err(Error::FileCorrupt { path, row_group: None, detail });
        }
        Ok(Self {
            path,
            input,
            metadata,
            key_positions,
            row_group_starts,
            scan_checksums: entry.scan_checksums.clone(),
            checksum: entry.checksum.clone(),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn metadata(&self) -> &ArrowReaderMetadata {
        &self.metadata
    }

    pub(crate) fn row_groups(&self) -> usize {
        self.scan_checksums.len()
    }

    /// The rows of a row group, counted over the whole snapshot.
    pub(crate) fn row_group_rows(&self, row_group: usize) -> Range<u64> {
        self.row_group_starts[row_group]..self.row_group_starts[row_group + 1]
    }

    /// The file's rows, counted over the whole snapshot.
    pub(crate) fn rows(&self) -> Range<u64> {
        self.row_group_starts[0]..self.row_group_starts[self.row_groups()]
    }

    /// How many bytes the key and the row hash of a row group take in memory.
    pub(crate) fn scan_bytes(&self, row_group: usize) -> u64 {
        let metadata = self.metadata.metadata();
        scan_leaves(metadata.file_metadata().schema_descr(), &self.key_positions)
            .map(|leaf| {
                u64::try_from(metadata.row_group(row_group).column(leaf).uncompressed_size()).unwrap_or(0)
            })
            .sum()
    }

    /// The smallest key of each row group, which is its first, where the footer says it exactly. For keys of one column.
    pub(crate) fn smallest_keys(&self) -> Option<ArrayRef> {
        let name = self.metadata.schema().field(*self.key_positions.first()?).name();
        let schema = self.metadata.parquet_schema();
        let statistics = StatisticsConverter::try_new(name, self.metadata.schema(), schema).ok()?;
        let row_groups = self.metadata.metadata().row_groups();
        let exact = statistics.row_group_is_min_value_exact(row_groups).ok()?;
        if exact.true_count() < row_groups.len() {
            return None;
        }
        statistics.row_group_mins(row_groups).ok()
    }

    /// How many stored bytes a column has in the whole file.
    pub(crate) fn column_bytes(&self, position: usize) -> u64 {
        let metadata = self.metadata.metadata();
        let schema = metadata.file_metadata().schema_descr();
        (0..schema.num_columns())
            .filter(|&leaf| schema.get_column_root_idx(leaf) == position)
            .flat_map(|leaf| metadata.row_groups().iter().map(move |group| group.column(leaf).byte_range().1))
            .sum()
    }

    /// Reads and verifies the key and the row hash of a row group.
    pub(crate) fn scan_columns(&self, row_group: usize) -> Result<ScanColumns> {
        let metadata = self.metadata.metadata();
        let schema = metadata.file_metadata().schema_descr();
        let mut chunks = Vec::with_capacity(self.key_positions.len() + 1);
        let mut hasher = Xxh3Default::new();
        for leaf in scan_leaves(schema, &self.key_positions) {
            let (start, length) = metadata.row_group(row_group).column(leaf).byte_range();
            let bytes = self.read(start, length, row_group)?;
            hasher.update(&bytes);
            chunks.push((start, bytes));
        }
        if checksum_text(hasher.digest()) != self.scan_checksums[row_group] {
            return Err(self.corrupt(row_group, "keys or row hashes are not what was written".into()));
        }
        // The row hash is the last of the columns.
        let hash_chunk = chunks.pop().into_iter().collect();
        let hashes = self.hashes(row_group, self.chunk_bytes(hash_chunk))?;
        let keys = self.keys(row_group, self.chunk_bytes(chunks))?;
        let rows = self.row_group_rows(row_group);
        if (hashes.len() as u64, keys.num_rows() as u64) != (rows.end - rows.start, rows.end - rows.start) {
            return Err(self.corrupt(row_group, "it has other numbers of rows than its footer says".into()));
        }
        let key = |position: &usize| {
            let name = self.metadata.schema().field(*position).name();
            let key = keys.column_by_name(name).cloned();
            key.ok_or_else(|| self.corrupt(row_group, format!("{name} is not in it")))
        };
        Ok(ScanColumns { keys: self.key_positions.iter().map(key).collect::<Result<_>>()?, hashes })
    }

    /// The places of this file's pages.
    pub(crate) fn page_metadata(&self) -> Result<PageMetadata> {
        Ok(PageMetadata(load(&self.path, &self.input, PageIndexPolicy::Optional)?))
    }

    /// The hashes of one column's values in these rows, which ascend strictly, are counted over the whole snapshot, and
    /// are all in this file.
    pub(crate) fn column_hashes_at(
        &self,
        pages: &PageMetadata,
        position: usize,
        rows: &[u64],
    ) -> Result<Vec<u64>> {
        let mut hashes = Vec::with_capacity(rows.len());
        let name = self.metadata.schema().field(position).name();
        self.contained(|| {
            for batch in self.select(pages, &[position], rows)? {
                let batch = batch.map_err(|error| self.corrupt_somewhere(error.to_string()))?;
                hashes.extend(column_hashes(batch.column(0), position, name)?);
            }
            Ok(())
        })?;
        if hashes.len() == rows.len() {
            Ok(hashes)
        } else {
            Err(self.corrupt_somewhere(format!("{} values of {name} for {} rows", hashes.len(), rows.len())))
        }
    }

    /// A reader of these columns in these rows, which ascend strictly, are counted over the whole snapshot, and are all
    /// in this file.
    pub(crate) fn select(
        &self,
        pages: &PageMetadata,
        positions: &[usize],
        rows: &[u64],
    ) -> Result<ParquetRecordBatchReader> {
        let mut row_groups = Vec::new();
        let mut ranges = Vec::with_capacity(rows.len());
        // A selection counts the rows of the chosen row groups only.
        let mut chosen_rows = 0;
        let mut rest = rows;
        while let Some(&row) = rest.first() {
            let row_group = self.row_group_starts.partition_point(|start| *start <= row) - 1;
            let group_rows = self.row_group_rows(row_group);
            let (here, later) = rest.split_at(rest.partition_point(|row| *row < group_rows.end));
            ranges.extend(here.iter().map(|row| {
                let selected = chosen_rows + (row - group_rows.start) as usize;
                selected..selected + 1
            }));
            row_groups.push(row_group);
            chosen_rows += (group_rows.end - group_rows.start) as usize;
            rest = later;
        }
        let schema = pages.0.metadata().file_metadata().schema_descr();
        let mask = ProjectionMask::roots(schema, positions.iter().copied());
        ParquetRecordBatchReaderBuilder::new_with_metadata(self.input.clone(), pages.0.clone())
            .with_row_groups(row_groups)
            .with_projection(mask)
            .with_row_selection(RowSelection::from_consecutive_ranges(ranges.into_iter(), chosen_rows))
            .build()
            .map_err(|error| self.corrupt_somewhere(error.to_string()))
    }

    /// These columns of one row, which is counted over the whole snapshot and is in this file.
    pub(crate) fn row(&self, positions: &[usize], row: u64) -> Result<RecordBatch> {
        let pages = self.page_metadata()?;
        let batch = self.contained(|| Ok(self.select(&pages, positions, &[row])?.next()))?;
        match batch {
            Some(Ok(batch)) if batch.num_rows() == 1 => Ok(batch),
            Some(Err(error)) => Err(self.corrupt_somewhere(error.to_string())),
            Some(Ok(_)) | None => Err(self.corrupt_somewhere(format!("row {row} is not in it"))),
        }
    }

    /// All columns of all rows, in order. Nothing comes after an error.
    pub(crate) fn batches(&self) -> impl Iterator<Item = Result<RecordBatch>> {
        let builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(self.input.clone(), self.metadata.clone());
        let mut reader = Some(builder.build());
        std::iter::from_fn(move || {
            let batch = match reader.as_mut()? {
                Ok(reader) => match self.contained(|| Ok(reader.next())) {
                    Ok(batch) => batch?.map_err(|error| self.corrupt_somewhere(error.to_string())),
                    Err(error) => Err(error),
                },
                Err(error) => Err(self.corrupt_somewhere(error.to_string())),
            };
            if batch.is_err() {
                reader = None;
            }
            Some(batch)
        })
    }

    /// Reads the whole file and compares its checksum.
    pub(crate) fn verify(&self) -> Result<()> {
        let mut hasher = Xxh3Default::new();
        let mut position = 0;
        while position < self.input.len() {
            let length = CHECK_BYTES.min(self.input.len() - position);
            let bytes = self.input.read(position, length as usize).map_err(Error::io("read", &self.path))?;
            hasher.update(&bytes);
            position += length;
        }
        if checksum_text(hasher.digest()) == self.checksum {
            Ok(())
        } else {
            Err(self.corrupt_somewhere("its checksum is not its manifest's".into()))
        }
    }

    /// Pages outside key and row hash have no checksum of their own, and the decoder may panic on damaged ones.
    fn contained<T>(&self, decode: impl FnOnce() -> Result<T>) -> Result<T> {
        catch_unwind(AssertUnwindSafe(decode))
            .unwrap_or_else(|_| Err(self.corrupt_somewhere("a page of it could not be decoded".into())))
    }

    pub(crate) fn corrupt(&self, row_group: usize, detail: String) -> Error {
        Error::corrupt(&self.path, Some(row_group))(detail)
    }

    pub(crate) fn corrupt_somewhere(&self, detail: String) -> Error {
        Error::corrupt(&self.path, None)(detail)
    }

    fn read(&self, start: u64, length: u64, row_group: usize) -> Result<Bytes> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.input.read(start, length).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => self.corrupt(row_group, error.to_string()),
            _ => Error::io("read", &self.path)(error),
        })
    }

    fn chunk_bytes(&self, chunks: Vec<(u64, Bytes)>) -> ChunkBytes {
        ChunkBytes { file_bytes: self.input.len(), chunks }
    }

    fn keys(&self, row_group: usize, chunks: ChunkBytes) -> Result<RecordBatch> {
        let rows = self.row_group_rows(row_group);
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), self.key_positions.iter().copied());
        ParquetRecordBatchReaderBuilder::new_with_metadata(chunks, self.metadata.clone())
            .with_row_groups(vec![row_group])
            .with_projection(mask)
            .with_batch_size((rows.end - rows.start) as usize)
            .build()
            .map_err(|error| self.corrupt(row_group, error.to_string()))?
            .next()
            .ok_or_else(|| self.corrupt(row_group, "it has no rows".into()))?
            .map_err(|error| self.corrupt(row_group, error.to_string()))
    }

    /// The row hashes as they lie in their page: plain and uncompressed, so that there is nothing to decode.
    fn hashes(&self, row_group: usize, chunk: ChunkBytes) -> Result<Hashes> {
        let metadata = self.metadata.metadata().row_group(row_group);
        let rows = metadata.num_rows() as usize;
        let column =
            metadata.columns().last().ok_or_else(|| self.corrupt(row_group, "it has no columns".into()))?;
        let pages = SerializedPageReader::new(Arc::new(chunk), column, rows, None)
            .map_err(|error| self.corrupt(row_group, error.to_string()))?;
        let mut stored = Bytes::new();
        for page in pages {
            match page.map_err(|error| self.corrupt(row_group, error.to_string()))? {
                Page::DataPage { buf, encoding: Encoding::PLAIN, .. } if stored.is_empty() => stored = buf,
                // Our own writer makes one page of them; but more would be as right.
                Page::DataPage { buf, encoding: Encoding::PLAIN, .. } => {
                    stored = [stored, buf].concat().into();
                }
                page => {
                    let detail = format!("its row hashes are stored as {}", page.encoding());
                    return Err(self.corrupt(row_group, detail));
                }
            }
        }
        Hashes::from_stored(stored)
            .ok_or_else(|| self.corrupt(row_group, "its row hashes are not whole".into()))
    }
}

/// Checksums over the parts of a file that are read by themselves.
pub(super) struct PartChecksums {
    pub(super) footer_bytes: u64,
    pub(super) footer: u64,
    /// Over the stored bytes of key and row hash, for each row group.
    pub(super) scan_columns: Vec<u64>,
}

impl PartChecksums {
    /// Of a file that was just written.
    pub(super) fn of_file(path: &Path, metadata: &ParquetMetaData, key_positions: &[usize]) -> Result<Self> {
        let file = File::open(path).and_then(Positioned::new).map_err(Error::io("open", path))?;
        let read = |start, length: u64| file.read(start, length as usize).map_err(Error::io("read", path));
        let schema = metadata.file_metadata().schema_descr();
        let mut scan_columns = Vec::with_capacity(metadata.num_row_groups());
        let mut rows_end = 0;
        for row_group in metadata.row_groups() {
            let mut hasher = Xxh3Default::new();
            for leaf in scan_leaves(schema, key_positions) {
                let (start, length) = row_group.column(leaf).byte_range();
                hasher.update(&read(start, length)?);
            }
            scan_columns.push(hasher.digest());
            let ends = row_group
                .columns()
                .iter()
                .map(ColumnChunkMetaData::byte_range)
                .map(|(start, length)| start + length);
            rows_end = ends.fold(rows_end, u64::max);
        }
        let footer_bytes = file.len() - rows_end;
        Ok(Self { footer_bytes, footer: xxh3_64(&read(rows_end, footer_bytes)?), scan_columns })
    }
}

/// The Parquet columns of key and row hash, in the file's order. Keys are never nested, the row hash is last.
fn scan_leaves(schema: &SchemaDescriptor, key_positions: &[usize]) -> impl Iterator<Item = usize> {
    let last = schema.num_columns().saturating_sub(1);
    (0..schema.num_columns())
        .filter(move |&leaf| leaf == last || key_positions.contains(&schema.get_column_root_idx(leaf)))
}

fn row_group_starts(path: &Path, metadata: &ParquetMetaData, first_row: u64) -> Result<Vec<u64>> {
    let mut starts = vec![first_row];
    let mut row = first_row;
    for (index, row_group) in metadata.row_groups().iter().enumerate() {
        // A footer can claim anything; a sum that overflows must not pass for a small one.
        row = u64::try_from(row_group.num_rows())
            .ok()
            .and_then(|rows| row.checked_add(rows))
            .ok_or_else(|| Error::corrupt(path, Some(index))("its number of rows is impossible".into()))?;
        starts.push(row);
    }
    Ok(starts)
}

fn load(path: &Path, input: &Positioned, pages: PageIndexPolicy) -> Result<ArrowReaderMetadata> {
    let options = ArrowReaderOptions::new()
        .with_column_index_policy(PageIndexPolicy::Skip)
        .with_offset_index_policy(pages);
    ArrowReaderMetadata::load(input, options).map_err(|error| Error::corrupt(path, None)(error.to_string()))
}

/// Decoders trust a footer more than they should, so that a damaged one must not reach them.
fn check_footer(path: &Path, input: &Positioned, entry: &SnapshotFile) -> Result<()> {
    let damaged = || Error::corrupt(path, None)("its footer is not what was written".into());
    let start = input.len().checked_sub(entry.footer_bytes).ok_or_else(damaged)?;
    let footer = input.read(start, entry.footer_bytes as usize).map_err(Error::io("read", path))?;
    if checksum_text(xxh3_64(&footer)) == entry.footer_checksum { Ok(()) } else { Err(damaged()) }
}

fn first_difference<T: PartialEq + std::fmt::Debug>(found: &[T], expected: &[T]) -> String {
    match found.iter().zip(expected).find(|(found, expected)| found != expected) {
        Some((found, expected)) => format!("{found:?} where {expected:?} was expected"),
        None => format!("{} columns where {} were expected", found.len(), expected.len()),
    }
}
