//! Closed accounting: under any mix of failures each eligible call lands in exactly one bucket, and is
//! observed at most once.

use std::{
    future::pending,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crossfade_experiment::{
    BreakerPolicy, Comparison, Experiment, Limits, Observation, Order, PublishFn, RecheckPolicy, Sampling,
    Start, Totals,
};
use futures::FutureExt;
use proptest::prelude::*;

/// What one side does.
#[derive(Debug, Clone, Copy)]
enum Act {
    Give(i64),
    Fail,
    Panic,
    PanicWhenBuilt,
    GiveLater(i64),
    Hang,
}

/// One call.
#[derive(Debug, Clone, Copy)]
struct Step {
    control: Act,
    candidate: Act,
    way: Way,
    cancel: bool,
    next_epoch: bool,
}

#[derive(Debug, Clone, Copy)]
enum Way {
    Behind,
    Rechecked,
    InLine,
    Trial,
    TrialInLine,
    TrialSync,
    TrialSyncInLine,
    Choice,
    ChoiceInLine,
    ChoiceSync,
    ChoiceSyncInLine,
    Sync,
    SyncInLine,
}

impl Way {
    /// How many candidates a call offers.
    fn offers(self) -> u64 {
        match self {
            Self::Trial | Self::TrialInLine | Self::TrialSync | Self::TrialSyncInLine => 3,
            _ => 1,
        }
    }
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0i64..3).prop_map(Act::Give),
        1 => Just(Act::Fail),
        1 => Just(Act::Panic),
        1 => Just(Act::PanicWhenBuilt),
        1 => (0i64..3).prop_map(Act::GiveLater),
        1 => Just(Act::Hang),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let way = prop_oneof![
        Just(Way::Behind),
        Just(Way::Rechecked),
        Just(Way::InLine),
        Just(Way::Trial),
        Just(Way::TrialInLine),
        Just(Way::TrialSync),
        Just(Way::TrialSyncInLine),
        Just(Way::Choice),
        Just(Way::ChoiceInLine),
        Just(Way::ChoiceSync),
        Just(Way::ChoiceSyncInLine),
        Just(Way::Sync),
        Just(Way::SyncInLine),
    ];
    (act(), act(), way, prop::bool::weighted(0.1), prop::bool::weighted(0.1)).prop_map(
        |(control, candidate, way, cancel, next_epoch)| Step { control, candidate, way, cancel, next_epoch },
    )
}

type Future = std::pin::Pin<Box<dyn std::future::Future<Output = Result<i64, String>> + Send>>;

fn perform(act: Act) -> Future {
    match act {
        Act::Give(value) => Box::pin(async move { Ok(value) }),
        Act::Fail => Box::pin(async { Err("failed".to_owned()) }),
        Act::Panic => Box::pin(async { panic!("polled") }),
        Act::PanicWhenBuilt => panic!("built"),
        Act::GiveLater(value) => Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(value)
        }),
        Act::Hang => Box::pin(pending()),
    }
}

/// Sync code cannot wait here: time stands still.
fn perform_now(act: Act) -> Result<i64, String> {
    match act {
        Act::Give(value) | Act::GiveLater(value) => Ok(value),
        Act::Fail | Act::Hang => Err("failed".to_owned()),
        Act::Panic | Act::PanicWhenBuilt => panic!("ran"),
    }
}

#[derive(Debug, Clone, Copy)]
struct Setup {
    start: Start,
    order: Order,
    in_flight_max: u32,
    budget: Option<u32>,
    breaker: bool,
    hooks_panic: bool,
    drain_often: bool,
    /// Whether candidates in line have a timeout: without one they must not hang.
    bounded_in_line: bool,
    /// After this many calls the process begins to end.
    shutdown_after: usize,
}

fn setup() -> impl Strategy<Value = Setup> {
    let order = prop_oneof![Just(Order::ControlFirst), Just(Order::Random), Just(Order::Concurrent)];
    (
        any::<bool>(),
        order,
        1u32..6,
        prop::option::of(1u32..20),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        10usize..80,
    )
        .prop_map(
            |(
                with_control,
                order,
                in_flight_max,
                budget,
                breaker,
                hooks_panic,
                drain_often,
                bounded_in_line,
                shutdown_after,
            )| {
                Setup {
                    start: if with_control { Start::WithControl } else { Start::AfterControl },
                    order,
                    in_flight_max,
                    budget,
                    breaker,
                    hooks_panic,
                    drain_often,
                    bounded_in_line,
                    shutdown_after,
                }
            },
        )
}

