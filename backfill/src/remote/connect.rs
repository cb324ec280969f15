//! From a URL to the store that it names: the one place that knows which there are.

use std::sync::Arc;
use std::time::Duration;

use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreScheme};
use url::Url;

use super::without_secrets;
use crate::error::{Error, Result};

/// The store, and the place in it.
pub(super) fn connect(url: &Url, patience: Duration) -> Result<(Arc<dyn ObjectStore>, ObjectPath)> {
    let unusable = |detail: String| Error::ObjectStoreUrl { url: without_secrets(url.as_str()), detail };
    let (scheme, path) =
        ObjectStoreScheme::parse(url).map_err(|_| unusable("its scheme is not known".to_owned()))?;
    let store = match scheme {
        ObjectStoreScheme::Local => Arc::new(LocalFileSystem::new()),
        ObjectStoreScheme::AmazonS3 => amazon(url, patience)?,
        ObjectStoreScheme::GoogleCloudStorage => google(url, patience)?,
        ObjectStoreScheme::MicrosoftAzure => azure(url, patience)?,
        _ => return Err(unusable("its scheme is not known".to_owned())),
    };
    Ok((store, path))
}

/// How a store's client is told to be patient: by its builder's own words for it.
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
macro_rules! patient {
    ($builder:ty, $key:ty, $url:expr, $patience:expr) => {{
        let (url, patience): (&Url, Duration) = ($url, $patience);
        // A request's time includes all that it sends or fetches, which is a part of a file: that takes long on a slow line.
        let request_max = format!("{} s", patience.saturating_mul(REQUEST_PATIENCE).as_secs().max(1));
        let timeout = <$key>::Client(object_store::ClientConfigKey::Timeout);
        // The pauses between two tries grow, but not beyond the time that there is.
        let mut retry = object_store::RetryConfig { retry_timeout: patience, ..Default::default() };
        retry.backoff.init_backoff = retry.backoff.init_backoff.min(patience / 8);
        retry.backoff.max_backoff = retry.backoff.max_backoff.min(patience / 4);
        let built = <$builder>::from_env()
            .with_url(url.as_str())
            .with_config(timeout, request_max)
            .with_retry(retry)
            .build()
            .map_err(|error| Error::ObjectStoreUrl {
                url: without_secrets(url.as_str()),
                detail: error.to_string(),
            })?;
        Ok(Arc::new(built))
    }};
}

/// How many times as long as the store may say nothing a whole request may take.
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
const REQUEST_PATIENCE: u32 = 5;

#[cfg(feature = "s3")]
fn amazon(url: &Url, patience: Duration) -> Result<Arc<dyn ObjectStore>> {
    patient!(object_store::aws::AmazonS3Builder, object_store::aws::AmazonS3ConfigKey, url, patience)
}

#[cfg(not(feature = "s3"))]
fn amazon(url: &Url, _patience: Duration) -> Result<Arc<dyn ObjectStore>> {
    Err(absent(url, "s3"))
}

#[cfg(feature = "gcs")]
fn google(url: &Url, patience: Duration) -> Result<Arc<dyn ObjectStore>> {
    patient!(object_store::gcp::GoogleCloudStorageBuilder, object_store::gcp::GoogleConfigKey, url, patience)
}

#[cfg(not(feature = "gcs"))]
fn google(url: &Url, _patience: Duration) -> Result<Arc<dyn ObjectStore>> {
    Err(absent(url, "gcs"))
}

#[cfg(feature = "azure")]
fn azure(url: &Url, patience: Duration) -> Result<Arc<dyn ObjectStore>> {
    patient!(object_store::azure::MicrosoftAzureBuilder, object_store::azure::AzureConfigKey, url, patience)
}

#[cfg(not(feature = "azure"))]
fn azure(url: &Url, _patience: Duration) -> Result<Arc<dyn ObjectStore>> {
    Err(absent(url, "azure"))
}

#[cfg(not(all(feature = "s3", feature = "gcs", feature = "azure")))]
fn absent(url: &Url, feature: &'static str) -> Error {
    Error::ObjectStoreFeature { url: without_secrets(url.as_str()), feature }
}
