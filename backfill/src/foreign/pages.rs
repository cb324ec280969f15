//! Pages of a column chunk become a column, over the memory of the one before.

use super::column::{Form, NULL_CODE, RawColumn, Reading, STRIDE_ROWS, Shape};
use super::decompress::{Codec, Decompressor};
use super::dictionary::Dictionary;
use super::hybrid;
use super::page_header::{PageHeader, PageKind};

/// A column while its pages are read.
pub(super) struct Build {
    reading: Reading,
    /// Rows so far.
    pub(super) rows: usize,
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
    /// A column to be read over what another held, with a place for decompressed codes. Unless its pages are a chunk's first, the other
    /// had the pages before it, whose dictionary is its own.
    pub(super) fn over(used: RawColumn, page: Vec<u8>, reading: Reading, is_first: bool) -> Self {
        let mut build = Self {
            reading,
            rows: 0,
            bytes: used.bytes,
            start: 0,
            filled: 0,
            offsets: used.offsets,
            codes: used.codes,
            dictionary: used.dictionary,
            page,
            levels: Vec::new(),
            present: used.present.unwrap_or_default(),
            has_nulls: false,
        };
        build.present.clear();
        build.offsets.clear();
        build.codes.clear();
        if is_first {
            build.dictionary.shape = None;
            build.dictionary.offsets.clear();
        }
        build
    }

    pub(super) fn page(
        &mut self,
        header: &PageHeader,
        stored: &[u8],
        decompressor: &mut Decompressor,
    ) -> Result<(), &'static str> {
        match header.kind {
            PageKind::Other => Ok(()),
            PageKind::Dictionary { values } => {
                let length = bounded(header.uncompressed_bytes)?;
                let Dictionary { shape, bytes, offsets } = &mut self.dictionary;
                grow(bytes, length);
                bytes.truncate(length);
                decompressor
                    .decompress(self.reading.codec, stored, bytes)
                    .ok_or("a dictionary cannot be decompressed")?;
                offsets.clear();
                offsets.reserve(values.min(length) + 1);
                offsets.push(0);
                measure(bytes, 0, self.reading.shape, values, offsets)
                    .ok_or("a dictionary has fewer values than it says")?;
                *shape = Some(self.reading.shape);
                Ok(())
            }
            PageKind::Data { values, encoding } => {
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
                let is_coded = matches!(encoding, PLAIN_DICTIONARY | RLE_DICTIONARY);
                let levels = stored.get(..level_bytes).ok_or("a page ends in its levels")?;
                let values_bytes = header
                    .uncompressed_bytes
                    .checked_sub(level_bytes)
                    .ok_or("a page's lengths contradict")?;
                let codec = if is_compressed { self.reading.codec } else { Codec::Stored };
                self.decompress(is_coded, codec, &stored[level_bytes..], values_bytes, decompressor)?;
                let present = if self.reading.nullable { self.levels(levels, values)? } else { values };
                self.values(is_coded, encoding, values, present, 0, values_bytes)
            }
        }
    }

    /// How many bytes the values so far take, also where they are to be written out.
    pub(super) fn held_bytes(&self) -> usize {
        let value_bytes = self.dictionary.bytes.len() / self.dictionary.len().max(1);
        self.filled + self.codes.len() * value_bytes.max(size_of::<u32>())
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
                self.filled = self.write_out_codes(self.filled)?;
            }
            return Ok(());
        }
        if encoding != PLAIN {
            return Err("a page has an encoding that its footer does not name");
        }
        if !self.codes.is_empty() {
            self.spell_out(page_bytes)?;
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
    /// decompressed, where plain values begin, is moved behind them.
    fn spell_out(&mut self, page_bytes: usize) -> Result<(), &'static str> {
        let length = self.dictionary.spelled_bytes(&self.codes);
        let end = length.checked_add(page_bytes).ok_or("a page is too long")?;
        bounded(end)?;
        grow(&mut self.bytes, end);
        self.bytes.copy_within(self.filled..self.filled + page_bytes, length);
        self.offsets.clear();
        (self.start, self.filled) = (0, self.write_out_codes(0)?);
        Ok(())
    }

    /// Writes the codes so far out as plain values from `at` on, and says where they end.
    fn write_out_codes(&mut self, at: usize) -> Result<usize, &'static str> {
        // Where the first begins is where the last one before it ends.
        self.offsets.pop();
        let end = self.dictionary.spell(&self.codes, at, &mut self.bytes, &mut self.offsets)?;
        self.codes.clear();
        Ok(end)
    }

    /// The column, and the place that codes were decompressed to.
    pub(super) fn finish(mut self) -> Result<(RawColumn, Vec<u8>), &'static str> {
        let rows = self.rows;
        let nulls = self.has_nulls.then(|| std::mem::take(&mut self.present));
        let is_coded = !self.codes.is_empty();
        let form = match (is_coded, self.reading.shape) {
            (true, _) => {
                if let Some(present) = &nulls {
                    self.codes = spread(present, &self.codes, NULL_CODE);
                }
                Form::Codes
            }
            (false, Shape::Fixed(width)) => match &nulls {
                None => Form::Fixed { width, start: self.start },
                Some(present) => {
                    let mut dense = self.bytes[self.start..self.filled].chunks_exact(width);
                    let mut bytes = vec![0; rows * width];
                    for (slot, present) in bytes.chunks_exact_mut(width).zip(present) {
                        if *present == 1 {
                            slot.copy_from_slice(dense.next().ok_or("it has fewer values than it says")?);
                        }
                    }
                    self.bytes = bytes;
                    Form::Fixed { width, start: 0 }
                }
            },
            (false, Shape::Prefixed) => {
                if self.offsets.is_empty() {
                    self.offsets.push(0);
                }
                if let Some(present) = &nulls {
                    let mut at = 0;
                    let mut spread = Vec::with_capacity(rows + 1);
                    spread.push(self.offsets[0]);
                    for present in present {
                        at += usize::from(*present == 1);
                        spread.push(*self.offsets.get(at).ok_or("it has fewer values than it says")?);
                    }
                    self.offsets = spread;
                }
                Form::Prefixed
            }
        };
        let Self { bytes, offsets, codes, dictionary, .. } = self;
        let column = RawColumn { rows, form, bytes, offsets, codes, dictionary, present: nulls };
        if column.is_whole() { Ok((column, self.page)) } else { Err("it has fewer values than it says") }
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
            // Each takes four bytes at least: no room is made for more than there can be.
            if count > bytes.len().saturating_sub(at) / 4 {
                return None;
            }
            let first = offsets.len();
            offsets.resize(first + count, 0);
            let (strides, rest) = offsets[first..].as_chunks_mut::<STRIDE_ROWS>();
            for stride in strides {
                at = measure_stride(bytes, at, stride)?;
            }
            for offset in rest {
                at = value_end(bytes, at)?;
                *offset = at as u32;
            }
        }
    }
    Some(())
}

