//! How a snapshot's columns are stored, chosen for being scanned.
//!
//! A scan reads the key and the row hash of every row, and of the few rows that differ some other columns. So:
//!
//! - the row hash is stored plain and uncompressed: it is random, so that nothing would become smaller, and reading
//!   it is then a copy of memory;
//! - numbers and ids as keys are stored plain and uncompressed for the same reason, text keys with zstd;
//! - both have pages as large as the row group;
//! - all other columns have small pages, so that one row costs the decompression of few others;
//! - of these, integers and times are packed by their differences, which is quicker and smaller than compressing them;
//!   texts and the rest are compressed with LZ4 where the first rows become much smaller by it, and are left as they are where
//!   they do not, as with hashes, numbers and short names. An export shares its machine with the database as often as not,
//!   and what it compresses is read again only where rows differ: zstd made files smaller, and took a third of all the
//!   exporter's time, and LZ4 an eighth for less than a third off.

use std::collections::HashSet;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;

use super::ROW_HASH_COLUMN;
use crate::error::Result;
use crate::row_hash::column_hashes;

/// How many rows go together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) row_group_rows_max: usize,
    pub(crate) file_rows_max: u64,
}

impl Default for Layout {
    fn default() -> Self {
        Self { row_group_rows_max: ROW_GROUP_ROWS_MAX, file_rows_max: FILE_ROWS_MAX }
    }
}

/// Rows per row group. At 16 bytes of key and hash a row it makes reads of 2 MiB: long enough to run at the disk's
/// speed, small enough that a scan holds a handful per thread within a few dozen MiB.
const ROW_GROUP_ROWS_MAX: usize = 128 * 1024;

/// Bytes per row group, before compression. Binds where rows are wide, and bounds the writer's memory.
const ROW_GROUP_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Rows per file: about half a GiB of typical rows. Files this long keep their number small, and their footers, which a
/// reader holds one at a time, below a few MiB.
const FILE_ROWS_MAX: u64 = 32 * ROW_GROUP_ROWS_MAX as u64;

/// Rows per page outside key and hash, or as near as the encoder comes: it knows bytes only. Fewer would make pages'
/// headers and places weigh against the values.
const PAGE_ROWS: usize = 512;

/// Of how many pages of the first rows one is tried: a batch has sixteen, of which four are compressed in far less time than
/// one row group takes.
const SAMPLED_PAGES_EVERY: usize = 4;

/// Bytes per value where nothing is known of it.
const VALUE_BYTES: usize = 16;

/// A dictionary has to be read for any page that uses it, so it must stay small against a page.
const DICTIONARY_BYTES_MAX: usize = 16 * 1024;

/// Compression pays where it leaves at most this many tenths. Writing a byte costs less than a tenth of compressing it, so that
/// speed alone would never compress: this keeps the disk from being filled with what repeats itself.
const COMPRESSED_TENTHS_MAX: usize = 6;

/// A dictionary pays where a value comes back at least this often in the first rows.
const DICTIONARY_REPEATS_MIN: usize = 16;

