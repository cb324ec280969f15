//! Looking into snapshots: what one is, its first rows, and one key's rows on both sides.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, BinaryArray, RecordBatch, StringArray};
use arrow::compute::{CastOptions, cast_with_options, concat_batches};
use arrow::datatypes::DataType;
use arrow::util::display::FormatOptions;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::keys::{KeyedGroups, Keys};
use crate::row_hash::column_hashes;
use crate::snapshot::{ROW_HASH_COLUMN, RowGroups, Snapshot, SnapshotManifest, SnapshotPair};
use crate::text::{showable, value_text};

/// What a snapshot is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// Its manifest: store, consistent point, epoch, columns, key, rows.
    #[serde(flatten)]
    pub manifest: SnapshotManifest,
    /// How many bytes its files have together.
    pub bytes: u64,
    /// The key of its first row, a text per key column; nothing without rows.
    pub first_key: Option<Vec<String>>,
    /// The key of its last row.
    pub last_key: Option<Vec<String>>,
}

/// One key's rows on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyDiff {
    /// How many rows of old have the key. The first is shown.
    pub rows_old: u64,
    /// How many rows of new have the key. The first is shown.
    pub rows_new: u64,
    /// The columns, in the projection's order.
    pub columns: Vec<ColumnDiff>,
}

/// One column of one key's rows on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ColumnDiff {
    /// The column.
    pub name: String,
    /// Old's value.
    pub old: Cell,
    /// New's value.
    pub new: Cell,
    /// Whether the two rows have different values here, by the same notion of equal as a scan's.
    pub differs: bool,
}

/// A value in one side's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cell {
    /// The side has no such row.
    Absent,
    /// NULL.
    Null,
    /// A value, as text.
    Value(String),
}

/// What a snapshot is, with its first and last key.
///
/// # Errors
///
/// [`Error::FileCorrupt`] if its first or last row group is not what was written.
pub fn inspect(snapshot: &Snapshot) -> Result<Inspection> {
    let manifest = snapshot.manifest().clone();
    let types = key_types(snapshot);
    let groups = RowGroups::new(snapshot, &types);
    let key_at = |group: usize, last: bool| -> Result<Vec<String>> {
        let keys = groups.keys(group)?;
        Ok(keys.texts(if last { keys.rows() - 1 } else { 0 }))
    };
    let last_group = groups.len().checked_sub(1);
    Ok(Inspection {
        bytes: manifest.files.iter().map(|file| file.bytes).sum(),
        first_key: last_group.map(|_| key_at(0, false)).transpose()?,
        last_key: last_group.map(|group| key_at(group, true)).transpose()?,
        manifest,
    })
}

/// The first rows of a snapshot, without their hashes.
///
/// # Errors
///
/// [`Error::FileCorrupt`] if they cannot be decoded.
pub fn head(snapshot: &Snapshot, rows: usize) -> Result<RecordBatch> {
    let mut batches = Vec::new();
    let mut missing = rows;
    for batch in snapshot.batches() {
        if missing == 0 {
            break;
        }
        let mut batch = batch?;
        if let Ok(hash) = batch.schema_ref().index_of(ROW_HASH_COLUMN) {
            batch.remove_column(hash);
        }
        let batch = batch.slice(0, missing.min(batch.num_rows()));
        missing -= batch.num_rows();
        batches.push(batch);
    }
    let schema = batches.first().map_or_else(|| snapshot.schema().clone(), RecordBatch::schema);
    concat_batches(&schema, &batches).map_err(Error::arrow("gather rows"))
}

/// The values of rows, as texts.
pub fn cells(rows: &RecordBatch) -> Vec<Vec<Cell>> {
    let value = |column: &ArrayRef, row| cell(Some(column.slice(row, 1)));
    (0..rows.num_rows()).map(|row| rows.columns().iter().map(|column| value(column, row)).collect()).collect()
}

