//! Rows by what their keys are mixed to: in memory while there is room, and behind it in a file for each partition.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::key_code::mixed;
use super::spill_folder;
use crate::error::{Error, Result};

/// Bytes that a thread gathers for a partition before it hands them over: enough that locks and writes are rare, few
/// enough that all partitions' together are small.
const BLOCK_BYTES: usize = 32 * 1024;

/// All rows of both sides, by partition.
pub(super) struct Partitions {
    folder: PathBuf,
    sides: [Vec<Mutex<Partition>>; 2],
    memory_bytes: AtomicU64,
    memory_bytes_max: u64,
}

#[derive(Default)]
struct Partition {
    blocks: Vec<Vec<u8>>,
    /// How many bytes its file has; without any there is no file.
    file_bytes: u64,
}

impl Partitions {
    pub(super) fn new(findings: &Path, count: usize, memory_bytes_max: u64) -> Result<Self> {
        let folder = spill_folder(findings);
        remove(&folder)?;
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        let side = || (0..count).map(|_| Mutex::default()).collect();
        Ok(Self { folder, sides: [side(), side()], memory_bytes: AtomicU64::new(0), memory_bytes_max })
    }

    pub(super) fn count(&self) -> usize {
        self.sides[0].len()
    }

    /// What a thread puts one side's rows in by.
    pub(super) fn spill(&self, side: usize) -> Spill<'_> {
        let shift = 64 - self.count().trailing_zeros();
        Spill { partitions: self, side, shift, blocks: vec![Vec::new(); self.count()] }
    }

    /// Gives out the rows of a partition: id, key where it is more than the id, and the words beside it. The partition is
    /// empty afterwards.
    pub(super) fn read(
        &self,
        side: usize,
        partition: usize,
        words: usize,
        is_narrow: bool,
        mut row: impl FnMut(u64, Option<&[u8]>, &[u64]),
    ) -> Result<()> {
        let found = std::mem::take(&mut *lock(&self.sides[side][partition]));
        let path = self.path(side, partition);
        let damaged = || Error::corrupt(&path, None)("it is not what was written".into());
        let mut payload = vec![0; words];
        for block in &found.blocks {
            records(block, &mut payload, is_narrow, &mut row).ok_or_else(damaged)?;
        }
        let kept: u64 = found.blocks.iter().map(|block| block.capacity() as u64).sum();
        drop(found.blocks);
        self.memory_bytes.fetch_sub(kept, Ordering::Relaxed);
        if found.file_bytes == 0 {
            return Ok(());
        }
        let mut file = fs::File::open(&path).map_err(Error::io("open", &path))?;
        let mut block = Vec::new();
        let mut rest = found.file_bytes;
        while rest > 0 {
            let mut length = [0; 4];
            file.read_exact(&mut length).map_err(Error::io("read", &path))?;
            block.resize(u32::from_le_bytes(length) as usize, 0);
            file.read_exact(&mut block).map_err(Error::io("read", &path))?;
            records(&block, &mut payload, is_narrow, &mut row).ok_or_else(damaged)?;
            rest = rest.saturating_sub(4 + block.len() as u64);
        }
        fs::remove_file(&path).map_err(Error::io("remove", &path))
    }

    fn take(&self, side: usize, partition: usize, block: &mut Vec<u8>) -> Result<()> {
        let bytes = block.capacity() as u64;
        let kept = self.memory_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.memory_bytes_max;
        let mut found = lock(&self.sides[side][partition]);
        if kept {
            found.blocks.push(std::mem::take(block));
            return Ok(());
        }
        self.memory_bytes.fetch_sub(bytes, Ordering::Relaxed);
        let path = self.path(side, partition);
        let length = (block.len() as u32).to_le_bytes();
        // Opened for each block, because there may be more partitions than a process may have files.
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| {
                file.write_all(&length)?;
                file.write_all(block)
            })
            .map_err(Error::io("write", &path))?;
        found.file_bytes += 4 + block.len() as u64;
        block.clear();
        Ok(())
    }

    fn path(&self, side: usize, partition: usize) -> PathBuf {
        self.folder.join(format!("{side}-{partition:04}"))
    }
}

impl Drop for Partitions {
    /// After an error the rows are of no use, and large. If they cannot be removed now, the next scan does it.
    fn drop(&mut self) {
        let _ = remove(&self.folder);
    }
}

/// What one thread puts rows of one side in by.
pub(super) struct Spill<'a> {
    partitions: &'a Partitions,
    side: usize,
    shift: u32,
    blocks: Vec<Vec<u8>>,
}

impl Spill<'_> {
    pub(super) fn put(&mut self, id: u64, key: Option<&[u8]>, words: &[u64]) -> Result<()> {
        let partition = (mixed(id) >> self.shift) as usize;
        let block = &mut self.blocks[partition];
        let length = 8 + key.map_or(0, |key| 4 + key.len()) + 8 * words.len();
        if block.len() + length > BLOCK_BYTES && !block.is_empty() {
            self.partitions.take(self.side, partition, block)?;
        }
        let block = &mut self.blocks[partition];
        if block.capacity() == 0 {
            block.reserve_exact(BLOCK_BYTES.max(length));
        }
        block.extend_from_slice(&id.to_le_bytes());
        if let Some(key) = key {
            block.extend_from_slice(&(key.len() as u32).to_le_bytes());
            block.extend_from_slice(key);
        }
        for word in words {
            block.extend_from_slice(&word.to_le_bytes());
        }
        Ok(())
    }

    /// Hands over what is gathered.
    pub(super) fn finish(mut self) -> Result<()> {
        for (partition, mut block) in std::mem::take(&mut self.blocks).into_iter().enumerate() {
            if !block.is_empty() {
                block.shrink_to_fit();
                self.partitions.take(self.side, partition, &mut block)?;
            }
        }
        Ok(())
    }
}

fn records(
    block: &[u8],
    payload: &mut [u64],
    is_narrow: bool,
    row: &mut impl FnMut(u64, Option<&[u8]>, &[u64]),
) -> Option<()> {
    let mut rest = block;
    while !rest.is_empty() {
        let id = u64::from_le_bytes(*rest.split_off(..8)?.as_array()?);
        let key = if is_narrow {
            None
        } else {
            let length = u32::from_le_bytes(*rest.split_off(..4)?.as_array()?) as usize;
            Some(rest.split_off(..length)?)
        };
        for word in payload.iter_mut() {
            *word = u64::from_le_bytes(*rest.split_off(..8)?.as_array()?);
        }
        row(id, key, payload);
    }
    Some(())
}

/// A thread that panicked has ended the scan; what it left is only thrown away.
fn lock(partition: &Mutex<Partition>) -> std::sync::MutexGuard<'_, Partition> {
    partition.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", folder)(error)),
        _ => Ok(()),
    }
}
