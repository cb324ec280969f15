//! One notion of "equal" for rows, as a 64-bit hash of each.
//!
//! Everything that compares rows (scan, verification, cleanup) does it by this hash, so that there is no second
//! notion of equal. It is the same on every machine, for every engine and for ever: version 1 is frozen, and a
//! golden test holds it.
//!
//! # Definition, version 1
//!
//! All integers are little-endian; `xxh3(seed, bytes)` is XXH3's 64-bit variant.
//!
//! - The *base* of column `i`, counted from 0, is `xxh3(0, "crossfade-row-hash-1" ‖ u32(i))`.
//! - The *base* of the `i`-th child of a nested column with base `b` is `xxh3(0, u64(b) ‖ u32(i))`.
//! - A *value* with base `b` hashes to `xxh3(b xor tag, payload)`, by the table below.
//! - A *row* hashes to the sum of its columns' hashes, modulo 2⁶⁴.
//!
//! | value | tag | payload |
//! | --- | --- | --- |
//! | NULL, of any type | 0 | nothing |
//! | boolean | 1 | one byte, 0 or 1 |
//! | integer of any width, up to 2⁶³−1 | 2 | `i64` |
//! | integer above that | 3 | `u64` |
//! | floating point of any width | 4 | the bits as `f64`; −0.0 is 0.0, every NaN is `0x7ff8000000000000` |
//! | decimal | 5 | coefficient without trailing zeros as `i256`, then its scale as `i8`; zero has scale 0 |
//! | text | 6 | UTF-8 |
//! | bytes, of fixed or any length | 7 | the bytes |
//! | date | 8 | days since 1970-01-01 as `i64` |
//! | time of day | 9 | nanoseconds since midnight as `i64` |
//! | timestamp without a zone | 10 | seconds since 1970-01-01 as `i64`, then nanoseconds as `u32` |
//! | timestamp with a zone | 11 | the same, in UTC |
//! | interval | 12 | months `i32`, days `i32`, nanoseconds `i64` |
//! | duration | 13 | seconds as `i64`, then nanoseconds as `u32` |
//! | list, of any width | 14 | its elements' hashes in order, each with the base of child 0 |
//! | struct | 15 | its fields' hashes in order, each with the base of its own child |
//! | map | 16 | like a list of structs of key and value |
//!
//! So a value hashes alike as `Utf8`, `LargeUtf8`, `Utf8View` or out of a dictionary, as 32-bit or 64-bit integer, as
//! 1.5 or 1.50; NULL is not the empty text. The sum, rather than a hash of hashes, is what lets a scan say *which*
//! columns differ after it has read only some of them: the difference of two rows' hashes is the sum of the
//! differences of their columns' hashes.

mod class;
mod key_hash;
mod value;

use arrow::array::{Array, RecordBatch};

use crate::error::{Error, Result};

pub(crate) use class::comparable;
pub use key_hash::KeyHash;

/// The version of the definition above; a snapshot's manifest names it.
pub const ROW_HASH_VERSION: u32 = 1;

/// The hash of each row of a batch over all its columns, in their order.
///
/// # Errors
///
/// [`Error::ColumnType`] if a column's type has no canonical encoding.
pub fn row_hashes(batch: &RecordBatch) -> Result<Vec<u64>> {
    let mut sums = vec![0_u64; batch.num_rows()];
    for (position, (column, field)) in batch.columns().iter().zip(batch.schema_ref().fields()).enumerate() {
        for (sum, hash) in sums.iter_mut().zip(column_hashes(column, position, field.name())?) {
            *sum = sum.wrapping_add(hash);
        }
    }
    Ok(sums)
}

/// The hash of each value of the column at `position`. A row's hash is the wrapping sum of these.
///
/// # Errors
///
/// [`Error::ColumnType`] if the column's type has no canonical encoding; `name` is for that message.
pub fn column_hashes(column: &dyn Array, position: usize, name: &str) -> Result<Vec<u64>> {
    value::hashes(column, value::column_base(position))
        .map_err(|data_type| Error::ColumnType { column: name.to_owned(), data_type: data_type.to_string() })
}

#[cfg(test)]
mod tests;