/// One key's rows on both sides, with the columns that differ marked. `key` has a text per key column, as
/// [`inspect`] gives it.
///
/// # Errors
///
/// [`Error::KeyText`] if `key` is not a key of this pair; [`Error::FileCorrupt`].
pub fn diff(pair: &SnapshotPair, key: &[String]) -> Result<KeyDiff> {
    let old = rows_of_key(pair.old(), key)?;
    let new = rows_of_key(pair.new_side(), key)?;
    let mut columns = Vec::new();
    for (position, field) in pair.old().schema().fields().iter().enumerate() {
        let value = |row: &Option<RecordBatch>| row.as_ref().map(|row| row.column(position).clone());
        let (old, new) = (value(&old.first), value(&new.first));
        let differs = match (&old, &new) {
            (Some(old), Some(new)) => {
                column_hashes(old, position, field.name())? != column_hashes(new, position, field.name())?
            }
            _ => false,
        };
        columns.push(ColumnDiff { name: field.name().clone(), old: cell(old), new: cell(new), differs });
    }
    Ok(KeyDiff { rows_old: old.count, rows_new: new.count, columns })
}

struct RowsOfKey {
    count: u64,
    first: Option<RecordBatch>,
}

fn rows_of_key(snapshot: &Snapshot, key: &[String]) -> Result<RowsOfKey> {
    let types = key_types(snapshot);
    let groups = RowGroups::new(snapshot, &types);
    let key = parse_key(snapshot, &types, key)?;
    let rows = groups.rows_of_key(&key)?;
    let first = if rows.is_empty() { None } else { Some(row_at(snapshot, &rows)?) };
    Ok(RowsOfKey { count: rows.end - rows.start, first })
}

fn row_at(snapshot: &Snapshot, rows: &Range<u64>) -> Result<RecordBatch> {
    let files = snapshot.files();
    let file = &files[files.partition_point(|file| file.rows().end <= rows.start)];
    let columns: Vec<usize> = (0..snapshot.schema().fields().len()).collect();
    file.row(&columns, rows.start)
}

fn parse_key(snapshot: &Snapshot, types: &[DataType], key: &[String]) -> Result<Keys> {
    let names = &snapshot.manifest().key;
    if key.len() != names.len() {
        let detail = format!("it has {} parts, the key is {}", key.len(), names.join(", "));
        return Err(Error::KeyText { text: key.join(", "), detail });
    }
    // Without `safe`, what cannot be read is an error rather than NULL.
    let options = CastOptions { safe: false, format_options: FormatOptions::default() };
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(key.len());
    for (text, data_type) in key.iter().zip(types) {
        let texts = StringArray::from(vec![text.as_str()]);
        let column = match data_type {
            DataType::FixedSizeBinary(_)
            | DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView => {
                let bytes = BinaryArray::from_iter([bytes_of(text)]);
                cast_with_options(&bytes, data_type, &options)
            }
            _ => cast_with_options(&texts, &showable(data_type), &options),
        };
        let column =
            column.map_err(|error| Error::KeyText { text: text.clone(), detail: error.to_string() })?;
        if column.is_null(0) {
            return Err(Error::KeyText { text: text.clone(), detail: format!("it is not a {data_type}") });
        }
        columns.push(column);
    }
    Keys::new(columns, 1, names)
}

/// Bytes from hexadecimal digits, with or without a uuid's dashes.
fn bytes_of(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|character| *character != '-')
        .map(|character| character.to_digit(16).map(|digit| digit as u8))
        .collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

fn key_types(snapshot: &Snapshot) -> Vec<DataType> {
    let schema = snapshot.schema();
    let fields = snapshot.manifest().key.iter().filter_map(|name| schema.column_with_name(name));
    fields.map(|(_, field)| field.data_type().clone()).collect()
}

