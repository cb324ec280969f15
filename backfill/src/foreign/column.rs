//! One column of a row group as it lies in its pages: decompressed, and otherwise left alone as far as possible.
//!
//! Comparing needs no Arrow arrays. Plain values of fixed width are compared as the bytes that they are, text with its
//! length prefixes in place, and codes of two dictionaries through a map from one to the other.

use bytes::Bytes;

use super::decompress::Codec;
use super::dictionary::{Dictionary, Translation};
use crate::snapshot::Pooled;

/// The code of NULL.
pub(super) const NULL_CODE: u32 = u32::MAX;

/// Rows compared at once while the first that differs is looked for.
pub(super) const STRIDE_ROWS: usize = 32;

/// Rows for each value of a dictionary, from which on codes of two are compared by translating one dictionary into the other.
const ROWS_PER_VALUE: usize = 16;

/// What values are, by their physical type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// So many bytes each.
    Fixed(usize),
    /// A length of four bytes, then the bytes.
    Prefixed,
}

/// One column of a row group, or of some of its pages. Whatever form values have, the memory of the others stays for the next.
#[derive(Debug, Default)]
pub(crate) struct RawColumn {
    pub(super) rows: usize,
    pub(super) form: Form,
    /// Plain values, one behind the other.
    pub(super) bytes: Vec<u8>,
    /// Where each row's value begins, and where the last one ends, of values with a length.
    pub(super) offsets: Vec<u32>,
    /// A code per row.
    pub(super) codes: Vec<u32>,
    /// What codes stand for: of the whole row group, also where these pages have none.
    pub(super) dictionary: Dictionary,
    /// A byte per row: 1 where there is a value. Nothing where all rows have one.
    pub(super) present: Option<Vec<u8>>,
}

/// How a column's values lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A slot per row from this byte on, with zeros where there is no value.
    Fixed { width: usize, start: usize },
    /// The values one behind the other; each row's begins at its offset, and ends at the next.
    Prefixed,
    /// As codes.
    Codes,
}

impl Default for Form {
    fn default() -> Self {
        Self::Fixed { width: 0, start: 0 }
    }
}

/// What hashes values. Where values are of fixed width, four and eight bytes are a number, and others are bytes.
pub(crate) trait ValueHasher {
    /// The hash of a number.
    fn word(&self, word: u64) -> u64;

    /// The hash of text, or of bytes.
    fn bytes(&self, bytes: &[u8]) -> u64;
}

/// How a column's pages are to be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    pub(crate) shape: Shape,
    pub(crate) codec: Codec,
    /// Whether there are levels that say which rows have a value.
    pub(crate) nullable: bool,
}

impl RawColumn {
    /// Hashes of values stand for the values, where these cannot be compared as they lie.
    pub(crate) fn of_hashes(hashes: &[u64]) -> Self {
        let bytes = hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect();
        Self { rows: hashes.len(), form: Form::Fixed { width: 8, start: 0 }, bytes, ..Self::default() }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Gives the column memory for its values.
    pub(crate) fn over(&mut self, bytes: Vec<u8>) {
        self.bytes = bytes;
    }

    /// How wide values are and the values one behind the other, where they lie so and no row is without one. The column has neither any
    /// longer.
    pub(crate) fn take_fixed(&mut self) -> Option<(usize, Bytes)> {
        self.spell_out().ok()?;
        match self.form {
            Form::Fixed { width, start } if self.present.is_none() => {
                let end = start + self.rows * width;
                let bytes = std::mem::take(&mut self.bytes);
                (end <= bytes.len()).then(|| (width, Pooled::share(bytes).slice(start..end)))
            }
            _ => None,
        }
    }

    /// Makes plain values of codes.
    fn spell_out(&mut self) -> Result<(), &'static str> {
        if self.form != Form::Codes {
            return Ok(());
        }
        self.offsets.clear();
        self.dictionary.spell(&self.codes, 0, &mut self.bytes, &mut self.offsets)?;
        self.form = match self.dictionary.shape {
            Some(Shape::Fixed(width)) => Form::Fixed { width, start: 0 },
            _ => Form::Prefixed,
        };
        Ok(())
    }

