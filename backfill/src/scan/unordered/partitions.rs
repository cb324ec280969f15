//! Rows by what their keys are mixed to: in memory while there is room, and behind it in a file for each partition.
//!
//! Partitions that were [kept](Partitions::keep) stay on the disk when the scan ends before its time, and are taken up
//! [again](Partitions::again) up to where they were kept.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use xxhash_rust::xxh3::xxh3_64;
use zerocopy::IntoBytes;

use super::key_code::mixed;
use crate::error::{Error, Result};

/// Bytes that a thread gathers for a partition before it hands them over: enough that locks and writes are rare, few
/// enough that all partitions' together are small.
const BLOCK_BYTES: usize = 32 * 1024;

/// Few enough that writing them in turns does not cost more than it saves, many enough for more threads than there are.
pub(super) const PARTITIONS: std::ops::RangeInclusive<u64> = 16..=4096;

/// A block in a file has its length before it, and a checksum: it may have waited there for another process.
const HEADER_BYTES: u64 = 4 + 8;

/// All rows of both sides, by partition.
pub(super) struct Partitions {
    folder: PathBuf,
    sides: [Vec<Mutex<Partition>>; 2],
    memory_bytes: AtomicU64,
    memory_bytes_max: u64,
    /// Whether the files outlive this, for a scan that goes on.
    is_kept: AtomicBool,
}

#[derive(Default)]
struct Partition {
    blocks: Vec<Vec<u8>>,
    /// How many bytes its file has; without any there is no file.
    file_bytes: u64,
    /// How many of them are durable.
    durable_bytes: u64,
}

impl Partitions {
    /// Empty ones in a folder, in place of what is there.
    pub(super) fn new(folder: PathBuf, count: usize, memory_bytes_max: u64) -> Result<Self> {
        remove(&folder)?;
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        let empty = vec![0; count];
        Ok(Self::of(folder, &[empty.clone(), empty], memory_bytes_max, false))
    }

    /// Those that were kept in a folder, with as many bytes in each file as they were kept with; nothing where they are not
    /// there. What was written behind these bytes is removed.
    pub(super) fn again(folder: PathBuf, file_bytes: &[Vec<u64>; 2], memory_bytes_max: u64) -> Option<Self> {
        let partitions = Self::of(folder, file_bytes, memory_bytes_max, true);
        let cut = |side: usize, partition: usize, bytes: u64| {
            let path = partitions.path(side, partition);
            match fs::metadata(&path) {
                Ok(found) if found.len() < bytes => None,
                Ok(_) => OpenOptions::new().write(true).open(path).ok()?.set_len(bytes).ok(),
                Err(error) => (bytes == 0 && error.kind() == io::ErrorKind::NotFound).then_some(()),
            }
        };
        let mut all =
            (0..2).flat_map(|side| file_bytes[side].iter().enumerate().map(move |found| (side, found)));
        let is_whole = all.all(|(side, (partition, bytes))| cut(side, partition, *bytes).is_some());
        is_whole.then_some(partitions)
    }

    fn of(folder: PathBuf, file_bytes: &[Vec<u64>; 2], memory_bytes_max: u64, is_kept: bool) -> Self {
        let partition = |&bytes: &u64| {
            Mutex::new(Partition { blocks: Vec::new(), file_bytes: bytes, durable_bytes: bytes })
        };
        Self {
            folder,
            sides: [0, 1].map(|side| file_bytes[side].iter().map(partition).collect()),
            memory_bytes: AtomicU64::new(0),
            memory_bytes_max,
            is_kept: AtomicBool::new(is_kept),
        }
    }

    /// Makes all rows durable, and says how many bytes each file then has. Nobody may put rows meanwhile.
    ///
    /// What is in memory goes into the files for it. If the disk is too full, everything is as it was.
    pub(super) fn keep(&self) -> Result<[Vec<u64>; 2]> {
        let bytes_of = |side: usize| {
            let bytes = (0..self.count()).map(|partition| {
                let mut found = lock(&self.sides[side][partition]);
                let kept: u64 = found.blocks.iter().map(|block| block.capacity() as u64).sum();
                self.write(&mut found, side, partition)?;
                self.memory_bytes.fetch_sub(kept, Ordering::Relaxed);
                if found.durable_bytes != found.file_bytes {
                    let path = self.path(side, partition);
                    File::open(&path).and_then(|file| file.sync_data()).map_err(Error::io("write", &path))?;
                    found.durable_bytes = found.file_bytes;
                }
                Ok(found.file_bytes)
            });
            bytes.collect::<Result<Vec<u64>>>()
        };
        let bytes = [bytes_of(0)?, bytes_of(1)?];
        self.is_kept.store(true, Ordering::Relaxed);
        Ok(bytes)
    }

