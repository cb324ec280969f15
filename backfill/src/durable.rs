//! Files that are either whole under their name, or not there.
//!
//! A file is written under a temporary name, brought to the disk, and renamed. Whoever finds it under its own name
//! finds all of it, whatever happened to the process or the machine meanwhile.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use xxhash_rust::xxh3::Xxh3Default;

use crate::error::{Error, Result};

/// What unfinished files end in.
const TEMPORARY_SUFFIX: &str = ".tmp";

/// A file that is being written.
pub(crate) struct DurableFile {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    hasher: Box<Xxh3Default>,
    bytes: u64,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) bytes: u64,
    /// XXH3-64 of all bytes.
    pub(crate) checksum: u64,
}

impl DurableFile {
    pub(crate) fn create(path: PathBuf) -> Result<Self> {
        let temporary = temporary_name(&path);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&temporary)
            .map_err(Error::io("create", &temporary))?;
        Ok(Self { path, temporary, file, hasher: Box::default(), bytes: 0 })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Brings the file to the disk and gives it its name.
    pub(crate) fn finish(&mut self) -> Result<Written> {
        self.file.sync_all().map_err(Error::io("write", &self.path))?;
        fs::rename(&self.temporary, &self.path).map_err(Error::io("rename", &self.temporary))?;
        Ok(Written { bytes: self.bytes, checksum: self.hasher.digest() })
    }
}

impl Write for DurableFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes a JSON document that is either whole or not there, and makes the whole folder durable.
pub(crate) fn write_json(path: &Path, document: &impl Serialize) -> Result<()> {
    let encode = |source| Error::Encode { path: path.to_owned(), source };
    let mut text = serde_json::to_vec_pretty(document).map_err(encode)?;
    text.push(b'\n');
    let mut file = DurableFile::create(path.to_owned())?;
    file.write_all(&text).map_err(Error::io("write", path))?;
    file.finish()?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// Takes a folder, which is created if it is not there, for files whose names begin with `prefix`. What an earlier run
/// left unfinished there is removed; a file of anyone else's is not, and the folder is refused.
pub(crate) fn claim(folder: &Path, prefix: &str) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    if marker(folder, prefix).exists() {
        return remove_leftovers(folder, prefix);
    }
    match files(folder, prefix)?.into_iter().next() {
        Some(path) => Err(Error::FolderTaken { path }),
        None => disclaim(folder, prefix),
    }
}

/// Takes a folder again for a run that goes on: keeps the finished files with these names, and removes the rest of what was
/// left unfinished.
pub(crate) fn claim_again(folder: &Path, prefix: &str, keep: &[&str]) -> Result<()> {
    disclaim(folder, prefix)?;
    for path in files(folder, prefix)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !keep.contains(&name.as_ref()) {
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    Ok(())
}

/// Says that the files in a folder are no whole, or no longer one: the next [`claim`] may remove them.
pub(crate) fn disclaim(folder: &Path, prefix: &str) -> Result<()> {
    let marker = marker(folder, prefix);
    fs::write(&marker, b"").map_err(Error::io("write", marker))
}

/// Removes finished and unfinished files whose names begin with `prefix`, in a folder that nobody else writes to.
pub(crate) fn remove_leftovers(folder: &Path, prefix: &str) -> Result<()> {
    files(folder, prefix)?
        .iter()
        .try_for_each(|path| fs::remove_file(path).map_err(Error::io("remove", path)))
}

/// Ends what [`claim`] began: the files are a whole now.
pub(crate) fn release(folder: &Path, prefix: &str) -> Result<()> {
    let marker = marker(folder, prefix);
    fs::remove_file(&marker).map_err(Error::io("remove", marker))
}

fn files(folder: &Path, prefix: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let path = entry.map_err(Error::io("list", folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let finished_name = name.strip_suffix(TEMPORARY_SUFFIX).unwrap_or(&name);
        if name.starts_with(prefix) && finished_name.ends_with(".parquet") {
            files.push(path);
        }
    }
    Ok(files)
}

fn marker(folder: &Path, prefix: &str) -> PathBuf {
    folder.join(format!("{prefix}unfinished"))
}

fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY_SUFFIX);
    name.into()
}

/// A rename is durable only when its folder is.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io("write", folder))
}

/// Windows has no such call; its renames are in the journal.
#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_its_name_only_when_it_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("part.parquet");
        let mut file = DurableFile::create(path.clone()).unwrap();
        file.write_all(b"half").unwrap();
        assert!(!path.exists());
        let written = file.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"half");
        assert_eq!(written, Written { bytes: 4, checksum: xxhash_rust::xxh3::xxh3_64(b"half") });
    }

    #[test]
    fn only_what_an_unfinished_run_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        claim(folder.path(), "part-").unwrap();
        for name in ["part-1.parquet", "part-2.parquet.tmp", "part.txt", "other.parquet"] {
            fs::write(folder.path().join(name), b"").unwrap();
        }
        claim(folder.path(), "part-").unwrap();
        release(folder.path(), "part-").unwrap();
        let mut left: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["other.parquet", "part.txt"]);
    }

    /// Spark names its files like ours: a snapshot into a folder that holds a dump must not cost the dump.
    #[test]
    fn files_of_others_are_never_removed() {
        let folder = tempfile::tempdir().unwrap();
        let dump = folder.path().join("part-00000-c000.snappy.parquet");
        fs::write(&dump, b"").unwrap();
        let error = claim(folder.path(), "part-").unwrap_err();
        assert!(matches!(&error, Error::FolderTaken { path } if *path == dump), "{error:?}");
        assert!(dump.exists());
    }
}
