//! One column of a row group as it lies in its pages: decompressed, and otherwise left alone as far as possible.
//!
//! Comparing needs no Arrow arrays. Plain values of fixed width are compared as the bytes that they are, text with its
//! length prefixes in place, and codes of two dictionaries through a map from one to the other.

use std::collections::HashMap;

use super::decompress::{Codec, Decompressor};
use super::hybrid;
use super::page_header::{PageHeader, PageKind};

/// The code of NULL.
pub(crate) const NULL_CODE: u32 = u32::MAX;

/// Rows compared at once while the first that differs is looked for.
const STRIDE_ROWS: usize = 32;

/// What values are, by their physical type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// So many bytes each.
    Fixed(usize),
    /// A length of four bytes, then the bytes.
    Prefixed,
}

/// One column of a row group.
#[derive(Debug, Default)]
pub(crate) struct RawColumn {
    rows: usize,
    values: Values,
    /// A byte per row: 1 where there is a value. Nothing where all rows have one.
    present: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Values {
    /// A slot per row, with zeros where there is no value.
    Fixed { width: usize, bytes: Vec<u8>, start: usize },
    /// The values one behind the other; each row's begins at its offset, and ends at the next.
    Prefixed { bytes: Vec<u8>, offsets: Vec<u32> },
    /// A code per row.
    Codes { codes: Vec<u32>, dictionary: Dictionary },
}

impl Default for Values {
    fn default() -> Self {
        Self::Fixed { width: 0, bytes: Vec::new(), start: 0 }
    }
}

/// The distinct values that codes stand for, as plain values.
#[derive(Debug, Default)]
struct Dictionary {
    shape: Option<Shape>,
    bytes: Vec<u8>,
    offsets: Vec<u32>,
}

/// Which code of one dictionary is which of another.
#[derive(Debug, Default)]
pub(crate) struct Translation {
    codes: Vec<u32>,
    /// Whether the two are the same, so that nothing needs to be looked up.
    is_identity: bool,
}

/// A value that the other side's dictionary does not have. Smaller than [`NULL_CODE`], larger than any code.
const UNKNOWN_CODE: u32 = u32::MAX - 1;

/// How a column's pages are to be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    pub(crate) shape: Shape,
    pub(crate) codec: Codec,
    /// Whether there are levels that say which rows have a value.
    pub(crate) nullable: bool,
    pub(crate) rows: usize,
}

impl RawColumn {
    /// Hashes of values stand for the values, where these cannot be compared as they lie.
    pub(crate) fn of_hashes(hashes: &[u64]) -> Self {
        let bytes = hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect();
        Self { rows: hashes.len(), values: Values::Fixed { width: 8, bytes, start: 0 }, present: None }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Reads a column chunk over what this column held before, whose memory it uses again. The error says what is wrong.
    pub(crate) fn read(
        &mut self,
        chunk: &[u8],
        reading: Reading,
        decompressor: &mut Decompressor,
    ) -> Result<(), &'static str> {
        let mut build = Build::over(std::mem::take(self), reading);
        let mut rest = chunk;
        while build.rows < reading.rows {
            let header = PageHeader::parse(rest).ok_or("a page header is damaged")?;
            let page = rest
                .get(header.header_bytes..)
                .and_then(|rest| rest.get(..header.compressed_bytes))
                .ok_or("a page ends behind its column chunk")?;
            build.page(&header, page, decompressor)?;
            rest = &rest[header.header_bytes + header.compressed_bytes..];
        }
        *self = build.finish()?;
        Ok(())
    }

    /// The values as numbers of eight bytes, where they lie so and no row is without one.
    pub(crate) fn fixed_bytes(&self) -> Option<(usize, &[u8])> {
        match &self.values {
            Values::Fixed { width, bytes, start } if self.present.is_none() => {
                Some((*width, bytes.get(*start..*start + self.rows * width)?))
            }
            _ => None,
        }
    }

