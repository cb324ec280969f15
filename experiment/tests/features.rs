//! What Scientist has, and a little more: one test for each feature.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use crossfade_experiment::{
    BreakerPolicy, Builder, CandidateRuntime, Comparison, Error, ErrorSummary, Experiment, Hook,
    Incomparable, Limits, Observation, Outcome, PublishFn, RecheckPolicy, Reveal, Sampling, Start, Totals,
    Verdict, diff_json,
};
use futures::FutureExt;
use serde_json::json;

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

fn totals(experiment: &Number) -> Totals {
    let mut totals = Totals::default();
    experiment.tallies().iter().for_each(|tally| totals += tally.totals);
    assert!(totals.is_closed(), "{totals:?}");
    totals
}

async fn quiet(experiment: &Number) -> Totals {
    while experiment.in_flight() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    totals(experiment)
}

fn both(experiment: &Number, old: i64, new: i64) {
    assert_eq!(experiment.run_sync_in_line("k", || Ok(old), || Ok(new)), Ok(old));
}

#[test]
fn several_ignore_rules_each_suffice() {
    let (experiment, seen) = watched(|builder| builder.ignore(|old, _| *old == 1).ignore(|_, new| *new == 2));
    both(&experiment, 1, 9);
    both(&experiment, 9, 2);
    both(&experiment, 9, 8);
    let expected = Totals { eligible: 3, matched: 2, ignored: 2, mismatched: 1, ..Totals::default() };
    assert_eq!(totals(&experiment), expected);
    assert_eq!(seen.lock().unwrap()[0].verdict, Verdict::Ignored);
}

#[test]
fn errors_are_compared_described_and_ignored() {
    let (experiment, _) = watched(|builder| {
        builder
            .breaker(None)
            .describe_errors(|error| ErrorSummary::new(error.split(':').next().unwrap_or(""), error.as_str()))
            .compare_errors(|old, new| old.kind == new.kind)
            .ignore_outcomes(|_, new| new.is_err_and(|error| error.kind == "busy"))
    });
    let run = |old: Result<i64, &str>, new: Result<i64, &str>| {
        let _ =
            experiment.run_sync_in_line("k", || old.map_err(str::to_owned), || new.map_err(str::to_owned));
    };
    run(Err("absent: 1"), Err("absent: 2"));
    run(Err("absent: 1"), Err("denied: 1"));
    run(Ok(1), Err("busy: later"));
    run(Ok(1), Err("denied: no"));
    run(Err("absent: 1"), Ok(1));
    let expected =
        Totals { eligible: 5, matched: 2, ignored: 1, mismatched: 2, errored: 1, ..Totals::default() };
    assert_eq!(totals(&experiment), expected);
}

#[test]
fn an_errors_text_is_compared_and_not_published_unless_asked_for() {
    type Configure = fn(Builder<i64, String>) -> Builder<i64, String>;
    let cases: [(Configure, &str); 3] = [
        (|builder| builder, "(redacted)"),
        (|builder| builder.reveal(Reveal::Values), "key (ann@example.org) exists"),
        (|builder| builder.describe_errors(|_| ErrorSummary::new("db", "duplicate")), "duplicate"),
    ];
    for (configure, published) in cases {
        let (experiment, seen) = watched(configure);
        let failing = || Err("key (ann@example.org) exists".to_owned());
        let _ = experiment.run_sync_in_line("k", failing, failing);
        let _ = experiment.run_sync_in_line("k", failing, || Err("other".to_owned()));
        let described = published == "duplicate";
        assert_eq!(totals(&experiment).mismatched, u64::from(!described));
        let seen = seen.lock().unwrap();
        for side in [&seen[0].control, &seen[0].candidate] {
            let Outcome::Error(error) = &side.outcome else { panic!("{side:?}") };
            assert_eq!(error.message, published);
        }
    }
}

#[test]
fn values_are_published_cleaned_or_not_at_all() {
    let (plain, seen) = watched(|builder| builder);
    both(&plain, 1, 2);
    assert_eq!(seen.lock().unwrap()[0].control.value, None);
    let (cleaned, seen) = watched(|builder| builder.clean(|value| json!({ "parity": value % 2 })));
    both(&cleaned, 1, 2);
    let seen = seen.lock().unwrap();
    assert_eq!(seen[0].control.value, Some(json!({ "parity": 1 })));
    assert_eq!(seen[0].candidate.value, Some(json!({ "parity": 0 })));
}

