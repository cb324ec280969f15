//! A whole migration on SQLite, under live traffic.
//!
//! A service keeps its customers' subscriptions in an array on the customer, and moves them into a table of
//! their own while requests keep coming. What you would copy is `service.rs` and `migration.toml`; all else is
//! the show: `story.rs` plays the operator, `traffic.rs` the callers, and `ledger.rs` knows what was
//! acknowledged and therefore what every answer may be.
//!
//! ```text
//! cargo run --release --example subscriptions
//! ```

mod console;
mod database;
mod inspection;
mod jobs;
mod ledger;
mod new;
mod old;
mod report;
mod service;
mod story;
mod subscription;
mod traffic;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use console::Console;
use jobs::Files;
use story::{Failure, Story};

/// Carry a migration on SQLite from old_only to complete while requests keep coming, and check every answer.
///
/// Each customer's subscriptions move from a JSON array into a table of their own. On the way a bug in the new
/// read path is caught, a backfill is killed and resumed, and the migration goes back once and forward again. The
/// exit status is 0 if no acknowledged write was lost, nothing came back that had been deleted, and no read was wrong.
#[derive(Debug, Parser)]
#[command(
    name = "subscriptions",
    after_help = "Examples:\n  cargo run --release --example subscriptions\n  cargo run --example subscriptions -- --customers 500 --seconds 5"
)]
struct Arguments {
    /// How many customers there are, each with 0 to 6 subscriptions.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(200..=10_000_000))]
    customers: u32,
    /// How long the phases are watched, in all; jobs and changes of phase come on top.
    #[arg(long, value_name = "S", default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// What the customers and the requests are drawn from. The same customers come out for the same number; how requests
    /// and jobs interleave is up to the machine.
    #[arg(long, value_name = "X", default_value_t = 1)]
    seed: u64,
    /// Run as the backfill that is going to be killed, on the files in this folder.
    #[arg(long, hide = true, value_name = "DIR")]
    backfill_in: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(code) => code,
        Err(error) => {
            Console::new().fail(error.as_ref());
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    if let Some(folder) = arguments.backfill_in {
        jobs::be_killed(&Files { folder }, arguments.customers).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let folder = tempfile::tempdir()?;
    let files = Files { folder: folder.path().to_owned() };
    let story = Story::begin(files, arguments.customers, arguments.seconds, arguments.seed).await?;
    Ok(if story.play().await? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
