//! What one call costs: off, in line, off the caller's path, with a difference.

use std::{convert::Infallible, future::ready, hint::black_box, time::Instant};

use crossfade_experiment::{
    Diff, Differences, Experiment, Limits, Observation, Order, PublishFn, Sampling, diff_serialized,
};
use launchdarkly_server_sdk::{ExecutionOrder, Stage};
use scientisto::AsyncExperiment;
use serde::Serialize;
use thesis::RolloutDecision;
use tokio::runtime::{Builder, Runtime};

use crate::{
    measure::{Contestant, case},
    peers::launch_darkly,
};

type Number = Experiment<u64, Infallible>;

const CALLS: u64 = 20_000;

pub(crate) fn run() {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    off_async(&runtime);
    off_sync();
    in_line_async(&runtime);
    in_line_sync();
    off_path();
    mismatched();
}

fn number(sampling: Sampling) -> Number {
    Experiment::builder("number").sampling(sampling).build().expect("no limit is zero")
}

async fn control() -> Result<u64, Infallible> {
    Ok(black_box(7))
}

fn off_async(runtime: &Runtime) {
    let never = number(Sampling::Never);
    let by_key = number(Sampling::ByKey(1));
    let random = number(Sampling::Random(1));
    let mut launch_darkly = launch_darkly(ExecutionOrder::Serial);
    let ours = |experiment: &Number, calls| {
        runtime.block_on(async {
            for _ in 0..calls {
                let _ = black_box(experiment.run("customer-17", control, control).await);
            }
        });
    };
    case(
        "Switched off or unsampled, async",
        vec![
            Contestant::new("the bare call", CALLS, |calls| {
                runtime.block_on(async {
                    for _ in 0..calls {
                        let _ = black_box(control().await);
                    }
                });
            }),
            Contestant::new("crossfade, switched off", CALLS, |calls| ours(&never, calls)),
            Contestant::new("crossfade, unsampled by key", CALLS, |calls| ours(&by_key, calls)),
            Contestant::new("crossfade, unsampled at random", CALLS, |calls| ours(&random, calls)),
            Contestant::new("scientisto, run_if false", CALLS, |calls| {
                runtime.block_on(async {
                    for _ in 0..calls {
                        let run = AsyncExperiment::new("number").control(control()).experiment(control());
                        let _ = black_box(run.run_if(|| black_box(false)).await);
                    }
                });
            }),
            Contestant::new("thesis, UseControl", CALLS, |calls| {
                runtime.block_on(async {
                    for _ in 0..calls {
                        let run = thesis::Experiment::new("number")
                            .control(control())
                            .experimental(control())
                            .rollout_strategy(black_box(RolloutDecision::UseControl));
                        let _ = black_box(run.run().await);
                    }
                });
            }),
            Contestant::new("LaunchDarkly, stage off", CALLS / 10, |calls| {
                runtime.block_on(async {
                    for _ in 0..calls {
                        black_box(launch_darkly.read(Stage::Off).await);
                    }
                });
            }),
        ],
    );
}

fn off_sync() {
    let never = number(Sampling::Never);
    let call = || Ok::<u64, Infallible>(black_box(7));
    case(
        "Switched off, sync",
        vec![
            Contestant::new("the bare call", CALLS * 10, |calls| {
                for _ in 0..calls {
                    let _ = black_box(call());
                }
            }),
            Contestant::new("crossfade, switched off", CALLS * 10, |calls| {
                for _ in 0..calls {
                    let _ = black_box(never.run_sync_in_line("customer-17", call, call));
                }
            }),
            Contestant::new("scientisto, run_if false", CALLS * 10, |calls| {
                for _ in 0..calls {
                    let run = scientisto::Experiment::new("number").control(call).experiment(call);
                    let _ = black_box(run.run_if(|| black_box(false)));
                }
            }),
        ],
    );
}

