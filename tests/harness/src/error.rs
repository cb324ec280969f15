use std::{io, path::PathBuf, process::ExitStatus};

use thiserror::Error;

/// Why a server for tests could not be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HarnessError {
    /// No Postgres server is installed.
    #[error(
        "found no Postgres server in /usr/lib/postgresql/*/bin nor in PATH\n\
         hint: install one with `apt-get install postgresql`, or run scripts/test, which does"
    )]
    NotInstalled,

    /// The tests run as root, which Postgres refuses, and there is no other user to run it as.
    #[error(
        "Postgres does not run as root, and this machine has no user `postgres` to run it as\n\
         hint: `apt-get install postgresql` creates that user"
    )]
    NoUser,

    /// A program of the server could not be run, or a file of it could not be written.
    #[error("could not {action} {path}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which program, file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// `initdb` failed.
    #[error("{program} failed with {status}:\n{output}")]
    Initdb {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// What it printed.
        output: String,
    },

    /// The server was started and did not accept connections in time.
    #[error(
        "the Postgres server in {folder} did not accept connections within {seconds} s; its log ends in:\n{log}"
    )]
    NotReady {
        /// The folder of the server.
        folder: PathBuf,
        /// How long was waited.
        seconds: u64,
        /// The last lines of the server's log.
        log: String,
    },
}

impl HarnessError {
    /// The conversion of an I/O error that happened while doing `action` to `path`.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
