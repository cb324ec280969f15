//! Candidates that block their thread, and what becomes of the thread, the slot and the account.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use crossfade_experiment::{
    Builder, CandidateRuntime, Experiment, Limits, Mismatch, Observation, PublishFn, RecheckPolicy, Sampling,
    Totals, Verdict,
};

type Number = Experiment<i64, String>;

fn experiment(configure: impl FnOnce(Builder<i64, String>) -> Builder<i64, String>) -> Number {
    let limits = Limits { timeout: Duration::from_millis(20), in_flight_max: 1, ..Limits::default() };
    let builder = Experiment::builder("number").sampling(Sampling::Always).limits(limits).breaker(None);
    configure(builder).build().unwrap()
}

/// Waits until all calls are accounted for.
async fn quiet(experiment: &Number) -> Totals {
    while experiment.in_flight() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut totals = Totals::default();
    experiment.tallies().iter().for_each(|tally| totals += tally.totals);
    assert!(totals.is_closed(), "{totals:?}");
    totals
}

async fn one() -> Result<i64, String> {
    Ok(1)
}

/// A candidate that holds its thread until the sender is dropped.
async fn blocks(until: mpsc::Receiver<()>) -> Result<i64, String> {
    let _ = until.recv();
    Ok(1)
}

#[tokio::test]
async fn one_that_keeps_its_thread_is_timed_out_meanwhile_and_its_thread_replaced() {
    let candidates = CandidateRuntime::new(1).unwrap();
    let experiment = experiment(|builder| builder.runtime(candidates.handle()));
    let mut held = Vec::new();
    for n in 1..=3 {
        let (release, until) = mpsc::channel();
        held.push(release);
        assert_eq!(experiment.run("k", one, || blocks(until)).await, Ok(1));
        assert_eq!(quiet(&experiment).await.timed_out, n, "settled while it still blocks");
    }
    assert_eq!(experiment.run("k", one, one).await, Ok(1));
    let expected = Totals { eligible: 4, timed_out: 3, matched: 1, ..Totals::default() };
    assert_eq!(quiet(&experiment).await, expected, "there is a thread and a slot for the next");
}

#[tokio::test]
async fn threads_are_replaced_up_to_a_bound_and_come_back() {
    let candidates = CandidateRuntime::new(1).unwrap();
    let experiment = experiment(|builder| builder.runtime(candidates.handle()));
    let mut held = Vec::new();
    let shed = loop {
        let (release, until) = mpsc::channel();
        held.push(release);
        experiment.run("k", one, || blocks(until)).await.unwrap();
        let totals = quiet(&experiment).await;
        if totals.shed > 0 {
            break totals.shed;
        }
        assert!(totals.timed_out < 100, "no bound");
    };
    drop(held);
    loop {
        experiment.run("k", one, one).await.unwrap();
        if quiet(&experiment).await.matched > 0 {
            break;
        }
    }
    assert_eq!(shed, 1);
}

