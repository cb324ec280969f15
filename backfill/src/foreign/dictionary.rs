//! The distinct values of a column chunk, and how the codes of two are compared.

use std::collections::HashMap;

use super::column::{STRIDE_ROWS, Shape};

/// The distinct values that codes stand for, as plain values.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    pub(super) shape: Option<Shape>,
    pub(super) bytes: Vec<u8>,
    pub(super) offsets: Vec<u32>,
}

/// Which code of one dictionary is which of another.
#[derive(Debug, Default)]
pub(crate) struct Translation {
    codes: Vec<u32>,
    /// Whether the two are the same, so that nothing needs to be looked up.
    is_identity: bool,
    is_known: bool,
}

/// A value that the other side's dictionary does not have. Smaller than [`NULL_CODE`], larger than any code.
const UNKNOWN_CODE: u32 = u32::MAX - 1;

impl Dictionary {
    pub(super) fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    pub(super) fn without_length<'v>(&self, value: &'v [u8]) -> &'v [u8] {
        match self.shape {
            Some(Shape::Prefixed) => value.get(4..).unwrap_or_default(),
            _ => value,
        }
    }

    /// A plain value, with its length where it has one.
    pub(super) fn value(&self, code: u32) -> Option<&[u8]> {
        let code = code as usize;
        if code >= self.len() {
            return None;
        }
        Some(&self.bytes[self.offsets[code] as usize..self.offsets[code + 1] as usize])
    }
}

impl Translation {
    /// Makes the next one anew: one of the dictionaries is another.
    pub(crate) fn forget(&mut self) {
        self.is_known = false;
    }

    pub(super) fn between(&mut self, old: &Dictionary, new: &Dictionary) {
        if std::mem::replace(&mut self.is_known, true) {
            return;
        }
        self.is_identity = old.offsets == new.offsets && old.bytes == new.bytes;
        if self.is_identity {
            return;
        }
        let known: HashMap<&[u8], u32> =
            (0..new.len() as u32).filter_map(|code| Some((new.value(code)?, code))).collect();
        self.codes.clear();
        self.codes.extend(
            (0..old.len() as u32).map(|code| {
                old.value(code).and_then(|value| known.get(value)).copied().unwrap_or(UNKNOWN_CODE)
            }),
        );
    }

    pub(super) fn equal_codes(&self, old: &[u32], new: &[u32]) -> usize {
        let strides = old.chunks_exact(STRIDE_ROWS).zip(new.chunks_exact(STRIDE_ROWS));
        let start = STRIDE_ROWS
            * if self.is_identity {
                strides.take_while(|(old, new)| old == new).count()
            } else {
                // Without an early exit inside a stride, because that is quicker than to look after each row.
                strides
                    .take_while(|(old, new)| {
                        old.iter().zip(*new).fold(true, |equal, (old, new)| equal & (self.of(*old) == *new))
                    })
                    .count()
            };
        start
            + old[start..].iter().zip(&new[start..]).take_while(|(old, new)| self.of(**old) == **new).count()
    }

    fn of(&self, code: u32) -> u32 {
        if self.is_identity { code } else { self.codes.get(code as usize).copied().unwrap_or(code) }
    }
}