    /// Brings two columns to one form, in which [`equal_rows`](Self::equal_rows) compares them. The translation must
    /// have been [forgotten](Translation::forget) if one of them is of another row group than before. The error says which of the
    /// two is not to be compared, and why.
    pub(crate) fn align(
        old: &mut Self,
        new: &mut Self,
        translation: &mut Translation,
    ) -> Result<(), (usize, &'static str)> {
        let both = [&*old, &*new];
        // To know which value is which in another dictionary takes as long as to write a dozen values out.
        let is_small = |column: &Self| column.dictionary.len() <= column.rows / ROWS_PER_VALUE;
        if both.into_iter().all(|column| column.form == Form::Codes && is_small(column)) {
            translation.between(&old.dictionary, &new.dictionary);
            return Ok(());
        }
        old.spell_out().map_err(|detail| (0, detail))?;
        new.spell_out().map_err(|detail| (1, detail))
    }

    /// How many of the next `rows` rows, from `at` here and `other_at` there, are pairwise equal before the first that
    /// is not. The two were [aligned](Self::align).
    pub(crate) fn equal_rows(
        &self,
        at: usize,
        other: &Self,
        other_at: usize,
        rows: usize,
        translation: &Translation,
    ) -> usize {
        let rows = match (&self.present, &other.present) {
            (None, None) => rows,
            (Some(present), Some(other)) => {
                equal_slots(&present[at..at + rows], &other[other_at..other_at + rows], 1, rows)
            }
            (Some(present), None) | (None, Some(present)) => {
                let at = if self.present.is_some() { at } else { other_at };
                present[at..at + rows].iter().take_while(|present| **present == 1).count()
            }
        };
        match (self.form, other.form) {
            (Form::Fixed { width, start }, Form::Fixed { width: other_width, start: other_start })
                if width == other_width =>
            {
                let left = &self.bytes[start + at * width..start + (at + rows) * width];
                let right =
                    &other.bytes[other_start + other_at * width..other_start + (other_at + rows) * width];
                equal_slots(left, right, width, rows)
            }
            (Form::Prefixed, Form::Prefixed) => {
                let slice = |from: usize, to: usize| self.prefixed(at + from, at + to);
                let other_slice = |from: usize, to: usize| other.prefixed(other_at + from, other_at + to);
                // Values carry their lengths, so that equal bytes are equal values.
                if slice(0, rows) == other_slice(0, rows) {
                    return rows;
                }
                let mut row = 0;
                while row + STRIDE_ROWS <= rows
                    && slice(row, row + STRIDE_ROWS) == other_slice(row, row + STRIDE_ROWS)
                {
                    row += STRIDE_ROWS;
                }
                row + (row..rows).take_while(|&row| slice(row, row + 1) == other_slice(row, row + 1)).count()
            }
            (Form::Codes, Form::Codes) => {
                translation.equal_codes(&self.codes[at..at + rows], &other.codes[other_at..other_at + rows])
            }
            // Never so after they were aligned; saying that nothing is equal errs on the safe side.
            _ => 0,
        }
    }

    /// The bytes of a row's value, without its length; nothing for NULL.
    pub(crate) fn value(&self, row: usize) -> Option<&[u8]> {
        if !self.is_present(row) {
            return None;
        }
        match self.form {
            Form::Fixed { width, start } => Some(&self.bytes[start + row * width..start + (row + 1) * width]),
            Form::Prefixed => self.prefixed(row, row + 1).get(4..),
            Form::Codes => {
                self.dictionary.value(self.codes[row]).map(|value| self.dictionary.without_length(value))
            }
        }
    }

