//! An executor that is killed in the middle does not change the result.

use crossfade_backfill::Cancel;
use crossfade_backfill::scan::ScanOptions;
use crossfade_backfill::snapshot::SnapshotPair;
use crossfade_test_harness::Signal;

use crate::processes::Processes;
use crate::rows::{Shape, files, planted, write_pair};
use crate::snapshots::local;

/// The executor stands still as soon as it has work, so that this work is not done when it is killed.
#[tokio::test(flavor = "multi_thread")]
async fn an_executor_that_is_killed_with_work_in_hand_does_not_change_the_findings() {
    let mut processes = Processes::start();
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path(), Shape::IntAndText, &planted(300_000));
    let pair = SnapshotPair::open(folder.path()).unwrap();
    let (here, there) = (folder.path().join("local"), folder.path().join("distributed"));
    local(&pair, &here);

    let victim = processes.executors.remove(0);
    let killed = std::thread::spawn(move || {
        victim.stdout_line("Execute task");
        victim.signal(Signal::Stop);
        victim.kill()
    });
    let options = ScanOptions::default();
    crossfade_distributed::scan(&processes.cluster, &pair, &there, &options, &Cancel::new()).await.unwrap();
    let killed = killed.join().unwrap();
    assert_eq!(killed.code(), None, "it was killed: {killed}");
    processes.scheduler.stdout_line("Removing executor");
    assert_eq!(files(&there), files(&here));
}