    /// Makes plain values of codes.
    fn flatten(&mut self) {
        let Values::Codes { codes, dictionary } = &self.values else { return };
        self.values = match dictionary.shape {
            Some(Shape::Fixed(width)) => {
                let mut bytes = Vec::with_capacity(codes.len() * width);
                for &code in codes {
                    match dictionary.value(code) {
                        Some(value) => bytes.extend_from_slice(value),
                        None => bytes.resize(bytes.len() + width, 0),
                    }
                }
                Values::Fixed { width, bytes, start: 0 }
            }
            _ => {
                let mut bytes = Vec::new();
                let mut offsets = Vec::with_capacity(codes.len() + 1);
                offsets.push(0);
                for &code in codes {
                    bytes.extend_from_slice(dictionary.value(code).unwrap_or_default());
                    offsets.push(bytes.len() as u32);
                }
                Values::Prefixed { bytes, offsets }
            }
        };
    }

    /// Brings two columns to one form, in which [`next_difference`](Self::next_difference) compares them.
    pub(crate) fn align(old: &mut Self, new: &mut Self, translation: &mut Translation) {
        match (&old.values, &new.values) {
            (Values::Codes { dictionary: old, .. }, Values::Codes { dictionary: new, .. }) => {
                translation.between(old, new);
            }
            (Values::Codes { .. }, _) => old.flatten(),
            (_, Values::Codes { .. }) => new.flatten(),
            _ => {}
        }
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
        match (&self.values, &other.values) {
            (
                Values::Fixed { width, bytes, start },
                Values::Fixed { width: other_width, bytes: other_bytes, start: other_start },
            ) if width == other_width => {
                let left = &bytes[start + at * width..start + (at + rows) * width];
                let right = &other_bytes[other_start + other_at * width..other_start + (other_at + rows) * width];
                equal_slots(left, right, *width, rows)
            }
            (
                Values::Prefixed { bytes, offsets },
                Values::Prefixed { bytes: other_bytes, offsets: other_offsets },
            ) => {
                let slice = |from: usize, to: usize| &bytes[offsets[at + from] as usize..offsets[at + to] as usize];
                let other_slice = |from: usize, to: usize| {
                    &other_bytes[other_offsets[other_at + from] as usize..other_offsets[other_at + to] as usize]
                };
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
            (Values::Codes { codes, .. }, Values::Codes { codes: other_codes, .. }) => {
                translation.equal_codes(&codes[at..at + rows], &other_codes[other_at..other_at + rows])
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
        match &self.values {
            Values::Fixed { width, bytes, start } => Some(&bytes[start + row * width..start + (row + 1) * width]),
            Values::Prefixed { bytes, offsets } => {
                bytes[offsets[row] as usize..offsets[row + 1] as usize].get(4..)
            }
            Values::Codes { codes, dictionary } => {
                dictionary.value(codes[row]).map(|value| dictionary.without_length(value))
            }
        }
    }

    /// The hash of each value, over what `into` held before; of NULL it is 0.
    pub(crate) fn hash_into(&self, into: &mut Vec<u64>, hash: impl Fn(&[u8]) -> u64) {
        into.clear();
        match &self.values {
            Values::Fixed { width, bytes, start } if *width > 0 => {
                into.extend(bytes[*start..start + self.rows * width].chunks_exact(*width).map(hash));
            }
            Values::Fixed { .. } => into.resize(self.rows, 0),
            // Each value of a dictionary is hashed once.
            Values::Codes { codes, dictionary } => {
                let known: Vec<u64> = (0..dictionary.len() as u32)
                    .filter_map(|code| dictionary.value(code))
                    .map(|value| hash(dictionary.without_length(value)))
                    .collect();
                into.extend(codes.iter().map(|code| known.get(*code as usize).copied().unwrap_or(0)));
            }
            Values::Prefixed { bytes, offsets } => {
                into.extend(offsets.windows(2).map(|ends| {
                    bytes[ends[0] as usize..ends[1] as usize].get(4..).map_or(0, &hash)
                }));
            }
        }
        if let Some(present) = &self.present {
            for (hash, _) in into.iter_mut().zip(present).filter(|(_, present)| **present == 0) {
                *hash = 0;
            }
        }
    }

    fn is_present(&self, row: usize) -> bool {
        self.present.as_ref().is_none_or(|present| present[row] == 1)
    }
}

impl Dictionary {
    fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    fn without_length<'v>(&self, value: &'v [u8]) -> &'v [u8] {
        match self.shape {
            Some(Shape::Prefixed) => value.get(4..).unwrap_or_default(),
            _ => value,
        }
    }

    /// A plain value, with its length where it has one.
    fn value(&self, code: u32) -> Option<&[u8]> {
        let code = code as usize;
        if code >= self.len() {
            return None;
        }
        Some(&self.bytes[self.offsets[code] as usize..self.offsets[code + 1] as usize])
    }
}

impl Translation {
    fn between(&mut self, old: &Dictionary, new: &Dictionary) {
        self.is_identity = old.offsets == new.offsets && old.bytes == new.bytes;
        if self.is_identity {
            return;
        }
        let known: HashMap<&[u8], u32> =
            (0..new.len() as u32).filter_map(|code| Some((new.value(code)?, code))).collect();
        self.codes.clear();
        self.codes.extend((0..old.len() as u32).map(|code| {
            old.value(code).and_then(|value| known.get(value)).copied().unwrap_or(UNKNOWN_CODE)
        }));
    }

