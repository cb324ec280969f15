//! Which engine scans: this machine's, or a cluster's.

use std::path::PathBuf;
use std::str::FromStr;

use crossfade::backfill::Cancel;
use crossfade::backfill::findings::ScanSummary;
use crossfade::backfill::progress::Progress;
use crossfade::backfill::scan::{Dumps, ScanOptions, watch, watch_dumps};
use crossfade::backfill::snapshot::SnapshotPair;

use super::failure::Failure;

/// The word for this machine's engine.
const LOCAL: &str = "local";

/// Which engine scans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Engine {
    /// This machine's.
    Local,
    /// That of a cluster.
    #[cfg(feature = "distributed")]
    Cluster(crossfade::distributed::Cluster),
}

/// What is compared.
pub(crate) enum Sides {
    Snapshots(Box<SnapshotPair>),
    Dumps(Box<Dumps>),
}

impl FromStr for Engine {
    type Err = String;

    #[cfg(feature = "distributed")]
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == LOCAL {
            return Ok(Self::Local);
        }
        text.parse().map(Self::Cluster).map_err(|_| format!("it is neither `{LOCAL}` nor df://HOST:PORT"))
    }

    #[cfg(not(feature = "distributed"))]
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            LOCAL => Ok(Self::Local),
            _ if text.starts_with("df://") => {
                Err("this crossfade was built without clusters; build it with `--features distributed`"
                    .to_owned())
            }
            _ => Err(format!("it is neither `{LOCAL}` nor df://HOST:PORT")),
        }
    }
}

impl Engine {
    /// What is to be said of it before it begins.
    pub(crate) fn note(&self) -> Option<String> {
        match self {
            Self::Local => None,
            #[cfg(feature = "distributed")]
            Self::Cluster(cluster) => {
                Some(format!("comparing on the cluster at {cluster}; its scheduler shows how far it is"))
            }
        }
    }

    /// Compares both sides, and writes what it finds.
    pub(crate) async fn scan(
        &self,
        sides: Sides,
        findings: PathBuf,
        options: &ScanOptions,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<ScanSummary, Failure> {
        Ok(match (self, sides) {
            (Self::Local, Sides::Snapshots(pair)) => {
                watch(*pair, findings, options, progress, cancel).await?
            }
            (Self::Local, Sides::Dumps(dumps)) => {
                watch_dumps(*dumps, findings, options, progress, cancel).await?
            }
            #[cfg(feature = "distributed")]
            (Self::Cluster(cluster), Sides::Snapshots(pair)) => {
                crossfade::distributed::scan(cluster, &pair, &findings, options, cancel).await?
            }
            #[cfg(feature = "distributed")]
            (Self::Cluster(cluster), Sides::Dumps(dumps)) => {
                crossfade::distributed::scan_dumps(cluster, &dumps, &findings, options, cancel).await?
            }
        })
    }
}