#[test]
fn context_keys_and_fixed_durations_stand_in_the_report() {
    let (experiment, seen) = watched(|builder| {
        builder
            .context(json!({ "build": "abc" }))
            .show_keys(|key| String::from_utf8_lossy(key).into_owned())
            .candidate_name("sql")
            .fixed_durations(Duration::from_millis(3), Duration::from_millis(5))
    });
    both(&experiment, 1, 1);
    let seen = seen.lock().unwrap();
    assert_eq!(*seen[0].context, json!({ "build": "abc" }));
    assert_eq!(seen[0].key.as_deref(), Some("k"));
    assert_eq!(&*seen[0].candidate_name, "sql");
    assert_eq!((seen[0].control.wall.as_millis(), seen[0].candidate.wall.as_millis()), (3, 5));
    let p50 = experiment.tallies()[0].candidate_latency.quantile(0.5).unwrap().as_secs_f64();
    assert!((p50 / 0.005 - 1.0).abs() < 0.008);
}

#[test]
fn run_if_skips_and_is_counted() {
    let (experiment, seen) = watched(|builder| builder.run_if(|key| key != b"k"));
    let built = || -> Result<i64, String> { panic!("skipped candidates are not run") };
    assert_eq!(experiment.run_sync_in_line("k", || Ok(1), built), Ok(1));
    assert_eq!(totals(&experiment), Totals { eligible: 1, skipped: 1, ..Totals::default() });
    assert!(seen.lock().unwrap().is_empty());
}

#[test]
fn before_and_after_run_enclose_a_run() {
    let steps = Arc::new(Mutex::new(Vec::new()));
    let note = |step: &'static str| {
        let steps = steps.clone();
        move || steps.lock().unwrap().push(step)
    };
    let (before, after) = (note("before"), note("after"));
    let (control, candidate) = (note("control"), note("candidate"));
    let (experiment, _) =
        watched(|builder| builder.before_run(move |_| before()).after_run(move |_| after()));
    let run = |step: &dyn Fn()| {
        step();
        Ok(1)
    };
    experiment.run_sync_in_line("k", || run(&control), || run(&candidate)).unwrap();
    assert_eq!(*steps.lock().unwrap(), ["before", "control", "candidate", "after"]);
}

#[test]
fn no_hook_that_panics_reaches_the_caller() {
    type Configure = fn(Builder<i64, String>) -> Builder<i64, String>;
    let hooks: [(Hook, Configure); 11] = [
        (Hook::ShowKeys, |builder| builder.show_keys(|_| panic!("hook"))),
        (Hook::RunIf, |builder| builder.run_if(|_| panic!("hook"))),
        (Hook::BeforeRun, |builder| builder.before_run(|_| panic!("hook"))),
        (Hook::Compare, |builder| builder.compare(|_, _| -> bool { panic!("hook") })),
        (Hook::Ignore, |builder| builder.ignore(|_, _| panic!("hook"))),
        (Hook::Ignore, |builder| builder.ignore_outcomes(|_, _| panic!("hook"))),
        (Hook::Clean, |builder| builder.clean(|_| panic!("hook"))),
        (Hook::Diff, |builder| builder.diff(|_, _, _| panic!("hook"))),
        (Hook::Cohort, |builder| builder.cohort(|_, _| panic!("hook"))),
        (Hook::AfterRun, |builder| builder.after_run(|_| panic!("hook"))),
        (Hook::Publish, |builder| builder.publisher(PublishFn(|_: &Observation| panic!("hook")))),
    ];
    for (hook, configure) in hooks {
        let (experiment, seen) = watched(configure);
        both(&experiment, 1, 2);
        assert_eq!(totals(&experiment).eligible, 1, "{hook:?}");
        if matches!(hook, Hook::AfterRun | Hook::Publish) {
            assert_eq!(experiment.publish_failures(), 1, "{hook:?}");
        } else {
            let seen = seen.lock().unwrap();
            let failures = &seen[0].hook_failures;
            assert!(failures.iter().all(|failure| failure.hook == hook && failure.message == "hook"));
            assert!(!failures.is_empty(), "{hook:?}");
        }
    }
}

