//! The caller's percentiles beside a candidate a hundred times slower than control.

use std::{
    convert::Infallible,
    future::pending,
    hint::black_box,
    time::{Duration, Instant},
};

use crossfade_experiment::{CandidateRuntime, Experiment, Limits, Sampling, Totals};
use launchdarkly_server_sdk::{ExecutionOrder, Stage};
use scientisto::AsyncExperiment;
use thesis::RolloutDecision;
use tokio::runtime::{Builder, Runtime};

use crate::{
    measure::{median, quantile},
    peers::launch_darkly_with,
};

/// Control computes for about so long on an idle machine; the candidate a hundred times as long.
const CONTROL: Duration = Duration::from_micros(20);
/// Short calls, and many: on a shared machine fewer than one of a hundred is interrupted, so that the p99 is ours.
const CALLS: usize = 10_000;
/// Peers wait for the candidate: a few calls show it.
const PEER_CALLS: usize = 50;
/// Enough for a median that a few disturbed rounds do not move; a minute for all rows.
const ROUNDS: usize = 21;

/// Each takes a millisecond or two.
const STARTS: usize = 3_000;

type Number = Experiment<u64, Infallible>;

pub(crate) fn run() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    println!("\n### The caller's latency beside a slow candidate\n");
    println!(
        "Control is a fixed amount of work, about {CONTROL:?}. One caller, {CALLS} calls a round; medians of {ROUNDS} rounds. A ratio is to \
         control alone in the same round, before or after it in turns. The first row is control against itself.\n"
    );
    println!(
        "| candidate | p50 | p99 | p50 ratio | p99 ratio | candidates run, shed |\n| --- | ---: | ---: | ---: | ---: | ---: |"
    );

    let work = Work::of(CONTROL);
    let candidates = CandidateRuntime::new(1).expect("threads");
    let shared = experiment(None);
    let apart = experiment(Some(&candidates));
    let slow = CONTROL * 100;

    row("none (control alone)", &runtime, work, None, move |_| async move { work.compute(1) });
    macro_rules! ours {
        ($title:literal, $experiment:expr, $candidate:expr) => {{
            let experiment: Number = $experiment.clone();
            row($title, &runtime, work, Some($experiment), move |_| {
                let experiment = experiment.clone();
                async move {
                    match experiment.run("k", || async { Ok(work.compute(1)) }, $candidate).await {
                        Ok(value) => value,
                    }
                }
            });
        }};
    }
    ours!("crossfade: awaits 100 × as long", &shared, move || async move {
        tokio::time::sleep(slow).await;
        Ok(7)
    });
    ours!("crossfade: never ends", &shared, pending);
    ours!("crossfade: panics", &shared, || async { panic!("candidate") });
    ours!("crossfade: allocates 1 MiB a hundred times", &apart, || async {
        for _ in 0..100 {
            black_box(vec![1u8; 1 << 20]);
            tokio::task::yield_now().await;
        }
        Ok(7)
    });
    ours!("crossfade: blocks its thread 100 × as long, threads of its own", &apart, move || async move {
        std::thread::sleep(slow);
        Ok(7)
    });
    ours!("crossfade: computes 100 × as long, threads of its own", &apart, move || async move {
        Ok(work.compute(100))
    });

    starts(&runtime, work, &candidates);
    looking();

    println!("\nThe peers, whose caller waits for a candidate that awaits 100 × as long:\n");
    println!("| peer | p50 | p99 |\n| --- | ---: | ---: |");
    let candidate = move || async move {
        tokio::time::sleep(slow).await;
        7u64
    };
    peer("scientisto", &runtime, || async {
        AsyncExperiment::new("n").control(async { work.compute(1) }).experiment(candidate()).run().await
    });
    peer("thesis", &runtime, || async {
        let run = thesis::Experiment::new("n").control(async { work.compute(1) }).experimental(candidate());
        run.rollout_strategy(RolloutDecision::UseExperimentalAndCompare).run().await
    });
    for (name, order) in [
        ("LaunchDarkly, serial", ExecutionOrder::Serial),
        ("LaunchDarkly, concurrent", ExecutionOrder::Concurrent),
    ] {
        let migrator = launch_darkly_with(order, move || async move { work.compute(1) }, candidate);
        let migrator = std::cell::RefCell::new(migrator);
        #[expect(clippy::await_holding_refcell_ref, reason = "one caller at a time")]
        peer(name, &runtime, || async { migrator.borrow_mut().read(Stage::Shadow).await });
    }
}

