//! Runs a command with a Postgres server of its own: `with-postgres cargo nextest run`.
//!
//! The server stands in the environment variable that the tests look at, and is gone when the command ends.

use std::{env, error::Error, process::Command, process::ExitCode};

use crossfade_test_harness::{Postgres, SERVER_VARIABLE};

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "this is a command-line program")]
            {
                eprintln!("error: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = env::args_os().skip(1);
    let program = arguments.next().ok_or("no command to run\nhint: with-postgres COMMAND [ARGUMENT]…")?;
    let server = Postgres::try_start()?;
    let status = Command::new(&program)
        .args(arguments)
        .env(SERVER_VARIABLE, server.url())
        .status()
        .map_err(|error| format!("could not run {}: {error}", program.display()))?;
    // A command that a signal ended has no code.
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
}
