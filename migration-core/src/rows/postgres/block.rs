//! Some whole rows as they arrived, and where each of their values lies: what is read column by column.

use super::batch::malformed;
use crate::error::Result;

/// Rows at most: their bytes and places stay in the processor's nearest cache until the last column is read.
pub(super) const BLOCK_ROWS: usize = 256;

/// A block is full at this size even if it has few rows, for the same reason.
const BLOCK_BYTES: usize = 32 << 10;

/// Room that is kept for the next block: a row of hundreds of megabytes should not hold its memory until the last one is read.
const KEPT_BYTES: usize = 1 << 20;

/// The number of a row's values stands before them.
const COUNT_BYTES: usize = 2;

/// The length of a value stands before it.
const LENGTH_BYTES: usize = 4;

/// What stands for NULL in place of a length.
const NULL_LENGTH: i32 = -1;

/// Whole rows of so many values, and what has arrived behind them.
pub(super) struct Block {
    width: usize,
    bytes: Vec<u8>,
    /// How many of the bytes are whole rows, and whatever stood before them.
    whole: usize,
    /// Where the lengths of all values stand, row by row.
    places: Vec<u32>,
    rows: usize,
}

/// What comes after the rows so far.
pub(super) enum Next {
    /// One more row, which is in the block now.
    Row,
    /// Too little to tell.
    Partial,
    /// The end of all rows.
    End,
}

impl Block {
    pub(super) fn new(width: usize) -> Block {
        Block { width, bytes: Vec::new(), whole: 0, places: vec![0; BLOCK_ROWS * width], rows: 0 }
    }

    /// How many whole rows it has.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Whether no further row should go in.
    pub(super) fn is_full(&self) -> bool {
        self.rows == BLOCK_ROWS || self.whole >= BLOCK_BYTES
    }

    /// Adds what has arrived next.
    #[inline]
    pub(super) fn arrive(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
    }

