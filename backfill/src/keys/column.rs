//! One key column in the representation that compares fastest.

use std::cmp::Ordering;

use arrow::array::cast::AsArray;
use arrow::array::types::{Decimal128Type, Decimal256Type, Int64Type, UInt64Type};
use arrow::array::{Array, ArrayRef};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, i256};

use crate::error::{Error, Result};

/// How many values one comparison of memory takes in while it looks for the end of an equal run: large enough
/// that the comparison is vectorised, small enough that little is compared twice when the run ends inside it.
const EQUAL_STRIDE: usize = 32;

/// A key column. Both sides of a scan have the same variant, because their [`key_type`]s are equal.
#[derive(Debug, Clone)]
pub(super) enum KeyColumn {
    Signed(ScalarBuffer<i64>),
    Unsigned(ScalarBuffer<u64>),
    Decimal(ScalarBuffer<i128>),
    DecimalWide(ScalarBuffer<i256>),
    Fixed { width: usize, values: Buffer },
    Bytes { offsets: OffsetBuffer<i32>, values: Buffer },
}

/// The type that keys of this type are compared as, or `None` if it cannot be a key.
///
/// Floating point is left out on purpose: databases do not agree on the order of NaN and of the two zeros.
pub(crate) fn key_type(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::Boolean => DataType::Int64,
        DataType::UInt64 => DataType::UInt64,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) => {
            DataType::Decimal128(38, *scale)
        }
        DataType::Decimal256(_, scale) => DataType::Decimal256(76, *scale),
        DataType::FixedSizeBinary(_)
        | DataType::Date32
        | DataType::Date64
        | DataType::Time32(_)
        | DataType::Time64(_) => data_type.clone(),
        // A zone's name is how an instant is shown, not which instant it is.
        DataType::Timestamp(unit, zone) => DataType::Timestamp(*unit, zone.as_ref().map(|_| "UTC".into())),
        DataType::Dictionary(_, values) => return key_type(values),
        _ => return None,
    })
}

impl KeyColumn {
    pub(super) fn new(array: &ArrayRef, name: &str) -> Result<Self> {
        let unsupported =
            || Error::KeyType { column: name.to_owned(), data_type: array.data_type().to_string() };
        let compared_as = key_type(array.data_type()).ok_or_else(unsupported)?;
        Ok(match &compared_as {
            DataType::UInt64 => Self::Unsigned(array.as_primitive::<UInt64Type>().values().clone()),
            DataType::Decimal128(_, _) => Self::Decimal(
                converted(array, &compared_as)?.as_primitive::<Decimal128Type>().values().clone(),
            ),
            DataType::Decimal256(_, _) => Self::DecimalWide(
                converted(array, &compared_as)?.as_primitive::<Decimal256Type>().values().clone(),
            ),
            DataType::FixedSizeBinary(width) => {
                let bytes = array.as_fixed_size_binary();
                Self::Fixed { width: *width as usize, values: bytes.values().clone() }
            }
            DataType::Utf8 => {
                let array = converted(array, &compared_as)?;
                let text = array.as_string::<i32>();
                Self::Bytes { offsets: text.offsets().clone(), values: text.values().clone() }
            }
            DataType::Binary => {
                let array = converted(array, &compared_as)?;
                let bytes = array.as_binary::<i32>();
                Self::Bytes { offsets: bytes.offsets().clone(), values: bytes.values().clone() }
            }
            _ => {
                let array = converted(array, &DataType::Int64)?;
                Self::Signed(array.as_primitive::<Int64Type>().values().clone())
            }
        })
    }

    pub(super) fn compare(&self, row: usize, other: &Self, other_row: usize) -> Ordering {
        match (self, other) {
            (Self::Signed(left), Self::Signed(right)) => left[row].cmp(&right[other_row]),
            (Self::Unsigned(left), Self::Unsigned(right)) => left[row].cmp(&right[other_row]),
            (Self::Decimal(left), Self::Decimal(right)) => left[row].cmp(&right[other_row]),
            (Self::DecimalWide(left), Self::DecimalWide(right)) => left[row].cmp(&right[other_row]),
            (left, right) => left.bytes(row).cmp(right.bytes(other_row)),
        }
    }

    pub(super) fn equal_prefix(&self, row: usize, other: &Self, other_row: usize, max: usize) -> usize {
        match (self, other) {
            (Self::Signed(left), Self::Signed(right)) => equal_values(&left[row..], &right[other_row..], max),
            (Self::Unsigned(left), Self::Unsigned(right)) => {
                equal_values(&left[row..], &right[other_row..], max)
            }
            (Self::Decimal(left), Self::Decimal(right)) => {
                equal_values(&left[row..], &right[other_row..], max)
            }
            (Self::DecimalWide(left), Self::DecimalWide(right)) => {
                equal_values(&left[row..], &right[other_row..], max)
            }
            (left, right) => {
                let strides = (0..max / EQUAL_STRIDE)
                    .take_while(|stride| {
                        let offset = stride * EQUAL_STRIDE;
                        left.stride(row + offset) == right.stride(other_row + offset)
                    })
                    .count();
                let start = strides * EQUAL_STRIDE;
                start + (start..max).take_while(|i| left.bytes(row + i) == right.bytes(other_row + i)).count()
            }
        }
    }

