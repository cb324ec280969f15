//! From a folder into an object store.

use std::path::Path;

use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload, WriteMultipart};
use tokio::io::AsyncReadExt;

use super::Remote;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::snapshot::{MANIFEST_FILE, Side, SnapshotManifest};

/// Bytes per part of an upload. A store takes at most 10,000 parts, and a file has less than a GiB.
const PART_BYTES: usize = 16 << 20;

/// Parts on their way at once: they bound the memory.
const PARTS_IN_FLIGHT: usize = 4;

impl Remote {
    /// Publishes the pair of snapshots in `folder`. Until this has returned there is no pair at this place.
    ///
    /// # Errors
    /// [`Error::SnapshotPresent`] when a snapshot is there already; [`Error::SnapshotAbsent`] when there is none in the
    /// folder; [`Error::ObjectStore`]; [`Error::Stopped`].
    pub async fn publish(&self, folder: &Path, cancel: &Cancel) -> Result<()> {
        let sides = [Side::Old, Side::New];
        for side in sides {
            match self.store.head(&self.manifest(side)).await {
                Ok(_) => return Err(Error::SnapshotPresent { path: self.url().into() }),
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(self.failed("look for", side, MANIFEST_FILE)(error)),
            }
        }
        for side in sides {
            let folder = side.folder(folder);
            for file in &SnapshotManifest::read(&folder)?.files {
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => return Err(Error::Stopped { what: "upload" }),
                    uploaded = self.upload(side, &folder, &file.name) => uploaded?,
                }
            }
        }
        for side in sides {
            let path = side.folder(folder).join(MANIFEST_FILE);
            let text = tokio::fs::read(&path).await.map_err(Error::io("read", path))?;
            // Two exports to one place must not make one pair of two halves.
            let options = PutOptions::from(PutMode::Create);
            match self.store.put_opts(&self.manifest(side), PutPayload::from(text), options).await {
                Ok(_) => {}
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                    return Err(Error::SnapshotPresent { path: self.url().into() });
                }
                Err(error) => return Err(self.failed("write", side, MANIFEST_FILE)(error)),
            }
        }
        Ok(())
    }

    async fn upload(&self, side: Side, folder: &Path, name: &str) -> Result<()> {
        let path = folder.join(name);
        let object = self.object(side, name);
        let mut file = tokio::fs::File::open(&path).await.map_err(Error::io("open", &path))?;
        let mut part = Vec::new();
        let mut read = async |part: &mut Vec<u8>| {
            part.clear();
            (&mut file).take(PART_BYTES as u64).read_to_end(part).await.map_err(Error::io("read", &path))
        };
        if read(&mut part).await? < PART_BYTES {
            let put = self.store.put(&object, PutPayload::from(part)).await;
            return put.map(|_| ()).map_err(self.failed("write", side, name));
        }
        let upload =
            self.store.put_multipart(&object).await.map_err(self.failed("begin to write", side, name))?;
        let mut writer = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        let parts = async {
            while !part.is_empty() {
                writer.wait_for_capacity(PARTS_IN_FLIGHT).await.map_err(self.failed("write", side, name))?;
                writer.write(&part);
                read(&mut part).await?;
            }
            Ok(())
        };
        match parts.await {
            Ok(()) => writer.finish().await.map(|_| ()).map_err(self.failed("write", side, name)),
            Err(error) => {
                // What was uploaded costs until it is given up; a store that is gone does so by itself in time.
                let _ = writer.abort().await;
                Err(error)
            }
        }
    }
}