    pub(super) fn count(&self) -> usize {
        self.sides[0].len()
    }

    /// What a thread puts one side's rows in by.
    pub(super) fn spill(&self, side: usize) -> Spill<'_> {
        let blocks = vec![Vec::new(); self.count()];
        Spill { partitions: self, side, shift: self.shift(), blocks, lines: Vec::new() }
    }

    /// How far what an id is mixed to is shifted for its partition.
    fn shift(&self) -> u32 {
        64 - self.count().trailing_zeros()
    }

    /// What the numbers that a partition's ids are mixed to have in common: their highest bits, and zeros behind them.
    pub(super) fn common_bits(&self, partition: usize) -> u64 {
        (partition as u64) << self.shift()
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
        let mut payload = vec![0; words];
        self.each_block(side, partition, |block| records(block, &mut payload, is_narrow, &mut row))
    }

    /// The same of rows that are ids alone, many at a time.
    pub(super) fn read_ids(
        &self,
        side: usize,
        partition: usize,
        mut rows: impl FnMut(&[[u8; 8]]),
    ) -> Result<()> {
        self.each_block(side, partition, |block| {
            let (ids, rest) = block.as_chunks();
            rows(ids);
            rest.is_empty().then_some(())
        })
    }

    /// Gives out a partition's blocks, of which `read` says whether they are such.
    fn each_block(
        &self,
        side: usize,
        partition: usize,
        mut read: impl FnMut(&[u8]) -> Option<()>,
    ) -> Result<()> {
        let found = std::mem::take(&mut *lock(&self.sides[side][partition]));
        let path = self.path(side, partition);
        let damaged = || {
            // Nobody can go on from it.
            self.is_kept.store(false, Ordering::Relaxed);
            Error::corrupt(&path, None)("it is not what was written; the same scan begins anew".into())
        };
        for block in &found.blocks {
            read(block).ok_or_else(damaged)?;
        }
        let kept: u64 = found.blocks.iter().map(|block| block.capacity() as u64).sum();
        drop(found.blocks);
        self.memory_bytes.fetch_sub(kept, Ordering::Relaxed);
        if found.file_bytes == 0 {
            return Ok(());
        }
        let mut file = File::open(&path).map_err(Error::io("open", &path))?;
        let mut block = Vec::new();
        let mut rest = found.file_bytes;
        while rest > 0 {
            let (mut length, mut checksum) = ([0; 4], [0; 8]);
            let header = file.read_exact(&mut length).and_then(|()| file.read_exact(&mut checksum));
            header.map_err(Error::io("read", &path))?;
            let length = u32::from_le_bytes(length);
            // A length is believed only when there is as much to read.
            rest = rest.checked_sub(HEADER_BYTES + u64::from(length)).ok_or_else(damaged)?;
            block.resize(length as usize, 0);
            file.read_exact(&mut block).map_err(Error::io("read", &path))?;
            if xxh3_64(&block) != u64::from_le_bytes(checksum) {
                return Err(damaged());
            }
            read(&block).ok_or_else(damaged)?;
        }
        if self.is_kept.load(Ordering::Relaxed) {
            return Ok(());
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
        found.file_bytes += append(&path, [&*block]).map_err(Error::io("write", &path))?;
        block.clear();
        Ok(())
    }

    /// Writes a partition's blocks that are in memory; if that fails, its file is as it was.
    fn write(&self, partition: &mut Partition, side: usize, number: usize) -> Result<()> {
        if partition.blocks.is_empty() {
            return Ok(());
        }
        let path = self.path(side, number);
        match append(&path, &partition.blocks) {
            Ok(bytes) => {
                partition.file_bytes += bytes;
                partition.blocks.clear();
                Ok(())
            }
            Err(error) => {
                let cut = OpenOptions::new().write(true).open(&path);
                cut.and_then(|file| file.set_len(partition.file_bytes)).map_err(Error::io("write", &path))?;
                Err(Error::io("write", &path)(error))
            }
        }
    }

    fn path(&self, side: usize, partition: usize) -> PathBuf {
        self.folder.join(format!("{side}-{partition:04}"))
    }
}