    /// The hash of each value of the dictionary, over what `known` held before; nothing without one.
    pub(crate) fn hash_dictionary(&self, hasher: &impl ValueHasher, known: &mut Vec<u64>) {
        known.clear();
        if self.form != Form::Codes {
            return;
        }
        let dictionary = &self.dictionary;
        known.extend((0..dictionary.len() as u32).map(|code| {
            let value = dictionary.value(code).unwrap_or_default();
            match dictionary.shape {
                Some(Shape::Fixed(_)) => hash_fixed(value, hasher),
                _ => hasher.bytes(dictionary.without_length(value)),
            }
        }));
    }

    /// The hash of each value from row `start` on, as many as `into` has room for; of NULL it is 0. `known` are the hashes
    /// of the [dictionary](Self::hash_dictionary).
    pub(crate) fn hash_rows(&self, start: usize, known: &[u64], hasher: &impl ValueHasher, into: &mut [u64]) {
        let end = start + into.len();
        match self.form {
            Form::Fixed { width, start: first } => {
                let bytes = &self.bytes[first + start * width..first + end * width];
                match width {
                    8 => into.iter_mut().zip(bytes.as_chunks::<8>().0).for_each(|(hash, value)| {
                        *hash = hasher.word(u64::from_le_bytes(*value));
                    }),
                    4 => into.iter_mut().zip(bytes.as_chunks::<4>().0).for_each(|(hash, value)| {
                        *hash = hasher.word(u64::from(u32::from_le_bytes(*value)));
                    }),
                    0 => into.fill(0),
                    width => into
                        .iter_mut()
                        .zip(bytes.chunks_exact(width))
                        .for_each(|(hash, value)| *hash = hasher.bytes(value)),
                }
            }
            Form::Codes => {
                into.iter_mut().zip(&self.codes[start..end]).for_each(|(hash, code)| {
                    *hash = known.get(*code as usize).copied().unwrap_or(0);
                });
            }
            Form::Prefixed => {
                into.iter_mut().zip(self.offsets[start..=end].windows(2)).for_each(|(hash, ends)| {
                    let value = self.bytes[ends[0] as usize..ends[1] as usize].get(4..);
                    *hash = value.map_or(0, |value| hasher.bytes(value));
                });
            }
        }
        if let Some(present) = &self.present {
            for (hash, _) in into.iter_mut().zip(&present[start..end]).filter(|(_, present)| **present == 0) {
                *hash = 0;
            }
        }
    }

    /// The values with a length of these rows, as they lie one behind the other.
    fn prefixed(&self, from: usize, to: usize) -> &[u8] {
        &self.bytes[self.offsets[from] as usize..self.offsets[to] as usize]
    }

    fn is_present(&self, row: usize) -> bool {
        self.present.as_ref().is_none_or(|present| present[row] == 1)
    }
}

fn hash_fixed(value: &[u8], hasher: &impl ValueHasher) -> u64 {
    if let Ok(value) = value.try_into() {
        hasher.word(u64::from_le_bytes(value))
    } else if let Ok(value) = value.try_into() {
        hasher.word(u64::from(u32::from_le_bytes(value)))
    } else {
        hasher.bytes(value)
    }
}

fn equal_slots(left: &[u8], right: &[u8], width: usize, rows: usize) -> usize {
    if left == right {
        return rows;
    }
    let stride = STRIDE_ROWS * width;
    let strides =
        left.chunks_exact(stride).zip(right.chunks_exact(stride)).take_while(|(a, b)| a == b).count();
    let start = strides * stride;
    strides * STRIDE_ROWS
        + left[start..]
            .chunks_exact(width)
            .zip(right[start..].chunks_exact(width))
            .take_while(|(a, b)| a == b)
            .count()
}

impl RawColumn {
    pub(super) fn is_whole(&self) -> bool {
        match self.form {
            Form::Fixed { width, start } => self.bytes.len() >= start + self.rows * width,
            Form::Prefixed => self.offsets.len() == self.rows + 1,
            Form::Codes => self.codes.len() == self.rows,
        }
    }
}
