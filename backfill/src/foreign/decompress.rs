//! Pages, decompressed into buffers that are used again.

use std::io::Read;

use flate2::bufread::MultiGzDecoder;
use parquet::basic::Compression;

/// What decompresses pages. Each thread has one.
#[derive(Default)]
pub(crate) struct Decompressor {
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    snappy: snap::raw::Decoder,
    /// Where pages of codes are decompressed to, from column to column: fresh memory costs a page fault per 4 KiB.
    pub(super) page: Vec<u8>,
    /// Where stored pages are read to, for the same reason.
    pub(super) stored: Vec<u8>,
}

/// How pages are compressed, where this can undo it without the decoder of the Parquet library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    Stored,
    Snappy,
    Gzip,
    Lz4,
    Zstd,
}

impl Codec {
    pub(crate) fn of(compression: Compression) -> Option<Self> {
        match compression {
            Compression::UNCOMPRESSED => Some(Self::Stored),
            Compression::SNAPPY => Some(Self::Snappy),
            Compression::GZIP(_) => Some(Self::Gzip),
            Compression::LZ4_RAW => Some(Self::Lz4),
            Compression::ZSTD(_) => Some(Self::Zstd),
            _ => None,
        }
    }
}

impl Decompressor {
    /// Decompresses `stored` to exactly the length of `into`; nothing if it does not have that length, or is damaged.
    pub(crate) fn decompress(&mut self, codec: Codec, stored: &[u8], into: &mut [u8]) -> Option<()> {
        let length = match codec {
            Codec::Stored => {
                into.get_mut(..stored.len())?.copy_from_slice(stored);
                stored.len()
            }
            Codec::Snappy => self.snappy.decompress(stored, into).ok()?,
            Codec::Gzip => {
                let mut gzip = MultiGzDecoder::new(stored);
                gzip.read_exact(into).ok()?;
                // Only at the end is the checksum looked at.
                if gzip.read(&mut [0]).ok()? != 0 {
                    return None;
                }
                into.len()
            }
            Codec::Lz4 => lz4_flex::block::decompress_into(stored, into).ok()?,
            Codec::Zstd => {
                let zstd = match &mut self.zstd {
                    Some(zstd) => zstd,
                    none => none.insert(zstd::bulk::Decompressor::new().ok()?),
                };
                zstd.decompress_to_buffer(stored, into).ok()?
            }
        };
        (length == into.len()).then_some(())
    }
}
