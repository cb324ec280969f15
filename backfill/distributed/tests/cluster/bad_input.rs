//! What goes wrong says what, where and what next, and leaves nothing that looks like a result.

use std::fs;

use crossfade_backfill::Cancel;
use crossfade_backfill::scan::ScanOptions;
use crossfade_backfill::snapshot::{Side, SnapshotPair};
use crossfade_distributed::{Cluster, Error, scan, scan_dumps};

use crate::dumps::dump_pair;
use crate::processes::{Processes, free_ports};
use crate::rows::{Shape, batch, planted, write_dump, write_pair};

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path(), Shape::Int, &planted(1_000));
    let pair = SnapshotPair::open(folder.path()).unwrap();
    let [port] = free_ports();
    let cluster: Cluster = format!("df://127.0.0.1:{port}").parse().unwrap();
    let findings = folder.path().join("findings");
    let error = scan(&cluster, &pair, &findings, &ScanOptions::default(), &Cancel::new()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains(&cluster.to_string()), "{error}");
    assert!(error.hint().unwrap().contains("ballista-scheduler"));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_executors_cannot_read_end_the_scan() {
    let processes = Processes::start();
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path(), Shape::Int, &planted(1_000));
    let pair = SnapshotPair::open(folder.path()).unwrap();
    // Away between its validation here and its reading there.
    let old = Side::Old.folder(folder.path());
    let file = old.join(&pair.old().manifest().files[0].name);
    let kept = fs::read(&file).unwrap();
    let findings = folder.path().join("findings");
    let options = ScanOptions::default();

    fs::write(&file, &kept[..kept.len() / 2]).unwrap();
    let error = scan(&processes.cluster, &pair, &findings, &options, &Cancel::new()).await.unwrap_err();
    assert!(matches!(error, Error::Job { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("executors"));
    assert!(!findings.join("scan.json").exists());

    // The same cluster goes on.
    fs::write(&file, &kept).unwrap();
    let summary = scan(&processes.cluster, &pair, &findings, &options, &Cancel::new()).await.unwrap();
    assert!(!summary.is_clean());
    let error = scan(&processes.cluster, &pair, &findings, &options, &Cancel::new()).await.unwrap_err();
    assert!(
        matches!(error, Error::Backfill(crossfade_backfill::Error::FindingsPresent { .. })),
        "what is finished is not overwritten: {error:?}"
    );
    assert!(!findings.join("results.tmp").exists(), "what the executors wrote is removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn dumps_that_do_not_fit_are_refused_before_the_cluster_has_work() {
    use crossfade_backfill::Error as Backfill;
    let folder = tempfile::tempdir().unwrap();
    let cluster: Cluster = "df://127.0.0.1:1".parse().unwrap();
    let findings = folder.path().join("findings");
    let run = async |pair| {
        let error =
            scan_dumps(&cluster, pair, &findings, &ScanOptions::default(), &Cancel::new()).await.unwrap_err();
        assert!(error.hint().is_some(), "{error}");
        assert!(!findings.exists());
        error
    };
    let pair = dump_pair(folder.path(), Shape::Int);
    let error = run(&pair).await;
    assert!(matches!(error, Error::Backfill(Backfill::DumpAbsent { .. })), "{error:?}");

    let [old, new] = planted(100);
    write_dump(&pair.old.path, &batch(&old, Shape::Int, Side::Old));
    write_dump(&pair.new.path, &batch(&new, Shape::Text, Side::New));
    let error = run(&pair).await;
    assert!(matches!(error, Error::Backfill(Backfill::SidesDiffer { .. })), "{error:?}");

    let mut lacking = pair.clone();
    lacking.columns.push("price".into());
    let error = run(&lacking).await;
    assert!(
        matches!(&error, Error::Backfill(Backfill::FileSchema { detail, .. }) if detail.contains("price")),
        "{error:?}"
    );

    fs::write(pair.old.path.join("part 9.parquet"), b"PAR1 and no more").unwrap();
    let error = run(&pair).await;
    assert!(matches!(error, Error::Backfill(Backfill::FileCorrupt { .. })), "{error:?}");
}