const THERE: &str = "there is such a branch";

/// Runs all steps; returns what was drained, how many candidates were offered, and how many observed.
async fn drive(setup: Setup, steps: &[Step]) -> (Totals, u64, u64) {
    let observed = Arc::new(AtomicU64::new(0));
    let counter = observed.clone();
    let hooks_panic = setup.hooks_panic;
    let limits = Limits {
        timeout: Duration::from_millis(50),
        in_flight_max: setup.in_flight_max,
        rechecks_max: 2,
        budget_per_second: setup.budget,
    };
    let compare = move |old: &i64, new: &i64| match (hooks_panic, old) {
        (true, 0) => panic!("compare"),
        (_, 1) if *new == 2 => Comparison::Incomparable,
        _ => Comparison::from(old == new),
    };
    let policy = setup.breaker.then(|| BreakerPolicy { failures: 2, rest: Duration::from_millis(1) });
    let builder = Experiment::comparing("closed", compare);
    let builder = match setup.bounded_in_line {
        true => builder.in_line_timeout(Duration::from_millis(15)),
        false => builder,
    };
    let experiment: Experiment<i64, String> = builder
        .sampling(Sampling::Always)
        .start(setup.start)
        .order(setup.order)
        .limits(limits)
        .breaker(policy)
        .recheck(RecheckPolicy { delay: Duration::from_millis(5), rounds: 2 })
        .run_if(|key| key != b"skip")
        .ignore(move |old, _| if hooks_panic && *old == 2 { panic!("ignore") } else { *old == 2 })
        .cohort(move |key, value| {
            if hooks_panic && key == b"key-3" {
                panic!("cohort");
            }
            value.to_string()
        })
        .cohorts_max(2)
        .publisher(PublishFn(move |_: &Observation| {
            counter.fetch_add(1, Ordering::Relaxed);
        }))
        .build()
        .unwrap();

    let mut totals = Totals::default();
    let mut offered = 0;
    let mut collect = || {
        for tally in experiment.drain() {
            assert!(tally.totals.is_closed(), "{tally:?}");
            totals += tally.totals;
        }
    };
    for (number, &Step { control, candidate, way, cancel, next_epoch }) in steps.iter().enumerate() {
        if next_epoch {
            experiment.set_epoch(number as u64);
        }
        if number == setup.shutdown_after {
            experiment.shutdown(Duration::from_millis(10)).await;
            assert_eq!(experiment.in_flight(), 0, "the account is closed");
            // Somebody turns the switch once more: what comes now is shed.
            experiment.set_sampling(Sampling::Always);
        }
        let in_line = |act| if matches!(act, Act::Hang) && !setup.bounded_in_line { Act::Fail } else { act };
        let candidate = match way {
            Way::InLine | Way::TrialInLine | Way::ChoiceInLine => in_line(candidate),
            _ => candidate,
        };
        let key = if number % 7 == 6 { "skip".to_owned() } else { format!("key-{}", number % 5) };
        let call = async {
            match way {
                Way::Behind => experiment.run(&key, || perform(control), move || perform(candidate)).await,
                Way::Rechecked => {
                    experiment.run_rechecked(&key, move || perform(control), move || perform(candidate)).await
                }
                Way::InLine => experiment.run_in_line(&key, || perform(control), || perform(candidate)).await,
                Way::Trial => {
                    let trial = experiment.trial(&key).candidate("first", move || perform(candidate));
                    let trial = trial.candidate("second", move || perform(control));
                    trial.candidate("third", move || perform(candidate)).run(|| perform(control)).await
                }
                Way::TrialInLine => {
                    let trial = experiment.trial_in_line(&key).candidate("first", || perform(candidate));
                    let trial = trial.candidate("second", || perform(in_line(control)));
                    trial.candidate("third", || perform(candidate)).run(|| perform(control)).await
                }
                Way::TrialSync => {
                    let trial =
                        experiment.trial_sync(&key).candidate("first", move || perform_now(candidate));
                    let trial = trial.candidate("second", move || perform_now(control));
                    trial.candidate("third", move || perform_now(candidate)).run(|| perform_now(control))
                }
                Way::TrialSyncInLine => {
                    let trial = experiment.trial_sync_in_line(&key);
                    let trial = trial.candidate("first", || perform_now(candidate));
                    let trial = trial.candidate("second", || perform_now(control));
                    trial.candidate("third", || perform_now(candidate)).run(|| perform_now(control))
                }
                Way::Choice => {
                    let choice = experiment.trial(&key).choose("old");
                    let choice = choice.branch("new", move || perform(candidate));
                    choice.branch("old", move || perform(control)).run().await.expect(THERE)
                }
                Way::ChoiceInLine => {
                    let choice = experiment.trial_in_line(&key).choose("old");
                    let choice = choice.branch("old", || perform(control));
                    choice.branch("new", || perform(candidate)).run().await.expect(THERE)
                }
                Way::ChoiceSync => {
                    let choice = experiment.trial_sync(&key).choose("old");
                    let choice = choice.branch("new", move || perform_now(candidate));
                    choice.branch("old", move || perform_now(control)).run().expect(THERE)
                }
                Way::ChoiceSyncInLine => {
                    let choice = experiment.trial_sync_in_line(&key).choose("old");
                    let choice = choice.branch("old", || perform_now(control));
                    choice.branch("new", || perform_now(candidate)).run().expect(THERE)
                }
                Way::Sync => {
                    experiment.run_sync(&key, || perform_now(control), move || perform_now(candidate))
                }
                Way::SyncInLine => {
                    experiment.run_sync_in_line(&key, || perform_now(control), || perform_now(candidate))
                }
            }
        };
        offered += way.offers();
        // A caller waits for a while only, or goes away at once.
        let patience = Duration::from_millis(if cancel { 1 } else { 30 });
        let _ = AssertUnwindSafe(tokio::time::timeout(patience, call)).catch_unwind().await;
        if setup.drain_often {
            collect();
        }
    }
    while experiment.in_flight() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    collect();
    assert!(experiment.drain().is_empty());
    (totals, offered, observed.load(Ordering::Relaxed))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_eligible_call_lands_in_exactly_one_bucket(setup in setup(), steps in prop::collection::vec(step(), 0..40)) {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let (totals, offered, observed) = runtime.block_on(drive(setup, &steps));
        std::panic::set_hook(hook);
        prop_assert!(totals.is_closed());
        prop_assert_eq!(totals.eligible, offered);
        // What was skipped or shed ran nothing; a call that was cut off has nobody to tell.
        prop_assert!(observed <= totals.eligible - totals.skipped - totals.shed);
        prop_assert!(observed >= totals.compared() + totals.errored + totals.panicked + totals.timed_out);
    }
}

/// The same on real threads, which drain and change epochs while calls run.
#[test]
fn threads_lose_no_call() {
    const THREADS: u64 = 4;
    let calls = if cfg!(miri) { 50 } else { 20_000 };
    let experiment: Experiment<u64, String> =
        Experiment::builder("threads").sampling(Sampling::Always).breaker(None).build().unwrap();
    let mut totals = Totals::default();
    let mut collect = || experiment.drain().iter().for_each(|tally| totals += tally.totals);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let experiment = experiment.clone();
                scope.spawn(move || {
                    for n in 0..calls {
                        let candidate = || if n % 5 == 0 { Err("no".to_owned()) } else { Ok(n - n % 3 / 2) };
                        let _ = experiment.run_sync_in_line("k", || Ok(n), candidate);
                        if n % 100 == thread {
                            experiment.set_epoch(n * THREADS + thread);
                        }
                    }
                })
            })
            .collect();
        while threads.iter().any(|thread| !thread.is_finished()) {
            collect();
            std::thread::yield_now();
        }
    });
    collect();
    assert!(totals.is_closed());
    assert_eq!(totals.eligible, THREADS * calls);
    assert_eq!(totals.errored, THREADS * calls / 5);
}
