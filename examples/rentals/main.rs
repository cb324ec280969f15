//! A video shop that rents and returns all the time, while an operator migrates its rentals from an array on the
//! customer to a table of their own: the service of `docs/tutorial`.
//!
//! ```text
//! DATABASE_URL=postgres://… cargo run --example rentals
//! ```
//!
//! What you would copy is `shop.rs`, with the two stores in `old.rs` and `new.rs`; `traffic.rs` plays the callers. At
//! Ctrl-C every acknowledged write is compared with the stores, and any difference makes the exit status 1.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is a command-line program")]

mod new;
mod old;
mod shop;
mod traffic;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use clap::Parser;

use shop::{Result, Shop};
use traffic::{Counts, Ledger, TASKS, check, read_all, serve};

/// How often a line is printed.
const LINE_EVERY: Duration = Duration::from_secs(2);
/// Rent and return DVDs, through the migration `rentals`, until Ctrl-C; then check that nothing was lost.
#[derive(Debug, Clone, Copy, Parser)]
#[command(name = "rentals")]
struct Arguments {
    /// Stop by itself after so many seconds.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Read the new table with a bug: it forgets when a DVD came back.
    #[arg(long)]
    bug: bool,
}

async fn run(arguments: Arguments) -> Result<bool> {
    let shop = Arc::new(Shop::open(arguments.bug).await?);
    let counts = Arc::<Counts>::default();
    let start = Instant::now();
    let primary = shop.migration.standing().phase.primary();
    let mut ledgers: Vec<Ledger> = (0..TASKS).map(|_| Ledger::new()).collect();
    for (customer, rentals) in read_all(&shop, primary, &Ledger::new()).await? {
        ledgers[(customer % TASKS) as usize].insert(customer, rentals);
    }
    let tasks: Vec<_> =
        ledgers.into_iter().map(|ledger| tokio::spawn(serve(shop.clone(), counts.clone(), ledger))).collect();

    let line = || {
        let [writes, reads] = [&counts.writes, &counts.reads].map(|count| count.load(Relaxed));
        let [wrong, errors] = [&counts.wrong, &counts.errors].map(|count| count.load(Relaxed));
        let (seconds, standing) = (start.elapsed().as_secs(), shop.migration.standing());
        println!(
            "{seconds:>4} s  {standing}: {writes} writes, {reads} reads, {wrong} wrong answers, {errors} errors"
        );
        wrong + errors
    };
    let end = Duration::from_secs(arguments.seconds.unwrap_or(u64::MAX));
    let mut ticks = tokio::time::interval(LINE_EVERY);
    while start.elapsed() < end {
        tokio::select! {
            _ = ticks.tick() => { line(); }
            _ = tokio::time::sleep(end.saturating_sub(start.elapsed())) => {}
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    counts.is_closing.store(true, Relaxed);
    let mut ledger = Ledger::new();
    for task in tasks {
        ledger.extend(task.await.expect("a task does not panic")?);
    }
    let failed = line();
    let differences = check(&shop, &ledger).await?;
    shop.migration.clone().leave().await?;
    Ok(failed == 0 && differences == 0)
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
