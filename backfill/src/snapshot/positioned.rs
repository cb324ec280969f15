//! Files read by position, so that any number of threads can read one without a shared cursor.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use parquet::errors::Result as ParquetResult;
use parquet::file::reader::{ChunkReader, Length};

/// A file that is read by position.
#[derive(Debug, Clone)]
pub(crate) struct Positioned {
    file: Arc<File>,
    bytes: u64,
    #[cfg(test)]
    bytes_read: Arc<std::sync::atomic::AtomicU64>,
}

impl Positioned {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        Ok(Self {
            file: Arc::new(file),
            bytes,
            #[cfg(test)]
            bytes_read: Arc::default(),
        })
    }

    pub(crate) fn len(&self) -> u64 {
        self.bytes
    }

    /// How many bytes were read of it.
    #[cfg(test)]
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes_read.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Fills the buffer with what is in the file from `start` on.
    pub(crate) fn read_into(&self, start: u64, buffer: &mut [u8]) -> io::Result<()> {
        read_exact_at(&self.file, buffer, start)?;
        #[cfg(test)]
        self.bytes_read.fetch_add(buffer.len() as u64, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn read(&self, start: u64, length: usize) -> io::Result<Bytes> {
        // A length out of a damaged footer must not be allocated before it is found impossible.
        if start.checked_add(length as u64).is_none_or(|end| end > self.bytes) {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file ends before the data it points at",
            ));
        }
        let mut buffer = if length < POOLED_BYTES_MIN { Vec::new() } else { Pooled::take() };
        // What is there stays, so that memory that is used again is not cleared first.
        if buffer.len() < length {
            buffer.resize(length, 0);
        }
        self.read_into(start, &mut buffer[..length])?;
        Ok(if length < POOLED_BYTES_MIN { buffer.into() } else { Pooled::share(buffer).slice(..length) })
    }
}

/// Large buffers are used again by the thread that let go of them: fresh memory costs the system a fault per page, which
/// is more than reading the same bytes out of its cache.
pub(crate) struct Pooled(Vec<u8>);

/// From here on a buffer is worth keeping.
const POOLED_BYTES_MIN: usize = 64 * 1024;

/// Above this it is not kept, because row groups that large are rare, and the memory had better go back.
const POOLED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Buffers kept per thread: what two sides' runs let go of at a time.
const POOLED_BUFFERS_MAX: usize = 8;

thread_local! {
    static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

impl Pooled {
    /// A buffer that was let go of, with whatever was in it; an empty one where there is none.
    pub(crate) fn take() -> Vec<u8> {
        POOL.with_borrow_mut(Vec::pop).unwrap_or_default()
    }

    /// Bytes whose memory is used again once nobody has them any more.
    pub(crate) fn share(buffer: Vec<u8>) -> Bytes {
        Bytes::from_owner(Self(buffer))
    }
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        // A thread that is ending has no pool any more; then the buffer is simply freed.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if buffer.capacity() <= POOLED_BYTES_MAX && pool.len() < POOLED_BUFFERS_MAX {
                pool.push(buffer);
            }
        });
    }
}

impl Length for Positioned {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for Positioned {
    type T = PositionedRead;

    fn get_read(&self, start: u64) -> ParquetResult<PositionedRead> {
        Ok(PositionedRead { file: self.clone(), position: start, buffer: Bytes::new() })
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        Ok(self.read(start, length)?)
    }
}

/// A cursor of one reader over a [`Positioned`] file.
pub(crate) struct PositionedRead {
    file: Positioned,
    position: u64,
    buffer: Bytes,
}

/// Only page headers are read this way; they are a few dozen bytes each.
const READ_AHEAD_BYTES: u64 = 512;

impl Read for PositionedRead {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.buffer.is_empty() {
            let available = self.file.bytes.saturating_sub(self.position);
            let length = available.min(READ_AHEAD_BYTES.max(into.len() as u64));
            self.buffer = self.file.read(self.position, length as usize)?;
            self.position += length;
        }
        let length = into.len().min(self.buffer.len());
        into[..length].copy_from_slice(&self.buffer.split_to(length));
        Ok(length)
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, buffer, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                buffer = &mut buffer[read..];
                offset += read as u64;
            }
        }
    }
    Ok(())
}
