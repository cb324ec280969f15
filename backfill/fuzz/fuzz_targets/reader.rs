//! A small snapshot with bytes changed wherever the fuzzer likes: a scan gives the right counts or an error.

#![no_main]

use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use crossfade_backfill::scan::{ScanOptions, scan};
use crossfade_backfill::snapshot::{Side, SnapshotHeader, SnapshotPair, SnapshotWriter};
use libfuzzer_sys::fuzz_target;

struct Fixture {
    folder: tempfile::TempDir,
    file: PathBuf,
    whole: Vec<u8>,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // Old has 0..200; new lacks 7, has another plan for 100, and has 500 beyond.
    let old = (0..200).map(|id| (id, "basic"));
    let new = (0..200).filter(|id| *id != 7).map(|id| (id, if id == 100 { "pro" } else { "basic" })).chain([(500, "x")]);
    write(&folder, Side::Old, old.collect());
    write(&folder, Side::New, new.collect());
    let file = Side::New.folder(folder.path()).join("part-00000.parquet");
    let whole = fs::read(&file).expect("the file was just written");
    Fixture { folder, file, whole }
});

fuzz_target!(
    init: {
        // The decoder's panics on damaged pages are contained by the reader. Its own failures abort below.
        std::panic::set_hook(Box::new(|_| {}));
    },
    |edits: Vec<(u16, u8)>| {
        let fixture = &*FIXTURE;
        let mut damaged = fixture.whole.clone();
        for (position, mask) in edits {
            let position = usize::from(position) % damaged.len();
            damaged[position] ^= mask;
        }
        fs::write(&fixture.file, &damaged).expect("the file can be written");
        let findings = fixture.folder.path().join("findings");
        let _ = fs::remove_dir_all(&findings);
        let result = std::panic::catch_unwind(|| {
            let pair = SnapshotPair::open(fixture.folder.path())?;
            scan(&pair, &findings, &ScanOptions::default(), &|_| ControlFlow::Continue(()))
        });
        match result {
            Ok(Err(_)) => {}
            Ok(Ok(summary)) if (summary.missing, summary.mismatched, summary.orphaned) == (1, 1, 1) => {}
            _ => std::process::abort(),
        }
    }
);

fn write(folder: &tempfile::TempDir, side: Side, rows: Vec<(i64, &str)>) {
    let (ids, plans): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    let ids: ArrayRef = Arc::new(Int64Array::from(ids));
    let plans: ArrayRef = Arc::new(StringArray::from(plans));
    let batch = RecordBatch::try_from_iter([("id", ids), ("plan", plans)]).expect("columns of one length");
    let header = SnapshotHeader {
        migration: "fuzz".into(),
        manifest_hash: "0".into(),
        side,
        store: "generated".into(),
        consistent_point: "generated".into(),
        epoch: 1,
        phase: "dual_write".into(),
        started_at: "2026-01-01T00:00:00Z".into(),
        schema: batch.schema(),
        key: vec!["id".into()],
        scope_columns: 1,
    };
    let mut writer = SnapshotWriter::create(side.folder(folder.path()), header).expect("an empty folder");
    writer.write(&batch).expect("rows in order");
    writer.finish().expect("the disk has room");
}
