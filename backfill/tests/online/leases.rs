//! The queue alone: who holds what, and what becomes of it.

use std::collections::HashSet;
use std::time::Duration;

use crossfade_backfill::Error;
use crossfade_backfill::queue::{
    ATTEMPTS_MAX, Change, Checkpoint, Claim, Ending, Job, JobId, JobKind, JobSpec, JobState, LEASE_TTL,
    Lease, Opened, Owner, Queue, Request, Tunables, Waiting,
};
use crossfade_migration_core::phase::Epoch;

use crate::world::{TestEngine, World, tunables};

async fn spec<E: TestEngine>(world: &World<E>, chunks: usize) -> JobSpec {
    JobSpec {
        migration: world.migration.subject.id,
        name: "moving".into(),
        kind: JobKind::Copy,
        epoch: world.epoch().await,
        source: "/somewhere".into(),
        digest: "aa".into(),
        tunables: tunables(),
        chunks: vec![10; chunks],
    }
}

async fn created(queue: &dyn Queue, spec: &JobSpec) -> JobId {
    match queue.open(spec).await.unwrap() {
        Opened::Created(job) => job.id,
        Opened::Resumed(job) => panic!("there was a job already: {job:?}"),
    }
}

async fn leased(queue: &dyn Queue, job: JobId, owner: &Owner) -> Lease {
    match queue.claim(job, owner, LEASE_TTL).await.unwrap() {
        Claim::Leased(lease, _) => lease,
        other => panic!("no chunk: {other:?}"),
    }
}

async fn state(queue: &dyn Queue, job: JobId) -> JobState {
    queue.job(job).await.unwrap().state
}

fn done() -> Checkpoint {
    Checkpoint { keys_done: 10, copied: 7, ..Checkpoint::default() }
}

pub(crate) async fn many_workers_never_hold_one_chunk<E: TestEngine>() {
    const CHUNKS: usize = 40;
    let world = World::<E>::new(1).await;
    let queue = world.migration.queue.clone();
    let job = created(&*queue, &spec(&world, CHUNKS).await).await;
    let workers = (0..8).map(|_| {
        let queue = queue.clone();
        tokio::spawn(async move {
            let owner = Owner::new();
            let mut held = Vec::new();
            loop {
                match queue.claim(job, &owner, LEASE_TTL).await {
                    Ok(Claim::Leased(lease, _)) => held.push(lease.number),
                    Ok(Claim::Wait(waiting)) => {
                        // Everything is held by somebody, and nobody gives anything back.
                        assert_eq!(waiting, Waiting::Others);
                        return held;
                    }
                    Ok(Claim::Over(job)) => panic!("nothing was finished: {job:?}"),
                    Err(error) => assert!(error.is_retryable(), "{error}"),
                }
            }
        })
    });
    let held: Vec<Vec<u32>> =
        futures::future::join_all(workers).await.into_iter().map(Result::unwrap).collect();
    let distinct: HashSet<u32> = held.iter().flatten().copied().collect();
    assert_eq!(held.iter().map(Vec::len).sum::<usize>(), CHUNKS, "{held:?}");
    assert_eq!(distinct.len(), CHUNKS);
    assert_eq!(queue.job(job).await.unwrap().chunks_leased, CHUNKS as u64);
}

pub(crate) async fn a_lease_that_ran_out_is_anybodys_and_its_late_owner_is_told<E: TestEngine>() {
    let world = World::<E>::new(1).await;
    let queue = &*world.migration.queue;
    let job = created(queue, &spec(&world, 1).await).await;
    let (early, late) = (Owner::new(), Owner::new());
    let Claim::Leased(lost, _) = queue.claim(job, &early, Duration::ZERO).await.unwrap() else {
        panic!("the chunk is free");
    };
    let taken = leased(queue, job, &late).await;
    assert_eq!(taken.number, lost.number);
    assert_eq!(queue.renew(&lost, done(), LEASE_TTL).await.unwrap(), None);
    assert!(!queue.end(&lost, done(), &Ending::Done).await.unwrap());
    assert_eq!(state(queue, job).await, JobState::Running, "a late end ends nothing");
    assert_eq!(queue.job(job).await.unwrap().done, Checkpoint::default(), "and counts nothing");
    assert!(queue.end(&taken, done(), &Ending::Done).await.unwrap());
    let job = queue.job(job).await.unwrap();
    assert_eq!((job.state, job.done), (JobState::Done, done()));
}

