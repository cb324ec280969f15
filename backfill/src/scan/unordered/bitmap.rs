//! Keys that are numbers close together: a bit for each number says which side has it, and the findings come in key order.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use arrow::array::cast::AsArray;
use arrow::array::types::{Int64Type, UInt64Type};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use super::key_code::is_number;
use super::Scan;
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
    first: u64,
    numbers: u64,
}

/// Where keys lie by the files' footers, if they are numbers close enough together for these bytes.
pub(super) fn bounds(pair: &DumpPair<'_>, bytes_max: u64) -> Option<Bounds> {
    let ([name], [key_type]) = (pair.dumps.key.as_slice(), pair.key_types.as_slice()) else { return None };
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
    // Of each side which numbers it has, and which it has more than once.
    let bytes = numbers.div_ceil(64) * 8 * 4;
    let is_dense = numbers / BITS_PER_ROW_MAX <= pair.rows().max(1024);
    (is_dense && bytes <= bytes_max).then_some(Bounds { first, numbers })
}

fn ids_of(array: &arrow::array::ArrayRef, key_type: &DataType) -> Option<Vec<u64>> {
    if *key_type == DataType::UInt64 {
        return Some(array.as_primitive::<UInt64Type>().values().to_vec());
    }
    let numbers = cast(array, &DataType::Int64).ok()?;
    Some(numbers.as_primitive::<Int64Type>().values().iter().map(|number| (*number as u64) ^ (1 << 63)).collect())
}

/// Which numbers a side has.
struct Present {
    once: Vec<AtomicU64>,
    twice: Vec<AtomicU64>,
}

impl Present {
    fn new(numbers: u64) -> Self {
        let words = || (0..numbers.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self { once: words(), twice: words() }
    }

    /// Takes in some of the numbers that share a word; those that come twice among them are in `twice`.
    fn add(&self, word: usize, bits: u64, twice: u64) {
        let before = self.once[word].fetch_or(bits, Ordering::Relaxed);
        let again = before & bits | twice;
        if again != 0 {
            self.twice[word].fetch_or(again, Ordering::Relaxed);
        }
    }
}

/// Compares the keys of both sides.
pub(super) fn run(
    scan: &Scan<'_>,
    bounds: Bounds,
    write: &mut dyn FnMut(&[FindingKind], &RecordBatch) -> Result<()>,
) -> Result<()> {
    let sides = [Present::new(bounds.numbers), Present::new(bounds.numbers)];
    let next = AtomicUsize::new(0);
    let groups: Vec<(usize, usize)> = scan
        .pair
        .sides()
        .into_iter()
        .enumerate()
        .flat_map(|(side, table)| (0..table.groups().len()).map(move |group| (side, group)))
        .collect();
    scan.in_threads(|| {
        while let Some(&(side, group)) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
            let table = scan.pair.sides()[side];
            let keys = keys(table, group, &scan.pair.dumps.key, &scan.pair.key_types)?;
            let numbers = keys.numbers().unwrap_or_default();
            // In key order many numbers in a row share a word, which is then written once.
            let (mut word, mut bits, mut twice) = (0, 0_u64, 0_u64);
            for id in &numbers {
                let number = id.wrapping_sub(bounds.first);
                if number >= bounds.numbers {
                    let detail = "it has keys outside the bounds that its footer gives".to_owned();
                    return Err(table.file(group).corrupt(table.groups()[group].index, detail));
                }
                let (place, bit) = ((number / 64) as usize, 1 << (number % 64));
                if place != word {
                    if bits != 0 {
                        sides[side].add(word, bits, twice);
                    }
                    (word, bits, twice) = (place, 0, 0);
                }
                twice |= bits & bit;
                bits |= bit;
            }
            if bits != 0 {
                sides[side].add(word, bits, twice);
            }
            scan.meter.add(numbers.len() as u64)?;
        }
        Ok(())
    })?;

    let mut kinds = Vec::new();
    let mut found = Vec::new();
    let [old, new] = &sides;
    let load = |words: &[AtomicU64], word: usize| words[word].load(Ordering::Relaxed);
    for word in 0..old.once.len() {
        let (in_old, in_new) = (load(&old.once, word), load(&new.once, word));
        let repeated = load(&old.twice, word) | load(&new.twice, word);
        let mut differing = in_old ^ in_new | repeated;
        while differing != 0 {
            let bit = differing & differing.wrapping_neg();
            differing ^= bit;
            kinds.push(if repeated & bit != 0 {
                FindingKind::Duplicated
            } else if in_old & bit != 0 {
                FindingKind::Missing
            } else {
                FindingKind::Orphaned
            });
            found.push(bounds.first.wrapping_add(word as u64 * 64 + u64::from(bit.trailing_zeros())));
            if kinds.len() == FINDINGS_MAX {
                flush(scan, &mut kinds, &mut found, write)?;
            }
        }
    }
    if kinds.is_empty() { Ok(()) } else { flush(scan, &mut kinds, &mut found, write) }
}

fn flush(
    scan: &Scan<'_>,
    kinds: &mut Vec<FindingKind>,
    found: &mut Vec<u64>,
    write: &mut dyn FnMut(&[FindingKind], &RecordBatch) -> Result<()>,
) -> Result<()> {
    let keys = scan.code.arrays(found.drain(..).map(|id| (id, &[][..])), &scan.pair.key_types)?;
    let rows = findings_rows(&scan.pair.findings_schema, &[], kinds, keys, [], [])?;
    write(kinds, &rows)?;
    kinds.clear();
    Ok(())
}
