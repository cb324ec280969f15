//! Snapshots and dumps in object stores.
//!
//! A pair of snapshots is written to a folder, published from there, and fetched into a folder to be scanned, as dumps of other
//! tools are: a scan reads single pages of both sides over and over, which is work for a disk. As in a folder, the
//! manifests come last: a pair without both of them is none. Nothing that was fetched counts before its length is right, and
//! its checksum, where its manifest has one. Both ways go on after a kill: what has arrived whole is not sent again.

mod connect;
mod download;
mod dump;
mod fetch;
mod publish;
mod staging;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};
use url::Url;

pub use staging::Staging;

use crate::error::{Error, Result};
use crate::snapshot::{MANIFEST_FILE, Side, SnapshotManifest};

/// How long a store may fail or say nothing: far more than a request takes, and not so long that nobody looks any more.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A place in an object store that holds one pair of snapshots, or a dump.
#[derive(Debug, Clone)]
pub struct Remote {
    store: Arc<dyn ObjectStore>,
    prefix: ObjectPath,
    url: String,
    patience: Duration,
}

impl Remote {
    /// The place that a URL names: `s3://bucket/prefix`, `gs://…`, `az://…`, or `file:///folder`. Credentials and
    /// endpoints come from the environment, under the names that the clouds' own tools use. `patience` is how long the store
    /// may fail or say nothing before that is an error.
    ///
    /// # Errors
    /// [`Error::ObjectStoreUrl`]; [`Error::ObjectStoreFeature`].
    pub fn parse(url: &str, patience: Duration) -> Result<Remote> {
        // What may be secret in a URL is in no message, and in no file.
        let unusable = |detail: String| Error::ObjectStoreUrl { url: without_secrets(url), detail };
        let parsed = Url::parse(url).map_err(|error| unusable(error.to_string()))?;
        let (store, prefix) = connect::connect(&parsed, patience)?;
        Ok(Remote::new(store, prefix, &without_secrets(url), patience))
    }

    fn new(store: Arc<dyn ObjectStore>, prefix: ObjectPath, url: &str, patience: Duration) -> Remote {
        Remote { store, prefix, url: url.trim_end_matches('/').to_owned(), patience }
    }

    /// Where it is, without what may be secret.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The manifest of one side, if there is one.
    async fn manifest_of(&self, side: Side) -> Result<Option<SnapshotManifest>> {
        let object = self.manifest(side);
        let read = async { self.store.get(&object).await?.bytes().await };
        let text = match self.timely(&self.named(side, MANIFEST_FILE), read).await? {
            Ok(text) => text,
            Err(object_store::Error::NotFound { .. }) => {
                self.look().await?;
                return Ok(None);
            }
            Err(error) => return Err(self.failed("read", &self.named(side, MANIFEST_FILE))(error)),
        };
        SnapshotManifest::decode(&text, Path::new(&self.named(side, MANIFEST_FILE))).map(Some)
    }

    /// Whether there is such a bucket at all: of an object that is not there stores say too little.
    async fn look(&self) -> Result<()> {
        let mut objects = self.store.list(Some(&self.prefix));
        match self.timely(&self.url, objects.next()).await? {
            Some(Err(error)) => Err(self.not_listed(error)),
            _ => Ok(()),
        }
    }

    /// What a store answers, unless it says nothing for too long. A client that asks again where a request fails does so
    /// for as long as there is patience: its own word on that is the better one, and comes first.
    async fn timely<T>(&self, object: &str, asked: impl Future<Output = T>) -> Result<T> {
        let limit = self.patience.saturating_mul(2);
        tokio::time::timeout(limit, asked).await.map_err(|_| self.stalled_for(object, limit))
    }

    /// Of a bucket that is not there stores say so when it is listed.
    fn not_listed(&self, error: object_store::Error) -> Error {
        let is_absent = matches!(error, object_store::Error::NotFound { .. });
        if is_absent
            || ["NoSuchBucket", "ContainerNotFound", "404 Not Found"]
                .iter()
                .any(|sign| error.to_string().contains(sign))
        {
            return Error::BucketAbsent { url: self.url.clone() };
        }
        self.failed("list", &self.url)(error)
    }

    fn object(&self, side: Side, name: &str) -> ObjectPath {
        self.prefix.clone().join(side.to_string()).join(name)
    }

    fn manifest(&self, side: Side) -> ObjectPath {
        self.object(side, MANIFEST_FILE)
    }

    /// An object's name for messages.
    fn named(&self, side: Side, name: &str) -> String {
        format!("{}/{side}/{name}", self.url)
    }

    fn failed(&self, action: &'static str, object: &str) -> impl FnOnce(object_store::Error) -> Error {
        let object = object.to_owned();
        move |source| Error::ObjectStore { action, object, source: Box::new(source) }
    }

    fn stalled_for(&self, object: &str, stalled: Duration) -> Error {
        Error::ObjectStalled { object: object.to_owned(), stalled }
    }
}

/// The URL without a user's name and password, and without a query: Azure's has the signature that lets one in.
fn without_secrets(url: &str) -> String {
    let plain = url.split(['?', '#']).next().unwrap_or_default();
    match plain.split_once("://") {
        // Azure names a container before an at sign: what comes after a colon there is a password.
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            match authority.rsplit_once('@') {
                Some((user, host)) if user.contains(':') => format!("{scheme}://***@{host}{path}"),
                _ => plain.to_owned(),
            }
        }
        None => plain.to_owned(),
    }
}

#[cfg(test)]
mod tests;
