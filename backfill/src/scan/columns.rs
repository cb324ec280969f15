//! Columns of aligned rows, compared.

use arrow::datatypes::DataType;

use super::dumps::DumpPair;
use super::merge::Segment;
use super::sums::BlockSums;
use super::value_hash::{Numbers, ValueHash};
use crate::error::{Error, Result};
use crate::foreign::{ColumnChunk, Decompressor, ForeignFile, RawColumn, Reading, Shape, Translation};
use crate::row_hash::column_hashes;

/// Rows whose hashes are made at a time: few enough that hashes and sums stay in the processor's nearest cache.
pub(super) const BLOCK_ROWS: usize = 512;

/// Columns of a row group that are held together, in bytes of their values: enough for all of a usual table's.
const HELD_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Pages of a column that are read together, in bytes: where pages are small, enough that little time is spent on anything but them;
/// and few enough that both sides' are in the processor's cache when they are compared. Tests read each page by itself, so that small
/// tables take many turns.
pub(super) const PAGES_BYTES_MIN: usize = if cfg!(test) { 1 } else { 512 * 1024 };

/// The columns outside the key, and how each is compared.
pub(super) struct Columns<'a> {
    pair: &'a DumpPair<'a>,
    columns: Vec<Column>,
}

struct Column {
    name: String,
    /// Its place among the columns that are compared.
    position: usize,
    way: Way,
}

/// How a column is compared.
enum Way {
    /// As the bytes that its values are, read in this way from each file of old and of new.
    Raw { readings: [Vec<Reading>; 2], numbers: Numbers },
    /// By the hash of each value: nested columns, types that differ, encodings that are not read here.
    Hashed,
}

/// A column that differs in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Differing {
    pub(super) segment: usize,
    pub(super) run: usize,
    pub(super) offset: usize,
    pub(super) column: usize,
}

impl<'a> Columns<'a> {
    pub(super) fn of(pair: &'a DumpPair<'a>) -> Self {
        let columns = pair
            .values
            .iter()
            .enumerate()
            .map(|(position, name)| Column { name: name.clone(), position, way: way(pair, name) })
            .collect();
        Self { pair, columns }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.columns.len()
    }

    /// Gives out the hashes of all columns' values in a row group: a column's position, the first row, and the hashes of
    /// some rows from it on, of one column after the other. Values that are equal on both sides hash alike.
    pub(super) fn hashes(
        &self,
        side: usize,
        group: usize,
        scratch: &mut Scratch,
        found: &mut dyn FnMut(usize, usize, &[u64]),
    ) -> Result<()> {
        let rows = self.pair.sides()[side].groups()[group].rows as usize;
        let mut rest = self.columns.as_slice();
        while !rest.is_empty() {
            let (columns, later) = rest.split_at(self.hold(rest, side, group, scratch)?);
            rest = later;
            let mut hashes = [0; BLOCK_ROWS];
            for start in (0..rows).step_by(BLOCK_ROWS) {
                let hashes = &mut hashes[..BLOCK_ROWS.min(rows - start)];
                for (column, held) in columns.iter().zip(&scratch.held) {
                    held.column.hash_rows(start, &held.known, &column.hash(), hashes);
                    found(column.position, start, hashes);
                }
            }
        }
        Ok(())
    }