#[tokio::test]
async fn one_that_awaits_for_ever_is_dropped_and_leaves_its_thread() {
    let candidates = CandidateRuntime::new(1).unwrap();
    let experiment = experiment(|builder| builder.runtime(candidates.handle()));
    for n in 1..=40 {
        let held = Arc::new(());
        let inside = held.clone();
        let waits = || async move {
            std::future::pending::<()>().await;
            drop(inside);
            Ok(1)
        };
        experiment.run("k", one, waits).await.unwrap();
        assert_eq!(quiet(&experiment).await.timed_out, n, "more than threads that could be lost");
        while Arc::strong_count(&held) > 1 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn without_a_free_thread_calls_are_shed_not_queued() {
    let candidates = CandidateRuntime::new(1).unwrap();
    let limits = Limits { timeout: Duration::from_secs(60), in_flight_max: 8, ..Limits::default() };
    let experiment = experiment(|builder| builder.runtime(candidates.handle()).limits(limits));
    let (release, until) = mpsc::channel();
    experiment.run("k", one, || blocks(until)).await.unwrap();
    for _ in 0..3 {
        experiment.run("k", one, one).await.unwrap();
        experiment.run_sync("k", || Ok(1), || Ok(1)).unwrap();
    }
    drop(release);
    assert_eq!(quiet(&experiment).await, Totals { eligible: 7, shed: 6, matched: 1, ..Totals::default() });
}

#[tokio::test]
async fn several_candidates_and_second_reads_have_threads_too() {
    let candidates = CandidateRuntime::new(1).unwrap();
    let on_thread = || std::thread::current().name() == Some("candidate");
    let read = move |value: i64| {
        move || std::future::ready(if on_thread() { Ok(value) } else { Err("caller's".into()) })
    };
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let publisher = PublishFn({
        let seen = seen.clone();
        move |observation: &Observation| seen.lock().unwrap().push(observation.verdict.clone())
    });
    let experiment = experiment(|builder| {
        let recheck = RecheckPolicy { delay: Duration::from_millis(1), rounds: 1 };
        let limits = Limits { timeout: Duration::from_secs(60), ..Limits::default() };
        builder.runtime(candidates.handle()).recheck(recheck).limits(limits).publisher(publisher)
    });
    let trial = experiment.trial("k").candidate("a", read(1)).candidate("b", read(1));
    trial.run(one).await.unwrap();
    assert_eq!(quiet(&experiment).await, Totals { eligible: 2, matched: 2, ..Totals::default() });
    seen.lock().unwrap().clear();
    experiment.run_rechecked("k", one, read(2)).await.unwrap();
    quiet(&experiment).await;
    assert_eq!(*seen.lock().unwrap(), [Verdict::Mismatched(Mismatch::Persistent)]);
}

#[tokio::test]
async fn on_a_shared_runtime_one_that_blocked_too_long_is_found_out_afterwards() {
    let experiment = experiment(|builder| builder);
    let late = || async {
        std::thread::sleep(Duration::from_millis(21));
        Ok(1)
    };
    experiment.run("k", one, late).await.unwrap();
    assert_eq!(quiet(&experiment).await, Totals { eligible: 1, timed_out: 1, ..Totals::default() });
}

#[tokio::test]
async fn one_that_was_given_up_before_it_had_a_thread_never_runs() {
    let one_thread = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let limits = Limits { timeout: Duration::from_millis(20), in_flight_max: 2, ..Limits::default() };
    let experiment = experiment(|builder| builder.runtime(one_thread.handle().clone()).limits(limits));
    let (release, until) = mpsc::channel::<()>();
    let blocks = move || {
        let _ = until.recv();
        Ok(1)
    };
    experiment.run_sync("k", || Ok(1), blocks).unwrap();
    let ran = Arc::new(AtomicBool::new(false));
    let inside = ran.clone();
    let queued = move || {
        inside.store(true, Ordering::Relaxed);
        Ok(1)
    };
    experiment.run_sync("k", || Ok(1), queued).unwrap();
    assert_eq!(quiet(&experiment).await.timed_out, 2);
    drop(release);
    while Arc::strong_count(&ran) > 1 {
        tokio::task::yield_now().await;
    }
    assert!(!ran.load(Ordering::Relaxed));
    one_thread.shutdown_background();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_comparison_keeps_its_slot() {
    let (release, until) = mpsc::channel::<()>();
    let (entered, has_entered) = mpsc::channel();
    let until = std::sync::Mutex::new(until);
    let experiment = experiment(|builder| {
        builder.compare(move |old: &i64, new: &i64| {
            let _ = entered.send(());
            let _ = until.lock().unwrap().recv();
            old == new
        })
    });
    experiment.run("k", one, one).await.unwrap();
    tokio::task::spawn_blocking(move || has_entered.recv().map(|()| has_entered)).await.unwrap().unwrap();
    experiment.run("k", one, one).await.unwrap();
    drop(release);
    assert_eq!(quiet(&experiment).await, Totals { eligible: 2, matched: 1, shed: 1, ..Totals::default() });
}

#[tokio::test]
async fn where_one_keeps_its_thread_and_slot_the_rest_of_its_call_is_shed() {
    let experiment = experiment(|builder| builder);
    let (release, until) = mpsc::channel::<()>();
    let until = Arc::new(std::sync::Mutex::new(until));
    let blocks = || {
        let until = until.clone();
        move || {
            let _ = until.lock().unwrap().recv();
            Ok(1)
        }
    };
    let trial = experiment.trial_sync("k").candidate("a", blocks()).candidate("b", blocks());
    assert_eq!(trial.run(|| Ok(1)), Ok(1));
    assert_eq!(quiet(&experiment).await, Totals { eligible: 2, timed_out: 1, shed: 1, ..Totals::default() });
    drop(release);
}

#[tokio::test]
async fn with_threads_of_their_own_one_that_keeps_its_thread_spares_the_rest() {
    let candidates = CandidateRuntime::new(1).unwrap();
    let experiment = experiment(|builder| builder.runtime(candidates.handle()));
    let (release, until) = mpsc::channel::<()>();
    let trial = experiment.trial_sync("k").candidate("agrees", || Ok(1)).candidate("blocks", move || {
        let _ = until.recv();
        Ok(1)
    });
    assert_eq!(trial.run(|| Ok(1)), Ok(1));
    let expected = Totals { eligible: 2, matched: 1, timed_out: 1, ..Totals::default() };
    assert_eq!(quiet(&experiment).await, expected);
    drop(release);
}

#[tokio::test]
async fn once_the_threads_are_gone_calls_are_shed_and_accounted_for() {
    let candidates = CandidateRuntime::new(1).unwrap();
    let experiment = experiment(|builder| builder.runtime(candidates.handle()));
    experiment.run("k", one, one).await.unwrap();
    assert_eq!(quiet(&experiment).await.matched, 1);
    drop(candidates);
    // The runtime ends in its own time; what comes meanwhile is run or shed.
    while quiet(&experiment).await.shed == 0 {
        experiment.run("k", one, one).await.unwrap();
    }
    let _ = experiment.drain();
    experiment.run_sync("k", || Ok(1), || Ok(1)).unwrap();
    let trial = experiment.trial("k").candidate("a", one).candidate("b", one);
    trial.run(one).await.unwrap();
    assert_eq!(quiet(&experiment).await, Totals { eligible: 3, shed: 3, ..Totals::default() });
}

/// A caller whose own runtime ends at once has rung for the candidates' threads all the same.
#[test]
fn candidates_start_also_where_the_callers_runtime_is_gone() {
    let candidates = CandidateRuntime::new(1).unwrap();
    let limits = Limits { timeout: Duration::from_secs(60), ..Limits::default() };
    let experiment = experiment(|builder| builder.runtime(candidates.handle()).limits(limits));
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let callers = runtime();
    assert_eq!(callers.block_on(experiment.run("k", one, one)), Ok(1));
    drop(callers);
    let expected = Totals { eligible: 1, matched: 1, ..Totals::default() };
    assert_eq!(runtime().block_on(quiet(&experiment)), expected);
}
