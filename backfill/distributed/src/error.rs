//! The one error of this crate: what was being done, to what, why it failed and what to do next.

use std::io;
use std::path::PathBuf;

use datafusion::error::DataFusionError;

use crate::Cluster;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong with scans on a cluster, and with projections.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A cluster's address is none.
    #[error("{given} is no address of a cluster")]
    Address {
        /// What was given.
        given: String,
    },
    /// No scheduler answers.
    #[error("no scheduler answers at {cluster}: {source}")]
    Unreachable {
        /// Where it should be.
        cluster: Cluster,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The cluster has not done its part.
    #[error("the cluster at {cluster} could not compare: {}", first_line(source))]
    Job {
        /// The cluster.
        cluster: Cluster,
        /// Its answer.
        source: Box<DataFusionError>,
    },
    /// A plan could not be made.
    #[error("could not {doing}: {}", first_line(source))]
    Plan {
        /// What was being done, as a verb.
        doing: &'static str,
        /// DataFusion's answer.
        source: Box<DataFusionError>,
    },
    /// The executors have written their results elsewhere.
    #[error("the executors wrote {written} rows of results, and {found} are in {}", path.display())]
    ResultsElsewhere {
        /// Where they should be.
        path: PathBuf,
        /// How many the cluster says it wrote.
        written: u64,
        /// How many are there.
        found: u64,
    },
    /// A key column of a dump holds NULL.
    #[error("the key column {column} is NULL in {old_rows} old and {new_rows} new rows or more")]
    KeyNull {
        /// The column.
        column: String,
        /// Rows of the old dump.
        old_rows: u64,
        /// Rows of the new dump.
        new_rows: u64,
    },
    /// A path that executors are told cannot be written as a URL.
    #[error("{} cannot be given to executors: it is not an absolute path in UTF-8", path.display())]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// The operating system refused something.
    #[error("could not {action} {}: {source}", path.display())]
    Io {
        /// What was being done, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A query is not one that projects a dump.
    #[error("{} cannot be run over the dump: {}", path.display(), first_line(source))]
    Projection {
        /// The query's file.
        path: PathBuf,
        /// DataFusion's answer.
        source: Box<DataFusionError>,
    },
    /// A query gives a column that the new rows do not have, or lacks one.
    #[error("the query in {} gives no column {column}", path.display())]
    ProjectionColumn {
        /// The query's file.
        path: PathBuf,
        /// The column.
        column: String,
    },
    /// Snapshots, dumps or findings are not right.
    #[error(transparent)]
    Backfill(#[from] crossfade_backfill::Error),
}

impl Error {
    /// What the caller can do next, where there is something.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Address { .. } => "write it as df://HOST:PORT".into(),
            Self::Unreachable { cluster, .. } => format!(
                "start one with `ballista-scheduler --bind-port {}`, or scan with `--engine local`",
                cluster.port()
            ),
            Self::Job { .. } => {
                "scheduler and executors must be Ballista 55 and see the same files under the same paths, with the right to write the \
                 folder of the findings"
                    .into()
            }
            Self::ResultsElsewhere { .. } => {
                "the findings' folder must be the same one for the executors and here: share it, and pass its path as it is there".into()
            }
            Self::KeyNull { .. } => "leave such rows out of the dump: a row without a key cannot be copied or repaired".into(),
            Self::Path { .. } => "move it to such a path".into(),
            Self::Projection { .. } => "the dump is the table `old`; the SQL is DataFusion's, whatever the database's is".into(),
            Self::ProjectionColumn { .. } => "name the new table's columns with `as`".into(),
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => "is the path right?".into(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    "choose a folder that may be written, or grant the rights".into()
                }
                _ => return None,
            },
            Self::Plan { .. } => return None,
            Self::Backfill(error) => return error.hint(),
        };
        Some(hint)
    }

    pub(crate) fn plan(doing: &'static str) -> impl FnOnce(DataFusionError) -> Self {
        move |source| Self::Plan { doing, source: Box::new(source) }
    }

    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

/// Errors that crossed the cluster carry plans and traces behind their first line.
fn first_line(source: &DataFusionError) -> String {
    source.strip_backtrace().lines().next().unwrap_or_default().to_owned()
}