    fn equal_codes(&self, old: &[u32], new: &[u32]) -> usize {
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
        start + old[start..].iter().zip(&new[start..]).take_while(|(old, new)| self.of(**old) == **new).count()
    }

    fn of(&self, code: u32) -> u32 {
        if self.is_identity { code } else { self.codes.get(code as usize).copied().unwrap_or(code) }
    }
}

fn equal_slots(left: &[u8], right: &[u8], width: usize, rows: usize) -> usize {
    if left == right {
        return rows;
    }
    let stride = STRIDE_ROWS * width;
    let strides = left.chunks_exact(stride).zip(right.chunks_exact(stride)).take_while(|(a, b)| a == b).count();
    let start = strides * stride;
    strides * STRIDE_ROWS
        + left[start..]
            .chunks_exact(width)
            .zip(right[start..].chunks_exact(width))
            .take_while(|(a, b)| a == b)
            .count()
}

/// A column while its pages are read.
struct Build {
    reading: Reading,
    /// Rows so far.
    rows: usize,
    /// Decompressed pages. What is before `filled` are plain values, from `start` on.
    bytes: Vec<u8>,
    start: usize,
    filled: usize,
    /// Where each value begins, for values with a length.
    offsets: Vec<u32>,
    /// Codes of the values so far, without those of NULL.
    codes: Vec<u32>,
    dictionary: Dictionary,
    /// Decompressed pages of codes.
    page: Vec<u8>,
    levels: Vec<u32>,
    present: Vec<u8>,
    has_nulls: bool,
}

const PLAIN: i32 = 0;
const PLAIN_DICTIONARY: i32 = 2;
const RLE_DICTIONARY: i32 = 8;

impl Build {
    fn over(used: RawColumn, reading: Reading) -> Self {
        let mut build = Self {
            reading,
            rows: 0,
            bytes: Vec::new(),
            start: 0,
            filled: 0,
            offsets: Vec::new(),
            codes: Vec::new(),
            dictionary: Dictionary::default(),
            page: Vec::new(),
            levels: Vec::new(),
            present: used.present.unwrap_or_default(),
            has_nulls: false,
        };
        match used.values {
            Values::Fixed { bytes, .. } => build.bytes = bytes,
            Values::Prefixed { bytes, offsets } => (build.bytes, build.offsets) = (bytes, offsets),
            Values::Codes { codes, dictionary } => (build.codes, build.dictionary) = (codes, dictionary),
        }
        build.present.clear();
        build.offsets.clear();
        build.codes.clear();
        (build.dictionary.shape, build.dictionary.bytes, build.dictionary.offsets) =
            (None, Vec::new(), Vec::new());
        build
    }

