//! Worker processes that are killed.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crossfade_backfill::Cancel;
use crossfade_backfill::copy::copy;
use crossfade_backfill::progress::Silent;
use crossfade_backfill::queue::{Change, Claim, JobState, LEASE_TTL, Owner, Tunables};

use crate::world::{TestEngine, World, open, tunables};

const URL: &str = "CROSSFADE_TEST_WORKER_URL";
const FINDINGS: &str = "CROSSFADE_TEST_WORKER_FINDINGS";

/// The process that is killed: a copier that takes its time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it is run by the tests that kill it, which give it a database"]
async fn worker_process() {
    let migration = open(&env::var(URL).unwrap()).await;
    let findings = PathBuf::from(env::var(FINDINGS).unwrap());
    let slow = Tunables { workers: 1, batch_keys_max: 3, batch_ms: 5, work_percent: 2 };
    copy(&migration, &findings, Some(slow), &Silent, &Cancel::new()).await.unwrap();
}

pub(crate) async fn a_worker_that_was_killed_in_the_middle_of_a_chunk_loses_nothing<E: TestEngine>() {
    let world = World::<E>::new(3_000).await;
    let (findings, _) = world.scan("first", 2_000).await;
    let mut worker = Command::new(env::current_exe().unwrap())
        .args(["--exact", "crash::worker_process", "--ignored"])
        .env(URL, &world.url)
        .env(FINDINGS, &findings)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let queue = &*world.migration.queue;
    // Until it is in the middle of a chunk, and has written down so.
    let job = loop {
        assert!(worker.try_wait().unwrap().is_none(), "the worker ended before it was killed");
        let jobs = queue.jobs(world.migration.subject.id).await.unwrap();
        match jobs.into_iter().next() {
            Some(job) if job.done.keys_done > 0 => break job,
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    worker.kill().unwrap();
    worker.wait().unwrap();
    let left = queue.job(job.id).await.unwrap();
    assert_eq!((left.state, left.chunks_leased, left.chunks_done), (JobState::Running, 1, 0));

    // The lease has most of its time left, and is taken over all the same: its process is seen to be gone.
    let owner = Owner::new();
    let Claim::Leased(lease, _) = queue.claim(job.id, &owner, LEASE_TTL).await.unwrap() else { panic!() };
    let Claim::Leased(taken, _) = queue.claim(job.id, &owner, LEASE_TTL).await.unwrap() else { panic!() };
    let mut numbers = [lease.number, taken.number];
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1], "both chunks are free at once");
    for lease in [lease, taken] {
        let ending = crossfade_backfill::queue::Ending::Released;
        assert!(queue.end(&lease, lease.checkpoint, &ending).await.unwrap());
    }

    queue.change(job.id, Change::Tune(tunables())).await.unwrap();
    let report = copy(&world.migration, &findings, None, &Silent, &Cancel::new()).await.unwrap();
    assert_eq!(report.job, Some(job.id), "the same job");
    assert_eq!(world.subscriptions().await, world.projected().await);
    let job = queue.job(job.id).await.unwrap();
    assert_eq!((job.state, job.done.keys_done), (JobState::Done, job.keys));
    // What was committed and not yet written down when the process died is not counted; nothing is counted twice.
    assert!(job.done.copied <= world.projected().await.len() as u64, "{job:?}");
}