/// What starting a candidate costs the call that starts it: the percentiles above see it only where one call in a hundred
/// starts one, and only where the machine disturbs fewer.
fn starts(runtime: &Runtime, work: Work, candidates: &CandidateRuntime) {
    println!(
        "\nA call that starts a candidate on threads of their own, {STARTS} of them, each when the one before has ended on another \
         processor; control is empty:\n"
    );
    println!("| call | p50 | p90 |\n| --- | ---: | ---: |");
    let experiment = experiment(Some(candidates));
    let watched = experiment.clone();
    let call = move || {
        let experiment = experiment.clone();
        async move {
            let candidate = move || async move { Ok(work.compute(1)) };
            match experiment.run("k", || async { Ok(7) }, candidate).await {
                Ok(value) => value,
            }
        }
    };
    let task = runtime.spawn(async move {
        let mut latencies = Vec::with_capacity(STARTS);
        for _ in 0..STARTS {
            let started = Instant::now();
            black_box(call().await);
            latencies.push(started.elapsed().as_nanos() as f64);
            while watched.in_flight() > 0 {
                // Other calls, as a service has them: what the processor knew of this one is not all forgotten.
                black_box(work.compute(1));
                tokio::task::yield_now().await;
            }
        }
        latencies.sort_by(f64::total_cmp);
        latencies
    });
    let latencies = runtime.block_on(task).expect("no panic reaches the caller");
    let (p50, p90) = (quantile(&latencies, 0.5), quantile(&latencies, 0.9));
    println!("| crossfade, starting a candidate | {p50:.0} ns | {p90:.0} ns |");
}

