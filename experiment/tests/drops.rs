//! Values and candidates whose drop panics: that stays in as every other panic of the candidate's.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crossfade_experiment::{Experiment, Order, Sampling, Totals};

const ORDERS: [Order; 3] = [Order::ControlFirst, Order::Random, Order::Concurrent];

/// A value that panics when it is dropped.
#[derive(Debug, Clone, PartialEq)]
struct Explosive(bool);

impl Drop for Explosive {
    fn drop(&mut self) {
        if self.0 {
            panic!("dropped");
        }
    }
}

/// A second panic on the way of the first would end the process.
#[test]
fn values_whose_drop_panics_stay_in_also_while_control_panics() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Orders are drawn; the interpreter has time for one draw.
    let draws = if cfg!(miri) { 1 } else { 8 };
    for order in ORDERS {
        for _ in 0..draws {
            let experiment: Experiment<Explosive, String> = Experiment::builder("explosive")
                .sampling(Sampling::Always)
                .order(order)
                .breaker(None)
                .build()
                .unwrap();
            let good = || Ok(Explosive(false));
            let bad = || Ok(Explosive(true));
            let panics = || -> Result<Explosive, String> { panic!("control's") };
            let caught = |run: &dyn Fn() -> Result<Explosive, String>| {
                let panic = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
                assert_eq!(*panic.downcast_ref::<&str>().unwrap(), "control's");
            };
            caught(&|| experiment.run_sync_in_line("k", panics, bad));
            caught(&|| {
                runtime.block_on(experiment.run_in_line("k", || async { panics() }, || async { bad() }))
            });
            caught(&|| {
                let trial = experiment.trial_sync_in_line("k").candidate("a", bad).candidate("b", bad);
                trial.run(panics)
            });
            caught(&|| {
                let trial = experiment.trial_in_line("k").candidate("a", || async { bad() });
                runtime.block_on(trial.candidate("b", || async { bad() }).run(|| async { panics() }))
            });
            let trial = experiment.trial_sync_in_line("k").candidate("a", bad).candidate("b", bad);
            assert_eq!(trial.run(good), Ok(Explosive(false)));
            runtime.block_on(async {
                let trial = experiment.trial("k").candidate("a", move || async move { bad() });
                let trial = trial.candidate("b", move || async move { bad() });
                assert_eq!(trial.run(|| async { good() }).await, Ok(Explosive(false)));
                while experiment.in_flight() > 0 {
                    tokio::task::yield_now().await;
                }
            });
            let mut totals = Totals::default();
            experiment.tallies().iter().for_each(|tally| totals += tally.totals);
            let expected = Totals { eligible: 10, incomparable: 6, mismatched: 4, ..Totals::default() };
            assert_eq!(totals, expected, "{order:?}");
        }
    }
}

/// What a candidate holds may panic when it is dropped, also where the candidate never runs.
#[tokio::test]
async fn candidates_that_are_not_run_are_dropped_under_the_net() {
    for sampling in [Sampling::Never, Sampling::Always] {
        let experiment: Experiment<i64, String> =
            Experiment::builder("skipping").sampling(sampling).run_if(|_| false).build().unwrap();
        let held = || {
            let bomb = Explosive(true);
            move || {
                let _inside = &bomb;
                Ok(1)
            }
        };
        let held_async = || {
            let bomb = Explosive(true);
            move || {
                let _inside = &bomb;
                async { Ok(1) }
            }
        };
        assert_eq!(experiment.run("k", || async { Ok(1) }, held_async()).await, Ok(1));
        assert_eq!(experiment.run_rechecked("k", || async { Ok(1) }, held_async()).await, Ok(1));
        assert_eq!(experiment.run_in_line("k", || async { Ok(1) }, held_async()).await, Ok(1));
        assert_eq!(experiment.run_sync("k", || Ok(1), held()), Ok(1));
        assert_eq!(experiment.run_sync_in_line("k", || Ok(1), held()), Ok(1));
        let trial = experiment.trial("k").candidate("a", held_async()).candidate("b", held_async());
        assert_eq!(trial.run(|| async { Ok(1) }).await, Ok(1));
        let trial = experiment.trial_in_line("k").candidate("a", held_async());
        assert_eq!(trial.run(|| async { Ok(1) }).await, Ok(1));
        assert_eq!(experiment.trial_sync("k").candidate("a", held()).run(|| Ok(1)), Ok(1));
        assert_eq!(experiment.trial_sync_in_line("k").candidate("a", held()).run(|| Ok(1)), Ok(1));
        drop(experiment.trial("k").candidate("never run", held_async()));
        let skipped: u64 = experiment.tallies().iter().map(|tally| tally.totals.skipped).sum();
        assert_eq!(skipped, if sampling == Sampling::Never { 0 } else { 10 });
    }
}
