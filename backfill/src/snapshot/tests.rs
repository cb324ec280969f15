use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};

use super::*;
use crate::error::Error;
use crate::testing::{Key, Values, batch, header, write_side};

fn rows(ids: impl IntoIterator<Item = i64>) -> Vec<(Key, Values)> {
    let values = Values { plan: Some("basic".into()), quantity: 1, amount: None };
    ids.into_iter().map(|id| (Key::Int(id), values.clone())).collect()
}

fn writer(folder: &Path, first: &RecordBatch) -> SnapshotWriter {
    SnapshotWriter::create(folder, header(first, Side::Old)).unwrap()
}

/// A batch of `id` and `plan`, with NULL where the test wants it.
fn nullable(ids: Vec<Option<i64>>) -> RecordBatch {
    let plans = StringArray::from(vec!["basic"; ids.len()]);
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(ids)), Arc::new(plans)];
    let fields = vec![Field::new("id", DataType::Int64, true), Field::new("plan", DataType::Utf8, true)];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn small() -> Layout {
    Layout { row_group_rows_max: 10, file_rows_max: 30 }
}

/// A snapshot of a hundred rows in several files of several row groups.
fn snapshot() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_side(folder.path(), Side::Old, &rows(0..100), small());
    folder
}

fn edit_manifest(folder: &Path, edit: impl FnOnce(&mut SnapshotManifest)) {
    let mut manifest = SnapshotManifest::read(folder).unwrap();
    edit(&mut manifest);
    fs::write(folder.join(MANIFEST_FILE), serde_json::to_vec(&manifest).unwrap()).unwrap();
}

#[test]
fn what_is_written_is_read() {
    let folder = snapshot();
    let snapshot = Snapshot::open(Side::Old.folder(folder.path())).unwrap();
    assert_eq!(snapshot.rows(), 100);
    assert_eq!(snapshot.manifest().files.len(), 4);
    snapshot.verify_checksums().unwrap();
    let expected = batch(&rows(0..100), Side::Old);
    let hashes = crate::row_hash::row_hashes(&expected).unwrap();
    let read: Vec<RecordBatch> = snapshot.batches().collect::<crate::Result<_>>().unwrap();
    let read = arrow::compute::concat_batches(&read[0].schema(), &read).unwrap();
    assert_eq!(read.columns()[..expected.num_columns()], *expected.columns());
    let read_hashes = read.column_by_name(ROW_HASH_COLUMN).unwrap();
    assert_eq!(read_hashes.as_ref(), &arrow::array::UInt64Array::from(hashes) as &dyn arrow::array::Array);
}

#[test]
fn the_same_rows_give_the_same_bytes() {
    let (one, two) = (snapshot(), snapshot());
    let manifest =
        |folder: &tempfile::TempDir| SnapshotManifest::read(&Side::Old.folder(folder.path())).unwrap();
    assert_eq!(manifest(&one), manifest(&two));
}

#[test]
fn a_snapshot_that_is_not_finished_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let first = batch(&rows(0..10), Side::Old);
    let mut unfinished = writer(folder.path(), &first);
    unfinished.write(&first).unwrap();
    drop(unfinished);
    let error = Snapshot::open(folder.path()).unwrap_err();
    assert!(matches!(error, Error::SnapshotAbsent { .. }), "{error:?}");

    // And it does not stand in the way of the next.
    let mut writer = writer(folder.path(), &first);
    writer.write(&first).unwrap();
    writer.finish().unwrap();
    assert_eq!(Snapshot::open(folder.path()).unwrap().rows(), 10);
}

#[test]
fn a_finished_snapshot_is_not_overwritten() {
    let folder = snapshot();
    let side = Side::Old.folder(folder.path());
    let error =
        SnapshotWriter::create(side, header(&batch(&rows(0..1), Side::Old), Side::Old)).err().unwrap();
    assert!(matches!(error, Error::SnapshotPresent { .. }), "{error:?}");
}

#[test]
fn a_discarded_snapshot_is_none_and_can_be_replaced() {
    let folder = snapshot();
    let side = Side::Old.folder(folder.path());
    discard(&side).unwrap();
    assert!(matches!(Snapshot::open(&side), Err(Error::SnapshotAbsent { .. })));
    write_side(folder.path(), Side::Old, &rows(0..5), small());
    assert_eq!(Snapshot::open(&side).unwrap().rows(), 5);
}

