//! A pair of snapshots from an object store into a folder.

use std::path::{Path, PathBuf};

use super::Remote;
use super::download::{Wanted, written};
use crate::cancel::Cancel;
use crate::durable::{DurableFile, claim, claim_again, is_claimed, release, temporary_name, write_json};
use crate::error::{Error, Result};
use crate::progress::{Meter, Progress, Stage};
use crate::snapshot::{
    FILE_PREFIX, MANIFEST_FILE, Side, SnapshotFile, SnapshotManifest, SnapshotPair, checksum_text,
};

/// How often a file is fetched that comes out wrong.
const ATTEMPTS_MAX: u32 = 3;

/// A side that is being fetched.
struct Fetching {
    side: Side,
    manifest: SnapshotManifest,
    folder: PathBuf,
    /// It was fetched before, by somebody who was stopped before the other side.
    is_there: bool,
}

impl Remote {
    /// Fetches the pair of snapshots into `folder`, which must not hold another one. Until this has returned there is none.
    /// What a run that was killed has fetched is kept, if its checksums are right; a pair that is there already is not
    /// fetched again.
    ///
    /// # Errors
    /// [`Error::SnapshotAbsent`]; [`Error::BucketAbsent`]; [`Error::SnapshotPresent`]; what a manifest that is not one gives;
    /// [`Error::FileLength`] or [`Error::FileCorrupt`] when an object is not what was published;
    /// [`Error::ObjectStore`], [`Error::ObjectStalled`], [`Error::Io`] or [`Error::DiskFull`]; [`Error::Stopped`].
    pub async fn fetch(
        &self,
        folder: &Path,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<SnapshotPair> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(Error::Stopped { what: "download" }),
            fetched = self.fetch_all(folder, progress) => fetched?,
        }
        let folder = folder.to_owned();
        tokio::task::spawn_blocking(move || SnapshotPair::open(folder))
            .await
            .map_err(|_| Error::WorkerLost)?
    }

    async fn fetch_all(&self, folder: &Path, progress: &dyn Progress) -> Result<()> {
        let sides = [self.begin(Side::Old, folder).await?, self.begin(Side::New, folder).await?];
        let missing: Vec<_> = sides.iter().filter(|fetching| !fetching.is_there).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let total = missing.iter().map(|fetching| fetching.manifest.bytes()).sum();
        let kept = missing.iter().map(|fetching| fetching.keep()).collect::<Result<Vec<_>>>()?;
        let kept_bytes = kept.iter().flatten().map(|file| file.bytes).sum();
        let meter = Meter::new(progress, Stage::Download, kept_bytes, Some(total));
        for (fetching, kept) in missing.iter().zip(&kept) {
            for file in &fetching.manifest.files {
                if !kept.contains(file) {
                    self.fetch_file(fetching, file, &meter).await?;
                }
            }
        }
        for fetching in missing {
            write_json(&fetching.folder.join(MANIFEST_FILE), &fetching.manifest)?;
            release(&fetching.folder, FILE_PREFIX)?;
        }
        meter.finish();
        Ok(())
    }

    async fn begin(&self, side: Side, folder: &Path) -> Result<Fetching> {
        let Some(manifest) = self.manifest_of(side).await? else {
            return Err(Error::SnapshotAbsent { path: self.url().into() });
        };
        let folder = side.folder(folder);
        let is_there = match SnapshotManifest::read(&folder) {
            Ok(present) if present == manifest => true,
            Ok(_) => return Err(Error::SnapshotPresent { path: folder }),
            Err(Error::SnapshotAbsent { .. }) => false,
            Err(error) => return Err(error),
        };
        Ok(Fetching { side, manifest, folder, is_there })
    }

    async fn fetch_file(&self, fetching: &Fetching, file: &SnapshotFile, meter: &Meter<'_>) -> Result<()> {
        let object = self.object(fetching.side, &file.name);
        let named = self.named(fetching.side, &file.name);
        let wanted = Wanted { object: &object, named: &named, bytes: file.bytes, e_tag: None };
        let path = fetching.folder.join(&file.name);
        for attempt in 1..=ATTEMPTS_MAX {
            // What a killed run has left of it is gone on with once; the checksum tells whether that was right.
            let target = match attempt {
                1 => DurableFile::resume(path.clone(), file.bytes)?,
                _ => DurableFile::create(path.clone())?,
            };
            meter.add(target.len());
            let written = match self.download(&wanted, target, meter).await {
                Err(Error::ObjectStore { source, .. }) if is_absent(&source) => {
                    return Err(Error::FileAbsent { path: named.into() });
                }
                written => written?,
            };
            if checksum_text(written.checksum) == file.checksum {
                return Ok(());
            }
            meter.take_back(file.bytes);
            tracing::warn!(object = %named, "an object came out wrong, and is fetched again");
        }
        std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        let detail = "its checksum is not its manifest's".to_owned();
        Err(Error::FileCorrupt { path: named.into(), row_group: None, detail })
    }
}

fn is_absent(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { .. })
}

impl Fetching {
    /// Takes the folder, and says which of its files are there as they should be.
    fn keep(&self) -> Result<Vec<SnapshotFile>> {
        if !is_claimed(&self.folder, FILE_PREFIX) {
            claim(&self.folder, FILE_PREFIX)?;
            return Ok(Vec::new());
        }
        let mut whole = Vec::new();
        for file in &self.manifest.files {
            let found = written(&self.folder.join(&file.name))?;
            if found.is_some_and(|found| checksum_text(found.checksum) == file.checksum) {
                whole.push(file.clone());
            }
        }
        let names = self.manifest.files.iter().map(|file| file.name.as_str());
        let halves: Vec<String> =
            names.map(|name| temporary_name(Path::new(name)).to_string_lossy().into_owned()).collect();
        let keep: Vec<&str> =
            whole.iter().map(|file| file.name.as_str()).chain(halves.iter().map(String::as_str)).collect();
        claim_again(&self.folder, FILE_PREFIX, &keep)?;
        Ok(whole)
    }
}