#[tokio::test]
async fn no_hook_that_panics_reaches_the_caller_off_its_path() {
    let project = |_: &i64| -> i64 { panic!("hook") };
    let projected: Experiment<i64, String, _> =
        Experiment::projecting("projected", project).sampling(Sampling::Always).build().unwrap();
    assert_eq!(projected.run("k", || async { Ok(1) }, || async { Ok(1) }).await, Ok(1));
    assert_eq!(projected.run_sync_in_line("k", || Ok(1), || Ok(1)), Ok(1));
    let (described, _) = watched(|builder| builder.describe_errors(|_| panic!("hook")));
    let failed = described.run("k", || async { Err("no".to_owned()) }, || async { Ok(1) }).await;
    assert_eq!(failed, Err("no".to_owned()));
    assert_eq!(quiet(&described).await.incomparable, 1);
    while projected.in_flight() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(projected.tallies()[0].totals.incomparable, 2);
}

#[test]
fn compare_may_say_that_there_is_nothing_to_compare() {
    let (experiment, seen) = watched(|builder| builder.compare(|_, _| Comparison::Incomparable));
    both(&experiment, 1, 1);
    assert_eq!(seen.lock().unwrap()[0].verdict, Verdict::Incomparable(Incomparable::Declared));
}

#[tokio::test]
async fn a_mismatch_raises_where_a_test_wants_it() {
    for start in [Start::AfterControl, Start::WithControl] {
        let (experiment, _) = watched(|builder| {
            let differ =
                |old: &i64, new: &i64, reveal| diff_json(&json!({ "n": old }), &json!({ "n": new }), reveal);
            builder.start(start).raise_on_mismatch().diff(differ)
        });
        assert_eq!(experiment.run("k", || async { Ok(1) }, || async { Ok(1) }).await, Ok(1));
        let call = experiment.run("k", || async { Ok(1) }, || async { Ok(2) });
        let raised = AssertUnwindSafe(call).catch_unwind().await.unwrap_err();
        let message = raised.downcast_ref::<String>().unwrap();
        assert!(message.contains("experiment `number`") && message.contains("n: Value"), "{message}");
    }
    let (experiment, _) = watched(Builder::raise_on_mismatch);
    let call = || experiment.run_sync_in_line("k", || Ok(1), || Ok(2));
    assert!(std::panic::catch_unwind(AssertUnwindSafe(call)).is_err());
}

#[tokio::test]
async fn candidates_have_names_and_accounts_of_their_own() {
    for start in [Start::AfterControl, Start::WithControl] {
        let (experiment, seen) = watched(|builder| builder.start(start));
        let trial = experiment
            .trial("k")
            .candidate("agrees", || async { Ok(1) })
            .candidate("differs", || async { Ok(2) })
            .candidate("panics", || async { panic!("mine") });
        assert_eq!(trial.run(|| async { Ok(1) }).await, Ok(1));
        quiet(&experiment).await;
        let mut tallies: Vec<_> =
            experiment.drain().into_iter().map(|tally| (tally.candidate, tally.totals)).collect();
        tallies.sort_by(|a, b| a.0.cmp(&b.0));
        let one = Totals { eligible: 1, ..Totals::default() };
        assert_eq!(
            tallies,
            [
                ("agrees".into(), Totals { matched: 1, ..one }),
                ("differs".into(), Totals { mismatched: 1, ..one }),
                ("panics".into(), Totals { panicked: 1, ..one }),
            ]
        );
        assert_eq!(seen.lock().unwrap().len(), 3);
    }
}

#[tokio::test]
async fn without_a_control_the_chosen_branch_answers() {
    let (experiment, seen) = watched(|builder| builder);
    for (sampling, observations) in [(Sampling::Always, 1), (Sampling::Never, 0)] {
        experiment.set_sampling(sampling);
        let choice =
            experiment.trial("k").choose("b").branch("a", || async { Ok(1) }).branch("b", || async { Ok(2) });
        assert_eq!(choice.run().await.unwrap(), Ok(2));
        quiet(&experiment).await;
        assert_eq!(seen.lock().unwrap().drain(..).count(), observations);
    }
    let unknown = experiment.trial("k").choose("c").branch("a", || async { Ok(1) }).run().await;
    assert!(matches!(unknown, Err(Error::NoBranch { branch, .. }) if branch == "c"));
}

