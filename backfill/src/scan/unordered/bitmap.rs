//! Keys that are numbers close together, compared alone: a bit for each number says which side has it, and the findings come
//! in key order.

use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::RecordBatch;

use super::Scan;
use super::memory::Memory;
use super::present::{Bits, Bounds, Found, Present, Writers, each_finding};
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
    let affordable = scan.options.unordered_bytes_max / words.saturating_mul(8).max(1);
    if affordable == 0 {
        return Ok(false);
    }
    // Each thread has bits of its own where there is room: keys in no order would have each word wander between processors.
    let threads = scan.options.threads.get() as u64;
    let (copies, writers) = if affordable < threads { (1, Writers::Many) } else { (threads, Writers::One) };
    let mut memory = Memory::new(words * copies);
    let bits: Vec<Bits<'_>> = Bits::cut(&mut memory, bounds).collect();
    // First all of old's, then all of new's.
    let present: Vec<Present<'_>> =
        bits.chunks_exact(2).map(|bits| Present::new(bits[0], bits[1], writers)).collect();
    let (old, new) = present.split_at(copies as usize);
    let next_copy = AtomicUsize::new(0);
    let next = AtomicUsize::new(0);
    let groups: Vec<(usize, usize)> = scan
        .pair
        .sides()
        .into_iter()
        .enumerate()
        .flat_map(|(side, table)| (0..table.groups().len()).map(move |group| (side, group)))
        .collect();
    scan.in_threads(|| {
        let copy = next_copy.fetch_add(1, Ordering::Relaxed) % copies as usize;
        let sides = [old[copy], new[copy]];
        let mut numbers = Vec::new();
        while let Some(&(side, group)) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
            bounds.numbers_of(scan, side, group, &mut numbers)?;
            sides[side].add(&numbers);
            scan.meter.add(numbers.len() as u64)?;
        }
        Ok(())
    })?;
    for side in [old, new] {
        side[0].unite(&side[1..]);
    }
    let mut write = |kinds: &[FindingKind], rows: RecordBatch| {
        count(kinds, summary);
        writer.write(&rows)
    };
    let mut found = Found::default();
    each_finding(bounds, &[old[0], new[0]], None, |kind, number| {
        found.add(kind, number, None);
        if found.is_full() { std::mem::take(&mut found).write(scan, bounds, &mut write) } else { Ok(()) }
    })?;
    found.write(scan, bounds, &mut write)?;
    Ok(true)
}
