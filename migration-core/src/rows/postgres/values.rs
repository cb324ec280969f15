//! The values of one column in Postgres' binary format, into an Arrow array.
//!
//! Values go straight into the vectors that become the array's buffers; a bitmap of NULLs exists only where there are NULLs. A
//! column is matched once for many values, so that what is done for each of them is a loop that knows its type.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, Date32Array, FixedSizeBinaryArray,
    Float64Array, Int64Array, NullBufferBuilder, StringArray, TimestampMicrosecondArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::DataType;

use super::numeric::spell;
use crate::catalog::ColumnKind;

/// Postgres counts days from 2000-01-01, Arrow from 1970-01-01.
const EPOCH_DAYS: i32 = 10_957;

/// The same in microseconds.
const EPOCH_MICROSECONDS: i64 = EPOCH_DAYS as i64 * 86_400 * 1_000_000;

/// What stands before the text of JSON in binary.
const JSONB_VERSION: u8 = 1;

const UUID_BYTES: usize = 16;

/// In which form values arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// In the form in which they travel on: the server has turned them into it.
    Travelling,
    /// In their own type's binary form, which costs the server least; they are turned here.
    Raw,
}

/// Why a value cannot be taken.
#[derive(Debug)]
pub(super) enum Fault {
    /// Arrow has no such value.
    Unfit(&'static str),
    /// It is not of the length that its type has.
    Malformed,
}

/// The values of a column so far.
pub(super) struct Values {
    of: Of,
    nulls: NullBufferBuilder,
}

enum Of {
    Bool(BooleanBufferBuilder),
    Int(Vec<i64>),
    Float(Vec<f64>),
    /// Text, of which a whole batch is checked at once: many times faster than value by value.
    Text(Pieces),
    /// An exact number in binary, which becomes text.
    Numeric(Pieces),
    /// JSON in binary, which is text behind a version.
    Json(Pieces),
    Bytes(Pieces),
    Uuid(Vec<u8>),
    Date(Vec<i32>),
    Timestamp(Vec<i64>),
}

/// Values without a width, one after the other.
struct Pieces {
    /// Where each ends, behind a zero.
    ends: Vec<i32>,
    bytes: Vec<u8>,
}

impl Values {
    /// Room for so many values, of so many bytes together where their type has no width.
    pub(super) fn with_room(kind: ColumnKind, form: Form, rows: usize, bytes: usize) -> Values {
        let pieces = || Pieces::with_room(rows, bytes);
        let of = match kind {
            ColumnKind::Numeric if form == Form::Raw => Of::Numeric(pieces()),
            ColumnKind::Json if form == Form::Raw => Of::Json(pieces()),
            ColumnKind::Bool => Of::Bool(BooleanBufferBuilder::new(rows)),
            ColumnKind::Int => Of::Int(Vec::with_capacity(rows)),
            ColumnKind::Float => Of::Float(Vec::with_capacity(rows)),
            ColumnKind::Bytes => Of::Bytes(pieces()),
            ColumnKind::Uuid => Of::Uuid(Vec::with_capacity(rows * UUID_BYTES)),
            ColumnKind::Date => Of::Date(Vec::with_capacity(rows)),
            ColumnKind::Timestamp | ColumnKind::TimestampTz => Of::Timestamp(Vec::with_capacity(rows)),
            ColumnKind::Text | ColumnKind::Json | ColumnKind::Numeric | ColumnKind::Other => {
                Of::Text(pieces())
            }
        };
        Values { of, nulls: NullBufferBuilder::new(rows) }
    }

    /// How many bytes its values have together, where their type has no width.
    pub(super) fn bytes(&self) -> usize {
        match &self.of {
            Of::Text(pieces) | Of::Numeric(pieces) | Of::Json(pieces) | Of::Bytes(pieces) => {
                pieces.bytes.len()
            }
            _ => 0,
        }
    }

    /// Whether one of them is NULL.
    pub(super) fn has_nulls(&self) -> bool {
        self.nulls.as_slice().is_some()
    }

    /// Adds values; NULL is `None`.
    #[inline]
    pub(super) fn extend<'a>(&mut self, values: impl Iterator<Item = Option<&'a [u8]>>) -> Result<(), Fault> {
        let nulls = &mut self.nulls;
        match &mut self.of {
            Of::Bool(bits) => fill(values, nulls, |value| {
                bits.append(value.map_or(Ok([0]), fixed)? != [0]);
                Ok(())
            }),
            Of::Int(numbers) => fill_fixed(values, nulls, numbers, integer),
            Of::Float(numbers) => fill_fixed(values, nulls, numbers, float),
            Of::Date(days) => {
                fill_fixed(values, nulls, days, |value| date(i32::from_be_bytes(fixed(value)?)))
            }
            Of::Timestamp(times) => {
                fill_fixed(values, nulls, times, |value| timestamp(i64::from_be_bytes(fixed(value)?)))
            }
            Of::Uuid(bytes) => fill(values, nulls, |value| {
                bytes.extend_from_slice(&value.map_or(Ok([0; UUID_BYTES]), fixed)?);
                Ok(())
            }),
            Of::Text(pieces) | Of::Bytes(pieces) => fill_pieces(values, nulls, pieces, |value, bytes| {
                bytes.extend_from_slice(value);
                Ok(())
            }),
            Of::Json(pieces) => fill_pieces(values, nulls, pieces, |value, bytes| {
                let [JSONB_VERSION, json @ ..] = value else { return Err(Fault::Malformed) };
                bytes.extend_from_slice(json);
                Ok(())
            }),
            Of::Numeric(pieces) => {
                fill_pieces(values, nulls, pieces, |value, bytes| spell(value, bytes).ok_or(Fault::Malformed))
            }
        }
    }

