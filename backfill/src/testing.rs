//! What tests of several modules need: snapshots of rows that a test thinks up.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Decimal128Array, FixedSizeBinaryArray, Float64Array, Int32Array, Int64Array,
    LargeStringArray, RecordBatch, StringArray, StringViewArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Schema};

use crate::snapshot::{Layout, Side, Snapshot, SnapshotHeader, SnapshotManifest, SnapshotWriter};

/// A key of one of the shapes that keys have. Keys of one shape order as a snapshot's rows do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    Int(i64),
    Unsigned(u64),
    Text(String),
    Pair(i32, String),
    Uuid([u8; 16]),
    Decimal(i128),
    Instant(i64),
}

/// How many shapes [`Key::new`] knows.
pub(crate) const KEY_SHAPES: usize = 7;

/// The values of a row outside its key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Values {
    pub(crate) plan: Option<String>,
    pub(crate) quantity: i32,
    pub(crate) amount: Option<f64>,
}

impl Key {
    /// The `n`-th key of a shape; not in key order.
    pub(crate) fn new(shape: usize, n: u16) -> Self {
        let text = |n: u16| format!("{}é{n:b}", "x".repeat(usize::from(n % 5)));
        match shape {
            0 => Self::Int(i64::from(n) - 100),
            1 => Self::Unsigned(u64::MAX - u64::from(n) * 3),
            2 => Self::Text(text(n)),
            3 => Self::Pair(i32::from(n % 7) - 3, text(n / 7)),
            4 => Self::Uuid(xxhash_rust::xxh3::xxh3_128(&n.to_le_bytes()).to_be_bytes()),
            5 => Self::Decimal((i128::from(n) - 100) * 10_i128.pow(25)),
            _ => Self::Instant(i64::from(n) * 1_000_003 - 7_000_000),
        }
    }
}

/// The key columns of these keys, all of one shape. The two sides get text in different layouts.
pub(crate) fn key_columns(keys: &[Key], side: Side) -> Vec<(&'static str, ArrayRef)> {
    let text = |texts: Vec<&str>| -> ArrayRef {
        match side {
            Side::Old => Arc::new(StringArray::from(texts)),
            Side::New => Arc::new(StringViewArray::from(texts)),
        }
    };
    macro_rules! values {
        ($variant:ident) => {
            keys.iter().map(|key| if let Key::$variant(value) = key { *value } else { panic!("{key:?}") })
        };
    }
    match keys.first() {
        None | Some(Key::Int(_)) => vec![("id", Arc::new(values!(Int).collect::<Int64Array>()))],
        Some(Key::Unsigned(_)) => vec![("id", Arc::new(values!(Unsigned).collect::<UInt64Array>()))],
        Some(Key::Text(_)) => {
            let texts =
                keys.iter().map(|key| if let Key::Text(text) = key { text.as_str() } else { panic!() });
            vec![("id", text(texts.collect()))]
        }
        Some(Key::Pair(_, _)) => {
            let pairs =
                keys.iter().map(|key| if let Key::Pair(a, b) = key { (*a, b.as_str()) } else { panic!() });
            let (numbers, texts): (Vec<_>, Vec<_>) = pairs.unzip();
            let numbers: ArrayRef = match side {
                Side::Old => Arc::new(Int32Array::from(numbers)),
                Side::New => Arc::new(Int64Array::from_iter_values(numbers.into_iter().map(i64::from))),
            };
            vec![("customer_id", numbers), ("id", text(texts))]
        }
        Some(Key::Uuid(_)) => {
            vec![("id", Arc::new(FixedSizeBinaryArray::try_from_iter(values!(Uuid)).unwrap()))]
        }
        Some(Key::Decimal(_)) => {
            let decimals =
                values!(Decimal).collect::<Decimal128Array>().with_precision_and_scale(38, 4).unwrap();
            vec![("id", Arc::new(decimals))]
        }
        Some(Key::Instant(_)) => {
            let instants =
                TimestampMicrosecondArray::from_iter_values(values!(Instant)).with_timezone("+00:00");
            vec![("id", Arc::new(instants))]
        }
    }
}

