//! The work folder: where snapshots and findings lie that nobody gave a place.
//!
//! ```text
//! ROOT/
//! └── subscriptions/            one folder per migration
//!     ├── in-use                locked by the process that works here
//!     ├── round-0001/           one folder per round of a backfill or verification
//!     │   ├── old/, new/        the pair of snapshots
//!     │   ├── findings/         what their scan found
//!     │   └── confirmed/        of that, what still differed when it was looked at again under lock
//!     ├── closing-0002/         both stores at the moment in which the old one was closed
//!     │   └── old/, new/        the pair of snapshots
//!     └── cleanup-0003/         one folder per cleanup, numbered with the rounds
//!         ├── old/, new/        the pair of snapshots
//!         └── work/             the keys to be retired, and what they must look like
//! ```
//!
//! A folder that a killed run left is never gone on with; it is removed when a later round is through, as everything is
//! but the latest verification's, the latest clean one's from before the old store was closed, the closing's, and what an
//! unfinished job works on ([`crate::rounds::prune`] says why).

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// What a folder's name begins with, by what it is for.
const KINDS: [&str; 3] = ["round-", "closing-", "cleanup-"];

/// The file that says whether somebody works here.
const LOCK_FILE: &str = "in-use";

/// A migration's work folder, while this process works in it.
#[derive(Debug)]
pub struct Workspace {
    folder: PathBuf,
    /// Freed by the operating system when the process ends, however it ends.
    _lock: File,
}

/// The folder of one round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    folder: PathBuf,
}

impl Workspace {
    /// Takes the migration's work folder below `root` for this process.
    ///
    /// # Errors
    /// [`Error::FolderInUse`] while another process has it; [`Error::Io`].
    pub fn open(root: &Path, migration: &str) -> Result<Workspace> {
        let root = std::path::absolute(root).map_err(Error::io("find", root))?;
        let folder = root.join(migration);
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        let lock = lock(&folder)?;
        Ok(Workspace { folder, _lock: lock })
    }

    /// A new, empty folder for a round.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::DiskFull`].
    pub fn begin_round(&self) -> Result<Round> {
        self.begin(KINDS[0])
    }

    /// A new, empty folder for the stores as they are when the old one is closed.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::DiskFull`].
    pub fn begin_closing(&self) -> Result<Round> {
        self.begin(KINDS[1])
    }

    /// A new, empty folder for a cleanup.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::DiskFull`].
    pub fn begin_cleanup(&self) -> Result<Round> {
        self.begin(KINDS[2])
    }

    /// Removes all rounds but those that one of `kept` is, or lies in.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn prune(&self, kept: &[PathBuf]) -> Result<()> {
        for (_, folder) in self.rounds()? {
            if !kept.iter().any(|kept| kept.starts_with(&folder)) {
                fs::remove_dir_all(&folder).map_err(Error::io("remove", folder))?;
            }
        }
        Ok(())
    }

    fn begin(&self, kind: &str) -> Result<Round> {
        let number = self.rounds()?.iter().map(|(number, _)| *number).max().unwrap_or(0) + 1;
        let folder = self.folder.join(format!("{kind}{number:04}"));
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        Ok(Round { folder })
    }

    /// Folders that this module made, with their numbers. Whatever else lies here is somebody else's.
    fn rounds(&self) -> Result<Vec<(u64, PathBuf)>> {
        let mut rounds = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(Error::io("list", &self.folder))? {
            let entry = entry.map_err(Error::io("list", &self.folder))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let number = KINDS.iter().find_map(|kind| name.strip_prefix(kind));
            if let Some(number) = number.and_then(|number| number.parse().ok()) {
                rounds.push((number, entry.path()));
            }
        }
        rounds.sort();
        Ok(rounds)
    }
}

impl Round {
    /// A round in a folder that the caller chose.
    pub fn at(folder: impl Into<PathBuf>) -> Round {
        Round { folder: folder.into() }
    }

    /// The folder, which the pair of snapshots lies in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the scan's findings lie.
    pub fn findings(&self) -> PathBuf {
        self.folder.join("findings")
    }

    /// Where those findings lie that were confirmed.
    pub fn confirmed(&self) -> PathBuf {
        self.folder.join("confirmed")
    }

    /// Where a cleanup's work lies.
    pub fn work(&self) -> PathBuf {
        self.folder.join("work")
    }
}

/// Takes a folder for this process, for as long as the file lives.
pub(crate) fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK_FILE);
    let lock = File::options().create(true).append(true).open(&path).map_err(Error::io("create", &path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Error::FolderInUse { path: folder.to_owned() }),
        Err(TryLockError::Error(source)) => Err(Error::io("lock", path)(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let first = Workspace::open(root.path(), "subscriptions").unwrap();
        assert!(matches!(Workspace::open(root.path(), "subscriptions"), Err(Error::FolderInUse { .. })));
        assert!(Workspace::open(root.path(), "other").is_ok());
        drop(first);
        assert!(Workspace::open(root.path(), "subscriptions").is_ok());
    }

    #[test]
    fn rounds_are_numbered_and_pruned_but_for_what_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let workspace = Workspace::open(root.path(), "subscriptions").unwrap();
        let first = workspace.begin_round().unwrap();
        let second = workspace.begin_round().unwrap();
        let third = workspace.begin_cleanup().unwrap();
        assert!(third.folder().ends_with("subscriptions/cleanup-0003"));
        fs::write(root.path().join("subscriptions/notes"), b"mine").unwrap();
        workspace.prune(&[first.folder().to_owned(), third.work()]).unwrap();
        assert!(first.folder().exists() && third.folder().exists() && !second.folder().exists());
        assert!(root.path().join("subscriptions/notes").exists());
        assert!(workspace.begin_round().unwrap().folder().ends_with("round-0004"));
    }
}
