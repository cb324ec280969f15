//! Several named candidates in one call, in every mode, and calls without a control.

use std::{
    collections::BTreeMap,
    future::pending,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use crossfade_experiment::{
    BreakerPolicy, Builder, Error, Experiment, Hook, Limits, Observation, Order, PublishFn, Sampling, Start,
    Totals,
};
use futures::FutureExt;

type Number = Experiment<i64, String>;
type Seen = Arc<Mutex<Vec<Observation>>>;

/// How a call runs its candidates.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    Behind,
    BehindSync,
    InLine,
    InLineSync,
}

const MODES: [Mode; 4] = [Mode::Behind, Mode::BehindSync, Mode::InLine, Mode::InLineSync];
const ORDERS: [Order; 3] = [Order::ControlFirst, Order::Random, Order::Concurrent];

fn watched(configure: impl FnOnce(Builder<i64, String>) -> Builder<i64, String>) -> (Number, Seen) {
    let seen = Seen::default();
    let publisher = PublishFn({
        let seen = seen.clone();
        move |observation: &Observation| seen.lock().unwrap().push(observation.clone())
    });
    let limits = Limits { timeout: Duration::from_millis(50), ..Limits::default() };
    let builder = Experiment::builder("number").sampling(Sampling::Always).limits(limits);
    let builder = builder.in_line_timeout(Duration::from_millis(50)).publisher(publisher).breaker(None);
    (configure(builder).build().unwrap(), seen)
}

async fn quiet(experiment: &Number) -> BTreeMap<String, Totals> {
    while experiment.in_flight() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let tallies = experiment.drain();
    assert!(tallies.iter().all(|tally| tally.totals.is_closed()), "{tallies:?}");
    tallies.into_iter().map(|tally| (tally.candidate, tally.totals)).collect()
}

fn counted<const N: usize>(expected: [(&str, Totals); N]) -> BTreeMap<String, Totals> {
    expected.into_iter().map(|(name, totals)| (name.to_owned(), totals)).collect()
}

const ONE: Totals = Totals {
    eligible: 1,
    skipped: 0,
    shed: 0,
    timed_out: 0,
    panicked: 0,
    errored: 0,
    incomparable: 0,
    matched: 0,
    mismatched: 0,
    transient: 0,
    ignored: 0,
};

/// What a branch does.
type Act = fn() -> Result<i64, String>;

const fn gives_one() -> Result<i64, String> {
    Ok(1)
}

/// One call in this mode; the candidates are named after their place: `a`, `b`, `c`, …
async fn call(
    experiment: &Number,
    mode: Mode,
    control: impl FnOnce() -> Result<i64, String>,
    candidates: &[Act],
) -> Result<i64, String> {
    let names = ["a", "b", "c", "d"];
    let named = names.into_iter().zip(candidates.iter().copied());
    match mode {
        Mode::Behind => {
            let trial = named.fold(experiment.trial("k"), |trial, (name, act)| {
                trial.candidate(name, move || async move { act() })
            });
            trial.run(|| async { control() }).await
        }
        Mode::BehindSync => {
            let trial =
                named.fold(experiment.trial_sync("k"), |trial, (name, act)| trial.candidate(name, act));
            trial.run(control)
        }
        Mode::InLine => {
            let trial = named.fold(experiment.trial_in_line("k"), |trial, (name, act)| {
                trial.candidate(name, move || async move { act() })
            });
            trial.run(|| async { control() }).await
        }
        Mode::InLineSync => {
            let trial = named
                .fold(experiment.trial_sync_in_line("k"), |trial, (name, act)| trial.candidate(name, act));
            trial.run(control)
        }
    }
}

/// One call without a control, with branches `a` (1) and `b` (2).
async fn choice(
    experiment: &Number,
    mode: Mode,
    answer: &str,
    alone: bool,
) -> Result<Result<i64, String>, Error> {
    macro_rules! branches {
        ($trial:expr, $a:expr, $b:expr) => {{
            let choice = $trial.choose(answer).branch("a", $a).branch("b", $b);
            let choice = if alone { choice.alone() } else { choice };
            choice.run()
        }};
    }
    match mode {
        Mode::Behind => branches!(experiment.trial("k"), || async { Ok(1) }, || async { Ok(2) }).await,
        Mode::BehindSync => branches!(experiment.trial_sync("k"), || Ok(1), || Ok(2)),
        Mode::InLine => {
            branches!(experiment.trial_in_line("k"), || async { Ok(1) }, || async { Ok(2) }).await
        }
        Mode::InLineSync => branches!(experiment.trial_sync_in_line("k"), || Ok(1), || Ok(2)),
    }
}

