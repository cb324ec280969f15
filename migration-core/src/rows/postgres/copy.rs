//! The stream that `copy … to stdout (format binary)` gives, cut into rows.
//!
//! A header, then for each row the number of its fields and each field's length and bytes, then a
//! field count of -1. The stream arrives in pieces that may end anywhere; mostly one piece is one
//! row. Rows are gathered in blocks, so that they can be read column by column.

use arrow::array::RecordBatch;

use super::batch::{Batch, malformed};
use super::block::{Block, Next};
use crate::error::Result;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// The signature, flags, and the length of an extension that nothing has ever used.
const HEADER_BYTES: usize = SIGNATURE.len() + 8;

/// Cuts the stream.
pub(super) struct CopyStream {
    batch: Batch,
    block: Block,
    at: Place,
    rows: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Header,
    Rows,
    End,
}

impl CopyStream {
    /// A stream whose rows go into this batch.
    pub(super) fn new(batch: Batch) -> CopyStream {
        let block = Block::new(batch.width());
        CopyStream { batch, block, at: Place::Header, rows: 0 }
    }

    /// Takes the next piece; batches that are full go to `full`.
    pub(super) fn feed(&mut self, piece: &[u8], full: &mut Vec<RecordBatch>) -> Result<()> {
        if self.at == Place::End {
            return Ok(());
        }
        self.block.arrive(piece);
        if self.at == Place::Header {
            if self.block.rest().len() < HEADER_BYTES {
                return Ok(());
            }
            check_header(&self.block.rest()[..HEADER_BYTES])?;
            self.block.skip(HEADER_BYTES);
            self.at = Place::Rows;
        }
        loop {
            match self.block.next_row()? {
                Next::Row => {
                    if self.block.is_full() || self.block.rows() == self.batch.room() {
                        full.extend(self.read_block()?);
                    }
                }
                Next::Partial => return Ok(()),
                Next::End => {
                    self.at = Place::End;
                    full.extend(self.read_block()?);
                    return Ok(());
                }
            }
        }
    }

    /// The number of rows and those that are in no batch yet, when the stream is over.
    ///
    /// # Errors
    /// When the stream stopped short.
    pub(super) fn finish(mut self) -> Result<(u64, Option<RecordBatch>)> {
        match self.at {
            Place::End if self.batch.rows() == 0 => Ok((self.rows, None)),
            Place::End => Ok((self.rows, Some(self.batch.take()?))),
            Place::Header | Place::Rows => Err(malformed("the rows stop before their end")),
        }
    }

    /// How many rows have been read so far.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Puts the block's rows into the batch; gives the batch, if it is full.
    fn read_block(&mut self) -> Result<Option<RecordBatch>> {
        self.batch.push_block(&self.block)?;
        self.rows += self.block.rows() as u64;
        self.block.clear();
        if self.batch.is_full() { self.batch.take().map(Some) } else { Ok(None) }
    }
}

fn check_header(header: &[u8]) -> Result<()> {
    // A bit among the upper sixteen flags would mean another layout of the rows.
    if header.starts_with(SIGNATURE) && header[SIGNATURE.len()..].iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    Err(malformed("the rows have a header of an unknown kind"))
}