/// What it costs that callers wake nobody: a thread looks for candidates by the clock while calls come.
fn looking() {
    let candidates = CandidateRuntime::new(1).expect("threads");
    let experiment = experiment(Some(&candidates));
    let share = |calls: bool| {
        let (started, before) = (Instant::now(), processor_time());
        while started.elapsed() < LOOKING {
            if calls {
                match experiment.run_sync("k", || Ok(7), || Ok(7)) {
                    Ok(value) => black_box(value),
                };
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        (processor_time() - before).as_secs_f64() / started.elapsed().as_secs_f64()
    };
    let (busy, idle) = (share(true), share(false));
    println!(
        "\nThreads of their own, with ten calls in a second: {:.2} % of a processor; without any: {:.2} %.",
        busy * 100.0,
        idle * 100.0
    );
}

/// Long enough for a tenth of a percent, and for starting and going to sleep not to count.
const LOOKING: Duration = Duration::from_secs(10);

/// Of the whole process, from Linux's `/proc`, which counts hundredths of a second; zero elsewhere.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // User and system time are the twelfth and thirteenth field after the name, which may hold anything.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
    Duration::from_millis(10 * ticks)
}

fn experiment(candidates: Option<&CandidateRuntime>) -> Number {
    let limits = Limits { timeout: Duration::from_millis(50), in_flight_max: 16, ..Limits::default() };
    let mut builder = Experiment::builder("number").sampling(Sampling::Always).limits(limits).breaker(None);
    if let Some(candidates) = candidates {
        builder = builder.runtime(candidates.handle());
    }
    builder.build().expect("no limit is zero")
}

/// A fixed amount of work: whatever slows the processor down, slows it down, as it does a service's own.
#[derive(Debug, Clone, Copy)]
struct Work {
    steps: u64,
}

impl Work {
    /// As many steps as take `time` here, at the best of many tries.
    fn of(time: Duration) -> Self {
        let probe = Self { steps: 20_000 };
        let tries = (0..200).map(|_| {
            let started = Instant::now();
            probe.compute(1);
            started.elapsed().as_nanos()
        });
        let best = tries.min().unwrap_or(1).max(1);
        Self { steps: (u128::from(probe.steps) * time.as_nanos() / best) as u64 }
    }

    /// Never inlined: the same instructions at the same place, whoever calls it. Where the loop lies is worth some percent.
    #[inline(never)]
    fn compute(self, times: u64) -> u64 {
        let mut state = black_box(7u64);
        for step in 0..self.steps * times {
            state = black_box((state ^ step).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        }
        black_box(state);
        7
    }
}

/// Control alone and with the candidate, in turns.
fn row<F>(
    title: &str,
    runtime: &Runtime,
    work: Work,
    compared: Option<&Number>,
    call: impl Fn(usize) -> F + Send + Clone + 'static,
) where
    F: Future<Output = u64> + Send + 'static,
{
    let (mut p50, mut p99, mut p50_ratio, mut p99_ratio) = (vec![], vec![], vec![], vec![]);
    let panics_are_expected = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let control = || latencies(runtime, CALLS, move |_| async move { work.compute(1) });
    let candidate = || latencies(runtime, CALLS, call.clone());
    for round in 0..ROUNDS {
        let (alone, beside) = if round % 2 == 0 {
            let alone = control();
            (alone, candidate())
        } else {
            let beside = candidate();
            while compared.is_some_and(|experiment| experiment.in_flight() > 0) {
                std::thread::sleep(Duration::from_millis(1));
            }
            (control(), beside)
        };
        p50.push(quantile(&beside, 0.5));
        p99.push(quantile(&beside, 0.99));
        p50_ratio.push(quantile(&beside, 0.5) / quantile(&alone, 0.5));
        p99_ratio.push(quantile(&beside, 0.99) / quantile(&alone, 0.99));
    }
    std::panic::set_hook(panics_are_expected);
    let mut totals = Totals::default();
    if let Some(experiment) = compared {
        while experiment.in_flight() > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        experiment.drain().iter().for_each(|tally| totals += tally.totals);
    }
    let (run, shed) = (totals.eligible - totals.shed, totals.shed);
    println!(
        "| {title} | {:.1} µs | {:.1} µs | {:.3} | {:.3} | {run}, {shed} |",
        median(&mut p50) / 1e3,
        median(&mut p99) / 1e3,
        median(&mut p50_ratio),
        median(&mut p99_ratio)
    );
}

/// The latencies of calls that one task of the runtime makes, sorted.
fn latencies<F>(runtime: &Runtime, calls: usize, call: impl Fn(usize) -> F + Send + 'static) -> Vec<f64>
where
    F: Future<Output = u64> + Send + 'static,
{
    let task = runtime.spawn(async move {
        let mut latencies = Vec::with_capacity(calls);
        for n in 0..calls {
            let started = Instant::now();
            black_box(call(n).await);
            latencies.push(started.elapsed().as_nanos() as f64);
            // Callers await something between two calls: so candidates on the same threads run.
            tokio::task::yield_now().await;
        }
        latencies.sort_by(f64::total_cmp);
        latencies
    });
    runtime.block_on(task).expect("no panic reaches the caller")
}

fn peer<F: Future<Output = u64>>(name: &str, runtime: &Runtime, mut call: impl FnMut() -> F) {
    let mut latencies = runtime.block_on(async {
        let mut latencies = Vec::with_capacity(PEER_CALLS);
        for _ in 0..PEER_CALLS {
            let started = Instant::now();
            black_box(call().await);
            latencies.push(started.elapsed().as_nanos() as f64);
        }
        latencies
    });
    latencies.sort_by(f64::total_cmp);
    println!(
        "| {name} | {:.1} µs | {:.1} µs |",
        quantile(&latencies, 0.5) / 1e3,
        quantile(&latencies, 0.99) / 1e3
    );
}
