//! Rows with planted differences, as snapshots and as dumps.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Decimal128Array, FixedSizeBinaryArray, Float64Array, Int32Array, Int64Array,
    LargeStringArray, ListBuilder, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray,
    UInt32Array,
};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Field, Schema};
use crossfade_backfill::snapshot::{Side, SnapshotHeader, SnapshotWriter};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

/// The shapes that keys have in these tests.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    Int,
    IntAndText,
    Text,
    Uuid,
    Decimal,
    Instant,
}

pub(crate) const SHAPES: [Shape; 6] =
    [Shape::Int, Shape::IntAndText, Shape::Text, Shape::Uuid, Shape::Decimal, Shape::Instant];

/// One row, by number. `version` tells apart what a row should hold from what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) number: u32,
    pub(crate) version: u8,
}

/// Rows of both sides, in the order of their numbers: of `count` rows some are missing, mismatched in each of the columns,
/// orphaned, duplicated on either side or on both, and one key has very many rows.
pub(crate) fn planted(count: u32) -> [Vec<Row>; 2] {
    let (mut old, mut new) = (Vec::new(), Vec::new());
    let whole = |number| Row { number, version: 0 };
    for number in 0..count {
        let row = whole(number);
        match number % 997 {
            3 => old.push(row),
            5 => new.push(row),
            10..=14 => {
                old.push(row);
                new.push(Row { number, version: (number % 997 - 9) as u8 });
            }
            20 => {
                old.extend([row, row]);
                new.push(row);
            }
            21 => {
                old.push(row);
                new.extend([row, Row { number, version: 2 }]);
            }
            22 => {
                old.extend([row, row]);
                new.extend([row, row]);
            }
            23 => old.extend([row, row]),
            _ => {
                old.push(row);
                new.push(row);
            }
        }
        // Skew: a twentieth of one side is one key.
        if number == count / 2 {
            old.extend((0..count / 20).map(|_| row));
        }
    }
    [old, new]
}

/// The rows' values. The two sides have types of other widths.
pub(crate) fn batch(rows: &[Row], shape: Shape, side: Side) -> RecordBatch {
    let numbers = || rows.iter().map(|row| i64::from(row.number));
    let texts = |texts: Vec<String>| -> ArrayRef {
        match side {
            Side::Old => Arc::new(StringArray::from(texts)),
            Side::New => Arc::new(LargeStringArray::from(texts)),
        }
    };
    let mut columns: Vec<(&str, ArrayRef)> = match shape {
        Shape::Int => vec![("id", Arc::new(numbers().collect::<Int64Array>()))],
        Shape::IntAndText => {
            let customers: ArrayRef = match side {
                Side::Old => Arc::new(rows.iter().map(|row| (row.number / 3) as i32).collect::<Int32Array>()),
                Side::New => Arc::new(numbers().map(|number| number / 3).collect::<Int64Array>()),
            };
            let ids = rows.iter().map(|row| format!("s{}", row.number % 3)).collect();
            // A column's name that SQL would have to quote.
            vec![("customer_id", customers), ("The \"Id\"", texts(ids))]
        }
        Shape::Text => vec![("id", texts(rows.iter().map(|row| format!("é{:08}", row.number)).collect()))],
        Shape::Uuid => {
            let uuids = rows.iter().map(|row| Some(u128::from(row.number).to_be_bytes()));
            vec![("id", Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(uuids, 16).unwrap()))]
        }
        Shape::Decimal => {
            let decimals =
                numbers().map(|number| i128::from(number) * 10_i128.pow(20)).collect::<Decimal128Array>();
            vec![("id", Arc::new(decimals.with_precision_and_scale(38, 4).unwrap()))]
        }
        Shape::Instant => {
            let instants =
                TimestampMicrosecondArray::from_iter_values(numbers().map(|number| number * 1_000_003));
            vec![("id", Arc::new(instants.with_timezone("+00:00")))]
        }
    };
    columns.push((
        "plan",
        texts(
            rows.iter()
                .map(|row| if row.version == 1 { "basic".into() } else { format!("plan {}", row.number % 7) })
                .collect(),
        ),
    ));
    // NULL against a value is a difference, NULL against NULL is not.
    let quantities = rows.iter().map(|row| match (row.version, row.number % 5) {
        (2, _) => Some(-1),
        (3, _) | (_, 0) => None,
        _ => Some(i32::try_from(row.number % 100).unwrap()),
    });
    columns.push(("quantity", Arc::new(quantities.collect::<Int32Array>())));
    // The two zeros and all kinds of NaN are equal.
    let amounts = rows.iter().map(|row| match (row.version, row.number % 4, side) {
        (4, _, _) => 0.5,
        (_, 0, Side::Old) => 0.0,
        (_, 0, Side::New) => -0.0,
        (_, 1, Side::Old) => f64::NAN,
        (_, 1, Side::New) => -f64::NAN,
        _ => f64::from(row.number),
    });
    columns.push(("amount", Arc::new(Float64Array::from_iter_values(amounts))));
    let mut tags = ListBuilder::new(StringBuilder::new());
    for row in rows {
        tags.values().append_value(format!("tag {}", row.number % 3));
        if row.version == 5 || row.version == 1 {
            tags.values().append_null();
        }
        tags.append(row.number % 11 != 0 || row.version == 5);
    }
    columns.push(("tags", Arc::new(tags.finish())));
    let fields: Vec<Field> =
        columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// The names of a shape's key columns.
