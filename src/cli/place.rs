//! Where snapshots and dumps lie: in a folder, or in an object store.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use crossfade::backfill::remote::{Remote, Staging};
use crossfade::backfill::snapshot::SnapshotPair;
use crossfade::backfill::{Cancel, Error};
use humantime_serde::re::humantime::parse_duration;

use super::failure::Failure;
use super::output::Output;
use super::progress::Shown;
use super::work::WorkFolder;

/// A folder or a file, or a URL in an object store.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Local(PathBuf),
    Remote(String),
}

/// How object stores are reached.
#[derive(Debug, Args)]
pub(crate) struct Stores {
    #[command(flatten)]
    pub(crate) work: WorkFolder,
    /// How long an object store may fail or say nothing before the command gives up, such as 30s or 5m.
    #[arg(long, value_name = "DURATION", env = "CROSSFADE_STORE_TIMEOUT", default_value = "1m", value_parser = parse_duration)]
    store_timeout: Duration,
}

/// What lies on this machine now, wherever it came from.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    /// Where it is from: a path or a URL.
    pub(crate) from: String,
    /// Nobody else may change what was fetched while it is used.
    _staging: Option<Staging>,
}

impl Stores {
    pub(crate) fn remote(&self, url: &str) -> Result<Remote, Failure> {
        Ok(Remote::parse(url, self.store_timeout)?)
    }

    pub(crate) fn staging(&self, remote: &Remote) -> Result<Staging, Failure> {
        Ok(Staging::open(&self.work.root, remote)?)
    }

    /// The folder of a pair of snapshots: its own, or one below the work folder that it is fetched into.
    pub(crate) async fn pair(
        &self,
        place: Place,
        progress: &Shown,
        cancel: &Cancel,
        output: Output,
    ) -> Result<Found, Failure> {
        let url = match place {
            Place::Local(path) => return Ok(Found::local(path)),
            Place::Remote(url) => url,
        };
        let remote = self.remote(&url)?;
        let staging = self.staging(&remote)?;
        let folder = staging.fetched();
        let pair = match remote.fetch(&folder, progress, cancel).await {
            Err(Error::SnapshotPresent { .. }) => {
                output.note(&format!("another snapshot lies at {} now: it is fetched afresh", remote.url()));
                staging.clear(&folder)?;
                remote.fetch(&folder, progress, cancel).await?
            }
            fetched => fetched?,
        };
        kept(&remote, pair.folder(), output);
        Ok(Found { path: pair.folder().to_owned(), from: remote.url().to_owned(), _staging: Some(staging) })
    }

    /// The folder or file of a dump: its own, or a folder below the work folder that it is fetched into.
    pub(crate) async fn dump(
        &self,
        place: Place,
        progress: &Shown,
        cancel: &Cancel,
        output: Output,
    ) -> Result<Found, Failure> {
        let url = match place {
            Place::Local(path) => return Ok(Found::local(path)),
            Place::Remote(url) => url,
        };
        let remote = self.remote(&url)?;
        let staging = self.staging(&remote)?;
        let path = remote.fetch_dump(&staging.dump(), progress, cancel).await?;
        kept(&remote, &path, output);
        Ok(Found { path, from: remote.url().to_owned(), _staging: Some(staging) })
    }
}

impl Found {
    fn local(path: PathBuf) -> Found {
        let from = path.display().to_string();
        Found { path, from, _staging: None }
    }

    /// The pair of snapshots that was found.
    pub(crate) fn open(&self) -> Result<SnapshotPair, Failure> {
        Ok(SnapshotPair::open(&self.path)?)
    }
}

fn kept(remote: &Remote, folder: &Path, output: Output) {
    output.note(&format!(
        "{} was fetched into {}; it is kept for the next time, and may be removed",
        remote.url(),
        folder.display()
    ));
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Place, String> {
        match text.split_once("://") {
            None => Ok(Place::Local(PathBuf::from(text))),
            // What lies on this machine is read where it lies.
            Some(("file", path)) if path.starts_with('/') => Ok(Place::Local(PathBuf::from(path))),
            Some(("file", _)) => Err("write file:///folder, with three slashes".to_owned()),
            Some(_) => Ok(Place::Remote(text.to_owned())),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Local(path) => path.display().fmt(f),
            Place::Remote(url) => f.write_str(url),
        }
    }
}