fn in_line_async(runtime: &Runtime) {
    let serial = number(Sampling::Always);
    let concurrent: Number = Experiment::builder("number")
        .sampling(Sampling::Always)
        .order(Order::Concurrent)
        .build()
        .expect("no limit is zero");
    let mut ld_serial = launch_darkly(ExecutionOrder::Serial);
    let mut ld_concurrent = launch_darkly(ExecutionOrder::Concurrent);
    let ours = |experiment: &Number, calls| {
        runtime.block_on(async {
            for _ in 0..calls {
                let _ = black_box(experiment.run_in_line("customer-17", control, control).await);
            }
        });
    };
    let theirs = |migrator: &mut dyn FnMut(), calls: u64| (0..calls).for_each(|_| migrator());
    case(
        "Matched, in line, async, timed",
        vec![
            Contestant::new("two calls and two clock reads", CALLS, |calls| {
                runtime.block_on(async {
                    for _ in 0..calls {
                        let started = Instant::now();
                        let _ = black_box(control().await);
                        let _ = black_box(control().await);
                        black_box(started.elapsed());
                    }
                });
            }),
            Contestant::new("crossfade, serial", CALLS, |calls| ours(&serial, calls)),
            Contestant::new("crossfade, concurrent", CALLS, |calls| ours(&concurrent, calls)),
            Contestant::new("scientisto (neither times nor counts)", CALLS, |calls| {
                runtime.block_on(async {
                    for _ in 0..calls {
                        let run = AsyncExperiment::new("number").control(control()).experiment(control());
                        let _ = black_box(run.run().await);
                    }
                });
            }),
            Contestant::new("thesis", CALLS, |calls| {
                runtime.block_on(async {
                    for _ in 0..calls {
                        let run = thesis::Experiment::new("number")
                            .control(control())
                            .experimental(control())
                            .rollout_strategy(RolloutDecision::UseExperimentalAndCompare);
                        let _ = black_box(run.run().await);
                    }
                });
            }),
            Contestant::new("LaunchDarkly, serial", CALLS / 10, |calls| {
                let mut read = || {
                    black_box(runtime.block_on(ld_serial.read(Stage::Shadow)));
                };
                theirs(&mut read, calls);
            }),
            Contestant::new("LaunchDarkly, concurrent", CALLS / 10, |calls| {
                let mut read = || {
                    black_box(runtime.block_on(ld_concurrent.read(Stage::Shadow)));
                };
                theirs(&mut read, calls);
            }),
        ],
    );
}

fn in_line_sync() {
    let always = number(Sampling::Always);
    let call = || Ok::<u64, Infallible>(black_box(7));
    case(
        "Matched, in line, sync, timed",
        vec![
            Contestant::new("two calls and two clock reads", CALLS, |calls| {
                for _ in 0..calls {
                    let started = Instant::now();
                    let _ = (black_box(call()), black_box(call()));
                    black_box(started.elapsed());
                }
            }),
            Contestant::new("crossfade", CALLS, |calls| {
                for _ in 0..calls {
                    let _ = black_box(always.run_sync_in_line("customer-17", call, call));
                }
            }),
            Contestant::new("scientisto (neither times nor counts)", CALLS, |calls| {
                for _ in 0..calls {
                    let run = scientisto::Experiment::new("number").control(call).experiment(call);
                    let _ = black_box(run.run());
                }
            }),
        ],
    );
}

/// Calls come in bursts that fit the slots, and the time until all candidates have ended is not the
/// caller's: it is left out.
fn off_path() {
    const BURST: u64 = 32;
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let experiment: Number = Experiment::builder("number")
        .sampling(Sampling::Always)
        .limits(Limits { in_flight_max: 4 * BURST as u32, ..Limits::default() })
        .build()
        .expect("no limit is zero");
    let mut shares = Vec::new();
    let mut spawns = Vec::new();
    for _ in 0..2_000 {
        let share = runtime.block_on(runtime.spawn({
            let experiment = experiment.clone();
            async move {
                let started = Instant::now();
                for _ in 0..BURST {
                    let _ = black_box(experiment.run("customer-17", control, control).await);
                }
                started.elapsed()
            }
        }));
        shares.push(share.expect("no panic").as_nanos() as f64 / BURST as f64);
        while experiment.in_flight() > 0 {
            std::thread::yield_now();
        }
        let spawn = runtime.block_on(runtime.spawn(async {
            let started = Instant::now();
            for _ in 0..BURST {
                drop(tokio::spawn(ready(black_box(7))));
                let _ = black_box(control().await);
            }
            started.elapsed()
        }));
        spawns.push(spawn.expect("no panic").as_nanos() as f64 / BURST as f64);
    }
    let shed: u64 = experiment.tallies().iter().map(|tally| tally.totals.shed).sum();
    let allocations = allocation_counter::measure(|| {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let _ = runtime.block_on(experiment.run("customer-17", control, control));
        std::mem::forget(runtime);
    });
    let without = allocation_counter::measure(|| {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let _ = runtime.block_on(control());
        std::mem::forget(runtime);
    });
    println!("\n### Matched, off the caller's path: the caller's share\n");
    println!("| contestant | ns per call (median) | allocations per call |\n| --- | ---: | ---: |");
    let median = crate::measure::median;
    println!("| control and a bare `tokio::spawn` | {:.1} | 1 |", median(&mut spawns));
    let count = allocations.count_total.saturating_sub(without.count_total);
    println!("| crossfade ({shed} shed) | {:.1} | {count} |", median(&mut shares));
}

