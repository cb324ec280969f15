//! How a command fails: what happened, to what, why, what next, and with which exit status.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::ExitCode;

use super::output::Output;

/// Failed.
const FAILED: u8 = 1;
/// Wrong usage, as clap has it.
const USAGE: u8 = 2;
/// A gate refused.
const REFUSED: u8 = 3;
/// Differences were found.
pub(crate) const DIFFERENCES: u8 = 4;
/// Waiting, for instances or for what `crossfade wait` was told, timed out.
const UNADOPTED: u8 = 5;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("no control store was named")]
    NoControlStore,
    #[error("{doing} {}: {source}", path.display())]
    File { doing: &'static str, path: PathBuf, source: std::io::Error },
    #[error("cannot listen on {address}: {source}")]
    Listen { address: std::net::SocketAddr, source: std::io::Error },
    #[error("{0} already exists")]
    Exists(PathBuf),
    #[error("{what}")]
    Usage { what: String, hint: String },
    #[error("{}", super::wait::timed_out(*waited, seen))]
    TimedOut { waited: std::time::Duration, seen: String, migration: String },
    #[error("{what} was not confirmed")]
    Unconfirmed { what: String, migration: String },
    #[error(transparent)]
    Core(#[from] crossfade::Error),
    #[error(transparent)]
    Backfill(#[from] crossfade::backfill::Error),
    #[cfg(feature = "distributed")]
    #[error(transparent)]
    Distributed(#[from] crossfade::distributed::Error),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl Failure {
    fn status(&self) -> u8 {
        match self {
            Failure::Core(error) => core_status(error),
            Failure::TimedOut { .. } => UNADOPTED,
            Failure::Backfill(crossfade::backfill::Error::Core(error)) => core_status(error),
            Failure::Backfill(
                crossfade::backfill::Error::ObjectStoreUrl { .. }
                | crossfade::backfill::Error::ObjectStoreFeature { .. },
            ) => USAGE,
            Failure::Backfill(_) => FAILED,
            #[cfg(feature = "distributed")]
            Failure::Distributed(_) => FAILED,
            Failure::Usage { .. } | Failure::NoControlStore | Failure::Unconfirmed { .. } => USAGE,
            Failure::File { .. } | Failure::Exists(_) | Failure::Listen { .. } | Failure::Io(_) => FAILED,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Failure::NoControlStore => {
                Some("pass --control URL, or set CROSSFADE_CONTROL or DATABASE_URL".to_owned())
            }
            Failure::Listen { .. } => Some("name another address with --listen".to_owned()),
            Failure::Exists(_) => Some("name another file with -o, or move this one away".to_owned()),
            Failure::Usage { hint, .. } => Some(hint.clone()),
            Failure::Unconfirmed { migration, .. } => Some(format!("add --confirm {migration}")),
            Failure::TimedOut { migration, .. } => Some(format!(
                "crossfade status {migration} shows where it stands; a longer --timeout waits on"
            )),
            Failure::Core(error) => error.hint(),
            Failure::Backfill(error) => error.hint(),
            #[cfg(feature = "distributed")]
            Failure::Distributed(error) => error.hint(),
            Failure::File { source, .. } | Failure::Io(source) => io_hint(source),
        }
    }

    /// The verdict of the gate that refused, for scripts.
    fn gate(&self) -> Option<serde_json::Value> {
        match self {
            Failure::Core(crossfade::Error::Refused { report, .. }) => Some(super::plan::document(report)),
            _ => None,
        }
    }

    /// Prints the failure and gives the exit status.
    pub(crate) fn report(&self, output: Output) -> ExitCode {
        output.failure(&self.to_string(), self.hint().as_deref(), self.gate());
        ExitCode::from(self.status())
    }
}

fn io_hint(error: &std::io::Error) -> Option<String> {
    let hint = match error.kind() {
        ErrorKind::NotFound => "is the path right?",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "grant the rights, or choose another place"
        }
        ErrorKind::IsADirectory => "name a file, not a folder",
        ErrorKind::InvalidData => "write it as UTF-8 text",
        ErrorKind::StorageFull => "free some space and run the same command again",
        _ => return None,
    };
    Some(hint.to_owned())
}

fn core_status(error: &crossfade::Error) -> u8 {
    match error {
        crossfade::Error::Refused { .. } => REFUSED,
        crossfade::Error::Unadopted { .. } => UNADOPTED,
        _ => FAILED,
    }
}
