//! Pairs of snapshots in object stores.
//!
//! A pair is written to a folder, published from there, and fetched into a folder to be scanned: a scan reads single
//! pages of both sides over and over, which is work for a disk. As in a folder, the manifests come last: a pair without
//! both of them is none. Nothing that was fetched counts before its length and its checksum are what its manifest says.

mod fetch;
mod publish;

use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use object_store::path::Path as ObjectPath;
use url::Url;

use crate::error::{Error, Result};
use crate::snapshot::{MANIFEST_FILE, Side};

/// How long a store may send nothing. It is far more than a request takes, and the connection is of no use any more.
const STALL_MAX: Duration = Duration::from_secs(60);

/// A place in an object store that holds one pair of snapshots.
#[derive(Debug, Clone)]
pub struct Remote {
    store: Arc<dyn ObjectStore>,
    prefix: ObjectPath,
    url: String,
    stall_max: Duration,
}

impl Remote {
    /// The place that a URL names: `s3://bucket/prefix`, `gs://…`, `az://…`, or `file:///folder`. Credentials and
    /// endpoints come from the environment, under the names that the clouds' own tools use.
    ///
    /// # Errors
    /// [`Error::ObjectStoreUrl`].
    pub fn parse(url: &str) -> Result<Remote> {
        let unusable = |detail: String| Error::ObjectStoreUrl { url: url.to_owned(), detail };
        let parsed = Url::parse(url).map_err(|error| unusable(error.to_string()))?;
        // Names that are none of the store's are passed over.
        let settings = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?.to_ascii_lowercase(), value.into_string().ok()?))
        });
        let (store, prefix) =
            object_store::parse_url_opts(&parsed, settings).map_err(|error| unusable(error.to_string()))?;
        Ok(Remote::new(Arc::from(store), prefix, url, STALL_MAX))
    }

    fn new(store: Arc<dyn ObjectStore>, prefix: ObjectPath, url: &str, stall_max: Duration) -> Remote {
        Remote { store, prefix, url: url.trim_end_matches('/').to_owned(), stall_max }
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
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

    fn failed(
        &self,
        action: &'static str,
        side: Side,
        name: &str,
    ) -> impl FnOnce(object_store::Error) -> Error {
        let object = self.named(side, name);
        move |source| Error::ObjectStore { action, object, source: Box::new(source) }
    }
}

#[cfg(test)]
mod tests;