    /// Gives out the sums over these hashes: the first row, and the two sums of some rows from it on.
    pub(super) fn sums(
        &self,
        side: usize,
        group: usize,
        scratch: &mut Scratch,
        found: &mut dyn FnMut(usize, &[[u64; 2]]),
    ) -> Result<()> {
        let rows = self.pair.sides()[side].groups()[group].rows as usize;
        let mut sums = std::mem::take(&mut scratch.sums);
        let mut rest = self.columns.as_slice();
        let mut is_begun = false;
        while !rest.is_empty() {
            let (columns, later) = rest.split_at(self.hold(rest, side, group, scratch)?);
            rest = later;
            let mut hashes = [0; BLOCK_ROWS];
            for (block, start) in (0..rows).step_by(BLOCK_ROWS).enumerate() {
                // Where all columns are held, one block's sums after the other are made in the same place.
                let place = if is_begun || !rest.is_empty() { block } else { 0 };
                if sums.len() == place {
                    sums.push(BlockSums::default());
                }
                let sums = &mut sums[place];
                if !is_begun {
                    sums.clear();
                }
                let hashes = &mut hashes[..BLOCK_ROWS.min(rows - start)];
                for (column, held) in columns.iter().zip(&scratch.held) {
                    held.column.hash_rows(start, &held.known, &column.hash(), hashes);
                    sums.add(hashes);
                }
                if rest.is_empty() {
                    found(start, &sums.all()[..hashes.len()]);
                }
            }
            is_begun = true;
        }
        scratch.sums = sums;
        Ok(())
    }

    /// Reads as many of these columns as may be held, and one at least, and says how many.
    fn hold(&self, columns: &[Column], side: usize, group: usize, scratch: &mut Scratch) -> Result<usize> {
        let table = self.pair.sides()[side];
        let (file, index) = (table.file(group), table.groups()[group].index);
        let mut held_bytes = 0;
        for (count, column) in columns.iter().enumerate() {
            held_bytes += file.field(&column.name).map_or(0, |(root, _)| file.column_bytes(index, root));
            if count > 0 && held_bytes > HELD_BYTES_MAX {
                return Ok(count);
            }
            if scratch.held.len() == count {
                scratch.held.push(HeldColumn::default());
            }
            let held = &mut scratch.held[count];
            self.read(column, side, group, &mut scratch.decompressor, &mut held.column)?;
            held.column.hash_dictionary(&column.hash(), &mut held.known);
        }
        Ok(columns.len())
    }

    /// Which columns of the segments' aligned rows differ, in order of the rows.
    pub(super) fn differing(
        &self,
        segments: &[Segment],
        decompressor: &mut Decompressor,
    ) -> Result<Vec<Differing>> {
        let mut differing = Vec::new();
        // Each column in turn is read into the same memory.
        let mut sides = [Held::default(), Held::default()];
        for column in &self.columns {
            self.compare(column, segments, decompressor, &mut sides, &mut differing)?;
        }
        differing.sort_unstable();
        Ok(differing)
    }