    pub(super) fn ascends_strictly(&self) -> bool {
        match self {
            Self::Signed(values) => {
                ascend_near(values, |value| (value as u64).wrapping_add(1 << 62)) || ascend(values)
            }
            Self::Unsigned(values) => ascend_near(values, |value| value) || ascend(values),
            Self::Decimal(values) => ascend(values),
            Self::DecimalWide(values) => ascend(values),
            Self::Fixed { width, values } => {
                *width > 0 && values.chunks_exact(*width).is_sorted_by(|left, right| left < right)
            }
            Self::Bytes { offsets, .. } => {
                (1..offsets.len() - 1).all(|row| self.bytes(row - 1) < self.bytes(row))
            }
        }
    }

    pub(super) fn slice(&self, start: usize, rows: usize) -> Self {
        match self {
            Self::Signed(values) => Self::Signed(values.slice(start, rows)),
            Self::Unsigned(values) => Self::Unsigned(values.slice(start, rows)),
            Self::Decimal(values) => Self::Decimal(values.slice(start, rows)),
            Self::DecimalWide(values) => Self::DecimalWide(values.slice(start, rows)),
            Self::Fixed { width, values } => {
                Self::Fixed { width: *width, values: values.slice_with_length(start * width, rows * width) }
            }
            Self::Bytes { offsets, values } => {
                Self::Bytes { offsets: offsets.slice(start, rows), values: values.clone() }
            }
        }
    }

    /// The bytes of one value; nothing for a number, which never gets here.
    fn bytes(&self, row: usize) -> &[u8] {
        match self {
            Self::Fixed { width, values } => &values[row * width..(row + 1) * width],
            Self::Bytes { offsets, values } => &values[offsets[row] as usize..offsets[row + 1] as usize],
            Self::Signed(_) | Self::Unsigned(_) | Self::Decimal(_) | Self::DecimalWide(_) => &[],
        }
    }

    /// The bytes of [`EQUAL_STRIDE`] values and where each ends in them: equal for equal values, and for no others.
    fn stride(&self, row: usize) -> (&[u8], [i32; EQUAL_STRIDE]) {
        let mut ends = [0; EQUAL_STRIDE];
        match self {
            Self::Fixed { width, values } => (&values[row * width..(row + EQUAL_STRIDE) * width], ends),
            Self::Bytes { offsets, values } => {
                let start = offsets[row];
                for (end, offset) in ends.iter_mut().zip(&offsets[row + 1..]) {
                    *end = offset - start;
                }
                (&values[start as usize..offsets[row + EQUAL_STRIDE] as usize], ends)
            }
            Self::Signed(_) | Self::Unsigned(_) | Self::Decimal(_) | Self::DecimalWide(_) => (&[], ends),
        }
    }
}

/// How many of the first `max` values are pairwise equal before the first that is not.
fn equal_values<T: PartialEq>(left: &[T], right: &[T], max: usize) -> usize {
    let (left, right) = (&left[..max], &right[..max]);
    let strides = left
        .chunks_exact(EQUAL_STRIDE)
        .zip(right.chunks_exact(EQUAL_STRIDE))
        .take_while(|(left, right)| left == right)
        .count();
    let start = strides * EQUAL_STRIDE;
    start + left[start..].iter().zip(&right[start..]).take_while(|(left, right)| left == right).count()
}

/// Without an early exit, because the loop then runs on whole vectors, and almost always to its end.
fn ascend<T: Ord + Copy>(values: &[T]) -> bool {
    let next = values.get(1..).unwrap_or_default();
    values.iter().zip(next).fold(true, |ascends, (left, right)| ascends & (left < right))
}

/// Whether values ascend whose words all have their top bit clear; no if one has not. Comparing 64 bits takes more than a vector
/// instruction on the processors that programs are built for; subtracting them does not, and the top bit of the difference says
/// as much.
fn ascend_near<T: Copy>(values: &[T], word: impl Fn(T) -> u64) -> bool {
    let next = values.get(1..).unwrap_or_default();
    let bits = values.iter().zip(next).fold(0, |bits, (left, right)| {
        let (left, right) = (word(*left), word(*right));
        bits | left | right.wrapping_sub(left).wrapping_sub(1)
    });
    let last = values.last().map_or(0, |last| word(*last));
    (bits | last) >> 63 == 0
}

fn converted(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    if array.data_type() == to {
        return Ok(array.clone());
    }
    // Dates and times convert to integers through their own width only.
    let array = match array.data_type() {
        DataType::Date32 | DataType::Time32(_) => {
            cast(array, &DataType::Int32).map_err(Error::arrow("convert a key column"))?
        }
        _ => array.clone(),
    };
    cast(&array, to).map_err(Error::arrow("convert a key column"))
}