    /// What has arrived behind the whole rows.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.whole..]
    }

    /// Passes over what has arrived next and is no row.
    pub(super) fn skip(&mut self, bytes: usize) {
        self.whole += bytes;
    }

    /// Takes in the next row, if it has arrived as a whole and there is room.
    #[inline]
    pub(super) fn next_row(&mut self) -> Result<Next> {
        let Some(count) = self.bytes[self.whole..].first_chunk() else { return Ok(Next::Partial) };
        let count = i16::from_be_bytes(*count);
        if count == -1 {
            return Ok(Next::End);
        }
        if usize::try_from(count) != Ok(self.width) {
            return Err(malformed("a row has another number of values than the projection has columns"));
        }
        let mut at = self.whole + COUNT_BYTES;
        let places = self.rows * self.width;
        for place in &mut self.places[places..places + self.width] {
            *place = u32::try_from(at).map_err(|_| malformed("a row is longer than Postgres has any"))?;
            let Some(length) = self.bytes.get(at..).and_then(|rest| rest.first_chunk()) else {
                return Ok(Next::Partial);
            };
            at += LENGTH_BYTES;
            match i32::from_be_bytes(*length) {
                NULL_LENGTH => {}
                length => {
                    at += usize::try_from(length).map_err(|_| malformed("a value has a negative length"))?;
                }
            }
        }
        if at > self.bytes.len() {
            return Ok(Next::Partial);
        }
        self.whole = at;
        self.rows += 1;
        Ok(Next::Row)
    }

    /// A column's values in the rows so far; NULL is `None`.
    #[inline]
    pub(super) fn column(&self, position: usize) -> impl Iterator<Item = Option<&[u8]>> {
        let rows = self.places[..self.rows * self.width].chunks_exact(self.width);
        rows.map(move |places| self.value(places[position] as usize))
    }

    /// The value whose length stands here: it has arrived, or its row would not be whole.
    #[inline(always)]
    fn value(&self, place: usize) -> Option<&[u8]> {
        let (length, rest) = self.bytes[place..].split_first_chunk()?;
        usize::try_from(i32::from_be_bytes(*length)).ok().map(|length| &rest[..length])
    }

    /// Forgets the rows, and keeps what has arrived behind them.
    pub(super) fn clear(&mut self) {
        self.bytes.drain(..self.whole);
        self.bytes.shrink_to(KEPT_BYTES);
        self.whole = 0;
        self.rows = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: [[Option<&[u8]>; 2]; 4] = [
        [Some(b"one"), None],
        [Some(b""), Some(b"a longer value, with \xff\xff\xff\xff in it")],
        [None, None],
        [Some(b"\0\0\0\x03end"), Some(b"2")],
    ];

    fn stream() -> Vec<u8> {
        let mut bytes = Vec::new();
        for row in ROWS {
            bytes.extend(2_i16.to_be_bytes());
            for value in row {
                bytes.extend(value.map_or(NULL_LENGTH, |value| value.len() as i32).to_be_bytes());
                bytes.extend(value.unwrap_or_default());
            }
        }
        bytes.extend((-1_i16).to_be_bytes());
        bytes
    }

    #[test]
    fn pieces_may_end_anywhere() {
        let stream = stream();
        for size in 1..=stream.len() {
            for clear_each in [1, 2, 4] {
                let mut block = Block::new(2);
                let mut rows: Vec<[Option<Vec<u8>>; 2]> = Vec::new();
                let mut take = |block: &mut Block| {
                    let columns = [0, 1].map(|position| {
                        block.column(position).map(|value| value.map(<[u8]>::to_vec)).collect::<Vec<_>>()
                    });
                    let [first, second] = columns;
                    rows.extend(first.into_iter().zip(second).map(|(first, second)| [first, second]));
                    block.clear();
                };
                let mut is_over = false;
                for piece in stream.chunks(size) {
                    block.arrive(piece);
                    is_over = loop {
                        match block.next_row().unwrap() {
                            Next::Row if block.rows() == clear_each => take(&mut block),
                            Next::Row => {}
                            Next::Partial => break false,
                            Next::End => break true,
                        }
                    };
                }
                take(&mut block);
                assert!(is_over);
                assert_eq!(rows, ROWS.map(|row| row.map(|value| value.map(<[u8]>::to_vec))));
            }
        }
    }

    #[test]
    fn what_is_no_row_is_refused() {
        let row = |bytes: &[u8]| {
            let mut block = Block::new(1);
            block.arrive(bytes);
            block.next_row()
        };
        assert!(matches!(row(b"\0\x01\0\0\0\x01a"), Ok(Next::Row)));
        assert!(matches!(row(b"\0\x01\0\0\0\x02a"), Ok(Next::Partial)));
        assert!(row(b"\0\x02\0\0\0\x01a\0\0\0\x01b").is_err(), "too many values");
        assert!(row(b"\0\0").is_err(), "too few");
        assert!(row(b"\xff\xfe").is_err(), "a negative number of values");
        assert!(row(b"\0\x01\xff\xff\xff\xfe").is_err(), "a negative length");
    }

    #[test]
    fn a_block_is_full_of_many_rows_or_of_large_ones() {
        let mut block = Block::new(1);
        let mut fill = |value: &[u8]| {
            let mut rows = 0;
            while !block.is_full() {
                block.arrive(&1_i16.to_be_bytes());
                block.arrive(&(value.len() as i32).to_be_bytes());
                block.arrive(value);
                assert!(matches!(block.next_row(), Ok(Next::Row)));
                rows += 1;
            }
            block.clear();
            rows
        };
        assert_eq!(fill(b"x"), BLOCK_ROWS);
        assert_eq!(fill(&vec![b'x'; BLOCK_BYTES]), 1);
        assert_eq!(fill(&vec![b'x'; BLOCK_BYTES / 2]), 2);
    }
}
