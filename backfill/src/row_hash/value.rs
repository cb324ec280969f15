//! The hash of single values, a column at a time.

use arrow::array::cast::AsArray;
use arrow::array::types::{
    ArrowPrimitiveType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType,
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, IntervalDayTimeType,
    IntervalMonthDayNanoType, IntervalYearMonthType, Time32MillisecondType, Time32SecondType,
    Time64MicrosecondType, Time64NanosecondType, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::array::{Array, ArrayRef, StructArray};
use arrow::datatypes::{DataType, IntervalUnit, TimeUnit, i256};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

const NULL: u64 = 0;
const BOOLEAN: u64 = 1;
const INTEGER: u64 = 2;
const INTEGER_ABOVE_I64: u64 = 3;
const FLOAT: u64 = 4;
const DECIMAL: u64 = 5;
const TEXT: u64 = 6;
const BYTES: u64 = 7;
const DATE: u64 = 8;
const TIME: u64 = 9;
const TIMESTAMP: u64 = 10;
const TIMESTAMP_ZONED: u64 = 11;
const INTERVAL: u64 = 12;
const DURATION: u64 = 13;
const LIST: u64 = 14;
const STRUCT: u64 = 15;
const MAP: u64 = 16;

/// A type that has no canonical encoding is handed back for the error.
type Hashes = Result<Vec<u64>, DataType>;

/// Where the hashes of the column at `position` begin.
pub(super) fn column_base(position: usize) -> u64 {
    let mut bytes = *b"crossfade-row-hash-1\0\0\0\0";
    bytes[20..].copy_from_slice(&index_bytes(position));
    xxh3_64(&bytes)
}

/// The hash of each value of a column whose hashes begin at `base`.
pub(super) fn hashes(array: &dyn Array, base: u64) -> Hashes {
    Ok(match array.data_type() {
        DataType::Null => vec![xxh3_64_with_seed(&[], base ^ NULL); array.len()],
        DataType::Boolean => {
            let values = array.as_boolean();
            each(array, base, |i| hash(base, BOOLEAN, &[u8::from(values.value(i))]))
        }
        DataType::Int8 => integers::<Int8Type>(array, base),
        DataType::Int16 => integers::<Int16Type>(array, base),
        DataType::Int32 => integers::<Int32Type>(array, base),
        DataType::Int64 => integers::<Int64Type>(array, base),
        DataType::UInt8 => integers::<UInt8Type>(array, base),
        DataType::UInt16 => integers::<UInt16Type>(array, base),
        DataType::UInt32 => integers::<UInt32Type>(array, base),
        DataType::UInt64 => primitives::<UInt64Type>(array, base, |value| match i64::try_from(value) {
            Ok(value) => hash(base, INTEGER, &value.to_le_bytes()),
            Err(_) => hash(base, INTEGER_ABOVE_I64, &value.to_le_bytes()),
        }),
        DataType::Float16 => primitives::<Float16Type>(array, base, |value| float(base, value.to_f64())),
        DataType::Float32 => primitives::<Float32Type>(array, base, |value| float(base, value.into())),
        DataType::Float64 => primitives::<Float64Type>(array, base, |value| float(base, value)),
        DataType::Decimal32(_, scale) => {
            primitives::<Decimal32Type>(array, base, |value| decimal(base, value.into(), *scale))
        }
        DataType::Decimal64(_, scale) => {
            primitives::<Decimal64Type>(array, base, |value| decimal(base, value.into(), *scale))
        }
        DataType::Decimal128(_, scale) => {
            primitives::<Decimal128Type>(array, base, |value| decimal(base, value, *scale))
        }
        DataType::Decimal256(_, scale) => {
            primitives::<Decimal256Type>(array, base, |value| decimal_wide(base, value, *scale))
        }
        DataType::Utf8 => {
            let values = array.as_string::<i32>();
            each(array, base, |i| hash(base, TEXT, values.value(i).as_bytes()))
        }
        DataType::LargeUtf8 => {
            let values = array.as_string::<i64>();
            each(array, base, |i| hash(base, TEXT, values.value(i).as_bytes()))
        }
        DataType::Utf8View => {
            let values = array.as_string_view();
            each(array, base, |i| hash(base, TEXT, values.value(i).as_bytes()))
        }
        DataType::Binary => {
            let values = array.as_binary::<i32>();
            each(array, base, |i| hash(base, BYTES, values.value(i)))
        }
        DataType::LargeBinary => {
            let values = array.as_binary::<i64>();
            each(array, base, |i| hash(base, BYTES, values.value(i)))
        }
        DataType::BinaryView => {
            let values = array.as_binary_view();
            each(array, base, |i| hash(base, BYTES, values.value(i)))
        }
        DataType::FixedSizeBinary(_) => {
            let values = array.as_fixed_size_binary();
            each(array, base, |i| hash(base, BYTES, values.value(i)))
        }
        DataType::Date32 => primitives::<Date32Type>(array, base, |value| date(base, value.into())),
        DataType::Date64 => {
            primitives::<Date64Type>(array, base, |value| date(base, value.div_euclid(24 * 60 * 60 * 1_000)))
        }
        DataType::Time32(_) | DataType::Time64(_) => times(array, base),
        DataType::Timestamp(unit, zone) => {
            let tag = if zone.is_some() { TIMESTAMP_ZONED } else { TIMESTAMP };
            match unit {
                TimeUnit::Second => instants::<TimestampSecondType>(array, base, tag, 1),
                TimeUnit::Millisecond => instants::<TimestampMillisecondType>(array, base, tag, 1_000),
                TimeUnit::Microsecond => instants::<TimestampMicrosecondType>(array, base, tag, 1_000_000),
                TimeUnit::Nanosecond => instants::<TimestampNanosecondType>(array, base, tag, 1_000_000_000),
            }
        }
        DataType::Duration(unit) => match unit {
            TimeUnit::Second => instants::<DurationSecondType>(array, base, DURATION, 1),
            TimeUnit::Millisecond => instants::<DurationMillisecondType>(array, base, DURATION, 1_000),
            TimeUnit::Microsecond => instants::<DurationMicrosecondType>(array, base, DURATION, 1_000_000),
            TimeUnit::Nanosecond => instants::<DurationNanosecondType>(array, base, DURATION, 1_000_000_000),
        },
        DataType::Interval(unit) => intervals(array, base, *unit),
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            let ends: Vec<usize> = lists.offsets().iter().map(|end| *end as usize).collect();
            elements(array, base, LIST, lists.values(), |i| ends[i]..ends[i + 1])?
        }
        DataType::LargeList(_) => {
            let lists = array.as_list::<i64>();
            let ends: Vec<usize> = lists.offsets().iter().map(|end| *end as usize).collect();
            elements(array, base, LIST, lists.values(), |i| ends[i]..ends[i + 1])?
        }
        DataType::FixedSizeList(_, _) => {
            let lists = array.as_fixed_size_list();
            let width = lists.value_length() as usize;
            elements(array, base, LIST, lists.values(), |i| i * width..(i + 1) * width)?
        }
        DataType::Struct(_) => structs(array.as_struct(), base)?,
        DataType::Map(_, _) => {
            let maps = array.as_map();
            let entries: ArrayRef = std::sync::Arc::new(maps.entries().clone());
            let ends: Vec<usize> = maps.offsets().iter().map(|end| *end as usize).collect();
            elements(array, base, MAP, &entries, |i| ends[i]..ends[i + 1])?
        }
        DataType::Dictionary(_, _) => dictionary(array, base)?,
        other => return Err(other.clone()),
    })
}

