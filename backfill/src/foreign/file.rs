//! One Parquet file that another tool wrote.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, Field, Schema};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::{Compression, Encoding, Type};
use parquet::file::metadata::{ColumnChunkMetaData, PageIndexPolicy};
use xxhash_rust::xxh3::xxh3_64;

use super::chunk::{ChunkFault, ColumnChunk};
use super::column::{RawColumn, Reading, Shape};
use super::decompress::{Codec, Decompressor};
use crate::error::{Error, Result};
use crate::snapshot::{ChunkBytes, Positioned};

/// One Parquet file that another tool wrote.
#[derive(Debug)]
pub(crate) struct ForeignFile {
    path: PathBuf,
    input: Positioned,
    metadata: ArrowReaderMetadata,
    footer_hash: u64,
}

/// Bytes at a file's end that say where its footer begins, and that it is one.
const TRAILER_BYTES: u64 = 8;

/// What a file ends in whose footer is encrypted.
const ENCRYPTED_MAGIC: &[u8] = b"PARE";

impl ForeignFile {
    pub(crate) fn open(path: PathBuf) -> Result<Self> {
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let input = Positioned::new(file).map_err(Error::io("open", &path))?;
        let footer_hash = footer_hash(&path, &input)?;
        let options = ArrowReaderOptions::new()
            .with_column_index_policy(PageIndexPolicy::Skip)
            .with_offset_index_policy(PageIndexPolicy::Skip);
        let metadata = contained(|| Ok(ArrowReaderMetadata::load(&input, options.clone())))
            .and_then(|loaded: Result<_, _>| loaded.map_err(|error| error.to_string()))
            .map_err(Error::corrupt(&path, None))?;
        for (index, group) in metadata.metadata().row_groups().iter().enumerate() {
            if group.num_rows() < 0 {
                let detail = "its number of rows is impossible".into();
                return Err(Error::corrupt(&path, Some(index))(detail));
            }
        }
        Ok(Self { path, input, metadata, footer_hash })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// XXH3-64 of the footer, with the file's length.
    pub(crate) fn footer_hash(&self) -> u64 {
        self.footer_hash
    }

    pub(crate) fn fields(&self) -> impl Iterator<Item = &Field> {
        self.metadata.schema().fields().iter().map(AsRef::as_ref)
    }

    pub(crate) fn field(&self, name: &str) -> Option<(usize, &Field)> {
        self.metadata.schema().column_with_name(name)
    }

    pub(crate) fn row_groups(&self) -> usize {
        self.metadata.metadata().num_row_groups()
    }

    pub(crate) fn rows(&self, row_group: usize) -> u64 {
        self.metadata.metadata().row_group(row_group).num_rows() as u64
    }

    /// Whether the file itself says that each row group is sorted by these columns, ascending.
    pub(crate) fn claims_order(&self, key: &[String]) -> bool {
        let metadata = self.metadata.metadata();
        let schema = metadata.file_metadata().schema_descr();
        metadata.row_groups().iter().all(|group| {
            group.sorting_columns().is_some_and(|sorted| {
                sorted.len() >= key.len()
                    && key.iter().zip(sorted).all(|(name, sorted)| {
                        let leaf = usize::try_from(sorted.column_idx).unwrap_or(usize::MAX);
                        let is_it = leaf < schema.num_columns() && schema.column(leaf).name() == name;
                        is_it && !sorted.descending
                    })
            })
        })
    }

    /// The smallest and the largest value of a column in each row group, where the footer says both.
    pub(crate) fn bounds(&self, name: &str) -> Option<(ArrayRef, ArrayRef)> {
        let schema = self.metadata.parquet_schema();
        let statistics = StatisticsConverter::try_new(name, self.metadata.schema(), schema).ok()?;
        let row_groups = self.metadata.metadata().row_groups();
        let bounds = contained(|| {
            Ok((statistics.row_group_mins(row_groups).ok(), statistics.row_group_maxes(row_groups).ok()))
        });
        match bounds {
            Ok((Some(smallest), Some(largest))) if smallest.null_count() + largest.null_count() == 0 => {
                Some((smallest, largest))
            }
            _ => None,
        }
    }

    /// The smallest value of a column in each row group, where the footer says it exactly.
    pub(crate) fn exact_smallest(&self, name: &str) -> Option<ArrayRef> {
        let schema = self.metadata.parquet_schema();
        let statistics = StatisticsConverter::try_new(name, self.metadata.schema(), schema).ok()?;
        let row_groups = self.metadata.metadata().row_groups();
        let exact = statistics.row_group_is_min_value_exact(row_groups).ok()?;
        if exact.true_count() < row_groups.len() { None } else { Some(self.bounds(name)?.0) }
    }

    /// How a column's pages in all row groups are read without making Arrow arrays of them; nothing where that cannot be.
    pub(crate) fn reading(&self, root: usize) -> Option<Reading> {
        let metadata = self.metadata.metadata();
        let schema = metadata.file_metadata().schema_descr();
        let leaf = self.only_leaf(root)?;
        let column = schema.column(leaf);
        if column.max_rep_level() > 0 || column.max_def_level() > 1 {
            return None;
        }
        let shape = match column.physical_type() {
            Type::INT32 | Type::FLOAT => Shape::Fixed(4),
            Type::INT64 | Type::DOUBLE => Shape::Fixed(8),
            Type::FIXED_LEN_BYTE_ARRAY => {
                Shape::Fixed(usize::try_from(column.type_length()).ok().filter(|width| *width > 0)?)
            }
            Type::BYTE_ARRAY => Shape::Prefixed,
            Type::BOOLEAN | Type::INT96 => return None,
        };
        let mut codec = None;
        for group in metadata.row_groups() {
            let chunk = group.column(leaf);
            let is_known = chunk.encodings().all(|encoding| {
                matches!(
                    encoding,
                    Encoding::PLAIN | Encoding::RLE | Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY
                )
            });
            let found = Codec::of(chunk.compression())?;
            if !is_known || *codec.get_or_insert(found) != found {
                return None;
            }
        }
        let codec = codec.unwrap_or(Codec::Stored);
        Some(Reading { shape, codec, nullable: column.max_def_level() == 1 })
    }

    /// Whether a column holds timestamps as Spark and Hive have long written them: with neither a unit nor a zone.
    pub(crate) fn is_int96(&self, name: &str) -> bool {
        let schema = self.metadata.metadata().file_metadata().schema_descr();
        let leaf = self.field(name).and_then(|(root, _)| self.only_leaf(root));
        leaf.is_some_and(|leaf| schema.column(leaf).physical_type() == Type::INT96)
    }

    /// Reads such a column as this type of timestamps from now on.
    pub(crate) fn read_int96_as(&mut self, name: &str, data_type: &DataType) -> Result<()> {
        let fields = self.fields().map(|field| {
            let field = field.clone();
            if field.name() == name { field.with_data_type(data_type.clone()) } else { field }
        });
        let schema =
            Schema::new_with_metadata(fields.collect::<Vec<_>>(), self.metadata.schema().metadata().clone());
        let options = ArrowReaderOptions::new().with_schema(schema.into());
        let metadata = self.metadata.metadata().clone();
        self.metadata = ArrowReaderMetadata::try_new(metadata, options)
            .map_err(|error| Error::corrupt(&self.path, None)(error.to_string()))?;
        Ok(())
    }

    /// Checks that a column can be read at all: that nobody has encrypted it, and that its codec is known.
    pub(crate) fn check_readable(&self, root: usize) -> Result<()> {
        for (row_group, metadata) in self.metadata.metadata().row_groups().iter().enumerate() {
            for leaf in self.leaves(root) {
                let chunk = metadata.column(leaf);
                let because = if chunk.crypto_metadata().is_some() {
                    "is encrypted, and there is no key for it: decrypt it first"
                } else if chunk.compression() == Compression::LZO {
                    "is compressed with LZO, which nothing here can read: write it again with another codec"
                } else {
                    continue;
                };
                return Err(Error::DumpUnreadable {
                    path: self.path.clone(),
                    row_group,
                    detail: format!("column {} {because}", self.name(root)),
                });
            }
        }
        Ok(())
    }

    /// How many bytes a column of a row group takes in memory, about.
    pub(crate) fn column_bytes(&self, row_group: usize, root: usize) -> u64 {
        self.chunk_bytes(row_group, root, ColumnChunkMetaData::uncompressed_size)
    }

    /// How many bytes a column of a row group takes on the disk.
    pub(crate) fn stored_bytes(&self, row_group: usize, root: usize) -> u64 {
        self.chunk_bytes(row_group, root, ColumnChunkMetaData::compressed_size)
    }

    fn chunk_bytes(&self, row_group: usize, root: usize, of: fn(&ColumnChunkMetaData) -> i64) -> u64 {
        let metadata = self.metadata.metadata().row_group(row_group);
        // A damaged footer may give negative numbers.
        self.leaves(root).map(|leaf| u64::try_from(of(metadata.column(leaf))).unwrap_or(0)).sum()
    }

    /// How many bytes a column takes in memory, about, while its pages are read some at a time: by its first page with rows, as those behind
    /// it are much alike. Nothing where the column is not read by pages, or where its pages cannot be found: whoever reads them will
    /// say why.
    pub(crate) fn page_bytes(&self, row_group: usize, root: usize) -> Option<u64> {
        let mut chunk = self.column_chunk(row_group, root, self.reading(root)?, Vec::new()).ok()?;
        Some(chunk.first_page_bytes().ok()? as u64)
    }

    /// Reads a column of a row group without making Arrow arrays of it.
    pub(crate) fn raw_column(
        &self,
        row_group: usize,
        root: usize,
        reading: Reading,
        decompressor: &mut Decompressor,
        into: &mut RawColumn,
    ) -> Result<()> {
        let stored = std::mem::take(&mut decompressor.stored);
        let mut chunk = self.column_chunk(row_group, root, reading, stored)?;
        chunk.read_all(decompressor, into).map_err(|fault| self.chunk_error(row_group, root, fault))?;
        decompressor.stored = chunk.into_stored();
        Ok(())
    }

    /// A column of a row group, whose pages are read some at a time, over `stored`.
    pub(crate) fn column_chunk(
        &self,
        row_group: usize,
        root: usize,
        reading: Reading,
        stored: Vec<u8>,
    ) -> Result<ColumnChunk> {
        let leaf = self
            .only_leaf(root)
            .ok_or_else(|| self.chunk_error(row_group, root, ChunkFault::Damaged("it is nested")))?;
        let (start, length) = self.place(row_group, leaf)?;
        // A length out of a damaged footer must not be believed.
        let end = start.checked_add(length as u64).filter(|end| *end <= self.input.len());
        let end = end.ok_or_else(|| {
            let detail = "the file ends before the data it points at";
            self.chunk_error(row_group, root, ChunkFault::Damaged(detail))
        })?;
        let rows = usize::try_from(self.rows(row_group)).unwrap_or(usize::MAX);
        Ok(ColumnChunk::new(self.input.clone(), start..end, reading, rows, stored))
    }

    /// Why a column of a row group cannot be read.
    pub(crate) fn chunk_error(&self, row_group: usize, root: usize, fault: ChunkFault) -> Error {
        match fault {
            ChunkFault::Damaged(detail) => {
                self.corrupt(row_group, format!("column {}: {detail}", self.name(root)))
            }
            ChunkFault::Unreadable(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                self.corrupt(row_group, error.to_string())
            }
            ChunkFault::Unreadable(error) => Error::io("read", &self.path)(error),
        }
    }

    /// Reads columns of a row group as Arrow arrays, in this order. Each of `columns` is a position in this file.
    pub(crate) fn arrays(&self, row_group: usize, columns: &[usize]) -> Result<Vec<ArrayRef>> {
        let mut chunks = Vec::new();
        for &root in columns {
            for leaf in self.leaves(root) {
                chunks.push(self.chunk(row_group, leaf)?);
            }
        }
        let rows = usize::try_from(self.rows(row_group)).unwrap_or(usize::MAX);
        let source = ChunkBytes { file_bytes: self.input.len(), chunks };
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), columns.iter().copied());
        let batch = contained(|| {
            ParquetRecordBatchReaderBuilder::new_with_metadata(source, self.metadata.clone())
                .with_row_groups(vec![row_group])
                .with_projection(mask)
                .with_batch_size(rows)
                .build()
                .map_err(|error| error.to_string())?
                .next()
                .ok_or_else(|| "it has no rows".to_owned())?
                .map_err(|error| error.to_string())
        })
        .map_err(|detail| self.corrupt(row_group, detail))?;
        if batch.num_rows() != rows {
            return Err(self.corrupt(row_group, "it has another number of rows than its footer says".into()));
        }
        columns
            .iter()
            .map(|root| {
                let column = batch.column_by_name(self.name(*root)).cloned();
                column.ok_or_else(|| self.corrupt(row_group, format!("{} is not in it", self.name(*root))))
            })
            .collect()
    }

    pub(crate) fn name(&self, root: usize) -> &str {
        self.metadata.schema().field(root).name()
    }

    pub(crate) fn corrupt(&self, row_group: usize, detail: String) -> Error {
        Error::corrupt(&self.path, Some(row_group))(detail)
    }

    /// The stored bytes of a column chunk, and where they begin.
    fn chunk(&self, row_group: usize, leaf: usize) -> Result<(u64, Bytes)> {
        let (start, length) = self.place(row_group, leaf)?;
        let bytes = self.input.read(start, length).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => self.corrupt(row_group, error.to_string()),
            _ => Error::io("read", &self.path)(error),
        })?;
        Ok((start, bytes))
    }

    /// Where a column chunk begins, and how long it is.
    fn place(&self, row_group: usize, leaf: usize) -> Result<(u64, usize)> {
        let column = self.metadata.metadata().row_group(row_group).column(leaf);
        // A damaged footer may give negative numbers, which the library does not expect.
        let start = column
            .dictionary_page_offset()
            .filter(|offset| *offset > 0 && *offset < column.data_page_offset())
            .unwrap_or(column.data_page_offset());
        match (u64::try_from(start), usize::try_from(column.compressed_size())) {
            (Ok(start), Ok(length)) => Ok((start, length)),
            _ => Err(self.corrupt(row_group, "its footer gives an impossible place".into())),
        }
    }

    /// How many bytes were read of it, and how many a column's chunks have.
    #[cfg(test)]
    pub(crate) fn bytes_read(&self, name: &str) -> [u64; 2] {
        let leaf = self.field(name).and_then(|(root, _)| self.only_leaf(root)).unwrap();
        let groups = self.metadata.metadata().row_groups();
        [
            self.input.bytes_read(),
            groups.iter().map(|group| group.column(leaf).compressed_size() as u64).sum(),
        ]
    }

    fn leaves(&self, root: usize) -> impl Iterator<Item = usize> + '_ {
        let schema = self.metadata.metadata().file_metadata().schema_descr();
        (0..schema.num_columns()).filter(move |&leaf| schema.get_column_root_idx(leaf) == root)
    }

    fn only_leaf(&self, root: usize) -> Option<usize> {
        let mut leaves = self.leaves(root);
        leaves.next().filter(|_| leaves.next().is_none())
    }
}

/// The decoder may panic on pages and footers that are damaged.
fn contained<T>(decode: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| Err("it could not be decoded".into()))
}

fn footer_hash(path: &Path, input: &Positioned) -> Result<u64> {
    let damaged = |detail: &str| Error::corrupt(path, None)(detail.into());
    let trailer_at = input
        .len()
        .checked_sub(TRAILER_BYTES)
        .ok_or_else(|| damaged("it is too short to be a Parquet file"))?;
    let trailer = input.read(trailer_at, TRAILER_BYTES as usize).map_err(Error::io("read", path))?;
    if trailer.ends_with(ENCRYPTED_MAGIC) {
        return Err(damaged("it is encrypted, and there is no key for it: decrypt it first"));
    }
    let length = trailer.first_chunk().map_or(0, |length| u64::from(u32::from_le_bytes(*length)));
    let start = trailer_at
        .checked_sub(length)
        .filter(|_| trailer.ends_with(b"PAR1"))
        .ok_or_else(|| damaged("it does not end as a Parquet file does: it is truncated, or none"))?;
    let footer = input.read(start, (input.len() - start) as usize).map_err(Error::io("read", path))?;
    Ok(xxh3_64(&footer) ^ input.len())
}
