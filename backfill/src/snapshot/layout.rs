//! How a snapshot's columns are stored, chosen for being scanned.
//!
//! A scan reads the key and the row hash of every row, and of the few rows that differ some other columns. So:
//!
//! - the row hash is stored plain and uncompressed: it is random, so that nothing would become smaller, and reading
//!   it is then a copy of memory;
//! - numbers and ids as keys are stored plain and uncompressed for the same reason, text keys with zstd;
//! - both have pages as large as the row group;
//! - all other columns have small pages, so that one row costs the decompression of few others.

use std::collections::HashSet;

use arrow::datatypes::{DataType, Schema};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;

use super::ROW_HASH_COLUMN;

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

/// Rows per page outside key and hash.
const PAGE_ROWS: usize = 512;

/// A dictionary has to be read for any page that uses it, so it must stay small against a page.
const DICTIONARY_BYTES_MAX: usize = 16 * 1024;

/// A dictionary pays where a value comes back at least this often in the first rows.
const DICTIONARY_REPEATS_MIN: usize = 16;

/// The writer's settings for a snapshot. `first_hashes` are the column hashes of the first rows, column by column: how
/// many of them are distinct tells which columns are worth a dictionary.
pub(super) fn writer_properties(
    layout: Layout,
    schema: &Schema,
    key: &[String],
    first_hashes: &[Vec<u64>],
) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by(concat!("crossfade ", env!("CARGO_PKG_VERSION")).to_owned())
        // Level 1: random columns gain nothing from a higher one, and export is bound by this.
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).unwrap_or_default()))
        .set_max_row_group_row_count(Some(layout.row_group_rows_max))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES_MAX))
        // Rows per page go by the size limit below, which is looked at after each batch of this many rows.
        .set_write_batch_size(PAGE_ROWS)
        .set_data_page_row_count_limit(layout.row_group_rows_max)
        .set_data_page_size_limit(1)
        .set_dictionary_page_size_limit(DICTIONARY_BYTES_MAX)
        .set_dictionary_enabled(false)
        // A scan finds its ranges by the keys themselves; other readers find theirs by the chunk's bounds.
        .set_statistics_enabled(EnabledStatistics::Chunk);

    for (field, hashes) in schema.fields().iter().zip(first_hashes) {
        let distinct = hashes.iter().collect::<HashSet<_>>().len();
        // Nested columns have other names below; they go without.
        if distinct * DICTIONARY_REPEATS_MIN <= hashes.len() {
            properties =
                properties.set_column_dictionary_enabled(ColumnPath::from(field.name().as_str()), true);
        }
    }
    for field in schema.fields() {
        let path = ColumnPath::from(field.name().as_str());
        if field.name() == ROW_HASH_COLUMN || key.contains(field.name()) {
            properties = properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_data_page_size_limit(path.clone(), ROW_GROUP_BYTES_MAX);
            if is_fixed_width(field.data_type()) {
                properties = properties
                    .set_column_encoding(path.clone(), Encoding::PLAIN)
                    .set_column_compression(path, Compression::UNCOMPRESSED);
            }
        }
    }
    properties.build()
}

fn is_fixed_width(data_type: &DataType) -> bool {
    data_type.is_primitive() || matches!(data_type, DataType::FixedSizeBinary(_) | DataType::Boolean)
}
