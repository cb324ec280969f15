//! Switched off or unsampled, a call allocates nothing, and the candidate is never built.

use crossfade_experiment::{Experiment, Limits, Sampling};
use futures::{FutureExt, executor::block_on};

type Number = Experiment<u64, String>;

fn experiment(sampling: Sampling) -> Number {
    Experiment::builder("number").sampling(sampling).build().unwrap()
}

fn allocations(run: impl FnOnce()) -> u64 {
    allocation_counter::measure(run).count_total
}

#[test]
fn unsampled_calls_allocate_nothing_and_build_no_candidate() {
    let never = || -> std::future::Ready<Result<u64, String>> { panic!("built") };
    let never_sync = || -> Result<u64, String> { panic!("built") };
    // Large enough not to fit where a small one might by chance.
    let ballast = [7u64; 64];
    for sampling in [Sampling::Never, Sampling::ByKey(1), Sampling::Random(0)] {
        let experiment = experiment(sampling);
        let calls = || {
            block_on(async {
                for _ in 0..100 {
                    let built = move || std::future::ready(Ok(ballast[3]));
                    assert_eq!(experiment.run("customer-17", || async { Ok(7) }, never).await, Ok(7));
                    assert_eq!(
                        experiment.run_rechecked("customer-17", || async { Ok(7) }, built).await,
                        Ok(7)
                    );
                    assert_eq!(experiment.run_in_line("customer-17", || async { Ok(7) }, never).await, Ok(7));
                    assert_eq!(experiment.run_sync("customer-17", || Ok(7), || panic!("built")), Ok(7));
                    assert_eq!(
                        experiment.run_sync_in_line("customer-17", || Ok(7), || panic!("built")),
                        Ok(7)
                    );
                    let trial = experiment.trial("customer-17").candidate("a", never).candidate("b", never);
                    assert_eq!(trial.run(|| async { Ok(7) }).await, Ok(7));
                    let trial = experiment.trial_in_line("customer-17").candidate("a", never);
                    assert_eq!(trial.candidate("b", never).run(|| async { Ok(7) }).await, Ok(7));
                    let trial = experiment.trial_sync("customer-17").candidate("a", || panic!("built"));
                    assert_eq!(trial.candidate("b", || panic!("built")).run(|| Ok(7)), Ok(7));
                    let trial = experiment.trial_sync_in_line("customer-17").candidate("a", never_sync);
                    assert_eq!(trial.candidate("b", never_sync).run(|| Ok(7)), Ok(7));
                    // Without a control, the branch that answers is not boxed either.
                    let choice = experiment.trial("customer-17").choose("old").branch("old", built);
                    assert_eq!(choice.branch("new", never).run().await.unwrap(), Ok(7));
                    let choice = experiment.trial_in_line("customer-17").choose("old").branch("new", never);
                    assert_eq!(choice.branch("old", built).run().await.unwrap(), Ok(7));
                    let choice = experiment.trial_sync("customer-17").choose("old");
                    let choice = choice.branch("old", move || Ok(ballast[3])).branch("new", never_sync);
                    assert_eq!(choice.run().unwrap(), Ok(7));
                    let choice = experiment.trial_sync_in_line("customer-17").choose("old");
                    let choice = choice.branch("new", never_sync).branch("old", move || Ok(ballast[3]));
                    assert_eq!(choice.run().unwrap(), Ok(7));
                }
            });
        };
        calls();
        assert_eq!(allocations(calls), 0, "{sampling:?}");
    }
}

/// Shed calls beside a candidate that never ends are most calls: they allocate nothing either.
#[test]
fn shed_calls_allocate_nothing() {
    let limits = Limits { in_flight_max: 1, ..Limits::default() };
    let experiment: Number =
        Experiment::builder("number").sampling(Sampling::Always).limits(limits).build().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        experiment.run("k", || async { Ok(7) }, std::future::pending).await.unwrap();
        let never = || -> std::future::Ready<Result<u64, String>> { panic!("built") };
        let counted = allocations(|| {
            for _ in 0..100 {
                let call = experiment.run("k", || async { Ok(7) }, never);
                assert_eq!(call.now_or_never().unwrap(), Ok(7));
                assert_eq!(experiment.run_sync("k", || Ok(7), || panic!("ran")), Ok(7));
            }
        });
        assert_eq!(counted, 0);
    });
    assert_eq!(experiment.tallies()[0].totals.shed, 200);
}

#[test]
fn the_counter_sees_what_sampled_calls_allocate() {
    let experiment = experiment(Sampling::Always);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let call = || {
        let candidate = || async { Ok(7) };
        assert_eq!(runtime.block_on(experiment.run("k", || async { Ok(7) }, candidate)), Ok(7));
    };
    assert!(allocations(call) > 0);
}