    /// All values as an array of this type.
    pub(super) fn finish(mut self, data_type: &DataType) -> Result<ArrayRef, Fault> {
        let nulls = self.nulls.finish();
        Ok(match self.of {
            Of::Bool(mut bits) => Arc::new(BooleanArray::new(bits.finish(), nulls)),
            Of::Int(numbers) => Arc::new(Int64Array::new(numbers.into(), nulls)),
            Of::Float(numbers) => Arc::new(Float64Array::new(numbers.into(), nulls)),
            Of::Date(days) => Arc::new(Date32Array::new(days.into(), nulls)),
            Of::Timestamp(times) => {
                let zone = match data_type {
                    DataType::Timestamp(_, zone) => zone.clone(),
                    _ => None,
                };
                Arc::new(TimestampMicrosecondArray::new(times.into(), nulls).with_timezone_opt(zone))
            }
            Of::Uuid(bytes) => Arc::new(
                FixedSizeBinaryArray::try_new(UUID_BYTES as i32, Buffer::from_vec(bytes), nulls)
                    .map_err(|_| Fault::Malformed)?,
            ),
            Of::Bytes(pieces) => {
                let (ends, bytes) = pieces.buffers();
                Arc::new(BinaryArray::new(ends, bytes, nulls))
            }
            Of::Text(pieces) | Of::Numeric(pieces) | Of::Json(pieces) => Arc::new(text(pieces, nulls)?),
        })
    }
}

impl Pieces {
    fn with_room(rows: usize, bytes: usize) -> Pieces {
        let mut ends = Vec::with_capacity(rows + 1);
        ends.push(0);
        Pieces { ends, bytes: Vec::with_capacity(bytes) }
    }

    fn buffers(self) -> (OffsetBuffer<i32>, Buffer) {
        (OffsetBuffer::new(self.ends.into()), Buffer::from_vec(self.bytes))
    }
}

/// Adds each value, or an empty one for NULL.
#[inline(always)]
fn fill<'a>(
    values: impl Iterator<Item = Option<&'a [u8]>>,
    nulls: &mut NullBufferBuilder,
    mut add: impl FnMut(Option<&'a [u8]>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    // Those without a NULL between them are counted, not noted one by one.
    let mut present = 0;
    for value in values {
        add(value)?;
        match value {
            Some(_) => present += 1,
            None => {
                nulls.append_n_non_nulls(std::mem::take(&mut present));
                nulls.append_null();
            }
        }
    }
    nulls.append_n_non_nulls(present);
    Ok(())
}

#[inline(always)]
fn fill_fixed<'a, T: Default>(
    values: impl Iterator<Item = Option<&'a [u8]>>,
    nulls: &mut NullBufferBuilder,
    into: &mut Vec<T>,
    read: impl Fn(&'a [u8]) -> Result<T, Fault>,
) -> Result<(), Fault> {
    fill(values, nulls, |value| {
        into.push(match value {
            Some(value) => read(value)?,
            None => T::default(),
        });
        Ok(())
    })
}

#[inline(always)]
fn fill_pieces<'a>(
    values: impl Iterator<Item = Option<&'a [u8]>>,
    nulls: &mut NullBufferBuilder,
    pieces: &mut Pieces,
    read: impl Fn(&'a [u8], &mut Vec<u8>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    fill(values, nulls, |value| {
        if let Some(value) = value {
            read(value, &mut pieces.bytes)?;
        }
        // Batches are closed, or refused, before they outgrow Arrow's offsets.
        pieces.ends.push(pieces.bytes.len() as i32);
        Ok(())
    })
}

#[inline(always)]
fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Fault> {
    bytes.try_into().map_err(|_| Fault::Malformed)
}

/// Only a database in SQL_ASCII can send anything else than UTF-8.
fn text(pieces: Pieces, nulls: Option<NullBuffer>) -> Result<StringArray, Fault> {
    let (ends, bytes) = pieces.buffers();
    StringArray::try_new(ends, bytes, nulls).map_err(|_| Fault::Unfit("text that is not UTF-8"))
}