    fn page(
        &mut self,
        header: &PageHeader,
        stored: &[u8],
        decompressor: &mut Decompressor,
    ) -> Result<(), &'static str> {
        match header.kind {
            PageKind::Other => Ok(()),
            PageKind::Dictionary { values } => {
                let mut bytes = vec![0; bounded(header.uncompressed_bytes)?];
                decompressor
                    .decompress(self.reading.codec, stored, &mut bytes)
                    .ok_or("a dictionary cannot be decompressed")?;
                let mut offsets = Vec::with_capacity(values.min(bytes.len()) + 1);
                offsets.push(0);
                measure(&bytes, 0, self.reading.shape, values, &mut offsets)
                    .ok_or("a dictionary has fewer values than it says")?;
                self.dictionary = Dictionary { shape: Some(self.reading.shape), bytes, offsets };
                Ok(())
            }
            PageKind::Data { values, encoding } => {
                self.check_rows(values)?;
                let is_coded = matches!(encoding, PLAIN_DICTIONARY | RLE_DICTIONARY);
                let codec = self.reading.codec;
                self.decompress(is_coded, codec, stored, header.uncompressed_bytes, decompressor)?;
                let page_bytes = header.uncompressed_bytes;
                let mut level_bytes = 0;
                let mut present = values;
                if self.reading.nullable {
                    let page = self.decompressed(is_coded, page_bytes);
                    let length = page.first_chunk::<4>().ok_or("a page ends in its levels")?;
                    level_bytes = 4 + u32::from_le_bytes(*length) as usize;
                    let levels = page.get(4..level_bytes).ok_or("a page ends in its levels")?.to_vec();
                    present = self.levels(&levels, values)?;
                }
                self.values(is_coded, encoding, values, present, level_bytes, page_bytes)
            }
            PageKind::DataV2 { values, encoding, level_bytes, is_compressed } => {
                self.check_rows(values)?;
                let is_coded = matches!(encoding, PLAIN_DICTIONARY | RLE_DICTIONARY);
                let levels = stored.get(..level_bytes).ok_or("a page ends in its levels")?;
                let values_bytes =
                    header.uncompressed_bytes.checked_sub(level_bytes).ok_or("a page's lengths contradict")?;
                let codec = if is_compressed { self.reading.codec } else { Codec::Stored };
                self.decompress(is_coded, codec, &stored[level_bytes..], values_bytes, decompressor)?;
                let present = if self.reading.nullable { self.levels(levels, values)? } else { values };
                self.values(is_coded, encoding, values, present, 0, values_bytes)
            }
        }
    }