/// A batch of these rows.
pub(crate) fn batch(rows: &[(Key, Values)], side: Side) -> RecordBatch {
    let keys: Vec<Key> = rows.iter().map(|(key, _)| key.clone()).collect();
    let plans = rows.iter().map(|(_, values)| values.plan.as_deref());
    let plan: ArrayRef = match side {
        Side::Old => Arc::new(plans.collect::<StringArray>()),
        Side::New => Arc::new(plans.collect::<LargeStringArray>()),
    };
    let mut columns = key_columns(&keys, side);
    columns.push(("plan", plan));
    columns
        .push(("quantity", Arc::new(rows.iter().map(|(_, values)| values.quantity).collect::<Int32Array>())));
    columns
        .push(("amount", Arc::new(rows.iter().map(|(_, values)| values.amount).collect::<Float64Array>())));
    let fields: Vec<Field> =
        columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// A header for batches like this one, whose key is all columns before `plan`.
pub(crate) fn header(batch: &RecordBatch, side: Side) -> SnapshotHeader {
    let names = batch.schema_ref().fields().iter().map(|field| field.name().clone());
    SnapshotHeader {
        migration: "subscriptions".into(),
        manifest_hash: "5eed".into(),
        side,
        store: "postgres://app:***@db/app".into(),
        consistent_point: "00000003-0000001B-1".into(),
        epoch: 7,
        phase: "dual_write".into(),
        started_at: "2026-01-01T00:00:00Z".into(),
        schema: batch.schema(),
        key: names.take_while(|name| name != "plan").collect(),
        scope_columns: 1,
    }
}

/// Snapshots with keys of a shape, in row groups of four: 60 rows, and every `step`-th of them.
pub(crate) struct Thinned {
    pub(crate) whole: Snapshot,
    pub(crate) thin: Snapshot,
    /// The types of their key columns.
    pub(crate) types: Vec<DataType>,
    _folder: tempfile::TempDir,
}

impl Thinned {
    pub(crate) fn new(shape: usize, step: usize) -> Thinned {
        let folder = tempfile::tempdir().unwrap();
        let values = Values { plan: None, quantity: 0, amount: None };
        let mut rows: Vec<_> = (0..60).map(|n| (Key::new(shape, n), values.clone())).collect();
        rows.sort_by(|left, right| left.0.cmp(&right.0));
        let thin: Vec<_> = rows.iter().step_by(step).cloned().collect();
        let layout = Layout { row_group_rows_max: 4, file_rows_max: 12 };
        write_side(folder.path(), Side::Old, &rows, layout);
        write_side(folder.path(), Side::New, &thin, layout);
        let snapshot = |side: Side| Snapshot::open(side.folder(folder.path())).unwrap();
        let (whole, thin) = (snapshot(Side::Old), snapshot(Side::New));
        let field = |name: &String| whole.schema().field_with_name(name).unwrap().data_type().clone();
        let types = whole.manifest().key.iter().map(field).collect();
        Thinned { whole, thin, types, _folder: folder }
    }
}

/// Writes rows, which must be in key order, as one side of the pair in `pair`.
pub(crate) fn write_side(
    pair: &Path,
    side: Side,
    rows: &[(Key, Values)],
    layout: Layout,
) -> SnapshotManifest {
    let whole = batch(rows, side);
    let mut writer =
        SnapshotWriter::create_with_layout(side.folder(pair), header(&whole, side), layout).unwrap();
    // In several batches, so that keys meet across batches, files and row groups.
    let mut start = 0;
    for length in [1, 2, 5, usize::MAX] {
        let length = length.min(whole.num_rows() - start);
        writer.write(&whole.slice(start, length)).unwrap();
        start += length;
    }
    writer.finish().unwrap()
}
