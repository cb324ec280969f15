//! How errors come to be, and what may be asked of them.

use std::io;
use std::path::{Path, PathBuf};

use arrow::error::ArrowError;
use crossfade_migration_core::phase::Epoch;
use parquet::errors::ParquetError;

use super::Error;
use crate::queue::{Job, JobSpec};

impl Error {
    /// A database error, with what was being done.
    pub(crate) fn database(doing: impl Into<String>) -> impl FnOnce(sqlx::Error) -> Self {
        let wrap = crossfade_migration_core::Error::database(doing);
        move |source| Self::Core(wrap(source))
    }

    pub(crate) fn job_in_the_way(spec: &JobSpec, job: &Job) -> Self {
        Self::JobInTheWay {
            migration: spec.name.clone(),
            kind: job.kind,
            job: job.id,
            state: job.state,
            source_path: job.source.clone(),
        }
    }

    /// Why a job of an earlier epoch has failed.
    pub(crate) fn superseded(from: Epoch, to: Epoch) -> String {
        format!("the migration has moved on from epoch {from} to {to}")
    }

    /// Whether the same call may succeed when it is made again a moment later.
    pub fn is_retryable(&self) -> bool {
        match self {
            // A passed epoch stays passed: what was found at it has to be found again.
            Self::Core(crossfade_migration_core::Error::StaleEpoch { .. }) => false,
            Self::Core(error) => error.is_retryable(),
            Self::Key { source, .. } => source.is_retryable(),
            _ => false,
        }
    }

    /// Whether the input, rather than the machine, is at fault: the same call on the same input fails again.
    pub fn is_bad_input(&self) -> bool {
        !matches!(
            self,
            Self::Io { .. }
                | Self::DiskFull { .. }
                | Self::Answer { .. }
                | Self::Cancelled { .. }
                | Self::WorkerLost
                | Self::Encode { .. }
                | Self::Core(_)
                | Self::Key { .. }
                | Self::MovedOn { .. }
                | Self::JobFailed { .. }
                | Self::JobCancelled { .. }
                | Self::Stopped { .. }
                | Self::SnapshotTooOld { .. }
                | Self::SnapshotLost { .. }
                | Self::ReplicaBehind { .. }
                | Self::ObjectStore { .. }
                | Self::ObjectStalled { .. }
                | Self::FolderInUse { .. }
        )
    }

    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::DiskFull { path, source }
            }
            _ => Self::Io { action, path, source },
        }
    }

    pub(crate) fn arrow(action: &'static str) -> impl FnOnce(ArrowError) -> Self {
        move |source| Self::Arrow { action, source }
    }

    /// Parquet hides the operating system's errors in its own: a full disk must come out as what it is.
    pub(crate) fn parquet_write(path: impl Into<PathBuf>) -> impl FnOnce(ParquetError) -> Self {
        let path = path.into();
        move |source| match source {
            ParquetError::External(inner) => match inner.downcast::<io::Error>() {
                Ok(io_error) => Self::io("write", path)(*io_error),
                Err(inner) => Self::ParquetWrite { path, source: ParquetError::External(inner) },
            },
            source => Self::ParquetWrite { path, source },
        }
    }

    /// A decoder's complaint about a file that once was whole means that the file is damaged.
    pub(crate) fn corrupt(path: &Path, row_group: Option<usize>) -> impl FnOnce(String) -> Self {
        let path = path.to_owned();
        move |detail| Self::FileCorrupt { path, row_group, detail }
    }
}

/// A store's answer in one line. What it says itself comes as XML, with the request and all that was signed in it.
pub(super) fn store_answer(error: &object_store::Error) -> String {
    let text = error.to_string();
    let Some((before, document)) = text.split_once('<') else { return text };
    let element = |name: &str| {
        let (_, rest) = document.split_once(&format!("<{name}>"))?;
        Some(rest.split_once("</")?.0.trim().to_owned())
    };
    let said: Vec<String> = [element("Code"), element("Message")].into_iter().flatten().collect();
    format!("{}: {}", before.trim_end_matches([':', ' ']), said.join(": "))
        .trim_end_matches([':', ' '])
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_recognised_inside_a_parquet_error() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let error = Error::parquet_write("part.parquet")(ParquetError::External(Box::new(full)));
        assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
        assert!(error.hint().is_some());
    }

    #[test]
    fn other_parquet_errors_keep_their_message() {
        let error = Error::parquet_write("part.parquet")(ParquetError::General("odd".into()));
        assert!(error.to_string().contains("odd"), "{error}");
    }
}
