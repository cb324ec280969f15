//! Keys that are numbers close together: where they lie, and a bit for each number that says which of them a side has.

use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::cast::AsArray;
use arrow::array::types::{Int64Type, UInt64Type};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use super::Scan;
use super::key_code::is_number;
use super::memory::Memory;
use crate::error::Result;
use crate::findings::FindingKind;
use crate::scan::dumps::DumpPair;
use crate::scan::ordered::keys;
use crate::scan::rows::findings_rows;

/// Bits for each row at most: above it, keys are so far apart that a bit for each number costs more than partitions.
const BITS_PER_ROW_MAX: u64 = 64;

/// Findings that are written at a time.
const FINDINGS_MAX: usize = 8 * 1024;

/// The smallest key of both sides as an id, and how many numbers there are from it to the largest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) first: u64,
    pub(super) numbers: u64,
}

impl Bounds {
    /// Where keys lie by the files' footers, if they are numbers close together.
    pub(super) fn of(pair: &DumpPair<'_>) -> Option<Self> {
        let ([name], [key_type]) = (pair.dumps.key.as_slice(), pair.key_types.as_slice()) else {
            return None;
        };
        if !is_number(key_type) {
            return None;
        }
        let (mut first, mut last) = (u64::MAX, 0);
        for table in pair.sides() {
            for (low, high) in table.key_bounds(name, key_type)? {
                let ids = |array| ids_of(array, key_type);
                first = first.min(ids(&low)?.into_iter().min()?);
                last = last.max(ids(&high)?.into_iter().max()?);
            }
        }
        let numbers = last.checked_sub(first)?.checked_add(1)?;
        let is_dense = numbers / BITS_PER_ROW_MAX <= pair.rows().max(1024);
        is_dense.then_some(Self { first, numbers })
    }

    /// How many words have a bit for each number.
    pub(super) fn words(&self) -> u64 {
        self.numbers.div_ceil(64)
    }

    /// Puts the numbers of a row group's keys, counted from the first, in place of what is in `into`.
    pub(super) fn numbers_of(
        &self,
        scan: &Scan<'_>,
        side: usize,
        group: usize,
        into: &mut Vec<u64>,
    ) -> Result<()> {
        let table = scan.pair.sides()[side];
        keys(table, group, &scan.pair.dumps.key, &scan.pair.key_types)?.numbers(self.first, into);
        // All bits together are at least as large as the largest, and are found out in no time.
        let is_within = into.iter().fold(0, |bits, number| bits | number) < self.numbers
            || into.iter().all(|number| *number < self.numbers);
        if is_within {
            return Ok(());
        }
        let detail = "it has keys outside the bounds that its footer gives".to_owned();
        Err(table.file(group).corrupt(table.groups()[group].index, detail))
    }
}

fn ids_of(array: &ArrayRef, key_type: &DataType) -> Option<Vec<u64>> {
    if *key_type == DataType::UInt64 {
        return Some(array.as_primitive::<UInt64Type>().values().to_vec());
    }
    let numbers = cast(array, &DataType::Int64).ok()?;
    Some(
        numbers
            .as_primitive::<Int64Type>()
            .values()
            .iter()
            .map(|number| (*number as u64) ^ (1 << 63))
            .collect(),
    )
}

/// A bit for each number.
#[derive(Clone, Copy)]
pub(super) struct Bits<'m>(&'m [AtomicU64]);

impl<'m> Bits<'m> {
    /// Cuts memory into bits for `bounds`, as many as there is room for.
    pub(super) fn cut(memory: &'m mut Memory, bounds: Bounds) -> impl Iterator<Item = Self> {
        memory.numbers().chunks_exact(bounds.words() as usize).map(Self)
    }

    /// Puts a word in place of the one that is there, which nobody else writes meanwhile.
    pub(super) fn put(&self, word: usize, bits: u64) {
        self.0[word].store(bits, Ordering::Relaxed);
    }

    /// Sets some of the bits of a word, and gives those that it had before.
    pub(super) fn set(&self, word: usize, bits: u64) -> u64 {
        self.0[word].fetch_or(bits, Ordering::Relaxed)
    }

    /// The same where nobody else sets any: a good deal faster, because no other processor is asked.
    fn set_alone(&self, word: usize, bits: u64) -> u64 {
        let before = self.word(word);
        self.put(word, before | bits);
        before
    }

    pub(super) fn word(&self, word: usize) -> u64 {
        self.0[word].load(Ordering::Relaxed)
    }
}

