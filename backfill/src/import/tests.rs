use std::fs::{self, File};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field};
use parquet::arrow::ArrowWriter;

use super::*;
use crate::snapshot::{Layout, Snapshot};
use crate::testing::{KEY_SHAPES, Key, Values, batch, header as test_header, write_side};

fn write_file(path: &Path, rows: &RecordBatch) {
    let file = File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, rows.schema(), None).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
}

fn dump(path: &Path, rows: &RecordBatch) -> Dump {
    let header = test_header(rows, Side::Old);
    Dump {
        path: path.to_owned(),
        columns: rows.schema_ref().fields().iter().map(|field| field.name().clone()).collect(),
        migration: header.migration,
        manifest_hash: header.manifest_hash,
        side: header.side,
        store: header.store,
        consistent_point: header.consistent_point,
        epoch: header.epoch,
        phase: header.phase,
        started_at: header.started_at,
        key: header.key,
        scope_columns: header.scope_columns,
    }
}

fn rows(shape: usize, count: u16) -> Vec<(Key, Values)> {
    (0..count)
        .map(|n| {
            let plan = (n % 3 > 0).then(|| format!("plan {}", n % 5));
            (Key::new(shape, n), Values { plan, quantity: i32::from(n), amount: Some(f64::from(n) / 4.0) })
        })
        .collect()
}

/// Rows in a fixed disorder.
fn shuffled(rows: &RecordBatch) -> RecordBatch {
    let mut order: Vec<u32> = (0..rows.num_rows() as u32).collect();
    order.sort_by_key(|row| xxhash_rust::xxh3::xxh3_64(&row.to_le_bytes()));
    take_record_batch(rows, &UInt32Array::from(order)).unwrap()
}

fn hashes_and_rows(snapshot: &Path) -> Vec<RecordBatch> {
    let snapshot = Snapshot::open(snapshot).unwrap();
    let batches: Vec<_> = snapshot.batches().collect::<Result<_>>().unwrap();
    vec![arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap()]
}

/// Whatever the order, the files and the memory, the same rows become the same snapshot as if exported.
#[test]
fn a_dump_becomes_the_snapshot_that_an_export_would_have_been() {
    for shape in 0..KEY_SHAPES {
        let folder = tempfile::tempdir().unwrap();
        let mut exported = rows(shape, 500);
        exported.sort_by(|left, right| left.0.cmp(&right.0));
        write_side(folder.path(), Side::Old, &exported, Layout::default());
        let expected = hashes_and_rows(&Side::Old.folder(folder.path()));

        let whole = shuffled(&batch(&exported, Side::Old));
        let path = folder.path().join("dump");
        fs::create_dir(&path).unwrap();
        for (index, start) in [0, 100, 250].into_iter().enumerate() {
            let end = [100, 250, 500][index];
            write_file(&path.join(format!("{index}.parquet")), &whole.slice(start, end - start));
        }
        fs::write(path.join("_SUCCESS"), b"").unwrap();
        for memory_bytes_max in [0, u64::MAX] {
            let snapshot = folder.path().join(format!("imported-{memory_bytes_max}"));
            import(dump(&path, &whole), &snapshot, &ImportOptions { memory_bytes_max }).unwrap();
            assert_eq!(hashes_and_rows(&snapshot), expected, "shape {shape}, memory {memory_bytes_max}");
            assert!(!snapshot.join("sorting.tmp").exists());
        }
    }
}

#[test]
fn a_dump_in_order_is_taken_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let whole = batch(&rows(0, 300), Side::Old);
    let path = folder.path().join("dump.parquet");
    write_file(&path, &whole);
    let source = Source::open(&path, &["id".to_owned()]).unwrap();
    assert!(is_in_order(&source, &["id".to_owned()]).unwrap());
    let manifest =
        import(dump(&path, &whole), folder.path().join("imported"), &ImportOptions::default()).unwrap();
    assert_eq!(manifest.rows, 300);
}

#[test]
fn columns_are_taken_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let whole = batch(&rows(0, 50), Side::Old);
    let reversed: Vec<usize> = (0..whole.num_columns()).rev().collect();
    let path = folder.path().join("dump.parquet");
    write_file(&path, &whole.project(&reversed).unwrap());
    let manifest =
        import(dump(&path, &whole), folder.path().join("imported"), &ImportOptions::default()).unwrap();
    let names: Vec<&str> = manifest.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["id", "plan", "quantity", "amount"]);
}

#[test]
fn an_empty_dump_becomes_an_empty_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let whole = batch(&rows(0, 5), Side::Old);
    let path = folder.path().join("dump.parquet");
    write_file(&path, &whole.slice(0, 0));
    let manifest =
        import(dump(&path, &whole), folder.path().join("imported"), &ImportOptions::default()).unwrap();
    assert_eq!(manifest.rows, 0);
}

#[test]
fn dumps_that_cannot_be_snapshots_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let whole = batch(&rows(0, 5), Side::Old);
    let run = |path: &Path, number: usize| {
        import(
            dump(path, &whole),
            folder.path().join(format!("imported-{number}")),
            &ImportOptions::default(),
        )
        .unwrap_err()
    };

    let absent = run(&folder.path().join("nowhere"), 0);
    assert!(matches!(absent, Error::DumpAbsent { .. }), "{absent:?}");
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert!(matches!(run(&empty, 1), Error::DumpAbsent { .. }));

    let path = folder.path().join("dump.parquet");
    write_file(&path, &whole.project(&[0, 1]).unwrap());
    let lacking = run(&path, 2);
    assert!(
        matches!(&lacking, Error::FileSchema { detail, .. } if detail.contains("quantity")),
        "{lacking:?}"
    );

    write_file(&path, &whole);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 20]).unwrap();
    assert!(matches!(run(&path, 3), Error::FileCorrupt { .. }));

    let ids: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
    let plans: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    let fields = vec![Field::new("id", DataType::Int64, true), Field::new("plan", DataType::Utf8, true)];
    let nulls = RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![ids, plans]).unwrap();
    write_file(&path, &nulls);
    let null =
        import(dump(&path, &nulls), folder.path().join("imported-4"), &ImportOptions::default()).unwrap_err();
    assert!(matches!(&null, Error::KeyNull { row: 1, path: found, .. } if *found == path), "{null:?}");
}

#[test]
fn files_with_different_types_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (batch(&rows(2, 5), Side::Old), batch(&rows(2, 5), Side::New));
    write_file(&folder.path().join("1.parquet"), &old);
    write_file(&folder.path().join("2.parquet"), &new);
    let error = import(dump(folder.path(), &old), folder.path().join("imported"), &ImportOptions::default())
        .unwrap_err();
    assert!(matches!(&error, Error::FileSchema { detail, .. } if detail.contains("1.parquet")), "{error:?}");
}