fn cell(value: Option<ArrayRef>) -> Cell {
    match value {
        None => Cell::Absent,
        Some(value) if value.is_null(0) => Cell::Null,
        Some(value) => Cell::Value(value_text(&value, 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Layout, Side};
    use crate::testing::{KEY_SHAPES, Key, Values, write_side};

    fn values(plan: &str, quantity: i32) -> Values {
        Values { plan: Some(plan.into()), quantity, amount: None }
    }

    fn pair(old: &[(Key, Values)], new: &[(Key, Values)]) -> (tempfile::TempDir, SnapshotPair) {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout { row_group_rows_max: 4, file_rows_max: 8 };
        write_side(folder.path(), Side::Old, old, layout);
        write_side(folder.path(), Side::New, new, layout);
        let pair = SnapshotPair::open(folder.path()).unwrap();
        (folder, pair)
    }

    /// Every key that `inspect` and `head` show can be given to `diff`, whatever its type.
    #[test]
    fn keys_of_all_shapes_are_found_again_by_their_text() {
        for shape in 0..KEY_SHAPES {
            let mut rows: Vec<_> =
                (0..30).map(|n| (Key::new(shape, n), values("basic", i32::from(n)))).collect();
            rows.sort_by(|left, right| left.0.cmp(&right.0));
            let (_folder, pair) = pair(&rows, &rows);
            let inspection = inspect(pair.old()).unwrap();
            for (key, row) in [(inspection.first_key, &rows[0]), (inspection.last_key, &rows[29])] {
                let diff = diff(&pair, &key.unwrap()).unwrap();
                assert_eq!((diff.rows_old, diff.rows_new), (1, 1), "shape {shape}");
                let quantity = diff.columns.iter().find(|column| column.name == "quantity").unwrap();
                assert_eq!(quantity.old, Cell::Value(row.1.quantity.to_string()));
                assert!(diff.columns.iter().all(|column| !column.differs));
            }
        }
    }

    #[test]
    fn differing_absent_null_and_repeated_are_told_apart() {
        let old = [(Key::Int(1), values("basic", 1)), (Key::Int(2), values("pro", 1))];
        let new = [
            (Key::Int(1), values("basic", 7)),
            (Key::Int(3), values("pro", 1)),
            (Key::Int(3), values("pro", 1)),
        ];
        let (_folder, pair) = pair(&old, &new);
        let of = |key: &str| diff(&pair, &[key.to_owned()]).unwrap();
        let column = |diff: &KeyDiff, name: &str| {
            diff.columns.iter().find(|column| column.name == name).unwrap().clone()
        };

        let changed = of("1");
        let quantity = column(&changed, "quantity");
        assert_eq!((quantity.old, quantity.new), (Cell::Value("1".into()), Cell::Value("7".into())));
        assert!(quantity.differs && !column(&changed, "plan").differs);
        assert_eq!(column(&changed, "amount").old, Cell::Null);
        assert_eq!(column(&of("2"), "plan").new, Cell::Absent);
        assert_eq!((of("3").rows_old, of("3").rows_new), (0, 2));
        assert_eq!((of("9").rows_old, of("9").rows_new), (0, 0));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let rows = [(Key::Int(1), values("basic", 1))];
        let (_folder, pair) = pair(&rows, &rows);
        for key in [vec!["one"], vec![], vec!["1", "2"]] {
            let key: Vec<String> = key.into_iter().map(str::to_owned).collect();
            let error = diff(&pair, &key).unwrap_err();
            assert!(matches!(error, Error::KeyText { .. }), "{error:?}");
        }
    }

    #[test]
    fn the_head_has_no_hashes_and_no_more_rows_than_there_are() {
        let rows: Vec<_> = (0..20).map(|id| (Key::Int(id), values("basic", 1))).collect();
        let (_folder, pair) = pair(&rows, &[]);
        let first = head(pair.old(), 6).unwrap();
        assert_eq!((first.num_rows(), first.num_columns()), (6, 4));
        assert_eq!(head(pair.old(), 50).unwrap().num_rows(), 20);
        assert_eq!(head(pair.new_side(), 5).unwrap().num_rows(), 0);
        assert_eq!(inspect(pair.new_side()).unwrap().first_key, None);
    }
}
