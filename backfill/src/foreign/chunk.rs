//! A column chunk whose pages are read some at a time.
//!
//! Many tools write row groups of a million rows, in pages of a megabyte. What compares them needs no more than the pages that
//! the rows in hand are in: they are still in the processor's cache then, and memory does not grow with the row groups.

use std::io;
use std::ops::Range;

use super::column::{RawColumn, Reading};
use super::decompress::Decompressor;
use super::page_header::{PageHeader, PageKind};
use super::pages::{Build, grow};
use crate::snapshot::Positioned;

/// Stored bytes that are read together at least: enough that the system is seldom asked, and few enough that they are in the processor's
/// cache when they are decompressed.
const READ_BYTES_MIN: usize = if cfg!(test) { 64 } else { 256 * 1024 };

/// Most page headers are shorter than this.
const HEADER_BYTES_USUAL: usize = 1024;

/// The stored pages of one column of a row group, and how far they have been read.
#[derive(Debug)]
pub(crate) struct ColumnChunk {
    input: Positioned,
    /// What of the file has not been read yet.
    rest: Range<u64>,
    /// Stored bytes; those from `at` to `filled` have been read and are to be looked at.
    stored: Vec<u8>,
    at: usize,
    filled: usize,
    reading: Reading,
    rows: usize,
    /// The first row of the next page.
    next_row: usize,
    has_begun: bool,
    has_dictionary: bool,
}

/// Why pages cannot be read.
#[derive(Debug)]
pub(crate) enum ChunkFault {
    /// They are not what they should be.
    Damaged(&'static str),
    /// The file cannot be read.
    Unreadable(io::Error),
}

impl From<&'static str> for ChunkFault {
    fn from(detail: &'static str) -> Self {
        Self::Damaged(detail)
    }
}

impl ColumnChunk {
    /// The pages of so many rows in this part of a file, which has such a part. They are read over `stored`.
    pub(super) fn new(
        input: Positioned,
        place: Range<u64>,
        reading: Reading,
        rows: usize,
        stored: Vec<u8>,
    ) -> Self {
        Self {
            input,
            rest: place,
            stored,
            at: 0,
            filled: 0,
            reading,
            rows,
            next_row: 0,
            has_begun: false,
            has_dictionary: false,
        }
    }

    /// The memory that it was read over.
    pub(crate) fn into_stored(self) -> Vec<u8> {
        self.stored
    }

    /// Reads all pages that are left over what the column held before, whose memory it uses again.
    pub(super) fn read_all(
        &mut self,
        decompressor: &mut Decompressor,
        into: &mut RawColumn,
    ) -> Result<(), ChunkFault> {
        let row = self.next_row;
        self.read_some(row, usize::MAX, decompressor, into).map(|_| ())
    }

    /// Reads the page with this row, and those behind it until there are so many bytes; pages with rows before it are passed
    /// over. Says which row is the first that was read. What the column holds must be what was read last.
    pub(crate) fn read_some(
        &mut self,
        row: usize,
        bytes_min: usize,
        decompressor: &mut Decompressor,
        into: &mut RawColumn,
    ) -> Result<usize, ChunkFault> {
        let page = std::mem::take(&mut decompressor.page);
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        let mut build = Build::over(std::mem::take(into), page, self.reading, is_first);
        while self.next_row < self.rows && build.held_bytes() < bytes_min {
            let header = self.header()?;
            match header.kind {
                PageKind::Other => {
                    self.pass_over(header.compressed_bytes)?;
                    continue;
                }
                PageKind::Dictionary { .. } => {
                    if std::mem::replace(&mut self.has_dictionary, true) {
                        return Err("it has two dictionaries".into());
                    }
                }
                PageKind::Data { values, .. } | PageKind::DataV2 { values, .. } => {
                    if values == 0 || values > self.rows - self.next_row {
                        return Err("its pages have other numbers of rows than its footer says".into());
                    }
                    self.next_row += values;
                    if self.next_row <= row {
                        self.pass_over(header.compressed_bytes)?;
                        continue;
                    }
                }
            }
            self.fetch(header.compressed_bytes)?;
            let stored = self.stored[self.at..self.filled]
                .get(..header.compressed_bytes)
                .ok_or("a page ends behind its column chunk")?;
            build.page(&header, stored, decompressor)?;
            self.at += header.compressed_bytes;
        }
        let first = self.next_row - build.rows;
        (*into, decompressor.page) = build.finish()?;
        Ok(first)
    }

    /// How many bytes the first page with rows takes, stored and plain. Whatever stands before it is passed over.
    pub(super) fn first_page_bytes(&mut self) -> Result<usize, ChunkFault> {
        loop {
            let header = self.header()?;
            if header.is_data() {
                return Ok(header.compressed_bytes.max(READ_BYTES_MIN) + header.uncompressed_bytes);
            }
            self.pass_over(header.compressed_bytes)?;
        }
    }

    /// The header of the next page, which begins behind it then.
    fn header(&mut self) -> Result<PageHeader, ChunkFault> {
        let mut length = READ_BYTES_MIN.min(HEADER_BYTES_USUAL);
        loop {
            self.fetch(length)?;
            let found = &self.stored[self.at..self.filled];
            if let Some(header) = PageHeader::parse(found) {
                self.at += header.header_bytes;
                return Ok(header);
            }
            // Smallest and largest values stand in headers too, and may be long.
            if self.rest.is_empty() {
                return Err("a page header is damaged".into());
            }
            length = found.len() * 2;
        }
    }

    /// Reads until there are so many bytes to be looked at, or the chunk ends.
    fn fetch(&mut self, length: usize) -> Result<(), ChunkFault> {
        if self.filled - self.at >= length || self.rest.is_empty() {
            return Ok(());
        }
        self.stored.copy_within(self.at..self.filled, 0);
        (self.at, self.filled) = (0, self.filled - self.at);
        let more = (length.max(READ_BYTES_MIN) - self.filled) as u64;
        // No more than there is in the file, so that a length which is damaged is no memory.
        let end = self.rest.end.min(self.rest.start + more);
        let until = self.filled + (end - self.rest.start) as usize;
        grow(&mut self.stored, until);
        self.input
            .read_into(self.rest.start, &mut self.stored[self.filled..until])
            .map_err(ChunkFault::Unreadable)?;
        (self.rest.start, self.filled) = (end, until);
        Ok(())
    }

    /// Goes on behind so many bytes, which are read only if they have been already.
    fn pass_over(&mut self, length: usize) -> Result<(), ChunkFault> {
        let here = length.min(self.filled - self.at);
        self.at += here;
        self.rest.start += (length - here) as u64;
        if self.rest.start > self.rest.end {
            return Err("a page ends behind its column chunk".into());
        }
        Ok(())
    }
}
