//! Where things lie on this machine that belong to a place in an object store.
//!
//! ```text
//! ROOT/
//! └── remote-monday-1f3c…/      one folder per URL, below the work folder
//!     ├── in-use                locked by the process that works here
//!     ├── outgoing/             a pair of snapshots that is on its way there, and what has arrived of it
//!     ├── fetched/              a pair of snapshots that came from there
//!     └── dump/                 a dump that came from there, and what the store says of its files
//! ```
//!
//! No migration can be called like such a folder: their names have no hyphens.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::Remote;
use crate::error::{Error, Result};
use crate::workspace::lock;

/// The folder for one place in an object store, while this process works in it.
#[derive(Debug)]
pub struct Staging {
    folder: PathBuf,
    /// Freed by the operating system when the process ends, however it ends.
    _lock: File,
}

impl Staging {
    /// Takes the place's folder below the work folder `root` for this process.
    ///
    /// # Errors
    /// [`Error::FolderInUse`] while another process has it; [`Error::Io`].
    pub fn open(root: &Path, remote: &Remote) -> Result<Staging> {
        let root = std::path::absolute(root).map_err(Error::io("find", root))?;
        let last = remote.url().rsplit('/').next().unwrap_or_default();
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
        let readable: String = last.chars().map(plain).take(READABLE_CHARS_MAX).collect();
        let folder = root.join(format!("remote-{readable}-{:016x}", xxh3_64(remote.url().as_bytes())));
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        let lock = lock(&folder)?;
        Ok(Staging { folder, _lock: lock })
    }

    /// Where a pair of snapshots lies that is to be published.
    pub fn outgoing(&self) -> PathBuf {
        self.folder.join("outgoing")
    }

    /// Where a pair of snapshots lies that was fetched.
    pub fn fetched(&self) -> PathBuf {
        self.folder.join("fetched")
    }

    /// Where a dump lies that was fetched.
    pub fn dump(&self) -> PathBuf {
        self.folder.join("dump")
    }

    /// Removes one of these, which is no longer wanted.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn clear(&self, folder: &Path) -> Result<()> {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", folder)(error))
            }
            _ => Ok(()),
        }
    }

    /// Removes all of it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.folder).map_err(Error::io("remove", &self.folder))
    }
}

/// How much of a URL's last part is in a folder's name: enough to be known again, within what file systems allow.
const READABLE_CHARS_MAX: usize = 40;