pub(crate) async fn a_chunk_goes_on_where_it_was_left<E: TestEngine>() {
    let world = World::<E>::new(1).await;
    let queue = &*world.migration.queue;
    let job = created(queue, &spec(&world, 1).await).await;
    let half = Checkpoint { keys_done: 5, copied: 3, repaired: 1, removed: 1, retired: 2, kept: 4 };
    let first = leased(queue, job, &Owner::new()).await;
    assert!(queue.renew(&first, half, Duration::ZERO).await.unwrap().is_some());
    let second = leased(queue, job, &Owner::new()).await;
    assert_eq!((second.checkpoint, second.attempts), (half, 0));
    assert!(queue.end(&second, half, &Ending::Released).await.unwrap());
    assert_eq!(leased(queue, job, &Owner::new()).await.checkpoint, half);
}

pub(crate) async fn pausing_waits_for_the_chunk_in_flight_and_resuming_goes_on<E: TestEngine>() {
    let world = World::<E>::new(1).await;
    let queue = &*world.migration.queue;
    let job = created(queue, &spec(&world, 2).await).await;
    let owner = Owner::new();
    let lease = leased(queue, job, &owner).await;
    let asked = queue.change(job, Change::Request(Request::Pause)).await.unwrap();
    assert_eq!((asked.state, asked.requested), (JobState::Running, Request::Pause));
    assert_eq!(queue.claim(job, &owner, LEASE_TTL).await.unwrap(), Claim::Wait(Waiting::Paused));
    let heard = queue.renew(&lease, Checkpoint::default(), LEASE_TTL).await.unwrap().unwrap();
    assert_eq!(heard.requested, Request::Pause);
    queue.end(&lease, Checkpoint::default(), &Ending::Released).await.unwrap();
    assert_eq!(state(queue, job).await, JobState::Paused);
    assert_eq!(queue.claim(job, &owner, LEASE_TTL).await.unwrap(), Claim::Wait(Waiting::Paused));

    let resumed = queue.change(job, Change::Request(Request::Run)).await.unwrap();
    assert_eq!(resumed.state, JobState::Running);
    leased(queue, job, &owner).await;
}

pub(crate) async fn cancelling_ends_a_job_once_its_chunks_are_back<E: TestEngine>() {
    let world = World::<E>::new(1).await;
    let queue = &*world.migration.queue;
    let spec = spec(&world, 2).await;
    let job = created(queue, &spec).await;
    let owner = Owner::new();
    let lease = leased(queue, job, &owner).await;
    queue.change(job, Change::Request(Request::Cancel)).await.unwrap();
    assert_eq!(queue.claim(job, &owner, LEASE_TTL).await.unwrap(), Claim::Wait(Waiting::Others));
    queue.end(&lease, done(), &Ending::Done).await.unwrap();
    assert!(matches!(
        queue.claim(job, &owner, LEASE_TTL).await.unwrap(),
        Claim::Over(Job { state: JobState::Cancelled, .. })
    ));
    let again = queue.change(job, Change::Request(Request::Run)).await.unwrap();
    assert_eq!(again.state, JobState::Cancelled, "nothing brings it back");
    assert_ne!(created(queue, &spec).await, job, "but another one may begin");
}