/// An integer of two, four or eight bytes.
#[inline(always)]
fn integer(bytes: &[u8]) -> Result<i64, Fault> {
    match bytes.len() {
        8 => Ok(i64::from_be_bytes(fixed(bytes)?)),
        4 => Ok(i32::from_be_bytes(fixed(bytes)?).into()),
        _ => Ok(i16::from_be_bytes(fixed(bytes)?).into()),
    }
}

/// A floating point number of four or eight bytes.
#[inline(always)]
fn float(bytes: &[u8]) -> Result<f64, Fault> {
    match bytes.len() {
        8 => Ok(f64::from_be_bytes(fixed(bytes)?)),
        _ => Ok(f32::from_be_bytes(fixed(bytes)?).into()),
    }
}

/// Days since 1970. The two infinities are the two ends of the range in both formats.
fn date(days: i32) -> Result<i32, Fault> {
    match days {
        i32::MIN | i32::MAX => Ok(days),
        // Postgres' last year is 5874897, so that this cannot overflow with a well-behaved server.
        _ => days.checked_add(EPOCH_DAYS).ok_or(Fault::Malformed),
    }
}

/// Microseconds since 1970. The two infinities are the two ends of the range in both formats.
fn timestamp(microseconds: i64) -> Result<i64, Fault> {
    match microseconds {
        i64::MIN | i64::MAX => Ok(microseconds),
        _ => microseconds.checked_add(EPOCH_MICROSECONDS).ok_or(Fault::Unfit("a time after the year 294246")),
    }
}

#[cfg(test)]
mod tests {
    use std::iter::once;

    use arrow::array::{Array, AsArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn values(kind: ColumnKind, form: Form) -> Values {
        Values::with_room(kind, form, 0, 0)
    }

    #[test]
    fn infinities_stay_infinite() {
        for end in [i32::MIN, i32::MAX] {
            assert_eq!(date(end).ok(), Some(end));
        }
        for end in [i64::MIN, i64::MAX] {
            assert_eq!(timestamp(end).ok(), Some(end));
        }
        assert_eq!(date(0).ok(), Some(10_957));
        assert_eq!(timestamp(0).ok(), Some(946_684_800_000_000));
        assert!(matches!(timestamp(i64::MAX - 1), Err(Fault::Unfit(_))));
    }

    #[test]
    fn values_of_a_wrong_length_are_refused() {
        for form in [Form::Travelling, Form::Raw] {
            let push = |kind, bytes: &[u8]| values(kind, form).extend(once(Some(bytes)));
            for (kind, bytes) in [
                (ColumnKind::Bool, &[0; 2][..]),
                (ColumnKind::Int, &[0; 5]),
                (ColumnKind::Float, &[0; 2]),
                (ColumnKind::Uuid, &[0; 15]),
                (ColumnKind::Date, &[0; 8]),
                (ColumnKind::Timestamp, &[0; 4]),
            ] {
                assert!(matches!(push(kind, bytes), Err(Fault::Malformed)), "{kind:?}");
            }
            let mut text = values(ColumnKind::Text, form);
            assert!(text.extend(once(Some(&[0xff][..]))).is_ok());
            assert!(matches!(text.finish(&DataType::Utf8), Err(Fault::Unfit(_))));
        }
        let push = |kind, bytes: &'static [u8]| values(kind, Form::Raw).extend(once(Some(bytes)));
        assert!(matches!(push(ColumnKind::Json, b"\x02{}"), Err(Fault::Malformed)));
        assert!(matches!(push(ColumnKind::Json, b""), Err(Fault::Malformed)));
        assert!(matches!(push(ColumnKind::Numeric, b"12"), Err(Fault::Malformed)));
    }

    #[test]
    fn a_character_that_two_values_share_is_no_text() {
        let mut text = values(ColumnKind::Text, Form::Raw);
        let halves = "é".as_bytes().chunks(1).map(Some);
        text.extend(halves).unwrap();
        assert!(matches!(text.finish(&DataType::Utf8), Err(Fault::Unfit(_))));
    }

    #[test]
    fn nulls_are_where_they_were() {
        let mut texts = values(ColumnKind::Text, Form::Raw);
        texts.extend([Some(&b"a"[..]), None, Some(b""), Some("é".as_bytes()), None].into_iter()).unwrap();
        assert!(texts.has_nulls());
        let texts = texts.finish(&DataType::Utf8).unwrap();
        let expected = [Some("a"), None, Some(""), Some("é"), None];
        assert_eq!(texts.as_string::<i32>().iter().collect::<Vec<_>>(), expected);

        let mut numbers = values(ColumnKind::Int, Form::Raw);
        numbers.extend([Some(&7_i32.to_be_bytes()[..]), Some(&(-1_i16).to_be_bytes())].into_iter()).unwrap();
        assert!(!numbers.has_nulls());
        numbers.extend([None, Some(&i64::MIN.to_be_bytes()[..])].into_iter()).unwrap();
        let numbers = numbers.finish(&DataType::Int64).unwrap();
        let expected = [Some(7), Some(-1), None, Some(i64::MIN)];
        assert_eq!(numbers.as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), expected);
        assert_eq!(numbers.null_count(), 1);
    }
}
