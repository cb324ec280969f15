//! Dumps without order and hashes: the same findings as from the local engine.

use std::ops::ControlFlow;
use std::path::Path;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch};
use crossfade_backfill::Cancel;
use crossfade_backfill::findings::ScanSummary;
use crossfade_backfill::scan::{self, Compared, DumpOrder, DumpOrigin, Dumps, ScanOptions};
use crossfade_backfill::snapshot::Side;
use crossfade_distributed::{Error, scan_dumps};

use crate::processes::Processes;
use crate::rows::{Shape, batch, files, key, planted, write_dump};

/// The dumps `old` and `new` of a folder.
pub(crate) fn dumps(folder: &Path, shape: Shape) -> Dumps {
    Dumps {
        old: folder.join("old"),
        new: folder.join("new"),
        key: key(shape),
        scope_columns: 1,
        compared: Compared::AllColumns,
        order: DumpOrder::Unordered,
        origin: DumpOrigin::default(),
    }
}

fn local(dumps: &Dumps, findings: &Path) -> crossfade_backfill::Result<ScanSummary> {
    scan::scan_dumps(dumps, findings, &ScanOptions::default(), &|_| ControlFlow::Continue(()))
}

#[tokio::test(flavor = "multi_thread")]
async fn findings_are_those_of_the_local_engine() {
    let processes = Processes::start();
    let some = Compared::Columns(vec!["tags".into(), "plan".into()]);
    for (shape, compared) in [
        (Shape::Int, Compared::AllColumns),
        (Shape::IntAndText, Compared::AllColumns),
        (Shape::Uuid, some),
        (Shape::Text, Compared::Keys),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let dumps = Dumps { compared, ..dumps(folder.path(), shape) };
        let [old, new] = planted(20_000);
        write_dump(&dumps.old, &batch(&old, shape, Side::Old));
        write_dump(&dumps.new, &batch(&new, shape, Side::New));
        let (here, there) = (folder.path().join("local"), folder.path().join("distributed"));
        let expected = local(&dumps, &here).unwrap();
        assert!(expected.missing > 0 && expected.duplicated > 0, "{shape:?}");
        assert_eq!(expected.mismatched > 0, dumps.compared != Compared::Keys, "{shape:?}");
        let options = ScanOptions::default();
        scan_dumps(&processes.cluster, &dumps, &there, &options, &Cancel::new()).await.unwrap();
        assert_eq!(files(&there), files(&here), "{shape:?}");
    }
}

/// Both engines refuse rows that cannot be told apart. One on each side would otherwise pass for a row that is equal.
#[tokio::test(flavor = "multi_thread")]
async fn rows_without_a_key_are_refused_by_both_engines() {
    let processes = Processes::start();
    let folder = tempfile::tempdir().unwrap();
    let dumps = dumps(folder.path(), Shape::Int);
    for (dump, side) in [(&dumps.old, Side::Old), (&dumps.new, Side::New)] {
        let rows = batch(&planted(1_000)[0], Shape::Int, side);
        write_dump(dump, &without_one_key(&rows));
    }
    let findings = folder.path().join("findings");
    let error = scan_dumps(&processes.cluster, &dumps, &findings, &ScanOptions::default(), &Cancel::new())
        .await
        .unwrap_err();
    assert!(
        matches!(&error, Error::KeyNull { column, old_rows: 1, new_rows: 1 } if column == "id"),
        "{error:?}"
    );
    assert!(error.hint().is_some());
    assert!(!findings.join("scan.json").exists());
    local(&dumps, &findings).unwrap_err();
}

fn without_one_key(rows: &RecordBatch) -> RecordBatch {
    let keys = rows.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
    let keys: Int64Array = keys.iter().enumerate().map(|(row, key)| key.filter(|_| row != 77)).collect();
    assert_eq!(keys.null_count(), 1);
    let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
    columns[0] = std::sync::Arc::new(keys);
    RecordBatch::try_new(rows.schema(), columns).unwrap()
}