    fn check_rows(&self, values: usize) -> Result<(), &'static str> {
        if values == 0 || values > self.reading.rows - self.rows {
            return Err("its pages have other numbers of rows than its footer says");
        }
        Ok(())
    }

    /// Decompresses a page: behind the plain values so far, or into a place of its own if it holds codes.
    fn decompress(
        &mut self,
        is_coded: bool,
        codec: Codec,
        stored: &[u8],
        length: usize,
        decompressor: &mut Decompressor,
    ) -> Result<(), &'static str> {
        bounded(length)?;
        let into = if is_coded {
            grow(&mut self.page, length);
            &mut self.page[..length]
        } else {
            let end = self.filled.checked_add(length).ok_or("a page is too long")?;
            bounded(end)?;
            grow(&mut self.bytes, end);
            &mut self.bytes[self.filled..end]
        };
        // A page without values may be stored as nothing at all.
        if length == 0 {
            return Ok(());
        }
        decompressor.decompress(codec, stored, into).ok_or("a page cannot be decompressed")
    }

    fn decompressed(&self, is_coded: bool, length: usize) -> &[u8] {
        if is_coded { &self.page[..length] } else { &self.bytes[self.filled..self.filled + length] }
    }

    /// Takes in which of the next rows have a value, and says how many.
    fn levels(&mut self, levels: &[u8], rows: usize) -> Result<usize, &'static str> {
        let before = self.rows;
        if hybrid::is_all_ones(levels, rows) {
            if self.has_nulls {
                self.present.resize(before + rows, 1);
            }
            return Ok(rows);
        }
        if !self.has_nulls {
            self.has_nulls = true;
            self.present.clear();
            self.present.resize(before, 1);
        }
        self.levels.clear();
        hybrid::decode(levels, 1, rows, &mut self.levels).ok_or("a page's levels are damaged")?;
        self.present.extend(self.levels.iter().map(|level| *level as u8));
        Ok(self.levels.iter().map(|level| *level as usize).sum())
    }

    fn values(
        &mut self,
        is_coded: bool,
        encoding: i32,
        rows: usize,
        present: usize,
        skip: usize,
        page_bytes: usize,
    ) -> Result<(), &'static str> {
        self.rows += rows;
        if is_coded {
            if present == 0 {
                return Ok(());
            }
            let page = &self.page[skip..page_bytes];
            let (width, packed) = page.split_first().ok_or("a page ends before its codes")?;
            let first = self.codes.len();
            hybrid::decode(packed, u32::from(*width), present, &mut self.codes)
                .ok_or("a page's codes are damaged")?;
            let known = self.dictionary.len() as u32;
            if self.codes[first..].iter().fold(0, |most, code| most.max(*code)) >= known {
                return Err("a code is not in its dictionary");
            }
            if self.filled > self.start {
                // Codes behind plain values: no writer does it, and nothing forbids it.
                self.bytes.truncate(self.filled);
                self.write_out_codes();
                self.filled = self.bytes.len();
            }
            return Ok(());
        }
        if encoding != PLAIN {
            return Err("a page has an encoding that its footer does not name");
        }
        if !self.codes.is_empty() {
            self.spell_out();
        }
        let values = self.filled + skip;
        let end = self.filled + page_bytes;
        if self.offsets.is_empty() {
            self.offsets.push(0);
        }
        match self.reading.shape {
            Shape::Fixed(width) => {
                let length = present.checked_mul(width).filter(|length| values + length <= end);
                let length = length.ok_or("a page has fewer values than it says")?;
                self.append(values, length);
            }
            Shape::Prefixed => {
                let from = self.offsets.len() - 1;
                measure(&self.bytes[..end], values, Shape::Prefixed, present, &mut self.offsets)
                    .ok_or("a page has fewer values than it says")?;
                let page_end = *self.offsets.last().unwrap_or(&0) as usize;
                let length = if present == 0 { 0 } else { page_end - values };
                let at = self.append(values, length);
                // Offsets were measured where the page was; they are where it has gone now.
                let moved = (values - at) as u32;
                self.offsets[from] = at as u32;
                if moved > 0 {
                    self.offsets[from + 1..].iter_mut().for_each(|offset| *offset -= moved);
                }
            }
        }
        Ok(())
    }

    /// Takes in plain values that lie behind those so far, and says where they are then.
    fn append(&mut self, values: usize, length: usize) -> usize {
        if self.filled == self.start {
            // The first page stays where it is.
            (self.start, self.filled) = (values, values + length);
            return values;
        }
        let at = self.filled;
        self.bytes.copy_within(values..values + length, at);
        self.filled += length;
        at
    }

    /// The codes so far as plain values: a writer gives a dictionary up when it grows too large. The page that was just
    /// decompressed is kept behind them.
    fn spell_out(&mut self) {
        let page = self.bytes.split_off(self.filled);
        self.bytes.clear();
        self.offsets.clear();
        self.offsets.push(0);
        self.write_out_codes();
        (self.start, self.filled) = (0, self.bytes.len());
        self.bytes.extend_from_slice(&page);
    }

    fn write_out_codes(&mut self) {
        for code in self.codes.drain(..) {
            self.bytes.extend_from_slice(self.dictionary.value(code).unwrap_or_default());
            self.offsets.push(self.bytes.len() as u32);
        }
    }

    fn finish(mut self) -> Result<RawColumn, &'static str> {
        let rows = self.rows;
        let nulls = self.has_nulls.then(|| std::mem::take(&mut self.present));
        let is_coded = !self.codes.is_empty();
        let values = match (is_coded, self.reading.shape) {
            (true, _) => {
                let codes = match &nulls {
                    None => self.codes,
                    Some(present) => spread(present, &self.codes, NULL_CODE),
                };
                Values::Codes { codes, dictionary: self.dictionary }
            }
            (false, Shape::Fixed(width)) => match &nulls {
                None => Values::Fixed { width, bytes: self.bytes, start: self.start },
                Some(present) => {
                    let mut dense = self.bytes[self.start..self.filled].chunks_exact(width);
                    let mut bytes = vec![0; rows * width];
                    for (slot, present) in bytes.chunks_exact_mut(width).zip(present) {
                        if *present == 1 {
                            slot.copy_from_slice(dense.next().ok_or("it has fewer values than it says")?);
                        }
                    }
                    Values::Fixed { width, bytes, start: 0 }
                }
            },
            (false, Shape::Prefixed) => {
                if self.offsets.is_empty() {
                    self.offsets.push(0);
                }
                let offsets = match &nulls {
                    None => self.offsets,
                    Some(present) => {
                        let mut at = 0;
                        let mut spread = Vec::with_capacity(rows + 1);
                        spread.push(self.offsets[0]);
                        for present in present {
                            at += usize::from(*present == 1);
                            spread.push(*self.offsets.get(at).ok_or("it has fewer values than it says")?);
                        }
                        spread
                    }
                };
                Values::Prefixed { bytes: self.bytes, offsets }
            }
        };
        let column = RawColumn { rows, values, present: nulls };
        if column.is_whole() { Ok(column) } else { Err("it has fewer values than it says") }
    }
}

