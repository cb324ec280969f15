//! Keys that are numbers close together, compared alone: a bit for each number says which side has it, and the findings come
//! in key order.

use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::RecordBatch;

use super::Scan;
use super::memory::Memory;
use super::present::{Bits, Bounds, Found, Present, each_finding};
use crate::error::Result;
use crate::findings::{FindingKind, FindingsWriter, ScanSummary};
use crate::scan::engine::count;

/// Compares the keys of both sides, if what that takes fits into the budget; says whether it did.
pub(super) fn run(
    scan: &Scan<'_>,
    bounds: Bounds,
    summary: &mut ScanSummary,
    writer: &mut FindingsWriter,
) -> Result<bool> {
    // Of each side which numbers it has, and which it has more than once.
    let words = bounds.words().saturating_mul(4);
    if words.saturating_mul(8) > scan.options.unordered_bytes_max {
        return Ok(false);
    }
    let mut memory = Memory::new(words);
    let bits: Vec<Bits<'_>> = Bits::cut(&mut memory, bounds).collect();
    let sides = [0, 2].map(|first| Present { once: bits[first], twice: bits[first + 1] });
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
            let numbers = bounds.numbers_of(scan, side, group)?;
            sides[side].add(&numbers);
            scan.meter.add(numbers.len() as u64)?;
        }
        Ok(())
    })?;
    let mut write = |kinds: &[FindingKind], rows: RecordBatch| {
        count(kinds, summary);
        writer.write(&rows)
    };
    let mut found = Found::default();
    each_finding(bounds, &sides, None, |kind, number| {
        found.add(kind, number, None);
        if found.is_full() { std::mem::take(&mut found).write(scan, bounds, &mut write) } else { Ok(()) }
    })?;
    found.write(scan, bounds, &mut write)?;
    Ok(true)
}
