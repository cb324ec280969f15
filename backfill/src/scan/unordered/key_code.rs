//! Keys as what partitions hold: a number that is the key, or a hash and the key's bytes in Arrow's row format.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::keys::Keys;
use crate::scan::dumps::DumpPair;

/// How keys become what partitions hold.
pub(super) enum KeyCode {
    /// A number of 64 bits.
    Narrow { is_signed: bool },
    /// Anything else.
    Wide { converter: RowConverter },
}

impl KeyCode {
    pub(super) fn new(key_types: &[DataType]) -> Result<Self> {
        if let [key_type] = key_types
            && is_number(key_type)
        {
            return Ok(Self::Narrow { is_signed: *key_type != DataType::UInt64 });
        }
        let fields = key_types.iter().map(|key_type| SortField::new(key_type.clone())).collect();
        let converter = RowConverter::new(fields).map_err(Error::arrow("gather keys"))?;
        Ok(Self::Wide { converter })
    }

    pub(super) fn is_narrow(&self) -> bool {
        matches!(self, Self::Narrow { .. })
    }

    /// Gives out each row's number, its key's id and, where that is not all of it, the key.
    pub(super) fn records(
        &self,
        keys: &Keys,
        mut record: impl FnMut(usize, u64, Option<&[u8]>) -> Result<()>,
    ) -> Result<()> {
        match self {
            Self::Narrow { .. } => {
                let mut ids = Vec::with_capacity(keys.rows());
                keys.numbers(0, &mut ids);
                ids.into_iter().enumerate().try_for_each(|(row, id)| record(row, id, None))
            }
            Self::Wide { converter } => {
                let rows = converter.convert_columns(keys.arrays()).map_err(Error::arrow("gather keys"))?;
                rows.iter().enumerate().try_for_each(|(row, key)| {
                    let bytes: &[u8] = key.as_ref();
                    record(row, xxh3_64(bytes), Some(bytes))
                })
            }
        }
    }

    /// Key columns out of ids and bytes.
    pub(super) fn arrays<'k>(
        &self,
        keys: impl Iterator<Item = (u64, &'k [u8])>,
        key_types: &[DataType],
    ) -> Result<Vec<ArrayRef>> {
        let arrays: Vec<ArrayRef> = match self {
            Self::Narrow { is_signed: true } => {
                vec![Arc::new(keys.map(|(id, _)| number_of_id(id)).collect::<Int64Array>())]
            }
            Self::Narrow { is_signed: false } => {
                vec![Arc::new(keys.map(|(id, _)| id).collect::<UInt64Array>())]
            }
            Self::Wide { converter } => {
                let parser = converter.parser();
                converter
                    .convert_rows(keys.map(|(_, bytes)| parser.parse(bytes)))
                    .map_err(Error::arrow("gather keys"))?
            }
        };
        arrays
            .into_iter()
            .zip(key_types)
            .map(
                |(array, key_type)| {
                    if array.data_type() == key_type { Ok(array) } else { cast(&array, key_type) }
                },
            )
            .collect::<Result<_, _>>()
            .map_err(Error::arrow("gather keys"))
    }

    /// How many bytes a row with so many words takes in a partition, about.
    pub(super) fn record_bytes(&self, pair: &DumpPair<'_>, words: usize) -> u64 {
        let key_bytes = match self {
            Self::Narrow { .. } => 8,
            Self::Wide { .. } => {
                let bytes: u64 = pair
                    .sides()
                    .into_iter()
                    .flat_map(|table| {
                        (0..table.groups().len()).flat_map(move |group| {
                            let (file, index) = (table.file(group), table.groups()[group].index);
                            let positions = table.positions(group, &pair.dumps.key);
                            positions.into_iter().map(move |root| file.column_bytes(index, root))
                        })
                    })
                    .sum();
                24 + bytes / pair.rows().max(1)
            }
        };
        key_bytes + 8 * words as u64
    }
}

/// Spreads an id's bits, for choosing a place by some of them. No two ids are mixed to one number.
pub(super) fn mixed(id: u64) -> u64 {
    let mixed = id.wrapping_mul(FACTORS[0]);
    let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(FACTORS[1]);
    mixed ^ (mixed >> 32)
}

/// The id that is mixed to this.
pub(super) fn unmixed(mixed: u64) -> u64 {
    let id = (mixed ^ (mixed >> 32)).wrapping_mul(const { inverse(FACTORS[1]) });
    (id ^ (id >> 32)).wrapping_mul(const { inverse(FACTORS[0]) })
}

/// Odd, with about as many ones as zeros.
const FACTORS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93];

/// What an odd number is to be multiplied by for 1. Each step makes twice as many of its bits right, and the number itself has three.
const fn inverse(odd: u64) -> u64 {
    let mut inverse = odd;
    let mut right_bits = 3;
    while right_bits < u64::BITS {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(inverse)));
        right_bits *= 2;
    }
    inverse
}

/// The number that a signed key's id stands for.
pub(super) fn number_of_id(id: u64) -> i64 {
    (id ^ (1 << 63)) as i64
}

/// Whether keys of this type are 64 bits that Arrow makes of a number without more ado.
pub(super) fn is_number(key_type: &DataType) -> bool {
    key_type.is_integer()
        || matches!(key_type, DataType::Timestamp(_, _) | DataType::Date64 | DataType::Time64(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_mixed_is_found_again() {
        let mut random = fastrand::Rng::with_seed(11);
        let ids = (0..1000).chain([u64::MAX, 1 << 63, 1 << 32]).chain((0..1000).map(|_| random.u64(..)));
        ids.into_iter().for_each(|id| assert_eq!(unmixed(mixed(id)), id));
    }
}
