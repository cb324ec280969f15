//! The resident memory of a process through ten million observations.

use std::{convert::Infallible, hint::black_box};

use crossfade_experiment::{Experiment, Observation, PublishFn, Sampling};

const OBSERVATIONS: u64 = 10_000_000;
const READINGS: u64 = 10;

pub(crate) fn run() {
    let experiment: Experiment<u64, Infallible> = Experiment::builder("number")
        .sampling(Sampling::Always)
        .cohort(|key, _| format!("cohort-{}", key[0]))
        .diff_serialized()
        .publisher(PublishFn(|observation: &Observation| {
            black_box(observation);
        }))
        .build()
        .expect("no limit is zero");
    println!("\n### Memory through {OBSERVATIONS} observations, one of ten a mismatch\n");
    println!("| observations | resident MiB |\n| ---: | ---: |");
    for reading in 1..=READINGS {
        for n in 0..OBSERVATIONS / READINGS {
            let _ = experiment.run_sync_in_line(n.to_le_bytes(), || Ok(n), || Ok(n - n % 10 / 9));
            if n % 100_000 == 0 {
                black_box(experiment.drain());
                experiment.set_epoch(reading * OBSERVATIONS + n);
            }
        }
        println!("| {} | {:.1} |", reading * OBSERVATIONS / READINGS, resident_mib());
    }
}

/// From Linux's `/proc`; not a number elsewhere.
fn resident_mib() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<f64>().ok());
    pages.map_or(f64::NAN, |pages| pages * 4096.0 / (1 << 20) as f64)
}
