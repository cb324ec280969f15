//! In line: candidate and comparison on the caller's task.

use std::{cell::Cell, convert::Infallible, future::pending, panic::AssertUnwindSafe, time::Duration};

use crossfade_experiment::{Experiment, Order, Sampling, Totals};
use futures::{FutureExt, executor::block_on};

/// Neither `Clone` nor `Send`: in line it is compared where it is.
#[derive(Debug, PartialEq)]
struct Borrowed(i64);

fn experiment(order: Order) -> Experiment<Borrowed, String> {
    Experiment::builder("in line").sampling(Sampling::Always).order(order).breaker(None).build().unwrap()
}

fn totals(experiment: &Experiment<Borrowed, String>) -> Totals {
    let mut totals = Totals::default();
    experiment.tallies().iter().for_each(|tally| totals += tally.totals);
    assert!(totals.is_closed() && experiment.in_flight() == 0, "{totals:?}");
    totals
}

#[test]
fn every_order_gives_controls_result_and_compares() {
    for order in [Order::ControlFirst, Order::Random, Order::Concurrent] {
        let experiment = experiment(order);
        let ran = Cell::new(0);
        for n in 0..20 {
            let control = || async { Ok(Borrowed(n)) };
            let candidate = || async {
                ran.set(ran.get() + 1);
                Ok(Borrowed(n % 10))
            };
            assert_eq!(block_on(experiment.run_in_line("k", control, candidate)), Ok(Borrowed(n)));
        }
        assert_eq!(ran.get(), 20);
        let expected = Totals { eligible: 20, matched: 10, mismatched: 10, ..Totals::default() };
        assert_eq!(totals(&experiment), expected);
        assert_eq!(experiment.tallies()[0].control_latency.count(), 20);
    }
}

#[test]
fn a_candidates_panic_stays_in_and_controls_goes_out() {
    for order in [Order::ControlFirst, Order::Random, Order::Concurrent] {
        let experiment = experiment(order);
        let good = || async { Ok(Borrowed(1)) };
        let bad = || async { panic!("mine") };
        assert_eq!(block_on(experiment.run_in_line("k", good, bad)), Ok(Borrowed(1)));
        let caught = block_on(AssertUnwindSafe(experiment.run_in_line("k", bad, good)).catch_unwind());
        assert_eq!(*caught.unwrap_err().downcast_ref::<&str>().unwrap(), "mine");
        let expected = Totals { eligible: 2, panicked: 1, incomparable: 1, ..Totals::default() };
        assert_eq!(totals(&experiment), expected);
    }
}

#[test]
fn sync_calls_do_the_same_without_a_runtime() {
    let experiment = experiment(Order::Random);
    for n in 0..10 {
        let result = experiment.run_sync_in_line("k", || Ok(Borrowed(n)), || Ok(Borrowed(0)));
        assert_eq!(result, Ok(Borrowed(n)));
    }
    let result = experiment.run_sync_in_line("k", || Ok(Borrowed(1)), || panic!("mine"));
    assert_eq!(result, Ok(Borrowed(1)));
    let expected = Totals { eligible: 11, matched: 1, mismatched: 9, panicked: 1, ..Totals::default() };
    assert_eq!(totals(&experiment), expected);
}

#[test]
fn a_forced_candidate_answers_alone() {
    let experiment: Experiment<i64, Infallible> = Experiment::builder("forced").build().unwrap();
    experiment.force_candidate();
    let control = || -> Result<i64, Infallible> { panic!("control ran") };
    assert_eq!(experiment.run_sync_in_line("k", control, || Ok(2)), Ok(2));
    experiment.set_sampling(Sampling::Never);
    assert_eq!(experiment.run_sync_in_line("k", || Ok(1), || Ok(2)), Ok(1));
    assert_eq!(experiment.tallies(), []);
}

fn bounded(order: Order) -> Experiment<Borrowed, String> {
    let builder = Experiment::builder("bounded").sampling(Sampling::Always).order(order).breaker(None);
    builder.in_line_timeout(Duration::from_millis(5)).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_caller_waits_no_longer_than_allowed() {
    for order in [Order::ControlFirst, Order::Random, Order::Concurrent] {
        let experiment = bounded(order);
        let good = || async { Ok(Borrowed(1)) };
        let started = tokio::time::Instant::now();
        assert_eq!(experiment.run_in_line("k", good, pending).await, Ok(Borrowed(1)));
        assert!(started.elapsed() < Duration::from_millis(10), "{order:?}");
        assert_eq!(experiment.run_in_line("k", good, good).await, Ok(Borrowed(1)));
        let bad = || async { panic!("mine") };
        assert_eq!(experiment.run_in_line("k", good, bad).await, Ok(Borrowed(1)));
        let expected = Totals { eligible: 3, matched: 1, timed_out: 1, panicked: 1, ..Totals::default() };
        assert_eq!(totals(&experiment), expected, "{order:?}");
    }
}

#[test]
fn without_timers_a_bounded_candidate_is_shed_and_a_late_sync_one_is_found_out() {
    let experiment = bounded(Order::ControlFirst);
    let good = || async { Ok(Borrowed(1)) };
    assert_eq!(block_on(experiment.run_in_line("k", good, good)), Ok(Borrowed(1)));
    let late = || {
        std::thread::sleep(Duration::from_millis(6));
        Ok(Borrowed(1))
    };
    assert_eq!(experiment.run_sync_in_line("k", || Ok(Borrowed(1)), late), Ok(Borrowed(1)));
    let expected = Totals { eligible: 2, shed: 1, timed_out: 1, ..Totals::default() };
    assert_eq!(totals(&experiment), expected);
}