impl RawColumn {
    fn is_whole(&self) -> bool {
        match &self.values {
            Values::Fixed { width, bytes, start } => bytes.len() >= start + self.rows * width,
            Values::Prefixed { offsets, .. } => offsets.len() == self.rows + 1,
            Values::Codes { codes, .. } => codes.len() == self.rows,
        }
    }
}

/// A number per row, out of a number per value.
fn spread(present: &[u8], dense: &[u32], null: u32) -> Vec<u32> {
    let mut dense = dense.iter();
    present
        .iter()
        .map(|present| if *present == 1 { dense.next().copied().unwrap_or(null) } else { null })
        .collect()
}

/// Appends where each of `count` values that begin at `at` ends. Nothing if there are fewer.
fn measure(bytes: &[u8], at: usize, shape: Shape, count: usize, offsets: &mut Vec<u32>) -> Option<()> {
    let mut at = at;
    match shape {
        Shape::Fixed(width) => {
            if count.checked_mul(width)?.checked_add(at)? > bytes.len() {
                return None;
            }
            offsets.extend((1..=count).map(|value| (at + value * width) as u32));
        }
        Shape::Prefixed => {
            offsets.reserve(count.min(bytes.len() / 4));
            for _ in 0..count {
                let prefix: [u8; 4] = bytes.get(at..)?.first_chunk().copied()?;
                at = at.checked_add(4)?.checked_add(u32::from_le_bytes(prefix) as usize)?;
                if at > bytes.len() {
                    return None;
                }
                offsets.push(at as u32);
            }
        }
    }
    Some(())
}

/// Offsets have 32 bits, and Parquet's own lengths 31: no column chunk's pages are longer than this.
const CHUNK_BYTES_MAX: usize = i32::MAX as usize;

fn bounded(length: usize) -> Result<usize, &'static str> {
    if length <= CHUNK_BYTES_MAX { Ok(length) } else { Err("its pages are longer than pages can be") }
}

/// Makes room. What was there stays, so that memory that is used again is not cleared first.
fn grow(buffer: &mut Vec<u8>, length: usize) {
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
}