#[tokio::test]
async fn a_forced_candidate_answers_alone() {
    let (experiment, seen) = watched(|builder| builder);
    experiment.force_candidate();
    let control = || async { panic!("control ran") };
    assert_eq!(experiment.run("k", control, || async { Ok(2) }).await, Ok(2));
    let trial = experiment.trial("k").candidate("a", || async { Ok(3) }).candidate("b", || async { Ok(4) });
    assert_eq!(trial.run(control).await, Ok(3));
    assert_eq!((experiment.tallies(), seen.lock().unwrap().len()), (Vec::new(), 0));
}

#[tokio::test]
async fn cohorts_are_counted_apart_up_to_a_cap() {
    let (experiment, _) =
        watched(|builder| builder.cohort(|_, value| format!("tens-{}", value / 10)).cohorts_max(2));
    for n in 0..40 {
        both(&experiment, n, n);
    }
    let mut cohorts: Vec<_> = experiment
        .tallies()
        .into_iter()
        .map(|tally| (tally.cohort.unwrap_or_default(), tally.totals.matched))
        .collect();
    cohorts.sort();
    assert_eq!(cohorts, [("other".into(), 20), ("tens-0".into(), 10), ("tens-1".into(), 10)]);
}

#[test]
fn processor_time_is_measured_where_asked_for() {
    let (experiment, seen) = watched(Builder::measure_cpu);
    both(&experiment, 1, 1);
    assert_eq!(seen.lock().unwrap()[0].control.cpu.is_some(), cfg!(all(unix, not(miri))));
}

#[tokio::test]
async fn processor_time_is_measured_wherever_candidates_run() {
    let candidates = CandidateRuntime::new(1).unwrap();
    for on_threads in [false, true] {
        let (experiment, seen) = watched(|builder| match on_threads {
            true => builder.measure_cpu().runtime(candidates.handle()),
            false => builder.measure_cpu(),
        });
        experiment.run("k", || async { Ok(1) }, || async { Ok(1) }).await.unwrap();
        quiet(&experiment).await;
        experiment.run_sync("k", || Ok(1), || Ok(1)).unwrap();
        quiet(&experiment).await;
        let trial = experiment.trial_in_line("k").candidate("a", || async { Ok(1) });
        trial.run(|| async { Ok(1) }).await.unwrap();
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), 3);
        let measured = |seen: &Observation| seen.control.cpu.is_some() && seen.candidate.cpu.is_some();
        assert!(seen.iter().all(|seen| measured(seen) == cfg!(all(unix, not(miri)))), "{seen:?}");
    }
}

#[tokio::test]
async fn the_budget_bounds_what_starts_in_a_second() {
    let limits = Limits { budget_per_second: Some(3), ..Limits::default() };
    let (experiment, _) = watched(|builder| builder.limits(limits));
    for _ in 0..20 {
        experiment.run("k", || async { Ok(1) }, || async { Ok(1) }).await.unwrap();
    }
    let Totals { matched, shed, .. } = quiet(&experiment).await;
    // Three in each second that the calls fell in, which are two at most on any machine that runs tests at all.
    assert!((3..=6).contains(&matched), "{matched}");
    assert_eq!(matched + shed, 20);
}

#[tokio::test]
async fn a_probe_that_succeeds_ends_the_rest_of_a_candidate() {
    let policy = BreakerPolicy { failures: 2, rest: Duration::from_millis(1) };
    let (experiment, _) = watched(|builder| builder.breaker(policy));
    for _ in 0..2 {
        experiment.run("k", || async { Ok(1) }, || async { Err("down".to_owned()) }).await.unwrap();
        quiet(&experiment).await;
    }
    // It rests, then one call probes, and from then on each call is compared.
    while quiet(&experiment).await.matched == 0 {
        experiment.run("k", || async { Ok(1) }, || async { Ok(1) }).await.unwrap();
    }
    let before = quiet(&experiment).await;
    for _ in 0..5 {
        experiment.run("k", || async { Ok(1) }, || async { Ok(1) }).await.unwrap();
        quiet(&experiment).await;
    }
    let after = quiet(&experiment).await;
    assert_eq!((before.errored, after.matched - before.matched, after.shed), (2, 5, before.shed));
}

