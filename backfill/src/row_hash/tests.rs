use std::sync::Arc;

use arrow::array::DictionaryArray;
use arrow::array::types::{Int8Type, Int32Type};
use arrow::array::{
    ArrayRef, BinaryArray, BinaryViewArray, BooleanArray, Date32Array, Date64Array, Decimal64Array,
    Decimal128Array, Decimal256Array, FixedSizeBinaryArray, Float32Array, Float64Array, Int8Array,
    Int32Array, Int64Array, LargeBinaryArray, LargeListArray, LargeStringArray, ListArray, NullArray,
    StringArray, StringViewArray, StructArray, Time32SecondArray, Time64NanosecondArray,
    TimestampMicrosecondArray, TimestampNanosecondArray, TimestampSecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Schema, i256};

use super::*;

fn hashes(array: impl Array) -> Vec<u64> {
    column_hashes(&array, 0, "c").unwrap()
}

fn batch(columns: Vec<ArrayRef>) -> RecordBatch {
    let fields: Vec<Field> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| Field::new(format!("c{index}"), column.data_type().clone(), true))
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// If this test fails, the change must be a new version of the definition, beside this one.
#[test]
fn version_1_is_frozen() {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![Some(1), None, Some(-7)])),
        Arc::new(StringArray::from(vec![Some("basic"), Some(""), None])),
        Arc::new(BooleanArray::from(vec![true, false, true])),
        Arc::new(Float64Array::from(vec![1.5, -0.0, f64::NAN])),
        Arc::new(Decimal128Array::from(vec![150, 0, -1]).with_precision_and_scale(10, 2).unwrap()),
        Arc::new(BinaryArray::from(vec![b"\x00\x01".as_slice(), b"", b"x"])),
        Arc::new(Date32Array::from(vec![0, 20_000, -1])),
        Arc::new(Time64NanosecondArray::from(vec![0, 1, 86_399_999_999_999])),
        Arc::new(TimestampMicrosecondArray::from(vec![0, -1, 1_700_000_000_123_456])),
        Arc::new(TimestampMicrosecondArray::from(vec![0, -1, 1_700_000_000_123_456]).with_timezone("UTC")),
        Arc::new(UInt64Array::from(vec![u64::MAX, 1, 0])),
        Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
            Some(vec![Some(1), None]),
            Some(vec![]),
            None,
        ])),
    ];
    assert_eq!(row_hashes(&batch(columns)).unwrap(), GOLDEN_ROWS);
}

const GOLDEN_ROWS: [u64; 3] =
    [13_329_435_018_409_749_811, 5_419_615_128_541_546_890, 17_656_649_503_300_451_638];

/// The definition in the module's documentation, followed by hand for one value.
#[test]
fn the_documented_definition_is_the_implemented_one() {
    use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};
    let base = xxh3_64(b"crossfade-row-hash-1\x02\x00\x00\x00");
    let expected = xxh3_64_with_seed(&42_i64.to_le_bytes(), base ^ 2);
    assert_eq!(column_hashes(&Int32Array::from(vec![42]), 2, "c").unwrap(), [expected]);
}

#[test]
fn layout_does_not_matter() {
    let texts = vec![Some("a"), None, Some(""), Some("much longer than twelve bytes")];
    let expected = hashes(StringArray::from(texts.clone()));
    assert_eq!(hashes(LargeStringArray::from(texts.clone())), expected);
    assert_eq!(hashes(StringViewArray::from(texts.clone())), expected);
    assert_eq!(hashes(texts.into_iter().collect::<DictionaryArray<Int8Type>>()), expected);

    let bytes = vec![Some(b"ab".as_slice()), None];
    let expected = hashes(BinaryArray::from(bytes.clone()));
    assert_eq!(hashes(LargeBinaryArray::from(bytes.clone())), expected);
    assert_eq!(hashes(BinaryViewArray::from(bytes.clone())), expected);
    let fixed = FixedSizeBinaryArray::try_from_sparse_iter_with_size(bytes.into_iter(), 2).unwrap();
    assert_eq!(hashes(fixed), expected);
}

