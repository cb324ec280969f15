//! Column chunks in memory, for a decoder that asks by the file's offsets.

use bytes::{Buf, Bytes};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::reader::{ChunkReader, Length};

/// Some column chunks of a file in memory, for a decoder that asks by the file's offsets.
pub(crate) struct ChunkBytes {
    pub(crate) file_bytes: u64,
    pub(crate) chunks: Vec<(u64, Bytes)>,
}

impl ChunkBytes {
    fn from(&self, start: u64) -> ParquetResult<Bytes> {
        self.chunks
            .iter()
            .find(|(chunk, bytes)| (*chunk..chunk + bytes.len() as u64).contains(&start))
            .map(|(chunk, bytes)| bytes.slice((start - chunk) as usize..))
            .ok_or_else(|| ParquetError::EOF(format!("a page at {start} is not in its column chunk")))
    }
}

impl Length for ChunkBytes {
    fn len(&self) -> u64 {
        self.file_bytes
    }
}

impl ChunkReader for ChunkBytes {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(self.from(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let bytes = self.from(start)?;
        if length > bytes.len() {
            return Err(ParquetError::EOF(format!("a page at {start} is longer than its column chunk")));
        }
        Ok(bytes.slice(..length))
    }
}