#[tokio::test]
async fn each_has_an_account_of_its_own_in_every_mode_and_order() {
    for mode in MODES {
        for order in ORDERS {
            for start in [Start::AfterControl, Start::WithControl] {
                let (experiment, seen) = watched(|builder| builder.order(order).start(start));
                let acts: [Act; 4] = [gives_one, || Ok(2), || panic!("mine"), || Err("mine".to_owned())];
                assert_eq!(call(&experiment, mode, gives_one, &acts).await, Ok(1));
                let expected = counted([
                    ("a", Totals { matched: 1, ..ONE }),
                    ("b", Totals { mismatched: 1, ..ONE }),
                    ("c", Totals { panicked: 1, ..ONE }),
                    ("d", Totals { errored: 1, ..ONE }),
                ]);
                assert_eq!(quiet(&experiment).await, expected, "{mode:?} {order:?} {start:?}");
                let mut names: Vec<_> =
                    seen.lock().unwrap().iter().map(|seen| seen.candidate_name.to_string()).collect();
                names.sort();
                assert_eq!(names, ["a", "b", "c", "d"]);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_is_ended_and_spares_the_others() {
    for order in ORDERS {
        let (experiment, _) = watched(|builder| builder.order(order));
        let trial = experiment.trial_in_line("k").candidate("hangs", pending);
        let trial = trial.candidate("agrees", || async { Ok(1) }).candidate("hangs too", pending);
        assert_eq!(trial.run(|| async { Ok(1) }).await, Ok(1));
        let behind =
            experiment.trial("k").candidate("hangs", pending).candidate("agrees", || async { Ok(1) });
        assert_eq!(behind.run(|| async { Ok(1) }).await, Ok(1));
        let two = |totals: Totals| Totals { eligible: 2, ..totals };
        let expected = counted([
            ("agrees", two(Totals { matched: 2, ..ONE })),
            ("hangs", two(Totals { timed_out: 2, ..ONE })),
            ("hangs too", Totals { timed_out: 1, ..ONE }),
        ]);
        assert_eq!(quiet(&experiment).await, expected, "{order:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_that_control_takes_is_not_the_candidates() {
    let slowly = |milliseconds| {
        move || async move {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            Ok(1)
        }
    };
    let (experiment, _) = watched(|builder| builder);
    assert_eq!(experiment.run_in_line("k", slowly(200), slowly(40)).await, Ok(1));
    let trial = experiment.trial_in_line("k").candidate("a", slowly(40)).candidate("b", slowly(40));
    assert_eq!(trial.run(slowly(200)).await, Ok(1));
    let matched = Totals { matched: 1, ..ONE };
    assert_eq!(quiet(&experiment).await, counted([("a", matched), ("b", matched), ("candidate", matched)]));
}

#[tokio::test]
async fn sync_ones_that_take_too_long_are_found_out() {
    let (experiment, _) = watched(|builder| builder);
    let late: Act = || {
        std::thread::sleep(Duration::from_millis(60));
        Ok(1)
    };
    for mode in [Mode::BehindSync, Mode::InLineSync] {
        assert_eq!(call(&experiment, mode, gives_one, &[gives_one, late]).await, Ok(1));
        let counts = quiet(&experiment).await;
        assert_eq!(counts["a"], Totals { matched: 1, ..ONE }, "{mode:?}");
        assert_eq!(counts["b"], Totals { timed_out: 1, ..ONE }, "{mode:?}");
    }
}

#[tokio::test]
async fn controls_panic_and_error_are_the_callers_in_every_mode() {
    for mode in MODES {
        for order in ORDERS {
            let (experiment, _) = watched(|builder| builder.order(order));
            let failing = call(&experiment, mode, || Err("control's".to_owned()), &[gives_one, || Ok(2)]);
            assert_eq!(failing.await, Err("control's".to_owned()));
            quiet(&experiment).await;
            let panics = call(&experiment, mode, || panic!("control's"), &[gives_one, || Ok(2)]);
            let panic = AssertUnwindSafe(panics).catch_unwind().await.unwrap_err();
            assert_eq!(*panic.downcast_ref::<&str>().unwrap(), "control's");
            let incomparable = Totals { incomparable: 1, ..ONE };
            let expected = counted([("a", incomparable), ("b", incomparable)]);
            assert_eq!(quiet(&experiment).await, expected, "{mode:?} {order:?}");
        }
    }
}

#[tokio::test]
async fn random_order_puts_control_anywhere_and_control_first_keeps_the_order_given() {
    let orders_of = async |order, mode| {
        let (experiment, _) = watched(|builder| builder.order(order));
        let mut seen = BTreeMap::new();
        for _ in 0..300 {
            let steps = Mutex::new(Vec::new());
            let step = |name: &'static str| {
                steps.lock().unwrap().push(name);
                Ok(1)
            };
            let outcome = match mode {
                Mode::InLine => {
                    let trial = experiment.trial_in_line("k").candidate("a", || async { step("a") });
                    trial.candidate("b", || async { step("b") }).run(|| async { step("control") }).await
                }
                _ => {
                    let trial = experiment.trial_sync_in_line("k").candidate("a", || step("a"));
                    trial.candidate("b", || step("b")).run(|| step("control"))
                }
            };
            assert_eq!(outcome, Ok(1));
            *seen.entry(steps.into_inner().unwrap()).or_insert(0) += 1;
        }
        seen
    };
    for mode in [Mode::InLine, Mode::InLineSync] {
        for order in [Order::ControlFirst, Order::Concurrent] {
            assert_eq!(orders_of(order, mode).await, [(vec!["control", "a", "b"], 300)].into());
        }
        let random = orders_of(Order::Random, mode).await;
        assert_eq!(random.len(), 6, "all permutations: {random:?}");
        // A sixth of 300 each; below a fifth of that in one of a million runs.
        assert!(random.values().all(|&times| times > 10), "{random:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn at_once_means_that_the_caller_waits_for_the_slowest_alone() {
    let slowly = |milliseconds| {
        move || async move {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            Ok(1)
        }
    };
    for (order, expected) in [(Order::Concurrent, 40), (Order::ControlFirst, 120)] {
        let (experiment, _) = watched(|builder| builder.order(order));
        let started = tokio::time::Instant::now();
        let trial = experiment.trial_in_line("k").candidate("a", slowly(40)).candidate("b", slowly(40));
        assert_eq!(trial.run(slowly(40)).await, Ok(1));
        let took = started.elapsed().as_millis();
        assert!((expected..expected + 10).contains(&took), "{order:?}: {took}");
    }
}

#[tokio::test]
async fn without_a_control_the_chosen_branch_answers_in_every_mode() {
    for mode in MODES {
        let (experiment, seen) = watched(|builder| builder);
        assert_eq!(choice(&experiment, mode, "b", false).await.unwrap(), Ok(2));
        assert_eq!(quiet(&experiment).await, counted([("a", Totals { mismatched: 1, ..ONE })]), "{mode:?}");
        assert_eq!(seen.lock().unwrap().len(), 1);
        let unknown = choice(&experiment, mode, "c", false).await;
        assert!(matches!(unknown, Err(Error::NoBranch { branch, .. }) if branch == "c"), "{mode:?}");
        assert_eq!(choice(&experiment, mode, "a", true).await.unwrap(), Ok(1));
        experiment.set_sampling(Sampling::Never);
        assert_eq!(choice(&experiment, mode, "a", false).await.unwrap(), Ok(1));
        experiment.force_candidate();
        assert_eq!(choice(&experiment, mode, "a", false).await.unwrap(), Ok(1));
        assert_eq!(quiet(&experiment).await, BTreeMap::new(), "no other branch has run: {mode:?}");
    }
}

#[tokio::test]
async fn any_one_branch_is_forced_in_every_mode() {
    let candidates: [Act; 2] = [|| Ok(3), || Err("b's own".to_owned())];
    for mode in MODES {
        let (experiment, seen) = watched(|builder| builder);
        let mut answers = Vec::new();
        for name in [None, Some("a"), Some("b"), Some("none of them")] {
            match name {
                None => experiment.force_candidate(),
                Some(name) => experiment.force(name),
            }
            answers.push(call(&experiment, mode, gives_one, &candidates).await);
        }
        assert_eq!(answers, [Ok(3), Ok(3), Err("b's own".to_owned()), Ok(1)], "{mode:?}");
        assert_eq!((quiet(&experiment).await, seen.lock().unwrap().len()), (BTreeMap::new(), 0));
        experiment.set_sampling(Sampling::Never);
        assert_eq!(call(&experiment, mode, gives_one, &candidates).await, Ok(1));
    }
}

#[tokio::test]
async fn the_only_candidate_is_forced_by_its_name() {
    let (experiment, _) = watched(|builder| builder.candidate_name("sql"));
    for (name, expected) in [("sql", 2), ("cache", 1)] {
        experiment.force(name);
        let (old, new) = (|| async { Ok(1) }, || async { Ok(2) });
        assert_eq!(experiment.run("k", old, new).await, Ok(expected));
        assert_eq!(experiment.run_rechecked("k", old, new).await, Ok(expected));
        assert_eq!(experiment.run_in_line("k", old, new).await, Ok(expected));
        assert_eq!(experiment.run_sync("k", || Ok(1), || Ok(2)), Ok(expected));
        assert_eq!(experiment.run_sync_in_line("k", || Ok(1), || Ok(2)), Ok(expected));
    }
    assert_eq!(experiment.sampling(), Sampling::Never);
}

#[tokio::test]
async fn a_mismatch_raises_when_all_are_accounted_for() {
    for mode in [Mode::Behind, Mode::InLine, Mode::InLineSync] {
        for order in ORDERS {
            let (experiment, _) = watched(|builder| builder.raise_on_mismatch().order(order));
            assert_eq!(call(&experiment, mode, gives_one, &[gives_one, gives_one]).await, Ok(1));
            let differs = call(&experiment, mode, gives_one, &[gives_one, || Ok(2), gives_one]);
            let raised = AssertUnwindSafe(differs).catch_unwind().await.unwrap_err();
            assert!(raised.downcast_ref::<String>().unwrap().contains("experiment `number`"));
            let two = Totals { eligible: 2, matched: 2, ..Totals::default() };
            let expected = counted([
                ("a", two),
                ("b", Totals { eligible: 2, matched: 1, mismatched: 1, ..Totals::default() }),
                ("c", Totals { matched: 1, ..ONE }),
            ]);
            assert_eq!(quiet(&experiment).await, expected, "{mode:?} {order:?}");
        }
    }
}

#[tokio::test]
async fn a_failing_one_rests_by_itself() {
    for mode in MODES {
        let policy = BreakerPolicy { failures: 2, rest: Duration::from_secs(60) };
        let (experiment, _) = watched(|builder| builder.breaker(policy));
        let mut counts = BTreeMap::<String, Totals>::new();
        for _ in 0..5 {
            call(&experiment, mode, gives_one, &[|| panic!("down"), gives_one]).await.unwrap();
            quiet(&experiment).await.into_iter().for_each(|(name, totals)| {
                *counts.entry(name).or_default() += totals;
            });
        }
        let five = Totals { eligible: 5, ..Totals::default() };
        let expected =
            counted([("a", Totals { panicked: 2, shed: 3, ..five }), ("b", Totals { matched: 5, ..five })]);
        assert_eq!(counts, expected, "{mode:?}");
    }
}

#[tokio::test]
async fn hooks_before_a_run_are_asked_once_for_all_and_the_others_for_each() {
    for mode in MODES {
        let times = Arc::new(AtomicU32::new(0));
        let (before, after) = (times.clone(), Arc::new(AtomicU32::new(0)));
        let counter = after.clone();
        let (experiment, seen) = watched(|builder| {
            builder
                .before_run(move |_| drop(before.fetch_add(1, Ordering::Relaxed).to_string()))
                .after_run(move |_| drop(counter.fetch_add(1, Ordering::Relaxed).to_string()))
                .cohort(|key, value| format!("{}-{value}", String::from_utf8_lossy(key)))
        });
        call(&experiment, mode, gives_one, &[gives_one, || Ok(2)]).await.unwrap();
        quiet(&experiment).await;
        assert_eq!((times.load(Ordering::Relaxed), after.load(Ordering::Relaxed)), (1, 2), "{mode:?}");
        assert!(seen.lock().unwrap().iter().all(|seen| seen.cohort.as_deref() == Some("k-1")), "{mode:?}");
        let (skipping, _) = watched(|builder| builder.run_if(|_| false));
        let never: Act = || panic!("skipped candidates are not run");
        assert_eq!(call(&skipping, mode, gives_one, &[never, never]).await, Ok(1));
        let skipped = Totals { skipped: 1, ..ONE };
        assert_eq!(quiet(&skipping).await, counted([("a", skipped), ("b", skipped)]), "{mode:?}");
    }
}

#[tokio::test]
async fn no_hook_that_panics_reaches_the_caller_in_any_mode() {
    /// Panics once more when the panic is cleaned up.
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("again");
        }
    }
    fn fails<T>() -> T {
        std::panic::panic_any(Bomb)
    }
    type Configure = fn(Builder<i64, String>) -> Builder<i64, String>;
    let hooks: [(Option<Hook>, Configure); 13] = [
        (Some(Hook::ShowKeys), |builder| builder.show_keys(|_| fails())),
        (Some(Hook::RunIf), |builder| builder.run_if(|_| fails())),
        (Some(Hook::BeforeRun), |builder| builder.before_run(|_| fails())),
        (Some(Hook::Compare), |builder| builder.compare(|_, _| -> bool { fails() })),
        (Some(Hook::Compare), |builder| builder.compare_errors(|_, _| fails())),
        (Some(Hook::Ignore), |builder| builder.ignore(|_, _| fails())),
        (Some(Hook::Ignore), |builder| builder.ignore_outcomes(|_, _| fails())),
        (Some(Hook::DescribeErrors), |builder| builder.describe_errors(|_| fails())),
        (Some(Hook::Clean), |builder| builder.clean(|_| fails())),
        (Some(Hook::Diff), |builder| builder.diff(|_, _, _| fails())),
        (Some(Hook::Cohort), |builder| builder.cohort(|_, _| fails())),
        (None, |builder| builder.after_run(|_| fails())),
        (None, |builder| builder.publisher(PublishFn(|_: &Observation| fails()))),
    ];
    for mode in MODES {
        for (hook, configure) in hooks {
            let about_errors = [Some(Hook::DescribeErrors)].contains(&hook);
            let (experiment, seen) = watched(configure);
            let control = || if about_errors { Err("no".to_owned()) } else { Ok(1) };
            let outcome = call(&experiment, mode, control, &[|| Ok(2), || Err("no".to_owned())]).await;
            assert_eq!(outcome.is_err(), about_errors, "{mode:?} {hook:?}");
            // Errors are compared where both sides failed.
            let failing = call(&experiment, mode, || Err("no".to_owned()), &[|| Err("no".to_owned())]).await;
            assert_eq!(failing, Err("no".to_owned()));
            let eligible: u64 = quiet(&experiment).await.values().map(|totals| totals.eligible).sum();
            assert_eq!(eligible, 3, "{mode:?} {hook:?}");
            let failures: Vec<_> = {
                let seen = seen.lock().unwrap();
                seen.iter().flat_map(|seen| seen.hook_failures.clone()).map(|failure| failure.hook).collect()
            };
            match hook {
                Some(hook) => assert!(!failures.is_empty() && failures.iter().all(|found| *found == hook)),
                None => assert_eq!(experiment.publish_failures(), 3, "{mode:?}"),
            }
        }
    }
}

#[test]
fn calls_off_the_callers_path_are_send() {
    fn is_send(_: impl Send) {}
    let (experiment, _) = watched(|builder| builder);
    is_send(experiment.trial("k").candidate("a", || async { Ok(1) }).run(|| async { Ok(1) }));
    is_send(experiment.trial("k").choose("a").branch("a", || async { Ok(1) }).run());
    is_send(experiment.trial_sync("k").candidate("a", || Ok(1)));
}

/// Services run their requests on tasks that move between threads.
#[tokio::test]
async fn a_task_may_await_a_call_in_any_async_mode() {
    let (experiment, _) = watched(|builder| builder.order(Order::Concurrent));
    let experiment = Arc::new(experiment);
    let task = tokio::spawn({
        let experiment = experiment.clone();
        async move {
            let numbers = [1, 2];
            let behind =
                experiment.trial("k").candidate("a", || async { Ok(1) }).run(|| async { Ok(1) }).await;
            let in_line = experiment
                .trial_in_line("k")
                .candidate("a", || async { Ok(numbers[0]) })
                .candidate("b", || async { Ok(numbers[1]) })
                .run(|| async { Ok(1) })
                .await;
            let chosen = experiment
                .trial_in_line("k")
                .choose("a")
                .branch("a", || async { Ok(numbers[0]) })
                .run()
                .await;
            (behind, in_line, chosen.map_err(|error| error.to_string()))
        }
    });
    assert_eq!(task.await.unwrap(), (Ok(1), Ok(1), Ok(Ok(1))));
}