/// Hashes `of(row)` where the row is not NULL, and NULL where it is; `of` must be defined for all rows.
fn each(array: &dyn Array, base: u64, of: impl Fn(usize) -> u64) -> Vec<u64> {
    // What lies where a NULL is has a hash too, which is replaced: one loop, without a question in it, is the quickest.
    let mut hashes: Vec<u64> = (0..array.len()).map(of).collect();
    if let Some(nulls) = array.nulls().filter(|nulls| nulls.null_count() > 0) {
        let null = xxh3_64_with_seed(&[], base ^ NULL);
        for (hash, is_valid) in hashes.iter_mut().zip(nulls) {
            if !is_valid {
                *hash = null;
            }
        }
    }
    hashes
}

fn primitives<T: ArrowPrimitiveType>(
    array: &dyn Array,
    base: u64,
    of: impl Fn(T::Native) -> u64,
) -> Vec<u64> {
    let values = array.as_primitive::<T>().values();
    each(array, base, |i| of(values[i]))
}

fn integers<T: ArrowPrimitiveType>(array: &dyn Array, base: u64) -> Vec<u64>
where
    T::Native: Into<i64>,
{
    primitives::<T>(array, base, |value| hash(base, INTEGER, &value.into().to_le_bytes()))
}

/// In line, so that payloads whose length is known go straight to what XXH3 does with that many bytes.
#[inline(always)]
fn hash(base: u64, tag: u64, payload: &[u8]) -> u64 {
    xxh3_64_with_seed(payload, base ^ tag)
}

fn float(base: u64, value: f64) -> u64 {
    // Adding 0.0 turns -0.0 into 0.0 and changes nothing else.
    let bits = if value.is_nan() { 0x7ff8_0000_0000_0000 } else { (value + 0.0).to_bits() };
    hash(base, FLOAT, &bits.to_le_bytes())
}

fn decimal(base: u64, mut coefficient: i128, mut scale: i8) -> u64 {
    if coefficient == 0 {
        return decimal_payload(base, i256::ZERO, 0);
    }
    while coefficient % 10 == 0 && scale > i8::MIN {
        coefficient /= 10;
        scale -= 1;
    }
    decimal_payload(base, i256::from_i128(coefficient), scale)
}

