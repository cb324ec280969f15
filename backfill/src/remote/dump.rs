//! A dump that another tool wrote, from an object store into a folder.
//!
//! Such files have no checksums: what counts is that each is as long as the store says, and all of it of one state of the
//! object, by its ETag.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use futures::TryStreamExt;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectMeta, ObjectStoreExt};
use serde::{Deserialize, Serialize};

use super::Remote;
use super::download::Wanted;
use crate::cancel::Cancel;
use crate::durable::{DurableFile, write_json};
use crate::error::{Error, Result};
use crate::progress::{Meter, Progress, Stage};
use crate::snapshot::MANIFEST_FILE;

/// What was fetched, beside the files.
const LISTING_FILE: &str = "fetched.json";

/// Where the files lie, so that nothing else is taken for one of them.
const FILES_FOLDER: &str = "files";

/// What the store says of each file.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Listing {
    url: String,
    files: BTreeMap<String, Listed>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Listed {
    object: String,
    bytes: u64,
    e_tag: Option<String>,
    last_modified: String,
}

impl Remote {
    /// Fetches a dump into `folder`, and gives the folder below it that holds the files: the object that the URL names, or
    /// all Parquet files right below it. Files that have been fetched before are kept while they are in the store what
    /// they were; those that are no longer there are removed.
    ///
    /// # Errors
    /// [`Error::DumpAbsent`]; [`Error::BucketAbsent`]; [`Error::FileLength`] when an object is not as long as the store says;
    /// [`Error::ObjectStore`], [`Error::ObjectStalled`], [`Error::Io`] or [`Error::DiskFull`]; [`Error::Stopped`].
    pub async fn fetch_dump(
        &self,
        folder: &Path,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<PathBuf> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::Stopped { what: "download" }),
            fetched = self.fetch_files(folder, progress) => fetched,
        }
    }

    async fn fetch_files(&self, folder: &Path, progress: &dyn Progress) -> Result<PathBuf> {
        let listing = self.listing().await?;
        let files = folder.join(FILES_FOLDER);
        fs::create_dir_all(&files).map_err(Error::io("create", &files))?;
        let kept = keep(folder, &files, &listing)?;
        let bytes: u64 = listing.files.values().map(|file| file.bytes).sum();
        let kept_bytes = kept.iter().filter_map(|name| listing.files.get(name)).map(|file| file.bytes).sum();
        let meter = Meter::new(progress, Stage::Download, kept_bytes, Some(bytes));
        for (name, file) in listing.files.iter().filter(|(name, _)| !kept.contains(name)) {
            let object = ObjectPath::parse(&file.object)
                .map_err(|error| self.failed("name", &file.object)(error.into()))?;
            let named = self.named_file(name);
            let e_tag = file.e_tag.as_deref();
            let wanted = Wanted { object: &object, named: &named, bytes: file.bytes, e_tag };
            self.download(&wanted, DurableFile::create(files.join(name))?, &meter).await?;
        }
        meter.finish();
        Ok(files)
    }

    async fn listing(&self) -> Result<Listing> {
        let mut objects = Vec::new();
        if self.prefix.extension() == Some("parquet") {
            match self.timely(&self.url, self.store.head(&self.prefix)).await? {
                Ok(object) => objects.push(object),
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(self.failed("look for", &self.url)(error)),
            }
        }
        if objects.is_empty() {
            let listed = self.timely(&self.url, self.store.list(Some(&self.prefix)).try_collect()).await?;
            let below: Vec<ObjectMeta> = listed.map_err(|error| self.not_listed(error))?;
            // As in a folder: not what lies deeper.
            objects.extend(below.into_iter().filter(|object| {
                let parts = object.location.prefix_match(&self.prefix).map(Iterator::count);
                parts == Some(1) && is_wanted(&object.location)
            }));
        }
        let files: BTreeMap<_, _> = objects.into_iter().filter_map(listed).collect();
        if !files.keys().any(|name| name != MANIFEST_FILE) {
            return Err(Error::DumpAbsent { path: self.url().into() });
        }
        Ok(Listing { url: self.url.clone(), files })
    }

    fn named_file(&self, name: &str) -> String {
        match self.prefix.filename() {
            Some(last) if last == name => self.url.clone(),
            _ => format!("{}/{name}", self.url),
        }
    }
}

fn is_wanted(object: &ObjectPath) -> bool {
    object.extension() == Some("parquet") || object.filename() == Some(MANIFEST_FILE)
}

fn listed(object: ObjectMeta) -> Option<(String, Listed)> {
    let name = object.location.filename()?.to_owned();
    let listed = Listed {
        object: object.location.to_string(),
        bytes: object.size,
        e_tag: object.e_tag,
        last_modified: object.last_modified.to_rfc3339(),
    };
    Some((name, listed))
}

/// Removes what is not as the store has it, notes what will be there, and says which files are there already.
fn keep(folder: &Path, files: &Path, listing: &Listing) -> Result<Vec<String>> {
    let path = folder.join(LISTING_FILE);
    // One that cannot be read says nothing, and costs a download.
    let before: Listing =
        fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    let mut kept = Vec::new();
    for entry in fs::read_dir(files).map_err(Error::io("list", files))? {
        let entry = entry.map_err(Error::io("list", files))?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let bytes = entry.metadata().map_err(Error::io("look at", &path))?.len();
        let now = listing.files.get(&name).filter(|file| file.bytes == bytes);
        if now.is_some() && before.files.get(&name) == now {
            kept.push(name);
        } else {
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    write_json(&path, listing)?;
    Ok(kept)
}
