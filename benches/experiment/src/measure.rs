//! Medians of interleaved rounds, and allocations.

use std::time::Instant;

/// Enough rounds for a median that a few disturbed ones do not move.
const ROUNDS: usize = 41;

/// One contestant of a case: a name, and a function that makes this many calls.
pub(crate) struct Contestant<'a> {
    name: &'static str,
    calls: Box<dyn FnMut(u64) + 'a>,
    per_round: u64,
}

impl<'a> Contestant<'a> {
    pub(crate) fn new(name: &'static str, per_round: u64, calls: impl FnMut(u64) + 'a) -> Self {
        Self { name, calls: Box::new(calls), per_round }
    }
}

/// Runs all contestants of a case in turns, and prints a row for each: median nanoseconds and allocations
/// of a call.
pub(crate) fn case(title: &str, mut contestants: Vec<Contestant<'_>>) {
    println!(
        "\n### {title}\n\n| contestant | ns per call (median) | allocations per call |\n| --- | ---: | ---: |"
    );
    let mut times = vec![Vec::with_capacity(ROUNDS); contestants.len()];
    for contestant in &mut contestants {
        (contestant.calls)(contestant.per_round);
    }
    for _ in 0..ROUNDS {
        for (contestant, times) in contestants.iter_mut().zip(&mut times) {
            let started = Instant::now();
            (contestant.calls)(contestant.per_round);
            times.push(started.elapsed().as_nanos() as f64 / contestant.per_round as f64);
        }
    }
    for (contestant, times) in contestants.iter_mut().zip(&mut times) {
        let calls = contestant.per_round.min(1_000);
        let allocations = allocation_counter::measure(|| (contestant.calls)(calls));
        let per_call = allocations.count_total as f64 / calls as f64;
        println!("| {} | {:.1} | {:.2} |", contestant.name, median(times), per_call);
    }
}

pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The value that a share `q` of sorted values does not exceed.
pub(crate) fn quantile(sorted: &[f64], q: f64) -> f64 {
    sorted[((sorted.len() as f64 * q).ceil() as usize).clamp(1, sorted.len()) - 1]
}
