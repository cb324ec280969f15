//! From an object store into a folder.

use std::io::Write;
use std::path::{Path, PathBuf};

use futures::StreamExt;
use object_store::ObjectStoreExt;

use super::Remote;
use crate::cancel::Cancel;
use crate::durable::{DurableFile, Written, claim, release, write_json};
use crate::error::{Error, Result};
use crate::snapshot::{
    FILE_PREFIX, MANIFEST_FILE, Side, SnapshotFile, SnapshotManifest, SnapshotPair, checksum_text,
};

/// How often an object is asked for whose body broke off, stalled or came out wrong. The store's client asks again by
/// itself where a request fails at once.
const ATTEMPTS_MAX: u32 = 3;

impl Remote {
    /// Fetches the pair of snapshots into `folder`, which must not hold one. Until this has returned there is none.
    ///
    /// # Errors
    /// [`Error::SnapshotAbsent`]; [`Error::SnapshotPresent`]; what a manifest that is not one gives;
    /// [`Error::FileLength`] or [`Error::FileCorrupt`] when an object is not what was published;
    /// [`Error::ObjectStore`], [`Error::ObjectStalled`], [`Error::Io`] or [`Error::DiskFull`]; [`Error::Stopped`].
    pub async fn fetch(&self, folder: &Path, cancel: &Cancel) -> Result<SnapshotPair> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(Error::Stopped { what: "download" }),
            fetched = self.fetch_all(folder) => fetched?,
        }
        let folder = folder.to_owned();
        tokio::task::spawn_blocking(move || SnapshotPair::open(folder))
            .await
            .map_err(|_| Error::WorkerLost)?
    }

    async fn fetch_all(&self, folder: &Path) -> Result<()> {
        let old = self.manifest_of(Side::Old).await?;
        let new = self.manifest_of(Side::New).await?;
        for (side, manifest) in [(Side::Old, &old), (Side::New, &new)] {
            let folder = side.folder(folder);
            if folder.join(MANIFEST_FILE).exists() {
                return Err(Error::SnapshotPresent { path: folder });
            }
            claim(&folder, FILE_PREFIX)?;
            for file in &manifest.files {
                self.download(side, file, folder.join(&file.name)).await?;
            }
        }
        for (side, manifest) in [(Side::Old, &old), (Side::New, &new)] {
            let folder = side.folder(folder);
            write_json(&folder.join(MANIFEST_FILE), manifest)?;
            release(&folder, FILE_PREFIX)?;
        }
        Ok(())
    }

    async fn manifest_of(&self, side: Side) -> Result<SnapshotManifest> {
        let read = async { self.store.get(&self.manifest(side)).await?.bytes().await };
        let text = match tokio::time::timeout(self.stall_max, read).await {
            Ok(Ok(text)) => text,
            Ok(Err(object_store::Error::NotFound { .. })) => {
                return Err(Error::SnapshotAbsent { path: self.url().into() });
            }
            Ok(Err(error)) => return Err(self.failed("read", side, MANIFEST_FILE)(error)),
            Err(_) => return Err(self.stalled(side, MANIFEST_FILE)),
        };
        SnapshotManifest::decode(&text, Path::new(&self.named(side, MANIFEST_FILE)))
    }

    async fn download(&self, side: Side, file: &SnapshotFile, to: PathBuf) -> Result<()> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.attempt(side, file, &to).await {
                // Neither an object that is not there nor a full disk gets better by asking again.
                Err(error) if attempts < ATTEMPTS_MAX && may_pass(&error) => {
                    tracing::warn!(file = %file.name, %error, "an object is fetched again");
                }
                outcome => return outcome,
            }
        }
    }

    async fn attempt(&self, side: Side, file: &SnapshotFile, to: &Path) -> Result<()> {
        let named = || PathBuf::from(self.named(side, &file.name));
        let object = self.object(side, &file.name);
        let asked = tokio::time::timeout(self.stall_max, self.store.get(&object)).await;
        let answer = asked.map_err(|_| self.stalled(side, &file.name))?;
        let mut body = match answer {
            Ok(answer) => answer.into_stream(),
            Err(object_store::Error::NotFound { .. }) => return Err(Error::FileAbsent { path: named() }),
            Err(error) => return Err(self.failed("read", side, &file.name)(error)),
        };
        let mut target = DurableFile::create(to.to_owned())?;
        let mut found = 0;
        loop {
            let piece = tokio::time::timeout(self.stall_max, body.next()).await;
            let Some(piece) = piece.map_err(|_| self.stalled(side, &file.name))? else { break };
            let piece = piece.map_err(self.failed("read", side, &file.name))?;
            found += piece.len() as u64;
            if found > file.bytes {
                break;
            }
            target.write_all(&piece).map_err(Error::io("write", to))?;
        }
        if found != file.bytes {
            return Err(Error::FileLength { path: named(), expected: file.bytes, found });
        }
        let Written { checksum, .. } = target.finish()?;
        if checksum_text(checksum) != file.checksum {
            let detail = "its checksum is not its manifest's".to_owned();
            return Err(Error::FileCorrupt { path: named(), row_group: None, detail });
        }
        Ok(())
    }

    fn stalled(&self, side: Side, name: &str) -> Error {
        Error::ObjectStalled { object: self.named(side, name), stalled: self.stall_max }
    }
}

fn may_pass(error: &Error) -> bool {
    matches!(
        error,
        Error::ObjectStore { .. }
            | Error::ObjectStalled { .. }
            | Error::FileLength { .. }
            | Error::FileCorrupt { .. }
    )
}
