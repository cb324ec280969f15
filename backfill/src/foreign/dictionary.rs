//! The distinct values of a column chunk, and how the codes of two are compared.

use std::collections::HashMap;

use super::column::{STRIDE_ROWS, Shape};
use super::pages::{bounded, grow};

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

/// What is wrong with values of which a dictionary has few, and rows so many that they do not fit in memory side by side.
const TOO_LONG: &str = "its values are too long to be written out side by side";

impl Dictionary {
    /// Writes values out from `at` on, over what is there, and says where they end. Values with a length append to `offsets` where each
    /// begins, and where the last ends.
    pub(super) fn spell(
        &self,
        codes: &[u32],
        at: usize,
        into: &mut Vec<u8>,
        offsets: &mut Vec<u32>,
    ) -> Result<usize, &'static str> {
        match self.shape {
            Some(Shape::Fixed(width)) => self.spell_fixed(width, codes, at, into),
            _ => self.spell_prefixed(codes, at, into, offsets),
        }
    }

    /// Values of fixed width; zeros where there is no value.
    fn spell_fixed(
        &self,
        width: usize,
        codes: &[u32],
        at: usize,
        into: &mut Vec<u8>,
    ) -> Result<usize, &'static str> {
        let end = codes.len().checked_mul(width).and_then(|length| at.checked_add(length)).ok_or(TOO_LONG)?;
        bounded(end).map_err(|_| TOO_LONG)?;
        grow(into, end);
        let into = &mut into[at..end];
        match width {
            4 => self.spell_words::<4>(codes, into),
            8 => self.spell_words::<8>(codes, into),
            _ => {
                for (slot, &code) in into.chunks_exact_mut(width).zip(codes) {
                    match self.value(code) {
                        Some(value) => slot.copy_from_slice(value),
                        None => slot.fill(0),
                    }
                }
            }
        }
        Ok(end)
    }

    /// The same for widths that have an instruction.
    fn spell_words<const WIDTH: usize>(&self, codes: &[u32], into: &mut [u8]) {
        let values = &self.bytes.as_chunks::<WIDTH>().0[..self.len()];
        for (slot, &code) in into.as_chunks_mut::<WIDTH>().0.iter_mut().zip(codes) {
            *slot = values.get(code as usize).copied().unwrap_or([0; WIDTH]);
        }
    }

    /// Values with a length; nothing at all where there is no value.
    fn spell_prefixed(
        &self,
        codes: &[u32],
        at: usize,
        into: &mut Vec<u8>,
        offsets: &mut Vec<u32>,
    ) -> Result<usize, &'static str> {
        let end = at.checked_add(self.spelled_bytes(codes)).ok_or(TOO_LONG)?;
        bounded(end).map_err(|_| TOO_LONG)?;
        grow(into, end);
        let mut at = at;
        offsets.push(at as u32);
        offsets.extend(codes.iter().map(|&code| {
            let value = self.value(code).unwrap_or_default();
            into[at..at + value.len()].copy_from_slice(value);
            at += value.len();
            at as u32
        }));
        Ok(end)
    }

    /// How many bytes the values of these codes have together.
    pub(super) fn spelled_bytes(&self, codes: &[u32]) -> usize {
        codes.iter().map(|&code| self.value(code).map_or(0, <[u8]>::len)).sum()
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