/// Finds out where values end that follow one another from `at` on, and says where the last does.
///
/// Many columns' values are all as long as one another (identifiers, dates, codes), and then none has to wait for the length of
/// the one before.
fn measure_stride(bytes: &[u8], at: usize, offsets: &mut [u32; STRIDE_ROWS]) -> Option<usize> {
    let end = value_end(bytes, at)?;
    let step = end - at;
    let all = step.checked_mul(STRIDE_ROWS).and_then(|length| bytes.get(at..at.checked_add(length)?));
    if let Some(values) = all {
        let prefix = &values[..4];
        if values.chunks_exact(step).fold(true, |equal, value| equal & (&value[..4] == prefix)) {
            offsets.iter_mut().zip(1..).for_each(|(offset, value)| *offset = (at + value * step) as u32);
            return Some(at + values.len());
        }
    }
    let mut at = at;
    for offset in offsets {
        at = value_end(bytes, at)?;
        *offset = at as u32;
    }
    Some(at)
}

/// Where the value that begins at `at` with its length ends.
fn value_end(bytes: &[u8], at: usize) -> Option<usize> {
    let prefix = bytes.get(at..)?.first_chunk::<4>()?;
    let end = at.checked_add(4)?.checked_add(u32::from_le_bytes(*prefix) as usize)?;
    (end <= bytes.len()).then_some(end)
}

/// Offsets have 32 bits, and Parquet's own lengths 31: no column chunk's pages are longer than this.
const CHUNK_BYTES_MAX: usize = i32::MAX as usize;

pub(super) fn bounded(length: usize) -> Result<usize, &'static str> {
    if length <= CHUNK_BYTES_MAX { Ok(length) } else { Err("its pages are longer than pages can be") }
}

/// Makes room. What was there stays, so that memory that is used again is not cleared first.
pub(super) fn grow(buffer: &mut Vec<u8>, length: usize) {
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
}
