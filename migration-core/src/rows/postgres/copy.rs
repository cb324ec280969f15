//! The stream that `copy … to stdout (format binary)` gives, cut into rows.
//!
//! A header, then for each row the number of its fields and each field's length and bytes, then a
//! field count of -1. The stream arrives in pieces that may end anywhere; mostly one piece is one
//! row, which is then read where it lies.

use arrow::array::RecordBatch;

use super::batch::{Batch, malformed};
use crate::error::Result;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// The signature, flags, and the length of an extension that nothing has ever used.
const HEADER_BYTES: usize = SIGNATURE.len() + 8;

/// The number of a row's fields stands before them.
const COUNT_BYTES: usize = 2;

/// Cuts the stream.
pub(super) struct CopyStream {
    /// The beginning of a row whose end has not arrived.
    carry: Vec<u8>,
    at: Place,
    rows: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Header,
    Rows,
    End,
}

/// What lies at the head of a buffer.
enum Head {
    /// Too little to tell.
    Partial,
    /// A header, or a row that is in the batch now, of this many bytes.
    Whole(usize),
    /// The end of the rows.
    End,
}

impl CopyStream {
    pub(super) fn new() -> CopyStream {
        CopyStream { carry: Vec::new(), at: Place::Header, rows: 0 }
    }

    /// Takes the next piece; batches that are full go to `full`, the rest stays in `batch`.
    pub(super) fn feed(
        &mut self,
        piece: &[u8],
        batch: &mut Batch,
        full: &mut Vec<RecordBatch>,
    ) -> Result<()> {
        if self.carry.is_empty() {
            let used = self.cut(piece, batch, full)?;
            self.carry.extend_from_slice(&piece[used..]);
            return Ok(());
        }
        let mut buffer = std::mem::take(&mut self.carry);
        buffer.extend_from_slice(piece);
        let used = self.cut(&buffer, batch, full)?;
        buffer.drain(..used);
        self.carry = buffer;
        Ok(())
    }

    /// The number of rows, when the stream is over.
    ///
    /// # Errors
    /// When the stream stopped short.
    pub(super) fn finish(self) -> Result<u64> {
        match self.at {
            Place::End => Ok(self.rows),
            Place::Header | Place::Rows => Err(malformed("the rows stop before their end")),
        }
    }

    /// How many rows have been read so far.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Reads all whole rows of a buffer; gives the number of bytes read.
    fn cut(&mut self, buffer: &[u8], batch: &mut Batch, full: &mut Vec<RecordBatch>) -> Result<usize> {
        let mut used = 0;
        loop {
            let rest = &buffer[used..];
            let head = match self.at {
                Place::Header => header(rest)?,
                Place::Rows => row(rest, batch)?,
                Place::End => return Ok(buffer.len()),
            };
            match head {
                Head::Partial => return Ok(used),
                Head::End => self.at = Place::End,
                Head::Whole(length) => {
                    used += length;
                    if self.at == Place::Header {
                        self.at = Place::Rows;
                        continue;
                    }
                    self.rows += 1;
                    if batch.is_full() {
                        full.push(batch.take()?);
                    }
                }
            }
        }
    }
}

fn header(buffer: &[u8]) -> Result<Head> {
    let Some((header, _)) = buffer.split_at_checked(HEADER_BYTES) else { return Ok(Head::Partial) };
    // A bit among the upper sixteen flags would mean another layout of the rows.
    if !header.starts_with(SIGNATURE) || header[SIGNATURE.len()..].iter().any(|byte| *byte != 0) {
        return Err(malformed("the rows have a header of an unknown kind"));
    }
    Ok(Head::Whole(HEADER_BYTES))
}

/// Reads one row, if it is there as a whole.
fn row(buffer: &[u8], batch: &mut Batch) -> Result<Head> {
    let Some(count) = buffer.first_chunk().map(|bytes| i16::from_be_bytes(*bytes)) else {
        return Ok(Head::Partial);
    };
    if count == -1 {
        return Ok(Head::End);
    }
    if usize::try_from(count) != Ok(batch.width()) {
        return Err(malformed("a row has another number of values than the projection has columns"));
    }
    // Measured first: nothing goes into the batch before the whole row is there.
    let Some(length) = row_length(buffer, batch.width())? else { return Ok(Head::Partial) };
    batch.push_row(&buffer[COUNT_BYTES..length])?;
    Ok(Head::Whole(length))
}

/// The length of the row that begins here, if it is there as a whole.
fn row_length(buffer: &[u8], width: usize) -> Result<Option<usize>> {
    let mut rest = &buffer[COUNT_BYTES..];
    for _ in 0..width {
        match field(rest) {
            Field::Value(_, after) | Field::Null(after) => rest = after,
            Field::Partial => return Ok(None),
            Field::Malformed => return Err(malformed("a value has a negative length")),
        }
    }
    Ok(Some(buffer.len() - rest.len()))
}

/// The field at the head of a buffer, and what comes after it.
pub(super) enum Field<'a> {
    Value(&'a [u8], &'a [u8]),
    Null(&'a [u8]),
    /// It has not arrived as a whole.
    Partial,
    Malformed,
}

#[inline(always)]
pub(super) fn field(buffer: &[u8]) -> Field<'_> {
    let Some((length, rest)) = buffer.split_first_chunk() else { return Field::Partial };
    match i32::from_be_bytes(*length) {
        -1 => Field::Null(rest),
        length if length < 0 => Field::Malformed,
        // A positive number of 32 bits.
        length => match rest.split_at_checked(length as usize) {
            Some((value, rest)) => Field::Value(value, rest),
            None => Field::Partial,
        },
    }
}
