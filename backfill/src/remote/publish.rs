//! From a folder into an object store.

use std::collections::BTreeMap;
use std::path::Path;

use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload, WriteMultipart};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use super::Remote;
use crate::cancel::Cancel;
use crate::durable::write_json;
use crate::error::{Error, Result};
use crate::progress::{Meter, Progress, Stage};
use crate::snapshot::{MANIFEST_FILE, Side, SnapshotFile, SnapshotManifest};

/// Bytes per part of an upload. A store takes at most 10,000 parts, and a file has less than a GiB.
const PART_BYTES: usize = 16 << 20;

/// Parts on their way at once: they bound the memory.
const PARTS_IN_FLIGHT: usize = 4;

/// What has arrived, beside the pair that is published: a run that was killed is gone on with by it.
const JOURNAL_FILE: &str = "published.json";

/// The objects of one place that have arrived whole, by what the store calls their states.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Journal {
    url: String,
    e_tags: BTreeMap<String, String>,
}

impl Remote {
    /// Publishes the pair of snapshots in `folder`. Until this has returned there is no pair at this place. Files that a run
    /// which was killed has published are not sent again, and neither is a pair that is there already.
    ///
    /// # Errors
    /// [`Error::SnapshotPresent`] when another snapshot is there already; [`Error::SnapshotAbsent`] when there is none in
    /// the folder; [`Error::BucketAbsent`]; [`Error::ObjectStore`]; [`Error::Stopped`].
    pub async fn publish(&self, folder: &Path, progress: &dyn Progress, cancel: &Cancel) -> Result<()> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::Stopped { what: "upload" }),
            published = self.publish_all(folder, progress) => published,
        }
    }

    /// Whether nothing is at this place yet, as must be before something is published there.
    ///
    /// # Errors
    /// [`Error::BucketAbsent`]; [`Error::ObjectStore`] or [`Error::ObjectStalled`]; what a manifest that is not one gives.
    pub async fn is_vacant(&self) -> Result<bool> {
        Ok(self.manifest_of(Side::Old).await?.is_none() && self.manifest_of(Side::New).await?.is_none())
    }

    async fn publish_all(&self, folder: &Path, progress: &dyn Progress) -> Result<()> {
        let mut missing = Vec::new();
        for side in [Side::Old, Side::New] {
            let manifest = SnapshotManifest::read(&side.folder(folder))?;
            match self.manifest_of(side).await? {
                None => missing.push((side, manifest)),
                // It was published by somebody who was stopped before the other side, or before he could say so.
                Some(present) if present == manifest => {}
                Some(_) => return Err(self.occupied()),
            }
        }
        let mut journal = self.journal(folder);
        let total = missing.iter().map(|(_, manifest)| manifest.bytes()).sum();
        let meter = Meter::new(progress, Stage::Upload, 0, Some(total));
        for (side, manifest) in &missing {
            for file in &manifest.files {
                let name = format!("{side}/{}", file.name);
                if !self.has_arrived(*side, file, journal.e_tags.get(&name)).await? {
                    let e_tag = self.upload(*side, &side.folder(folder), file, &meter).await?;
                    journal.e_tags.extend(e_tag.map(|e_tag| (name, e_tag)));
                    write_json(&folder.join(JOURNAL_FILE), &journal)?;
                } else {
                    meter.add(file.bytes);
                }
            }
        }
        for (side, _) in &missing {
            self.put_manifest(*side, &side.folder(folder).join(MANIFEST_FILE)).await?;
        }
        meter.finish();
        match std::fs::remove_file(folder.join(JOURNAL_FILE)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", folder.join(JOURNAL_FILE))(error))
            }
            _ => Ok(()),
        }
    }

    /// What a run that was killed has published at this place. What cannot be read says nothing, and costs an upload.
    fn journal(&self, folder: &Path) -> Journal {
        std::fs::read(folder.join(JOURNAL_FILE))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .filter(|journal: &Journal| journal.url == self.url)
            .unwrap_or_else(|| Journal { url: self.url.clone(), e_tags: BTreeMap::new() })
    }

    async fn has_arrived(&self, side: Side, file: &SnapshotFile, e_tag: Option<&String>) -> Result<bool> {
        let Some(e_tag) = e_tag else { return Ok(false) };
        match self.store.head(&self.object(side, &file.name)).await {
            Ok(found) => Ok(found.size == file.bytes && found.e_tag.as_ref() == Some(e_tag)),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.failed("look for", &self.named(side, &file.name))(error)),
        }
    }

    async fn put_manifest(&self, side: Side, path: &Path) -> Result<()> {
        let text = tokio::fs::read(path).await.map_err(Error::io("read", path))?;
        // Two exports to one place must not make one pair of two halves.
        let options = PutOptions::from(PutMode::Create);
        match self.store.put_opts(&self.manifest(side), PutPayload::from(text), options).await {
            Ok(_) => Ok(()),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Err(self.occupied())
            }
            Err(error) => Err(self.failed("write", &self.named(side, MANIFEST_FILE))(error)),
        }
    }

    fn occupied(&self) -> Error {
        Error::SnapshotPresent { path: self.url().into() }
    }

    async fn upload(
        &self,
        side: Side,
        folder: &Path,
        file: &SnapshotFile,
        meter: &Meter<'_>,
    ) -> Result<Option<String>> {
        let path = folder.join(&file.name);
        let object = self.object(side, &file.name);
        let named = self.named(side, &file.name);
        let mut source = tokio::fs::File::open(&path).await.map_err(Error::io("open", &path))?;
        let mut part = Vec::new();
        let mut read = async |part: &mut Vec<u8>| {
            part.clear();
            (&mut source).take(PART_BYTES as u64).read_to_end(part).await.map_err(Error::io("read", &path))
        };
        if read(&mut part).await? < PART_BYTES {
            let bytes = part.len() as u64;
            let put = self.store.put(&object, PutPayload::from(part)).await;
            meter.add(bytes);
            return put.map(|put| put.e_tag).map_err(self.failed("write", &named));
        }
        let upload = self.store.put_multipart(&object).await;
        let upload = upload.map_err(self.failed("begin to write", &named))?;
        let mut writer = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        let parts = async {
            while !part.is_empty() {
                writer.wait_for_capacity(PARTS_IN_FLIGHT).await.map_err(self.failed("write", &named))?;
                writer.write(&part);
                meter.add(part.len() as u64);
                read(&mut part).await?;
            }
            Ok(())
        };
        match parts.await {
            Ok(()) => writer.finish().await.map(|put| put.e_tag).map_err(self.failed("write", &named)),
            Err(error) => {
                // What was uploaded costs until it is given up; a store that is gone does so by itself in time.
                let _ = writer.abort().await;
                Err(error)
            }
        }
    }
}
