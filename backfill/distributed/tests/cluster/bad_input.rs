//! What goes wrong says what, where and what next, and leaves nothing that looks like a result.

use std::fs;

use crossfade_backfill::Cancel;
use crossfade_backfill::scan::{Compared, Dumps, ScanOptions};
use crossfade_backfill::snapshot::{Side, SnapshotPair};
use crossfade_distributed::{Cluster, Error, scan, scan_dumps};

use crate::dumps::dumps;
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
async fn a_scan_that_is_cancelled_takes_its_job_back() {
    let Processes { cluster, scheduler, .. } = Processes::without_executors();
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path(), Shape::Int, &planted(1_000));
    let pair = SnapshotPair::open(folder.path()).unwrap();
    let findings = folder.path().join("findings");
    let (cancel, options) = (Cancel::new(), ScanOptions::default());
    let scanning = scan(&cluster, &pair, &findings, &options, &cancel);
    let submitted = tokio::task::spawn_blocking(move || {
        scheduler.stdout_line("Job submitted");
        scheduler
    });
    let cancelling = async {
        let scheduler = submitted.await.unwrap();
        cancel.cancel();
        scheduler
    };
    let (scanned, scheduler) = tokio::join!(scanning, cancelling);
    let error = scanned.unwrap_err();
    assert!(
        matches!(error, Error::Backfill(crossfade_backfill::Error::Cancelled { .. })),
        "it waits for executors until then: {error:?}"
    );
    scheduler.stdout_line("Received cancellation request");
    assert!(!findings.join("scan.json").exists());
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
    let run = async |dumps: &Dumps| {
        let error = scan_dumps(&cluster, dumps, &findings, &ScanOptions::default(), &Cancel::new())
            .await
            .unwrap_err();
        assert!(error.hint().is_some(), "{error}");
        assert!(!findings.exists());
        error
    };
    let dumps = dumps(folder.path(), Shape::Int);
    let error = run(&dumps).await;
    assert!(matches!(error, Error::Backfill(Backfill::DumpAbsent { .. })), "{error:?}");

    let [old, new] = planted(100);
    write_dump(&dumps.old, &batch(&old, Shape::Int, Side::Old));
    write_dump(&dumps.new, &batch(&new, Shape::Text, Side::New));
    let error = run(&dumps).await;
    assert!(matches!(error, Error::Backfill(Backfill::DumpsDiffer { .. })), "{error:?}");

    let lacking = Dumps { compared: Compared::Columns(vec!["price".into()]), ..dumps.clone() };
    let error = run(&lacking).await;
    assert!(error.to_string().contains("price"), "{error:?}");

    fs::write(dumps.old.join("part 9.parquet"), b"PAR1 and no more").unwrap();
    let error = run(&dumps).await;
    assert!(error.to_string().contains("part 9.parquet"), "{error:?}");
}