#[test]
fn width_and_unit_do_not_matter() {
    let expected = hashes(Int64Array::from(vec![-1, 0, 127]));
    assert_eq!(hashes(Int8Array::from(vec![-1, 0, 127])), expected);
    assert_eq!(hashes(UInt64Array::from(vec![0, 127])), expected[1..]);
    assert_eq!(hashes(Float32Array::from(vec![1.5])), hashes(Float64Array::from(vec![1.5])));
    assert_eq!(hashes(Date64Array::from(vec![86_400_000])), hashes(Date32Array::from(vec![1])));
    assert_eq!(
        hashes(Time32SecondArray::from(vec![61])),
        hashes(Time64NanosecondArray::from(vec![61_000_000_000]))
    );
    assert_eq!(
        hashes(TimestampSecondArray::from(vec![-5])),
        hashes(TimestampNanosecondArray::from(vec![-5_000_000_000]))
    );
}

#[test]
fn scale_does_not_matter() {
    let decimal = |value: i128, scale| {
        hashes(Decimal128Array::from(vec![value]).with_precision_and_scale(30, scale).unwrap())[0]
    };
    assert_eq!(decimal(15, 1), decimal(1_500, 3));
    assert_eq!(decimal(0, 0), decimal(0, 9));
    assert_eq!(decimal(2_000, 0), decimal(2, -3));
    assert_ne!(decimal(15, 1), decimal(15, 2));
    let narrow = Decimal64Array::from(vec![15]).with_precision_and_scale(5, 1).unwrap();
    assert_eq!(hashes(narrow)[0], decimal(15, 1));
    let wide = Decimal256Array::from(vec![i256::from_i128(150)]).with_precision_and_scale(50, 2).unwrap();
    assert_eq!(hashes(wide)[0], decimal(15, 1));
}

#[test]
fn floats_that_are_equal_hash_alike() {
    let other_nan = f64::from_bits(0xfff8_0000_0000_0001);
    let hashes = hashes(Float64Array::from(vec![0.0, -0.0, f64::NAN, other_nan, 1.0]));
    assert_eq!(hashes[0], hashes[1]);
    assert_eq!(hashes[2], hashes[3]);
    assert_ne!(hashes[0], hashes[4]);
}

#[test]
fn null_is_nothing_else() {
    let texts = hashes(StringArray::from(vec![None, Some("")]));
    assert_ne!(texts[0], texts[1]);
    assert_eq!(hashes(NullArray::new(1))[0], texts[0]);
    assert_eq!(hashes(Int64Array::from(vec![None]))[0], texts[0]);
    let lists = hashes(ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
        None,
        Some(vec![]),
        Some(vec![None]),
        Some(vec![None, None]),
    ]));
    for (index, hash) in lists.iter().enumerate() {
        assert!(!lists[..index].contains(hash), "{index}");
    }
}

#[test]
fn zones_and_types_matter() {
    let plain = TimestampSecondArray::from(vec![5]);
    assert_ne!(hashes(plain.clone()), hashes(plain.with_timezone("UTC")));
    assert_ne!(hashes(StringArray::from(vec!["a"])), hashes(BinaryArray::from(vec![b"a".as_slice()])));
}

#[test]
fn nested_values_hash_by_their_content() {
    let list =
        |values: Vec<Option<i32>>| ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(values)]);
    let one_two = hashes(list(vec![Some(1), Some(2)]));
    assert_ne!(one_two, hashes(list(vec![Some(2), Some(1)])));
    let large = LargeListArray::from_iter_primitive::<Int8Type, _, _>(vec![Some(vec![Some(1), Some(2)])]);
    assert_eq!(hashes(large), one_two);

    let both = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
        Some(vec![Some(9)]),
        Some(vec![Some(1), Some(2)]),
    ]);
    assert_eq!(hashes(both.slice(1, 1)), one_two, "a slice hashes like the list alone");

    let fields = |a: i32, b: i32| {
        let field = |name: &str| Arc::new(Field::new(name, DataType::Int32, true));
        let column = |value: i32| -> ArrayRef { Arc::new(Int32Array::from(vec![value])) };
        hashes(StructArray::from(vec![(field("a"), column(a)), (field("b"), column(b))]))
    };
    assert_ne!(fields(1, 2), fields(2, 1));
}

#[test]
fn values_that_trade_columns_are_seen() {
    let column = |value: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![value])) };
    let row = |a, b| row_hashes(&batch(vec![column(a), column(b)])).unwrap();
    assert_ne!(row(1, 2), row(2, 1));
}

#[test]
fn a_type_without_an_encoding_is_named() {
    let item = Arc::new(Field::new("item", DataType::Int8, true));
    let column = arrow::array::new_empty_array(&DataType::ListView(item));
    let error = column_hashes(&column, 0, "u").unwrap_err();
    assert!(matches!(&error, Error::ColumnType { column, .. } if column == "u"), "{error:?}");
    assert!(error.hint().unwrap().contains('u'));
}
