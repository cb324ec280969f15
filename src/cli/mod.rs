//! One file per command: each parses its arguments, calls the library and prints.

mod advance;
mod backfill;
mod check;
mod cleanup;
mod confirm;
mod connection;
mod copy;
mod dumps;
mod engine;
mod failure;
mod history;
mod init;
mod inspect;
mod jobs;
mod new;
mod output;
mod place;
mod plan;
mod progress;
#[cfg(feature = "distributed")]
mod project;
mod ramp;
mod relay;
mod report;
mod rollback;
mod scan;
mod serve;
mod snapshot;
mod status;
mod verify;
mod wait;
mod work;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use connection::Connection;
use failure::Failure;
use output::Output;

/// Online data migrations: move live records to a new table while the service keeps answering.
#[derive(Debug, Parser)]
#[command(
    name = "crossfade",
    version,
    about,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Exit status: 0 done, 1 failed, 2 wrong usage, 3 a gate refused, 4 differences found, 5 waiting timed out.\n\n\
                  A first migration:\n  crossfade new subscriptions --old env:DATABASE_URL#customers --new env:DATABASE_URL#subscriptions -o subscriptions.toml\n  \
                  crossfade check subscriptions.toml\n  crossfade init subscriptions.toml\n  crossfade advance subscriptions\n  crossfade status subscriptions"
)]
struct Cli {
    #[command(flatten)]
    connection: Connection,

    /// Print one JSON document on standard output.
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    New(new::New),
    Check(check::Check),
    Init(init::Init),
    Status(status::Status),
    Plan(plan::Plan),
    Wait(wait::Wait),
    History(history::History),
    Advance(advance::Advance),
    Ramp(ramp::Ramp),
    Rollback(rollback::Rollback),
    Snapshot(snapshot::Snapshot),
    Scan(scan::Scan),
    #[cfg(feature = "distributed")]
    Project(project::Project),
    Copy(copy::Copy),
    Verify(verify::Verify),
    Backfill(backfill::Backfill),
    Cleanup(cleanup::Cleanup),
    Jobs(jobs::Jobs),
    Pause(jobs::Pause),
    Resume(jobs::Resume),
    Cancel(jobs::Cancel),
    Tune(jobs::Tune),
    Experiments(report::Experiments),
    Report(report::Report),
    Relay(relay::Relay),
    Serve(serve::Serve),
}

/// Parses the arguments, runs the command and turns what comes of it into an exit status.
pub(crate) fn main() -> ExitCode {
    // A `.env` that is not there is the usual case; one that cannot be read is said, and not fatal.
    if let Err(error) = dotenvy::dotenv()
        && !error.not_found()
    {
        output::warn(&format!(".env was not read: {error}"));
    }
    let cli = Cli::parse();
    let output = Output::new(cli.json);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::from(error).report(output),
    };
    match runtime.block_on(run(cli.command, &cli.connection, output)) {
        Ok(status) => status,
        Err(failure) => failure.report(output),
    }
}

async fn run(command: Command, connection: &Connection, output: Output) -> Result<ExitCode, Failure> {
    match command {
        Command::New(command) => command.run(output).await,
        Command::Check(command) => command.run(connection, output).await,
        Command::Init(command) => command.run(connection, output).await,
        Command::Status(command) => command.run(connection, output).await,
        Command::Plan(command) => command.run(connection, output).await,
        Command::Wait(command) => command.run(connection, output).await,
        Command::History(command) => command.run(connection, output).await,
        Command::Advance(command) => command.run(connection, output).await,
        Command::Ramp(command) => command.run(connection, output).await,
        Command::Rollback(command) => command.run(connection, output).await,
        Command::Snapshot(command) => command.run(connection, output).await,
        Command::Scan(command) => command.run(connection, output).await,
        #[cfg(feature = "distributed")]
        Command::Project(command) => command.run(output).await,
        Command::Copy(command) => command.run(connection, output).await,
        Command::Verify(command) => command.run(connection, output).await,
        Command::Backfill(command) => command.run(connection, output).await,
        Command::Cleanup(command) => command.run(connection, output).await,
        Command::Jobs(command) => command.run(connection, output).await,
        Command::Pause(command) => command.run(connection, output).await,
        Command::Resume(command) => command.run(connection, output).await,
        Command::Cancel(command) => command.run(connection, output).await,
        Command::Tune(command) => command.run(connection, output).await,
        Command::Experiments(command) => command.run(connection, output).await,
        Command::Report(command) => command.run(connection, output).await,
        Command::Relay(command) => command.run(connection, output).await,
        Command::Serve(command) => command.run(connection, output).await,
    }
}