pub(crate) async fn a_failing_chunk_rests_and_is_given_up_in_the_end<E: TestEngine>() {
    let world = World::<E>::new(1).await;
    let queue = &*world.migration.queue;
    let job = created(queue, &spec(&world, 2).await).await;
    let owner = Owner::new();
    let other = leased(queue, job, &owner).await;
    queue.end(&other, done(), &Ending::Done).await.unwrap();
    for attempt in 1..=ATTEMPTS_MAX {
        let lease = leased(queue, job, &owner).await;
        assert_eq!(lease.attempts, attempt - 1);
        queue.end(&lease, Checkpoint::default(), &Ending::Failed { error: "locked".into() }).await.unwrap();
        if attempt < ATTEMPTS_MAX {
            assert_eq!(queue.claim(job, &owner, LEASE_TTL).await.unwrap(), Claim::Wait(Waiting::Backoff));
            // The rest is over: the test does not sit it out.
            let table = if world.url.starts_with("sqlite") { "crossfade_chunk" } else { "crossfade.chunk" };
            world.run(format!("update {table} set not_before = null")).await;
        }
    }
    let job = queue.job(job).await.unwrap();
    assert_eq!((job.state, job.chunks_done, job.chunks_failed), (JobState::Failed, 1, 1));
    assert_eq!(job.error.as_deref(), Some("chunk 1: locked"));
}

pub(crate) async fn one_unfinished_job_of_a_kind<E: TestEngine>() {
    let world = World::<E>::new(1).await;
    let queue = &*world.migration.queue;
    let spec = spec(&world, 2).await;
    let openers = (0..4).map(|_| queue.open(&spec));
    let opened = futures::future::join_all(openers).await;
    let ids: HashSet<JobId> = opened
        .into_iter()
        .map(|opened| match opened.unwrap() {
            Opened::Created(job) | Opened::Resumed(job) => job.id,
        })
        .collect();
    assert_eq!(ids.len(), 1, "whoever comes first makes it, the others join");

    let elsewhere = JobSpec { source: "/mounted/elsewhere".into(), ..spec.clone() };
    assert!(
        matches!(queue.open(&elsewhere).await.unwrap(), Opened::Resumed(_)),
        "the same findings by digest"
    );
    let other = JobSpec { digest: "bb".into(), ..spec.clone() };
    let error = queue.open(&other).await.unwrap_err();
    assert!(matches!(&error, Error::JobInTheWay { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("crossfade cancel moving"));
    let cleanup = JobSpec { kind: JobKind::Cleanup, ..other };
    created(queue, &cleanup).await;
    assert_eq!(queue.jobs(world.migration.subject.id).await.unwrap().len(), 2);
}

pub(crate) async fn a_job_of_a_passed_epoch_makes_room<E: TestEngine>() {
    let world = World::<E>::new(1).await;
    let queue = &*world.migration.queue;
    let old = spec(&world, 1).await;
    let first = created(queue, &old).await;
    let lease = leased(queue, first, &Owner::new()).await;
    let new = JobSpec { epoch: Epoch(old.epoch.0 + 1), digest: "bb".into(), ..old };
    created(queue, &new).await;
    let job = queue.job(first).await.unwrap();
    assert_eq!(job.state, JobState::Failed);
    assert!(job.error.unwrap().contains("moved on from epoch"));
    let heard = queue.renew(&lease, done(), LEASE_TTL).await.unwrap().unwrap();
    assert_eq!(heard.state, JobState::Failed, "its workers hear of it");
}

pub(crate) async fn tuning_is_heard_with_the_next_renewal<E: TestEngine>() {
    let world = World::<E>::new(1).await;
    let queue = &*world.migration.queue;
    let job = created(queue, &spec(&world, 1).await).await;
    let lease = leased(queue, job, &Owner::new()).await;
    let wild = Tunables { workers: 5, batch_keys_max: 1_000_000, batch_ms: 40, work_percent: 25 };
    queue.change(job, Change::Tune(wild)).await.unwrap();
    let heard = queue.renew(&lease, Checkpoint::default(), LEASE_TTL).await.unwrap().unwrap();
    assert_eq!(heard.tunables, Tunables { batch_keys_max: 10_000, ..wild });
}

pub(crate) async fn an_unknown_job_is_an_error<E: TestEngine>() {
    let world = World::<E>::new(1).await;
    let queue = &*world.migration.queue;
    let nobody = JobId(77);
    assert!(matches!(queue.job(nobody).await, Err(Error::UnknownJob { job }) if job == nobody));
    let change = Change::Request(Request::Pause);
    assert!(matches!(queue.change(nobody, change).await, Err(Error::UnknownJob { .. })));
    assert!(matches!(queue.claim(nobody, &Owner::new(), LEASE_TTL).await, Err(Error::UnknownJob { .. })));
}
