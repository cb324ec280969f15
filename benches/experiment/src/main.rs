//! Experiments beside their peers: same closures, same run, one table.
//!
//! `cargo run --release -p crossfade-bench-experiment [calls|latency|memory]`; without an argument, all
//! three. Every figure is a median of rounds in which the contestants take turns, so that a slow
//! moment of the machine hurts them all.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its figures")]

mod calls;
mod latency;
mod measure;
mod memory;
mod peers;

use std::process::ExitCode;

fn main() -> ExitCode {
    let wanted = std::env::args().nth(1);
    let is_wanted = |part: &str| wanted.as_deref().is_none_or(|wanted| wanted == part);
    let known = ["calls", "latency", "memory"];
    if let Some(unknown) = wanted.as_deref().filter(|wanted| !known.contains(wanted)) {
        eprintln!("no such part: {unknown}; there are {}", known.join(", "));
        return ExitCode::from(2);
    }
    if is_wanted("calls") {
        calls::run();
    }
    if is_wanted("latency") {
        latency::run();
    }
    if is_wanted("memory") {
        memory::run();
    }
    ExitCode::SUCCESS
}