/// The writer's settings for a file that begins with these rows, which show how wide values are and how often they come
/// back.
pub(super) fn writer_properties(
    layout: Layout,
    key: &[String],
    first_rows: &RecordBatch,
) -> Result<WriterProperties> {
    let mut properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by(concat!("crossfade ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::LZ4_RAW)
        .set_max_row_group_row_count(Some(layout.row_group_rows_max))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES_MAX))
        // Pages end by their bytes, set below for each column; that is looked at after each batch of this many rows.
        .set_write_batch_size(PAGE_ROWS)
        .set_data_page_row_count_limit(layout.row_group_rows_max)
        .set_data_page_size_limit(PAGE_ROWS * VALUE_BYTES)
        .set_dictionary_page_size_limit(DICTIONARY_BYTES_MAX)
        .set_dictionary_enabled(false)
        // Ranges are found by keys, whose bounds are kept below; nobody looks for anything by other columns.
        .set_statistics_enabled(EnabledStatistics::None);

    for (position, (column, field)) in
        first_rows.columns().iter().zip(first_rows.schema_ref().fields()).enumerate()
    {
        // Nested columns have other paths than this, and keep the settings above.
        let path = ColumnPath::from(field.name().as_str());
        if key.contains(field.name()) {
            properties = properties.set_column_statistics_enabled(path.clone(), EnabledStatistics::Chunk);
        }
        properties = if field.name() != ROW_HASH_COLUMN && !key.contains(field.name()) {
            let dictionary = repeats(column, position, field.name())?;
            if !dictionary && is_packed(field.data_type()) {
                properties = properties
                    .set_column_encoding(path.clone(), Encoding::DELTA_BINARY_PACKED)
                    .set_column_compression(path.clone(), Compression::UNCOMPRESSED);
            } else if dictionary || !shrinks(column) {
                // The codes of a dictionary are packed in as many bits as they need.
                properties = properties.set_column_compression(path.clone(), Compression::UNCOMPRESSED);
            }
            properties
                .set_column_dictionary_enabled(path.clone(), dictionary)
                .set_column_data_page_size_limit(path, PAGE_ROWS * value_bytes(column))
        } else if is_fixed_width(field.data_type()) {
            properties
                .set_column_data_page_size_limit(path.clone(), ROW_GROUP_BYTES_MAX)
                .set_column_encoding(path.clone(), Encoding::PLAIN)
                .set_column_compression(path, Compression::UNCOMPRESSED)
        } else {
            // Read by every scan: what is smaller is quicker to read, and level 1 decompresses as fast as any other.
            properties
                .set_column_data_page_size_limit(path.clone(), ROW_GROUP_BYTES_MAX)
                .set_column_compression(path, Compression::ZSTD(ZstdLevel::try_new(1).unwrap_or_default()))
        };
    }
    Ok(properties.build())
}

fn repeats(column: &dyn Array, position: usize, name: &str) -> Result<bool> {
    let hashes = column_hashes(column, position, name)?;
    let distinct_max = hashes.len() / DICTIONARY_REPEATS_MIN;
    let mut distinct = HashSet::with_capacity(distinct_max + 1);
    // Of values that do not come back, a few are enough to see it.
    Ok(hashes.into_iter().all(|hash| {
        distinct.insert(hash);
        distinct.len() <= distinct_max
    }))
}

/// Whether compression makes pages of this column much smaller. Nested columns are stored as several, and compressed whatever
/// they hold.
fn shrinks(column: &dyn Array) -> bool {
    let values = match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().values(),
        DataType::Binary => column.as_binary::<i32>().values(),
        _ => return true,
    };
    let (mut before, mut after) = (0, 0);
    for page in values.chunks(PAGE_ROWS * value_bytes(column)).step_by(SAMPLED_PAGES_EVERY) {
        before += page.len();
        after += lz4_flex::block::compress(page).len();
    }
    after * 10 <= before * COMPRESSED_TENTHS_MAX
}

fn value_bytes(column: &dyn Array) -> usize {
    match column.to_data().get_slice_memory_size() {
        Ok(bytes) if !column.is_empty() => (bytes / column.len()).max(1),
        _ => VALUE_BYTES,
    }
}

/// Whether the type is stored as integers of 32 or 64 bits, which can be packed by their differences.
fn is_packed(data_type: &DataType) -> bool {
    data_type.is_integer()
        || matches!(
            data_type,
            DataType::Date32
                | DataType::Date64
                | DataType::Timestamp(..)
                | DataType::Time32(_)
                | DataType::Time64(_)
        )
}

fn is_fixed_width(data_type: &DataType) -> bool {
    data_type.is_primitive() || matches!(data_type, DataType::FixedSizeBinary(_) | DataType::Boolean)
}