#[test]
fn a_null_key_is_named_by_its_row() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = writer(folder.path(), &nullable(vec![Some(1)]));
    writer.write(&nullable(vec![Some(1), Some(2)])).unwrap();
    let error = writer.write(&nullable(vec![Some(3), None])).unwrap_err();
    assert!(matches!(&error, Error::KeyNull { row: 3, column, .. } if column == "id"), "{error:?}");
}

#[test]
fn disorder_is_named_by_its_row_within_and_across_batches() {
    let folder = tempfile::tempdir().unwrap();
    let first = batch(&rows([1, 5]), Side::Old);
    let mut writer = writer(folder.path(), &first);
    writer.write(&first).unwrap();
    let across = writer.write(&batch(&rows([4]), Side::Old)).unwrap_err();
    assert!(
        matches!(&across, Error::KeyOrder { row: 2, key, previous, .. } if key == "4" && previous == "5")
    );
    let within = writer.write(&batch(&rows([6, 8, 7]), Side::Old)).unwrap_err();
    assert!(
        matches!(&within, Error::KeyOrder { row: 4, key, previous, .. } if key == "7" && previous == "8")
    );
}

#[test]
fn duplicate_keys_are_counted_once_each_wherever_they_meet() {
    let folder = tempfile::tempdir().unwrap();
    let ids = [1, 1, 1, 2, 3, 3, 4, 5, 5, 5, 5];
    let manifest = write_side(folder.path(), Side::Old, &rows(ids), small());
    assert_eq!(manifest.duplicate_keys, 3);
}

#[test]
fn other_columns_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = writer(folder.path(), &nullable(vec![Some(1)]));
    let error = writer.write(&batch(&rows(0..3), Side::Old)).unwrap_err();
    assert!(matches!(error, Error::BatchSchema { .. }), "{error:?}");
}

#[test]
fn a_header_that_cannot_be_a_snapshot_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let good = header(&batch(&rows(0..1), Side::Old), Side::Old);
    let create = |header| SnapshotWriter::create(folder.path(), header).err().unwrap();
    let absent = create(SnapshotHeader { key: vec!["nowhere".into()], ..good.clone() });
    assert!(matches!(&absent, Error::KeyColumnAbsent { column, .. } if column == "nowhere"), "{absent:?}");
    let float = create(SnapshotHeader { key: vec!["amount".into()], ..good.clone() });
    assert!(matches!(&float, Error::KeyType { column, .. } if column == "amount"), "{float:?}");
    let scope = create(SnapshotHeader { scope_columns: 2, ..good });
    assert!(matches!(scope, Error::SnapshotInconsistent { .. }), "{scope:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let first = batch(&rows(0..10), Side::Old);
    let mut writer = writer(folder.path(), &first);
    // The system's own always-full device stands in for the disk.
    std::os::unix::fs::symlink("/dev/full", folder.path().join("part-00000.parquet.tmp")).unwrap();
    let error = writer.write(&first).and_then(|()| writer.finish().map(|_| ())).unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
    assert!(matches!(Snapshot::open(folder.path()), Err(Error::SnapshotAbsent { .. })));
}

#[test]
fn files_that_are_gone_cut_or_changed_are_told_apart() {
    let folder = snapshot();
    let side = Side::Old.folder(folder.path());
    let path = side.join("part-00001.parquet");
    let whole = fs::read(&path).unwrap();

    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(matches!(Snapshot::open(&side), Err(Error::FileLength { .. })));

    let mut no_footer = whole.clone();
    let end = no_footer.len();
    no_footer[end - 4..].copy_from_slice(b"PARE");
    fs::write(&path, &no_footer).unwrap();
    assert!(matches!(Snapshot::open(&side), Err(Error::FileCorrupt { .. })));

    let mut flipped = whole.clone();
    flipped[whole.len() / 3] ^= 0x10;
    fs::write(&path, &flipped).unwrap();
    let error = Snapshot::open(&side).and_then(|snapshot| snapshot.verify_checksums()).unwrap_err();
    assert!(matches!(error, Error::FileCorrupt { .. }), "{error:?}");

    fs::remove_file(&path).unwrap();
    let error = Snapshot::open(&side).unwrap_err();
    assert!(matches!(&error, Error::FileAbsent { path: absent } if *absent == path), "{error:?}");
    assert!(error.hint().is_some());

    fs::write(&path, &whole).unwrap();
    Snapshot::open(&side).unwrap();
}