fn decimal_wide(base: u64, mut coefficient: i256, mut scale: i8) -> u64 {
    let ten = i256::from_i128(10);
    if coefficient == i256::ZERO {
        return decimal_payload(base, i256::ZERO, 0);
    }
    while coefficient.wrapping_rem(ten) == i256::ZERO && scale > i8::MIN {
        coefficient = coefficient.wrapping_div(ten);
        scale -= 1;
    }
    decimal_payload(base, coefficient, scale)
}

fn decimal_payload(base: u64, coefficient: i256, scale: i8) -> u64 {
    let mut payload = [0; 33];
    payload[..32].copy_from_slice(&coefficient.to_le_bytes());
    payload[32..].copy_from_slice(&scale.to_le_bytes());
    hash(base, DECIMAL, &payload)
}

fn date(base: u64, days: i64) -> u64 {
    hash(base, DATE, &days.to_le_bytes())
}

fn times(array: &dyn Array, base: u64) -> Vec<u64> {
    let time = |nanoseconds: i64| hash(base, TIME, &nanoseconds.to_le_bytes());
    match array.data_type() {
        DataType::Time32(TimeUnit::Second) => {
            primitives::<Time32SecondType>(array, base, |value| time(i64::from(value) * 1_000_000_000))
        }
        DataType::Time32(_) => {
            primitives::<Time32MillisecondType>(array, base, |value| time(i64::from(value) * 1_000_000))
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            primitives::<Time64MicrosecondType>(array, base, |value| time(value.wrapping_mul(1_000)))
        }
        _ => primitives::<Time64NanosecondType>(array, base, time),
    }
}

/// Seconds and nanoseconds rather than nanoseconds alone: the whole range of every unit fits.
fn instants<T: ArrowPrimitiveType<Native = i64>>(
    array: &dyn Array,
    base: u64,
    tag: u64,
    per_second: i64,
) -> Vec<u64> {
    let nanoseconds_each = 1_000_000_000 / per_second;
    primitives::<T>(array, base, |value| {
        let mut payload = [0; 12];
        payload[..8].copy_from_slice(&value.div_euclid(per_second).to_le_bytes());
        let nanoseconds = (value.rem_euclid(per_second) * nanoseconds_each) as u32;
        payload[8..].copy_from_slice(&nanoseconds.to_le_bytes());
        hash(base, tag, &payload)
    })
}

fn intervals(array: &dyn Array, base: u64, unit: IntervalUnit) -> Vec<u64> {
    let interval = |months: i32, days: i32, nanoseconds: i64| {
        let mut payload = [0; 16];
        payload[..4].copy_from_slice(&months.to_le_bytes());
        payload[4..8].copy_from_slice(&days.to_le_bytes());
        payload[8..].copy_from_slice(&nanoseconds.to_le_bytes());
        hash(base, INTERVAL, &payload)
    };
    match unit {
        IntervalUnit::YearMonth => {
            primitives::<IntervalYearMonthType>(array, base, |months| interval(months, 0, 0))
        }
        IntervalUnit::DayTime => primitives::<IntervalDayTimeType>(array, base, |value| {
            interval(0, value.days, i64::from(value.milliseconds) * 1_000_000)
        }),
        IntervalUnit::MonthDayNano => primitives::<IntervalMonthDayNanoType>(array, base, |value| {
            interval(value.months, value.days, value.nanoseconds)
        }),
    }
}

fn elements(
    array: &dyn Array,
    base: u64,
    tag: u64,
    values: &ArrayRef,
    range: impl Fn(usize) -> std::ops::Range<usize>,
) -> Hashes {
    let element_hashes = hashes(values, child_base(base, 0))?;
    Ok(each(array, base, |i| {
        let mut payload = Vec::with_capacity(range(i).len() * 8);
        for element in &element_hashes[range(i)] {
            payload.extend_from_slice(&element.to_le_bytes());
        }
        hash(base, tag, &payload)
    }))
}

fn structs(array: &StructArray, base: u64) -> Hashes {
    let mut fields = Vec::with_capacity(array.num_columns());
    for (index, column) in array.columns().iter().enumerate() {
        fields.push(hashes(column, child_base(base, index))?);
    }
    Ok(each(array, base, |i| {
        let payload: Vec<u8> = fields.iter().flat_map(|field| field[i].to_le_bytes()).collect();
        hash(base, STRUCT, &payload)
    }))
}

/// Hashes each distinct value once.
fn dictionary(array: &dyn Array, base: u64) -> Hashes {
    let dictionary = array.as_any_dictionary();
    let value_hashes = hashes(dictionary.values(), base)?;
    if value_hashes.is_empty() {
        return Ok(vec![xxh3_64_with_seed(&[], base ^ NULL); array.len()]);
    }
    let keys = dictionary.normalized_keys();
    Ok(each(array, base, |i| value_hashes[keys[i]]))
}

fn child_base(base: u64, index: usize) -> u64 {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&base.to_le_bytes());
    bytes[8..].copy_from_slice(&index_bytes(index));
    xxh3_64(&bytes)
}

/// Positions are far below 2³²: a table has at most a few thousand columns.
fn index_bytes(index: usize) -> [u8; 4] {
    (index as u32).to_le_bytes()
}
