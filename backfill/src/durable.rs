//! Files that are either whole under their name, or not there.
//!
//! A file is written under a temporary name, brought to the disk, and renamed. Whoever finds it under its own name
//! finds all of it, whatever happened to the process or the machine meanwhile.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use serde::Serialize;
use xxhash_rust::xxh3::Xxh3Default;

use crate::error::{Error, Result};

/// What unfinished files end in.
const TEMPORARY_SUFFIX: &str = ".tmp";

/// Bytes that are read at once from a file that is gone through.
const READ_BYTES: usize = 1 << 20;

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

    /// Goes on with what an earlier process has left of the file under its temporary name, up to so many bytes. Whether
    /// that is what it should be the caller must be able to tell.
    pub(crate) fn resume(path: PathBuf, bytes_max: u64) -> Result<Self> {
        let temporary = temporary_name(&path);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&temporary)
            .map_err(Error::io("create", &temporary))?;
        let mut hasher = Box::<Xxh3Default>::default();
        let read = (|| {
            if file.metadata()?.len() > bytes_max {
                file.set_len(0)?;
            }
            hash(&file, &mut hasher)
        })();
        let bytes = read.map_err(Error::io("read", &temporary))?;
        Ok(Self { path, temporary, file, hasher, bytes })
    }

    /// How much is written so far.
    pub(crate) fn len(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Brings the file to the disk and gives it its name.
    pub(crate) fn finish(&mut self) -> Result<Written> {
        bring_to_disk(&self.file, &self.temporary, &self.path)?;
        Ok(self.written())
    }

    /// Like [`finish`](Self::finish), but does not wait for the disk: that is for [`Syncer::wait`].
    pub(crate) fn finish_later(&mut self, syncer: &mut Syncer) -> Result<Written> {
        let file = self.file.try_clone().map_err(Error::io("write", &self.path))?;
        syncer.take(file, self.temporary.clone(), self.path.clone());
        Ok(self.written())
    }

    fn written(&self) -> Written {
        Written { bytes: self.bytes, checksum: self.hasher.digest() }
    }
}

/// The length and the checksum of a file from here to its end.
pub(crate) fn read_through(file: File) -> io::Result<Written> {
    let mut hasher = Box::<Xxh3Default>::default();
    let bytes = hash(&file, &mut hasher)?;
    Ok(Written { bytes, checksum: hasher.digest() })
}

fn hash(mut file: &File, hasher: &mut Xxh3Default) -> io::Result<u64> {
    let mut buffer = vec![0; READ_BYTES];
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(bytes),
            read => {
                hasher.update(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
}

fn bring_to_disk(file: &File, temporary: &Path, path: &Path) -> Result<()> {
    file.sync_all().map_err(Error::io("write", path))?;
    fs::rename(temporary, path).map_err(Error::io("rename", temporary))
}

/// Gives a finished file a second place, on the same volume without a second copy of its bytes: whoever writes a file under that
/// name later replaces the name, not the bytes.
pub(crate) fn duplicate(from: &Path, to: &Path) -> Result<()> {
    match fs::remove_file(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io("remove", to)(error)),
        _ => {}
    }
    if fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    // Another volume, or one that knows no such links.
    let mut source = File::open(from).map_err(Error::io("open", from))?;
    let mut copy = DurableFile::create(to.to_owned())?;
    io::copy(&mut source, &mut copy).map_err(Error::io("write", to))?;
    copy.finish().map(|_| ())
}

/// Brings files to the disk while others are written: waiting for a disk takes longer than the work that it would hold up.
#[derive(Default)]
pub(crate) struct Syncer {
    running: Option<(Sender<Unsynced>, JoinHandle<Result<()>>)>,
}

/// A file that is written, its temporary name and its own.
type Unsynced = (File, PathBuf, PathBuf);

impl Syncer {
    /// Waits until all files so far are on the disk, under their names.
    pub(crate) fn wait(&mut self) -> Result<()> {
        let Some((sender, thread)) = self.running.take() else { return Ok(()) };
        drop(sender);
        thread.join().unwrap_or(Err(Error::WorkerLost))
    }

    fn take(&mut self, file: File, temporary: PathBuf, path: PathBuf) {
        let (sender, _) = self.running.get_or_insert_with(|| {
            let (sender, receiver) = channel::<Unsynced>();
            let sync =
                move || receiver.iter().try_for_each(|(file, from, to)| bring_to_disk(&file, &from, &to));
            (sender, std::thread::spawn(sync))
        });
        // Where the thread has ended an earlier file has failed, and waiting for it will say so.
        let _ = sender.send((file, temporary, path));
    }
}

impl Drop for Syncer {
    /// Nothing may be renamed any more once somebody else has taken the folder.
    fn drop(&mut self) {
        let _ = self.wait();
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
    if is_claimed(folder, prefix) {
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

/// Whether files lie here that are no whole yet, or no longer one.
pub(crate) fn is_claimed(folder: &Path, prefix: &str) -> bool {
    marker(folder, prefix).exists()
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

/// What a file is called until it is finished.
pub(crate) fn temporary_name(path: &Path) -> PathBuf {
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
    fn files_that_are_synced_later_are_there_when_it_was_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut syncer = Syncer::default();
        let paths: Vec<_> = (0..20).map(|n| folder.path().join(format!("{n}"))).collect();
        for path in &paths {
            let mut file = DurableFile::create(path.clone()).unwrap();
            file.write_all(b"whole").unwrap();
            assert_eq!(file.finish_later(&mut syncer).unwrap().bytes, 5);
        }
        syncer.wait().unwrap();
        assert!(paths.iter().all(|path| fs::read(path).unwrap() == b"whole"));

        // A file that cannot get its name is told of, not passed over.
        let mut file = DurableFile::create(folder.path().join("lost")).unwrap();
        fs::remove_file(temporary_name(&folder.path().join("lost"))).unwrap();
        file.finish_later(&mut syncer).unwrap();
        assert!(matches!(syncer.wait(), Err(Error::Io { action: "rename", .. })));
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
