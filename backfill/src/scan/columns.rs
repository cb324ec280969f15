//! Columns of aligned rows, compared.

use arrow::datatypes::DataType;

use super::dumps::DumpPair;
use super::merge::Segment;
use super::sums::BlockSums;
use super::value_hash::{Numbers, ValueHash};
use crate::error::{Error, Result};
use crate::foreign::{Decompressor, ForeignTable, RawColumn, Reading, Shape, Translation};
use crate::row_hash::column_hashes;

/// Rows whose hashes are made at a time: few enough that hashes and sums stay in the processor's nearest cache.
pub(super) const BLOCK_ROWS: usize = 512;

/// Columns of a row group that are held together, in bytes of their values: enough for all of a usual table's.
const HELD_BYTES_MAX: u64 = 32 * 1024 * 1024;

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
        sides.iter_mut().for_each(|side| side.group = None);
        let mut translation = Translation::default();
        for (segment, found) in segments.iter().enumerate() {
            let Some(first) = found.aligned.first() else { continue };
            let mut is_new = false;
            for (side, (table, row)) in
                self.pair.sides().into_iter().zip([first.old_row, first.new_row]).enumerate()
            {
                let group = table.at_row(row);
                if sides[side].group != Some(group) {
                    self.read(column, side, group, decompressor, &mut sides[side].column)?;
                    sides[side].group = Some(group);
                    is_new = true;
                }
            }
            let [old, new] = sides;
            if is_new {
                RawColumn::align(&mut old.column, &mut new.column, &mut translation);
            }
            let start = |table: &ForeignTable, group: Option<usize>| {
                group.map_or(0, |group| table.groups()[group].first_row)
            };
            let (old_start, new_start) = (start(&self.pair.old, old.group), start(&self.pair.new, new.group));
            for (run, aligned) in found.aligned.iter().enumerate() {
                let (old_at, new_at) =
                    ((aligned.old_row - old_start) as usize, (aligned.new_row - new_start) as usize);
                let mut offset = 0;
                loop {
                    let rest = aligned.rows - offset;
                    offset += old.column.equal_rows(
                        old_at + offset,
                        &new.column,
                        new_at + offset,
                        rest,
                        &translation,
                    );
                    if offset >= aligned.rows {
                        break;
                    }
                    let values = (old.column.value(old_at + offset), new.column.value(new_at + offset));
                    if !column.way.is_equal(values) {
                        differing.push(Differing { segment, run, offset, column: column.position });
                    }
                    offset += 1;
                }
            }
        }
        Ok(())
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
        let Some((root, _)) = file.field(&column.name) else {
            let detail = format!("it has no column {}", column.name);
            return Err(Error::DumpColumns { path: file.path().to_owned(), detail });
        };
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

/// One side's row group of the column in hand.
#[derive(Default)]
struct Held {
    group: Option<usize>,
    column: RawColumn,
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