    fn compare(
        &self,
        column: &Column,
        segments: &[Segment],
        decompressor: &mut Decompressor,
        sides: &mut [Held; 2],
        differing: &mut Vec<Differing>,
    ) -> Result<()> {
        sides.iter_mut().for_each(Held::forget);
        let mut translation = Translation::default();
        for (segment, found) in segments.iter().enumerate() {
            for (run, aligned) in found.aligned.iter().enumerate() {
                let mut offset = 0;
                while offset < aligned.rows {
                    let rows = [aligned.old_row, aligned.new_row].map(|row| row + offset as u64);
                    self.hold_rows(column, rows, decompressor, sides, &mut translation)?;
                    let [(old, old_at), (new, new_at)] = [sides[0].at(rows[0]), sides[1].at(rows[1])];
                    let both = (aligned.rows - offset).min(old.rows() - old_at).min(new.rows() - new_at);
                    let equal = old.equal_rows(old_at, new, new_at, both, &translation);
                    offset += equal;
                    if equal < both {
                        let values = (old.value(old_at + equal), new.value(new_at + equal));
                        if !column.way.is_equal(values) {
                            differing.push(Differing { segment, run, offset, column: column.position });
                        }
                        offset += 1;
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes both sides hold the pages that these rows of theirs are in, in a form in which they can be compared.
    fn hold_rows(
        &self,
        column: &Column,
        rows: [u64; 2],
        decompressor: &mut Decompressor,
        sides: &mut [Held; 2],
        translation: &mut Translation,
    ) -> Result<()> {
        let mut is_new = false;
        for (side, row) in rows.into_iter().enumerate() {
            let held = &mut sides[side];
            if held.holds(row) {
                continue;
            }
            is_new = true;
            let table = self.pair.sides()[side];
            let group = table.at_row(row);
            let first_row = table.groups()[group].first_row;
            if held.group != Some(group) {
                translation.forget();
                held.forget();
                held.chunk = self.chunk(column, side, group, std::mem::take(&mut held.stored))?;
                held.group = Some(group);
            }
            let (file, index) = (table.file(group), table.groups()[group].index);
            held.first_row = first_row;
            match &mut held.chunk {
                Some((root, chunk)) => {
                    let within = (row - first_row) as usize;
                    let first = chunk.read_some(within, PAGES_BYTES_MIN, decompressor, &mut held.column);
                    held.first_row += first.map_err(|fault| file.chunk_error(index, *root, fault))? as u64;
                }
                None => self.read(column, side, group, decompressor, &mut held.column)?,
            }
        }
        if is_new {
            let [old, new] = sides;
            let aligned = RawColumn::align(&mut old.column, &mut new.column, translation);
            if let Err((side, detail)) = aligned {
                let table = self.pair.sides()[side];
                let group = table.at_row(rows[side]);
                let (file, index) = (table.file(group), table.groups()[group].index);
                return Err(file.chunk_error(index, root(file, column)?, detail.into()));
            }
        }
        Ok(())
    }

    /// The pages of a column in a row group, where they are read some at a time; and its place in the file.
    fn chunk(
        &self,
        column: &Column,
        side: usize,
        group: usize,
        stored: Vec<u8>,
    ) -> Result<Option<(usize, ColumnChunk)>> {
        let Way::Raw { readings, .. } = &column.way else { return Ok(None) };
        let table = self.pair.sides()[side];
        let (file, found) = (table.file(group), &table.groups()[group]);
        let root = root(file, column)?;
        Ok(Some((root, file.column_chunk(found.index, root, readings[side][found.file], stored)?)))
    }

    fn read(
        &self,
        column: &Column,
        side: usize,
        group: usize,
        decompressor: &mut Decompressor,
        into: &mut RawColumn,
    ) -> Result<()> {
        let table = self.pair.sides()[side];
        let (file, found) = (table.file(group), &table.groups()[group]);
        let root = root(file, column)?;
        match &column.way {
            Way::Raw { readings, .. } => {
                file.raw_column(found.index, root, readings[side][found.file], decompressor, into)
            }
            Way::Hashed => {
                for array in file.arrays(found.index, &[root])? {
                    *into = RawColumn::of_hashes(&column_hashes(&array, column.position, &column.name)?);
                }
                Ok(())
            }
        }
    }
}

/// What a thread reads columns with, over the same memory from row group to row group.
#[derive(Default)]
pub(super) struct Scratch {
    decompressor: Decompressor,
    held: Vec<HeldColumn>,
    sums: Vec<BlockSums>,
}

/// A column of a row group, and the hashes of its dictionary.
#[derive(Default)]
struct HeldColumn {
    column: RawColumn,
    known: Vec<u64>,
}

impl Column {
    fn hash(&self) -> ValueHash {
        let numbers = match self.way {
            Way::Raw { numbers, .. } => numbers,
            Way::Hashed => Numbers::Bytes,
        };
        ValueHash::new(self.position, numbers)
    }
}

/// A column's place in a file.
fn root(file: &ForeignFile, column: &Column) -> Result<usize> {
    file.field(&column.name).map(|(root, _)| root).ok_or_else(|| {
        let detail = format!("it has no column {}", column.name);
        Error::DumpColumns { path: file.path().to_owned(), detail }
    })
}

/// One side's pages of the column in hand.
#[derive(Default)]
struct Held {
    group: Option<usize>,
    /// The row group's pages; nothing where it is read as a whole.
    chunk: Option<(usize, ColumnChunk)>,
    /// The first row of the table that is held.
    first_row: u64,
    column: RawColumn,
    /// Memory for stored pages, while no row group has it.
    stored: Vec<u8>,
}

impl Held {
    /// Holds nothing but the memory.
    fn forget(&mut self) {
        let stored = self.chunk.take().map(|(_, chunk)| chunk.into_stored());
        *self = Self {
            column: std::mem::take(&mut self.column),
            stored: stored.unwrap_or_else(|| std::mem::take(&mut self.stored)),
            ..Self::default()
        };
    }

    fn holds(&self, row: u64) -> bool {
        let rows = self.first_row..self.first_row + self.column.rows() as u64;
        self.group.is_some() && rows.contains(&row)
    }

    /// What is held, and where in it a row of the table is.
    fn at(&self, row: u64) -> (&RawColumn, usize) {
        (&self.column, (row - self.first_row) as usize)
    }
}

impl Way {
    /// Whether two values whose bytes differ are equal all the same: both zeros are, and all that is no number.
    fn is_equal(&self, values: (Option<&[u8]>, Option<&[u8]>)) -> bool {
        let (Some(old), Some(new)) = values else { return false };
        match (self.number(old), self.number(new)) {
            (Some(old), Some(new)) => old == new || (old.is_nan() && new.is_nan()),
            _ => false,
        }
    }

    /// The number that bytes are, where equal numbers may have other bytes.
    fn number(&self, bytes: &[u8]) -> Option<f64> {
        match self {
            Self::Raw { numbers: Numbers::Float32, .. } => {
                bytes.first_chunk().map(|bytes| f64::from(f32::from_le_bytes(*bytes)))
            }
            Self::Raw { numbers: Numbers::Float64, .. } => {
                bytes.first_chunk().map(|bytes| f64::from_le_bytes(*bytes))
            }
            Self::Raw { numbers: Numbers::Bytes, .. } | Self::Hashed => None,
        }
    }
}

/// Bytes are compared where equal bytes are equal values on both sides, and unequal ones unequal.
fn way(pair: &DumpPair<'_>, name: &str) -> Way {
    let mut shape = None;
    let mut readings = [Vec::new(), Vec::new()];
    for (side, table) in pair.sides().into_iter().enumerate() {
        for file in table.files() {
            let Some(reading) = file.field(name).and_then(|(root, _)| file.reading(root)) else {
                return Way::Hashed;
            };
            if *shape.get_or_insert(reading.shape) != reading.shape {
                return Way::Hashed;
            }
            readings[side].push(reading);
        }
    }
    let [Some(old), Some(new)] = pair.sides().map(|table| {
        let field = table.schema().field_with_name(name).ok()?;
        Some(plain_type(field.data_type()).clone())
    }) else {
        return Way::Hashed;
    };
    let is_prefixed = shape == Some(Shape::Prefixed);
    let is_text = |data_type: &DataType| data_type.is_string();
    let is_bytes = |data_type: &DataType| {
        matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
    };
    let is_number = |data_type: &DataType| {
        (data_type.is_integer() || data_type.is_temporal() || data_type.is_decimal())
            && !matches!(data_type, DataType::Interval(_) | DataType::Duration(_))
    };
    let numbers = match (&old, &new) {
        (DataType::Float32, DataType::Float32) => Numbers::Float32,
        (DataType::Float64, DataType::Float64) => Numbers::Float64,
        (old, new) if is_prefixed && is_text(old) && is_text(new) => Numbers::Bytes,
        (old, new) if is_prefixed && is_bytes(old) && is_bytes(new) => Numbers::Bytes,
        (DataType::FixedSizeBinary(_), DataType::FixedSizeBinary(_)) if old == new => Numbers::Bytes,
        (old, new) if !is_prefixed && old == new && is_number(old) => Numbers::Bytes,
        (old, new) if !is_prefixed && old.is_signed_integer() && new.is_signed_integer() => Numbers::Bytes,
        _ => return Way::Hashed,
    };
    Way::Raw { readings, numbers }
}

fn plain_type(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, values) => plain_type(values),
        other => other,
    }
}