pub(crate) fn key(shape: Shape) -> Vec<String> {
    let batch = batch(&[], shape, Side::Old);
    let names = batch.schema_ref().fields().iter().map(|field| field.name().clone());
    names.take_while(|name| name != "plan").collect()
}

/// Writes both sides as a pair of snapshots.
pub(crate) fn write_pair(folder: &Path, shape: Shape, sides: &[Vec<Row>; 2]) {
    for (side, rows) in [Side::Old, Side::New].into_iter().zip(sides) {
        let rows = batch(rows, shape, side);
        let header = SnapshotHeader {
            migration: "subscriptions".into(),
            manifest_hash: "5eed".into(),
            side,
            store: "postgres://app:***@db/app".into(),
            consistent_point: "00000003-0000001B-1".into(),
            epoch: 7,
            phase: "dual_write".into(),
            started_at: "2026-01-01T00:00:00Z".into(),
            schema: rows.schema(),
            key: key(shape),
            scope_columns: 1,
        };
        let mut writer = SnapshotWriter::create(side.folder(folder), header).unwrap();
        writer.write(&rows).unwrap();
        writer.finish().unwrap();
    }
}

/// Writes rows as a dump: in several files, in no order.
pub(crate) fn write_dump(folder: &Path, rows: &RecordBatch) {
    fs::create_dir_all(folder).unwrap();
    let count = rows.num_rows() as u32;
    // Each number once, far from its neighbours: the step shares no factor with any count that is not its multiple.
    let order: UInt32Array =
        (0..count).map(|row| (u64::from(row) * 7_919 % u64::from(count.max(1))) as u32).collect();
    assert!(!count.is_multiple_of(7_919), "another count shuffles better");
    let shuffled = take_record_batch(rows, &order).unwrap();
    let per_file = shuffled.num_rows().div_ceil(3).max(1);
    for (number, start) in (0..shuffled.num_rows().max(1)).step_by(per_file).enumerate() {
        let file = File::create(folder.join(format!("part {number}.parquet"))).unwrap();
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(5_000)).build();
        let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties)).unwrap();
        writer.write(&shuffled.slice(start, per_file.min(shuffled.num_rows() - start))).unwrap();
        writer.close().unwrap();
    }
}

/// All files of a folder, by name.
pub(crate) fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}