#[test]
fn a_file_of_another_snapshot_is_found_out() {
    let folder = snapshot();
    let side = Side::Old.folder(folder.path());
    let foreign = tempfile::tempdir().unwrap();
    let first = nullable(vec![Some(1)]);
    let mut writer = writer(foreign.path(), &first);
    writer.write(&first).unwrap();
    let other = writer.finish().unwrap();
    fs::copy(foreign.path().join("part-00000.parquet"), side.join("part-00000.parquet")).unwrap();
    edit_manifest(&side, |manifest| {
        manifest.rows -= manifest.files[0].rows - 1;
        manifest.files[0] = other.files[0].clone();
    });
    assert!(matches!(Snapshot::open(&side), Err(Error::FileSchema { .. })));
}

#[test]
fn a_manifest_that_lies_about_rows_is_found_out() {
    let folder = snapshot();
    let side = Side::Old.folder(folder.path());
    edit_manifest(&side, |manifest| {
        manifest.files[0].rows += 1;
        manifest.rows += 1;
    });
    assert!(matches!(Snapshot::open(&side), Err(Error::FileCorrupt { .. })));
}

#[test]
fn a_pair_must_belong_together() {
    type Spoil = fn(&mut SnapshotManifest);
    let cases: [(&str, Spoil); 4] = [
        ("migration", |manifest| manifest.migration = "other".into()),
        ("manifest", |manifest| manifest.manifest_hash = "0ther".into()),
        ("epoch", |manifest| manifest.epoch += 1),
        ("side", |manifest| manifest.side = Side::Old),
    ];
    for (expected, spoil) in cases {
        let folder = snapshot();
        write_side(folder.path(), Side::New, &rows(0..100), small());
        SnapshotPair::open(folder.path()).unwrap();
        edit_manifest(&Side::New.folder(folder.path()), spoil);
        let error = SnapshotPair::open(folder.path()).unwrap_err();
        assert!(
            matches!(&error, Error::SidesDiffer { what, .. } if *what == expected),
            "{expected}: {error:?}"
        );
    }
}

#[test]
fn a_pair_with_other_columns_does_not_belong_together() {
    let folder = snapshot();
    let first = nullable(vec![Some(1)]);
    let mut writer =
        SnapshotWriter::create(Side::New.folder(folder.path()), header(&first, Side::New)).unwrap();
    writer.write(&first).unwrap();
    writer.finish().unwrap();
    let error = SnapshotPair::open(folder.path()).unwrap_err();
    assert!(matches!(&error, Error::SidesDiffer { what: "the list of columns", .. }), "{error:?}");
}

#[test]
fn a_pair_counts_only_for_its_own_migration_manifest_and_epoch() {
    let folder = snapshot();
    write_side(folder.path(), Side::New, &rows(0..100), small());
    let pair = SnapshotPair::open(folder.path()).unwrap();
    assert!(pair.is_simultaneous());
    let good = Requirements { migration: "subscriptions".into(), manifest_hash: "5eed".into(), epoch_min: 7 };
    pair.require(&good).unwrap();
    let other = pair.require(&Requirements { migration: "orders".into(), ..good.clone() }).unwrap_err();
    assert!(matches!(&other, Error::OtherMigration { .. }) && other.hint().unwrap().contains("orders"));
    let manifest = pair.require(&Requirements { manifest_hash: "new".into(), ..good.clone() }).unwrap_err();
    assert!(matches!(manifest, Error::OtherManifest { .. }));
    let epoch = pair.require(&Requirements { epoch_min: 8, ..good }).unwrap_err();
    assert!(matches!(epoch, Error::OlderEpoch { expected: 8, found: 7, .. }));
}
