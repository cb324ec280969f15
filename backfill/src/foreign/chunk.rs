//! A column chunk whose pages are read some at a time.
//!
//! Many tools write row groups of a million rows, in pages of a megabyte. What compares them needs no more than the pages that
//! the rows in hand are in: they are still in the processor's cache then, and memory does not grow with the row groups.

use bytes::Bytes;

use super::column::{RawColumn, Reading};
use super::decompress::Decompressor;
use super::page_header::{PageHeader, PageKind};
use super::pages::Build;

/// What is wrong with a chunk whose pages and footer contradict.
const OTHER_ROWS: &str = "its pages have other numbers of rows than its footer says";

/// The stored pages of one column of a row group, and how far they have been read.
#[derive(Debug)]
pub(crate) struct ColumnChunk {
    stored: Bytes,
    at: usize,
    reading: Reading,
    rows: usize,
    /// The first row of the next page.
    next_row: usize,
    has_dictionary: bool,
}

impl ColumnChunk {
    pub(crate) fn new(stored: Bytes, reading: Reading, rows: usize) -> Self {
        Self { stored, at: 0, reading, rows, next_row: 0, has_dictionary: false }
    }

    /// Reads all pages that are left over what the column held before, whose memory it uses again. The error says what is wrong.
    pub(crate) fn read_all(
        &mut self,
        decompressor: &mut Decompressor,
        into: &mut RawColumn,
    ) -> Result<(), &'static str> {
        let row = self.next_row;
        self.read_some(row, usize::MAX, decompressor, into).map(|_| ())
    }

    /// Reads the page with this row, and those behind it until there are so many bytes; the pages before it are passed over
    /// as they lie. Says which row is the first that was read. What the column holds must be what was read last.
    pub(crate) fn read_some(
        &mut self,
        row: usize,
        bytes_min: usize,
        decompressor: &mut Decompressor,
        into: &mut RawColumn,
    ) -> Result<usize, &'static str> {
        let page = std::mem::take(&mut decompressor.page);
        let is_first = self.at == 0;
        let mut build = Build::over(std::mem::take(into), page, self.reading, is_first);
        while self.next_row < self.rows && build.held_bytes() < bytes_min {
            let rest = &self.stored[self.at..];
            let header = PageHeader::parse(rest).ok_or("a page header is damaged")?;
            let stored = rest
                .get(header.header_bytes..)
                .and_then(|rest| rest.get(..header.compressed_bytes))
                .ok_or("a page ends behind its column chunk")?;
            self.at += header.header_bytes + header.compressed_bytes;
            match header.kind {
                PageKind::Other => {}
                PageKind::Dictionary { .. } => {
                    if std::mem::replace(&mut self.has_dictionary, true) {
                        return Err("it has two dictionaries");
                    }
                    build.page(&header, stored, decompressor)?;
                }
                PageKind::Data { values, .. } | PageKind::DataV2 { values, .. } => {
                    if values == 0 || values > self.rows - self.next_row {
                        return Err(OTHER_ROWS);
                    }
                    self.next_row += values;
                    if self.next_row > row {
                        build.page(&header, stored, decompressor)?;
                    }
                }
            }
        }
        let first = self.next_row - build.rows;
        (*into, decompressor.page) = build.finish()?;
        Ok(first)
    }
}
