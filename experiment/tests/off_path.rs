//! Off the caller's path: what the caller gets, and what is counted of the candidate.

use std::{
    convert::Infallible,
    future::pending,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use crossfade_experiment::{
    BreakerPolicy, Builder, Experiment, Incomparable, Limits, Mismatch, Observation, PublishFn,
    RecheckPolicy, Sampling, Start, Totals, Verdict,
};
use futures::FutureExt;

type Number = Experiment<i64, String>;
type Seen = Arc<Mutex<Vec<Observation>>>;

fn watched(configure: impl FnOnce(Builder<i64, String>) -> Builder<i64, String>) -> (Number, Seen) {
    let seen = Seen::default();
    let publisher = PublishFn({
        let seen = seen.clone();
        move |observation: &Observation| seen.lock().unwrap().push(observation.clone())
    });
    let builder = Experiment::builder("number").sampling(Sampling::Always).publisher(publisher);
    (configure(builder).build().unwrap(), seen)
}

/// Waits until all calls have ended; under paused time this takes none.
async fn quiet(experiment: &Number) -> Totals {
    while experiment.in_flight() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut totals = Totals::default();
    experiment.tallies().iter().for_each(|tally| totals += tally.totals);
    assert!(totals.is_closed(), "{totals:?}");
    totals
}

fn verdicts(seen: &Seen) -> Vec<Verdict> {
    seen.lock().unwrap().iter().map(|observation| observation.verdict.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_caller_does_not_wait_for_a_candidate_that_never_ends() {
    let (experiment, seen) = watched(|builder| builder);
    let started = tokio::time::Instant::now();
    assert_eq!(experiment.run("k", || async { Ok(1) }, pending).await, Ok(1));
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(quiet(&experiment).await, Totals { eligible: 1, timed_out: 1, ..Totals::default() });
    assert_eq!(verdicts(&seen), [Verdict::TimedOut]);
}

#[tokio::test(start_paused = true)]
async fn nothing_a_candidate_does_reaches_the_caller() {
    for start in [Start::AfterControl, Start::WithControl] {
        let (experiment, seen) = watched(|builder| builder.start(start).breaker(None));
        let control = || async { Ok(1) };
        let run = |which: u32| {
            let experiment = experiment.clone();
            async move {
                match which {
                    0 => experiment.run("k", control, || async { Ok(1) }).await,
                    1 => experiment.run("k", control, || async { Ok(2) }).await,
                    2 => experiment.run("k", control, || async { Err("no".into()) }).await,
                    3 => experiment.run("k", control, || async { panic!("polled") }).await,
                    4 => {
                        let built = || -> std::future::Ready<Result<i64, String>> { panic!("built") };
                        experiment.run("k", control, built).await
                    }
                    _ => experiment.run("k", control, || DropBomb).await,
                }
            }
        };
        for which in 0..6 {
            assert_eq!(run(which).await, Ok(1));
            quiet(&experiment).await;
        }
        let totals = quiet(&experiment).await;
        let expected = Totals {
            eligible: 6,
            matched: 1,
            mismatched: 1,
            errored: 1,
            panicked: 2,
            timed_out: 1,
            ..Totals::default()
        };
        assert_eq!(totals, expected);
        assert_eq!(seen.lock().unwrap().len(), 6);
    }
}

/// Never ends, and panics when it is dropped.
struct DropBomb;

impl Future for DropBomb {
    type Output = Result<i64, String>;

    fn poll(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        std::task::Poll::Pending
    }
}

impl Drop for DropBomb {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

#[tokio::test(start_paused = true)]
async fn controls_panic_and_error_are_the_callers_unchanged() {
    for start in [Start::AfterControl, Start::WithControl] {
        let (experiment, seen) = watched(|builder| builder.start(start));
        assert_eq!(
            experiment.run("k", || async { Err("old".into()) }, || async { Ok(1) }).await,
            Err("old".into())
        );
        quiet(&experiment).await;
        let call = experiment.run("k", || async { panic!("control's own") }, || async { Ok(1) });
        let panic = AssertUnwindSafe(call).catch_unwind().await.unwrap_err();
        assert_eq!(*panic.downcast_ref::<&str>().unwrap(), "control's own");
        let totals = quiet(&experiment).await;
        assert_eq!((totals.mismatched, totals.incomparable), (1, 1));
        assert_eq!(verdicts(&seen)[0], Verdict::Mismatched(Mismatch::Unchecked));
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_caller_leaves_a_closed_account() {
    for start in [Start::AfterControl, Start::WithControl] {
        let (experiment, _) = watched(|builder| builder.start(start));
        let call = experiment.run("k", pending, || async { Ok(1) });
        assert!(tokio::time::timeout(Duration::from_millis(5), call).await.is_err());
        assert_eq!(quiet(&experiment).await, Totals { eligible: 1, incomparable: 1, ..Totals::default() });
    }
}

#[tokio::test]
async fn unsampled_calls_never_build_the_candidate() {
    let (experiment, _) = watched(|builder| builder.sampling(Sampling::Never));
    let built = || -> std::future::Ready<Result<i64, String>> { panic!("built") };
    assert_eq!(experiment.run("k", || async { Ok(1) }, built).await, Ok(1));
    assert_eq!(experiment.tallies(), []);
}

#[tokio::test(start_paused = true)]
async fn beyond_the_slots_calls_are_shed() {
    let (experiment, _) = watched(|builder| builder.limits(Limits { in_flight_max: 3, ..Limits::default() }));
    for _ in 0..10 {
        experiment.run("k", || async { Ok(1) }, pending).await.unwrap();
    }
    assert_eq!(quiet(&experiment).await, Totals { eligible: 10, shed: 7, timed_out: 3, ..Totals::default() });
    experiment.run("k", || async { Ok(1) }, || async { Ok(1) }).await.unwrap();
    assert_eq!(quiet(&experiment).await.matched, 1, "slots come back");
}

#[tokio::test]
async fn an_open_breaker_sheds() {
    let policy = BreakerPolicy { failures: 2, rest: Duration::from_secs(3600) };
    let (experiment, _) = watched(|builder| builder.breaker(policy));
    for _ in 0..5 {
        experiment.run("k", || async { Ok(1) }, || async { Err("down".into()) }).await.unwrap();
        quiet(&experiment).await;
    }
    assert_eq!(quiet(&experiment).await, Totals { eligible: 5, errored: 2, shed: 3, ..Totals::default() });
}

#[tokio::test]
async fn calls_count_for_the_epoch_at_which_they_began() {
    let (experiment, seen) = watched(|builder| builder.epoch(7));
    let gate = Arc::new(tokio::sync::Notify::new());
    let waits = {
        let gate = gate.clone();
        move || async move {
            gate.notified().await;
            Ok(1)
        }
    };
    experiment.run("k", || async { Ok(1) }, waits).await.unwrap();
    experiment.set_epoch(8);
    assert!(experiment.drain().is_empty(), "nothing has ended");
    gate.notify_one();
    quiet(&experiment).await;
    let drained = experiment.drain();
    assert_eq!(drained.iter().map(|tally| (tally.epoch, tally.totals.matched)).collect::<Vec<_>>(), [(7, 1)]);
    assert_eq!(seen.lock().unwrap()[0].epoch, 7);
    assert!(experiment.drain().is_empty(), "handed out once");
}

#[tokio::test]
async fn a_panicking_hook_is_an_observation() {
    let (experiment, seen) = watched(|builder| builder.compare(|_, _| -> bool { panic!("compare") }));
    assert_eq!(experiment.run("k", || async { Ok(1) }, || async { Ok(1) }).await, Ok(1));
    assert_eq!(quiet(&experiment).await.incomparable, 1);
    let seen = seen.lock().unwrap();
    assert_eq!(seen[0].verdict, Verdict::Incomparable(Incomparable::Hook));
    assert_eq!(seen[0].hook_failures[0].message, "compare");
}

#[tokio::test]
async fn values_that_are_not_clone_are_projected() {
    struct Row {
        id: u32,
    }
    let experiment: Experiment<Row, Infallible, _> =
        Experiment::projecting("rows", |row: &Row| row.id).sampling(Sampling::Always).build().unwrap();
    let row = experiment.run("k", || async { Ok(Row { id: 1 }) }, || async { Ok(Row { id: 1 }) }).await;
    assert_eq!(row.map(|row| row.id), Ok(1));
    while experiment.in_flight() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(experiment.tallies()[0].totals.matched, 1);
}

/// Gives each read the next of some values; the last one stays.
fn reads_of(
    values: &'static [i64],
) -> impl Fn() -> std::future::Ready<Result<i64, String>> + Send + Sync + 'static {
    let next = AtomicU32::new(0);
    move || {
        let at = next.fetch_add(1, Ordering::Relaxed) as usize;
        std::future::ready(Ok(values[at.min(values.len() - 1)]))
    }
}

async fn rechecked(control: &'static [i64], candidate: &'static [i64]) -> Verdict {
    let policy = RecheckPolicy { delay: Duration::from_millis(100), rounds: 2 };
    let (experiment, seen) = watched(|builder| builder.recheck(policy));
    experiment.run_rechecked("k", reads_of(control), reads_of(candidate)).await.unwrap();
    quiet(&experiment).await;
    let mut verdicts = verdicts(&seen);
    assert_eq!(verdicts.len(), 1);
    verdicts.remove(0)
}

#[tokio::test(start_paused = true)]
async fn a_difference_is_classed_by_reading_again() {
    assert_eq!(rechecked(&[1], &[1]).await, Verdict::Matched);
    assert_eq!(rechecked(&[1], &[2, 1]).await, Verdict::Transient, "the candidate caught up");
    assert_eq!(rechecked(&[1], &[2, 2, 1]).await, Verdict::Transient, "in the second round");
    assert_eq!(rechecked(&[1], &[2]).await, Verdict::Mismatched(Mismatch::Persistent));
    assert_eq!(
        rechecked(&[1, 2, 3, 4, 5, 6], &[9]).await,
        Verdict::Incomparable(Incomparable::Moving),
        "control never stood still"
    );
    assert_eq!(
        rechecked(&[1, 2, 3], &[9, 2]).await,
        Verdict::Transient,
        "agrees with control as it was before"
    );
}

#[tokio::test(start_paused = true)]
async fn a_second_read_that_fails_teaches_nothing() {
    let (experiment, seen) = watched(|builder| builder);
    let reads = AtomicU32::new(0);
    let candidate = move || {
        let read = reads.fetch_add(1, Ordering::Relaxed);
        async move { if read == 0 { Ok(2) } else { panic!("gone") } }
    };
    experiment.run_rechecked("k", reads_of(&[1]), candidate).await.unwrap();
    assert_eq!(quiet(&experiment).await.incomparable, 1);
    assert_eq!(verdicts(&seen), [Verdict::Incomparable(Incomparable::Unreadable)]);
}

#[tokio::test(start_paused = true)]
async fn beyond_the_room_to_read_again_a_mismatch_counts_as_it_was_seen() {
    let limits = Limits { rechecks_max: 1, ..Limits::default() };
    let (experiment, seen) = watched(|builder| builder.limits(limits));
    for _ in 0..3 {
        experiment.run_rechecked("k", reads_of(&[1]), reads_of(&[2, 1])).await.unwrap();
    }
    assert_eq!(quiet(&experiment).await.mismatched, 2);
    let unchecked = Verdict::Mismatched(Mismatch::Unchecked);
    assert_eq!(verdicts(&seen), [unchecked.clone(), unchecked, Verdict::Transient]);
}

#[tokio::test(start_paused = true)]
async fn a_version_tells_that_control_moved_where_its_value_does_not() {
    // Hundreds are versions, the rest is what is compared.
    let policy = RecheckPolicy { delay: Duration::from_millis(1), rounds: 1 };
    let by_value = |old: &i64, new: &i64| old % 100 == new % 100;
    for (version, expected) in [
        (false, Verdict::Mismatched(Mismatch::Persistent)),
        (true, Verdict::Incomparable(Incomparable::Moving)),
    ] {
        let (experiment, seen) = watched(|builder| {
            let builder = builder.compare(by_value).recheck(policy);
            if version { builder.version(|value| value.unsigned_abs() / 100) } else { builder }
        });
        experiment.run_rechecked("k", reads_of(&[101, 201, 301]), reads_of(&[2])).await.unwrap();
        quiet(&experiment).await;
        assert_eq!(verdicts(&seen), [expected]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_version_that_panics_is_noted_and_proves_nothing() {
    let (experiment, seen) = watched(|builder| builder.version(|_| panic!("version")));
    experiment.run_rechecked("k", reads_of(&[1]), reads_of(&[2])).await.unwrap();
    assert_eq!(quiet(&experiment).await.incomparable, 1);
    assert!(seen.lock().unwrap()[0].hook_failures.iter().all(|failure| failure.message == "version"));
}

#[test]
fn calls_are_send_and_experiments_are_shared() {
    fn is_send<T: Send>(_: &T) {}
    fn is_shared<T: Send + Sync + Clone + 'static>(_: &T) {}
    let (experiment, _) = watched(|builder| builder);
    is_shared(&experiment);
    is_send(&experiment.run("k", || async { Ok(1) }, || async { Ok(1) }));
    is_send(&experiment.run_rechecked(7u64.to_be_bytes(), || async { Ok(1) }, || async { Ok(1) }));
    is_send(&experiment.run_in_line("k", || async { Ok(1) }, || async { Ok(1) }));
}
