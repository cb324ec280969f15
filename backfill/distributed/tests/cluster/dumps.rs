//! Dumps without order and hashes: the same findings as from importing them and scanning here.

use std::path::Path;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch};
use crossfade_backfill::Cancel;
use crossfade_backfill::findings::ScanSummary;
use crossfade_backfill::import::{self, ImportOptions};
use crossfade_backfill::scan::ScanOptions;
use crossfade_backfill::snapshot::{Side, SnapshotPair};
use crossfade_distributed::{Dump, DumpPair, Error, scan_dumps};

use crate::processes::Processes;
use crate::rows::{Shape, batch, files, key, planted, write_dump};
use crate::snapshots::local;

/// The dumps `old` and `new` of a folder.
pub(crate) fn dump_pair(folder: &Path, shape: Shape) -> DumpPair {
    let columns = batch(&[], shape, Side::Old);
    let dump = |side: &str| Dump {
        path: folder.join(side),
        store: format!("warehouse/{side}"),
        consistent_point: "monday".into(),
    };
    DumpPair {
        old: dump("old"),
        new: dump("new"),
        columns: columns.schema_ref().fields().iter().map(|field| field.name().clone()).collect(),
        key: key(shape),
        scope_columns: 1,
        migration: "subscriptions".into(),
        manifest_hash: "5eed".into(),
        epoch: 7,
        phase: "dual_write".into(),
    }
}

/// What importing both dumps and scanning here finds.
fn imported(pair: &DumpPair, folder: &Path, findings: &Path) -> ScanSummary {
    for (side, dump) in [(Side::Old, &pair.old), (Side::New, &pair.new)] {
        let dump = import::Dump {
            path: dump.path.clone(),
            columns: pair.columns.clone(),
            migration: pair.migration.clone(),
            manifest_hash: pair.manifest_hash.clone(),
            side,
            store: dump.store.clone(),
            consistent_point: dump.consistent_point.clone(),
            epoch: pair.epoch,
            phase: pair.phase.clone(),
            started_at: "2026-01-01T00:00:00Z".into(),
            key: pair.key.clone(),
            scope_columns: pair.scope_columns,
        };
        import::import(dump, side.folder(folder), &ImportOptions::default()).unwrap();
    }
    local(&SnapshotPair::open(folder).unwrap(), findings)
}

#[tokio::test(flavor = "multi_thread")]
async fn findings_are_those_of_an_import_and_the_local_engine() {
    let processes = Processes::start();
    for shape in [Shape::Int, Shape::IntAndText, Shape::Uuid] {
        let folder = tempfile::tempdir().unwrap();
        let pair = dump_pair(folder.path(), shape);
        let [old, new] = planted(20_000);
        write_dump(&pair.old.path, &batch(&old, shape, Side::Old));
        write_dump(&pair.new.path, &batch(&new, shape, Side::New));
        let (here, there) = (folder.path().join("local"), folder.path().join("distributed"));
        let expected = imported(&pair, &folder.path().join("imported"), &here);
        let options = ScanOptions::default();
        let found = scan_dumps(&processes.cluster, &pair, &there, &options, &Cancel::new()).await.unwrap();
        let comparable = |summary: ScanSummary| ScanSummary {
            findings: None,
            old: found.old.clone(),
            new: found.new.clone(),
            ..summary
        };
        assert_eq!(comparable(found.clone()), comparable(expected), "{shape:?}");
        let findings = |folder: &Path| {
            let mut files = files(folder);
            files.remove("scan.json");
            files
        };
        assert_eq!(findings(&there), findings(&here), "{shape:?}");
    }
}

/// Both engines refuse rows that cannot be told apart. One on each side would otherwise pass for a row that is equal.
#[tokio::test(flavor = "multi_thread")]
async fn rows_without_a_key_are_refused_as_by_the_import() {
    let processes = Processes::start();
    let folder = tempfile::tempdir().unwrap();
    let pair = dump_pair(folder.path(), Shape::Int);
    for (dump, side) in [(&pair.old, Side::Old), (&pair.new, Side::New)] {
        let rows = batch(&planted(1_000)[0], Shape::Int, side);
        write_dump(&dump.path, &without_one_key(&rows));
    }
    let findings = folder.path().join("findings");
    let error = scan_dumps(&processes.cluster, &pair, &findings, &ScanOptions::default(), &Cancel::new())
        .await
        .unwrap_err();
    assert!(
        matches!(&error, Error::KeyNull { column, old_rows: 1, new_rows: 1 } if column == "id"),
        "{error:?}"
    );
    assert!(error.hint().is_some());
    assert!(!findings.join("scan.json").exists());
}

fn without_one_key(rows: &RecordBatch) -> RecordBatch {
    let keys = rows.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
    let keys: Int64Array = keys.iter().enumerate().map(|(row, key)| key.filter(|_| row != 77)).collect();
    assert_eq!(keys.null_count(), 1);
    let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
    columns[0] = std::sync::Arc::new(keys);
    RecordBatch::try_new(rows.schema(), columns).unwrap()
}