/// Twenty fields of the kinds that rows have.
#[derive(Debug, Clone, PartialEq, Serialize, Diff)]
struct Row {
    id: u64,
    customer: u64,
    plan: String,
    status: String,
    currency: String,
    amount: i64,
    discount: i64,
    tax: f64,
    trial: bool,
    cancelled: bool,
    created: u64,
    updated: u64,
    started: u64,
    ends: Option<u64>,
    note: Option<String>,
    seats: u32,
    region: String,
    reference: String,
    tags: Vec<String>,
    version: u32,
}

fn row(version: u32) -> Row {
    Row {
        id: 17,
        customer: 4_711,
        plan: "gold".into(),
        status: "active".into(),
        currency: "EUR".into(),
        amount: 1_999,
        discount: 0,
        tax: 0.19,
        trial: false,
        cancelled: false,
        created: 1_700_000_000,
        updated: 1_700_000_100,
        started: 1_700_000_000,
        ends: None,
        note: Some("renewed by phone".into()),
        seats: 12,
        region: "eu-central".into(),
        reference: "2f1c6a6e".into(),
        tags: vec!["annual".into(), "partner".into()],
        version,
    }
}

fn mismatched() {
    let experiment: Experiment<Row, Infallible> = Experiment::builder("rows")
        .sampling(Sampling::Always)
        .diff_serialized()
        .publisher(PublishFn(|observation: &Observation| {
            black_box(observation);
        }))
        .build()
        .expect("no limit is zero");
    let derived: Experiment<Row, Infallible> = Experiment::by_fields("rows")
        .sampling(Sampling::Always)
        .publisher(PublishFn(|observation: &Observation| {
            black_box(observation);
        }))
        .build()
        .expect("no limit is zero");
    let (old, new, same) = (row(1), row(2), row(1));
    case(
        "Mismatched, 20 fields of which one differs",
        vec![
            Contestant::new("two clones (part of the next row)", CALLS / 10, |calls| {
                for _ in 0..calls {
                    black_box((old.clone(), new.clone()));
                }
            }),
            Contestant::new(
                "crossfade: clones, compare, diff of serde values, publish",
                CALLS / 10,
                |calls| {
                    for _ in 0..calls {
                        let sides = (|| Ok(old.clone()), || Ok(new.clone()));
                        let _ = black_box(experiment.run_sync_in_line("customer-17", sides.0, sides.1));
                    }
                },
            ),
            Contestant::new("crossfade: clones, compare and diff by derive, publish", CALLS / 10, |calls| {
                for _ in 0..calls {
                    let sides = (|| Ok(old.clone()), || Ok(new.clone()));
                    let _ = black_box(derived.run_sync_in_line("customer-17", sides.0, sides.1));
                }
            }),
            Contestant::new("crossfade: the diff alone, by derive", CALLS / 10, |calls| {
                for _ in 0..calls {
                    let mut differences = Differences::new(Default::default());
                    old.diff(&new, &mut differences);
                    black_box(differences.into_found());
                }
            }),
            Contestant::new("crossfade: two equal rows compared by derive", CALLS / 10, |calls| {
                for _ in 0..calls {
                    black_box(Differences::same(&old, black_box(&same)));
                }
            }),
            Contestant::new("crossfade: the diff alone, serde values", CALLS / 10, |calls| {
                for _ in 0..calls {
                    black_box(diff_serialized(&old, &new, Default::default()));
                }
            }),
        ],
    );
}
