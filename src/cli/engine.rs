//! Which engine scans: this machine's, or a cluster's.

use std::path::Path;
use std::str::FromStr;

use crossfade::backfill::Cancel;
use crossfade::backfill::findings::ScanSummary;
use crossfade::backfill::scan::ScanOptions;
use crossfade::backfill::snapshot::SnapshotPair;

use super::failure::Failure;
use super::output::Output;

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
    /// Has a cluster scan, or gives nothing where this machine's engine is asked for.
    #[cfg(feature = "distributed")]
    pub(crate) async fn scan_elsewhere(
        &self,
        pair: &SnapshotPair,
        findings: &Path,
        options: &ScanOptions,
        cancel: &Cancel,
        output: Output,
    ) -> Result<Option<ScanSummary>, Failure> {
        let Self::Cluster(cluster) = self else { return Ok(None) };
        output.note(&format!("comparing on the cluster at {cluster}; its scheduler shows how far it is"));
        let summary = crossfade::distributed::scan(cluster, pair, findings, options, cancel).await?;
        Ok(Some(summary))
    }

    /// There is no other engine in this build.
    #[cfg(not(feature = "distributed"))]
    #[expect(clippy::unused_async, reason = "with clusters it waits for one")]
    pub(crate) async fn scan_elsewhere(
        &self,
        _: &SnapshotPair,
        _: &Path,
        _: &ScanOptions,
        _: &Cancel,
        _: Output,
    ) -> Result<Option<ScanSummary>, Failure> {
        Ok(None)
    }
}