impl Drop for Partitions {
    /// After an error the rows are of no use, unless they were kept, and large. If they cannot be removed now, the next scan
    /// does it.
    fn drop(&mut self) {
        if !*self.is_kept.get_mut() {
            let _ = remove(&self.folder);
        }
    }
}

/// What one thread puts rows of one side in by.
pub(super) struct Spill<'a> {
    partitions: &'a Partitions,
    side: usize,
    shift: u32,
    blocks: Vec<Vec<u8>>,
    lines: Vec<Line>,
}

/// Ids of a partition on their way into its block: a line of a processor's cache. Blocks are as many places far from one another in
/// memory; the lines of all partitions stay in the nearest cache.
#[derive(Clone, Default)]
#[repr(align(64))]
struct Line {
    ids: [u64; LINE_IDS],
    count: u64,
}

/// With their number, they fill a line.
const LINE_IDS: usize = 7;

impl Spill<'_> {
    pub(super) fn put(&mut self, id: u64, key: Option<&[u8]>, words: &[u64]) -> Result<()> {
        let partition = (mixed(id) >> self.shift) as usize;
        let block = self.room(partition, 8 + key.map_or(0, |key| 4 + key.len()) + 8 * words.len())?;
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

    /// The same for rows that are ids alone.
    pub(super) fn put_ids(&mut self, ids: &[u64]) -> Result<()> {
        self.lines.resize(self.blocks.len(), Line::default());
        for id in ids {
            let partition = (mixed(*id) >> self.shift) as usize;
            let line = &mut self.lines[partition];
            if let Some(place) = line.ids.get_mut(line.count as usize) {
                *place = id.to_le();
                line.count += 1;
                continue;
            }
            line.count = 0;
            let ids = line.ids;
            // This id follows by itself: what was put into a line just now could not be read at once.
            let block = self.room(partition, (LINE_IDS + 1) * size_of::<u64>())?;
            block.extend_from_slice(ids.as_bytes());
            block.extend_from_slice(&id.to_le_bytes());
        }
        Ok(())
    }

    /// A partition's block, with room for so many bytes.
    fn room(&mut self, partition: usize, length: usize) -> Result<&mut Vec<u8>> {
        let block = &mut self.blocks[partition];
        if block.len() + length > BLOCK_BYTES && !block.is_empty() {
            self.partitions.take(self.side, partition, block)?;
        }
        if block.capacity() == 0 {
            block.reserve_exact(BLOCK_BYTES.max(length));
        }
        Ok(block)
    }

    /// Hands over what is gathered.
    pub(super) fn finish(mut self) -> Result<()> {
        for (partition, line) in std::mem::take(&mut self.lines).iter().enumerate() {
            let ids = line.ids[..line.count as usize].as_bytes();
            self.room(partition, ids.len())?.extend_from_slice(ids);
        }
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

/// Opened for each write, because there may be more partitions than a process may have files. Gives how many bytes it wrote.
fn append<'b>(path: &Path, blocks: impl IntoIterator<Item = &'b Vec<u8>>) -> io::Result<u64> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let mut bytes = 0;
    for block in blocks {
        let mut header = (block.len() as u32).to_le_bytes().to_vec();
        header.extend_from_slice(&xxh3_64(block).to_le_bytes());
        file.write_all(&header)?;
        file.write_all(block)?;
        bytes += HEADER_BYTES + block.len() as u64;
    }
    Ok(bytes)
}

/// A thread that panicked has ended the scan; what it left is only thrown away.
fn lock(partition: &Mutex<Partition>) -> std::sync::MutexGuard<'_, Partition> {
    partition.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", folder)(error)),
        _ => Ok(()),
    }
}