#[tokio::test(start_paused = true)]
async fn controls_noise_is_measured_on_a_share() {
    let (experiment, _) = watched(|builder| {
        builder.noise_baseline(1_000_000).recheck(RecheckPolicy { rounds: 1, ..RecheckPolicy::default() })
    });
    let reads = AtomicU32::new(0);
    let control = move || std::future::ready(Ok(i64::from(reads.fetch_add(1, Ordering::Relaxed) / 2)));
    experiment.run_rechecked("k", control, || std::future::ready(Ok(0))).await.unwrap();
    quiet(&experiment).await;
    assert_eq!((experiment.noise().compared, experiment.noise().differed), (1, 0));
    let reads = AtomicU32::new(0);
    let control = move || std::future::ready(Ok(i64::from(reads.fetch_add(1, Ordering::Relaxed))));
    experiment.run_rechecked("k", control, || std::future::ready(Ok(0))).await.unwrap();
    quiet(&experiment).await;
    assert_eq!(experiment.noise().rate(), Some(0.5));
}

#[tokio::test(start_paused = true)]
async fn shutdown_gives_grace_then_stops_and_closes_the_account() {
    let (experiment, seen) = watched(|builder| builder);
    let soon = || async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        Ok(1)
    };
    let late = || async {
        tokio::time::sleep(Duration::from_millis(900)).await;
        Ok(1)
    };
    experiment.run("k", || async { Ok(1) }, soon).await.unwrap();
    experiment.run("k", || async { Ok(1) }, late).await.unwrap();
    let started = tokio::time::Instant::now();
    experiment.shutdown(Duration::from_millis(50)).await;
    assert!(started.elapsed() < Duration::from_millis(100));
    assert_eq!(experiment.in_flight(), 0);
    let expected = Totals { eligible: 2, matched: 1, shed: 1, ..Totals::default() };
    assert_eq!(totals(&experiment), expected);
    assert_eq!(seen.lock().unwrap().len(), 1);
    experiment.set_sampling(Sampling::Always);
    experiment.run("k", || async { Ok(1) }, soon).await.unwrap();
    assert_eq!(totals(&experiment).shed, 2, "nothing starts after a shutdown");
}

#[tokio::test]
async fn blocking_candidates_have_threads_of_their_own() {
    let candidates = CandidateRuntime::new(1).unwrap();
    let (experiment, seen) = watched(|builder| {
        let limits = Limits { timeout: Duration::from_millis(20), in_flight_max: 1, ..Limits::default() };
        builder.runtime(candidates.handle()).limits(limits)
    });
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    let blocks = move || {
        let _ = blocked.recv();
        Ok(1)
    };
    assert_eq!(experiment.run_sync("k", || Ok(1), blocks), Ok(1));
    assert_eq!(experiment.run_sync("k", || Ok(1), || Ok(1)), Ok(1));
    assert_eq!(quiet(&experiment).await, Totals { eligible: 2, timed_out: 1, shed: 1, ..Totals::default() });
    drop(release);
    // The slot is free when the thread is.
    loop {
        assert_eq!(experiment.run_sync("k", || Ok(1), || Ok(1)), Ok(1));
        if quiet(&experiment).await.matched > 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(seen.lock().unwrap()[0].candidate.outcome, Outcome::TimedOut);
}

#[test]
fn without_a_runtime_the_candidate_is_shed() {
    let (experiment, _) = watched(|builder| builder);
    let candidate = || async { Ok(1) };
    let result = futures::executor::block_on(experiment.run("k", || async { Ok(1) }, candidate));
    assert_eq!(result, Ok(1));
    assert_eq!(experiment.run_sync("k", || Ok(1), || Ok(1)), Ok(1));
    assert_eq!(totals(&experiment), Totals { eligible: 2, shed: 2, ..Totals::default() });
}

#[test]
fn a_limit_of_nothing_is_refused() {
    let limits = Limits { in_flight_max: 0, ..Limits::default() };
    let built = Experiment::<i64, Infallible>::builder("none").limits(limits).build();
    assert!(matches!(built, Err(Error::Limit { limit: "in_flight_max", .. })));
}