/// Which numbers a side has, and which it has more than once.
#[derive(Clone, Copy)]
pub(super) struct Present<'m> {
    pub(super) once: Bits<'m>,
    pub(super) twice: Bits<'m>,
    writers: Writers,
}

/// Who writes bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writers {
    One,
    Many,
}

impl<'m> Present<'m> {
    pub(super) fn new(once: Bits<'m>, twice: Bits<'m>, writers: Writers) -> Self {
        Self { once, twice, writers }
    }

    /// Takes in what others have taken in, in bits of their own.
    pub(super) fn unite(&self, others: &[Self]) {
        for word in 0..self.once.0.len() {
            let (mut once, mut twice) = (self.once.word(word), self.twice.word(word));
            for other in others {
                let bits = other.once.word(word);
                twice |= once & bits | other.twice.word(word);
                once |= bits;
            }
            self.once.put(word, once);
            if twice != 0 {
                self.twice.put(word, twice);
            }
        }
    }

    /// Takes in numbers. In key order many in a row share a word, which is then written once.
    pub(super) fn add(&self, numbers: &[u64]) {
        let (mut word, mut bits, mut twice) = (0, 0_u64, 0_u64);
        for number in numbers {
            let (place, bit) = ((number / 64) as usize, 1 << (number % 64));
            if place != word {
                self.add_word(word, bits, twice);
                (word, bits, twice) = (place, 0, 0);
            }
            twice |= bits & bit;
            bits |= bit;
        }
        self.add_word(word, bits, twice);
    }

    /// Takes in some of the numbers that share a word; those that come twice among them are in `twice`.
    fn add_word(&self, word: usize, bits: u64, twice: u64) {
        if bits == 0 {
            return;
        }
        let set = match self.writers {
            Writers::One => Bits::set_alone,
            Writers::Many => Bits::set,
        };
        let again = set(&self.once, word, bits) & bits | twice;
        if again != 0 {
            set(&self.twice, word, again);
        }
    }
}

/// Gives out what each number is that only one side has, or one has more than once, or that is `differing`: in order.
pub(super) fn each_finding(
    bounds: Bounds,
    [old, new]: &[Present<'_>; 2],
    differing: Option<Bits<'_>>,
    mut found: impl FnMut(FindingKind, u64) -> Result<()>,
) -> Result<()> {
    for word in 0..bounds.words() as usize {
        let (in_old, in_new) = (old.once.word(word), new.once.word(word));
        let repeated = old.twice.word(word) | new.twice.word(word);
        let mut rest = in_old ^ in_new | repeated | differing.map_or(0, |bits| bits.word(word));
        while rest != 0 {
            let bit = rest & rest.wrapping_neg();
            rest ^= bit;
            let kind = if repeated & bit != 0 {
                FindingKind::Duplicated
            } else if in_old & in_new & bit != 0 {
                FindingKind::Mismatched
            } else if in_old & bit != 0 {
                FindingKind::Missing
            } else {
                FindingKind::Orphaned
            };
            found(kind, word as u64 * 64 + u64::from(bit.trailing_zeros()))?;
        }
    }
    Ok(())
}

/// Findings on their way out.
#[derive(Default)]
pub(super) struct Found {
    kinds: Vec<FindingKind>,
    numbers: Vec<u64>,
    mismatched: Vec<usize>,
    columns: Vec<Vec<usize>>,
}

impl Found {
    /// Takes in a finding; of a mismatch, the column that differs.
    pub(super) fn add(&mut self, kind: FindingKind, number: u64, column: Option<usize>) {
        if let Some(column) = column {
            self.mismatched.push(self.kinds.len());
            self.columns.push(vec![column]);
        }
        self.kinds.push(kind);
        self.numbers.push(number);
    }

    /// Whether there are as many as are written at a time.
    pub(super) fn is_full(&self) -> bool {
        self.kinds.len() >= FINDINGS_MAX
    }

    pub(super) fn write(
        self,
        scan: &Scan<'_>,
        bounds: Bounds,
        write: &mut dyn FnMut(&[FindingKind], RecordBatch) -> Result<()>,
    ) -> Result<()> {
        if self.kinds.is_empty() {
            return Ok(());
        }
        let ids = self.numbers.iter().map(|number| (bounds.first.wrapping_add(*number), &[][..]));
        let keys = scan.code.arrays(ids, &scan.pair.key_types)?;
        let (schema, names) = (&scan.pair.findings_schema, &scan.pair.values);
        let rows = findings_rows(schema, names, &self.kinds, keys, self.mismatched, self.columns)?;
        write(&self.kinds, rows)
    }
}
