//! Which engine scans: this machine's, or a cluster's.

use std::path::Path;
use std::str::FromStr;

use crossfade::backfill::Cancel;
use crossfade::backfill::findings::ScanSummary;
use crossfade::backfill::scan::{Dumps, ScanOptions};
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
    /// Has a cluster compare snapshots, or gives nothing where this machine's engine is asked for.
    #[cfg(feature = "distributed")]
    pub(crate) async fn scan(
        &self,
        pair: &SnapshotPair,
        findings: &Path,
        options: &ScanOptions,
        cancel: &Cancel,
        output: Output,
    ) -> Result<Option<ScanSummary>, Failure> {
        let Self::Cluster(cluster) = self else { return Ok(None) };
        note(cluster, output);
        Ok(Some(crossfade::distributed::scan(cluster, pair, findings, options, cancel).await?))
    }

    /// Has a cluster compare dumps, or gives nothing where this machine's engine is asked for.
    #[cfg(feature = "distributed")]
    pub(crate) async fn scan_dumps(
        &self,
        dumps: &Dumps,
        findings: &Path,
        options: &ScanOptions,
        cancel: &Cancel,
        output: Output,
    ) -> Result<Option<ScanSummary>, Failure> {
        let Self::Cluster(cluster) = self else { return Ok(None) };
        note(cluster, output);
        Ok(Some(crossfade::distributed::scan_dumps(cluster, dumps, findings, options, cancel).await?))
    }
}

#[cfg(feature = "distributed")]
fn note(cluster: &crossfade::distributed::Cluster, output: Output) {
    output.note(&format!("comparing on the cluster at {cluster}; its scheduler shows how far it is"));
}

/// There is no other engine in this build.
#[cfg(not(feature = "distributed"))]
#[expect(clippy::unused_async, reason = "with clusters they wait for one")]
impl Engine {
    pub(crate) async fn scan(
        &self,
        _: &SnapshotPair,
        _: &Path,
        _: &ScanOptions,
        _: &Cancel,
        _: Output,
    ) -> Result<Option<ScanSummary>, Failure> {
        Ok(None)
    }

    pub(crate) async fn scan_dumps(
        &self,
        _: &Dumps,
        _: &Path,
        _: &ScanOptions,
        _: &Cancel,
        _: Output,
    ) -> Result<Option<ScanSummary>, Failure> {
        Ok(None)
    }
}
