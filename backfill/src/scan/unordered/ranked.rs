//! Keys that are numbers close together, and values beside them: each key's place among those of one side, counted by bits,
//! is where the sums of its row are. Neither partitions nor tables are needed.
//!
//! One side, the *base*, is read first: a bit for each of its keys, and its rows' sums one behind the other. Where its keys
//! ascend, which dumps mostly do on one side at least, a row's number is its key's rank; where they do not, a number for each
//! rank says which row it is. Then the other side is read, and each row is compared with the base's.
//!
//! Threads share the sums by plain loads and stores. A key that comes once a side is compared by one thread alone, after the base
//! was read. Of a key that comes twice two threads may overwrite what each other has stored; but such a key is a finding whatever its
//! sums are, and whether there is one is told otherwise: in the base by bits, which are set in one step; in the other side
//! there are then fewer base keys that were met than rows that met one, and its keys are read again, into bits.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::memory::Memory;
use super::present::{Bits, Bounds, Found, Present, Writers, each_finding};
use super::regions::{Regions, Row, TURN_ROWS};
use super::{Filter, Scan};
use crate::error::Result;
use crate::findings::{FindingKind, FindingsWriter, ScanSummary};
use crate::foreign;
use crate::scan::columns::{BLOCK_ROWS, Scratch};
use crate::scan::engine::count;
use crate::scan::sums::only_column;
use arrow::array::RecordBatch;

/// What of the budget may hold bits and sums; the rest is for rows that differ in more than one column.
const RANKED_QUARTERS: u64 = 3;

/// A row of which the base has none.
const NO_SLOT: usize = usize::MAX;

/// Compares both sides, if what that takes fits into the budget; says whether it did.
pub(super) fn run(
    scan: &Scan<'_>,
    bounds: Bounds,
    summary: &mut ScanSummary,
    writer: &mut FindingsWriter,
) -> Result<bool> {
    let bytes_max = scan.options.unordered_bytes_max / 4 * RANKED_QUARTERS;
    let base = base(scan);
    let rows = scan.pair.sides()[base].rows();
    // Five bits for each number, and the ranks; and of each row of the base its sums and, perhaps, its rank.
    let bytes =
        bounds.words().saturating_mul(5 * 8 + size_of::<Rank>() as u64).saturating_add(rows * (16 + 4));
    if bytes > bytes_max || rows > u64::from(u32::MAX) {
        return Ok(false);
    }
    let (mut bit_memory, mut slot_memory) = (Memory::new(5 * bounds.words()), Memory::ordinary(2 * rows));
    let bits: Vec<Bits<'_>> = Bits::cut(&mut bit_memory, bounds).collect();
    let sides = [0, 2].map(|first| Present::new(bits[first], bits[first + 1], Writers::Many));
    let (differing, slots) = (bits[4], slot_memory.pairs());
    let mut ranked = Ranked { scan, bounds, base, sides, differing, ranks: Vec::new(), slots, rows: None };
    ranked.compare()?;
    let Some(open) = ranked.open() else {
        ranked.findings(&mut |kinds, rows| {
            count(kinds, summary);
            writer.write(&rows)
        })?;
        return Ok(true);
    };
    let mut sorter = scan.sorter()?;
    ranked.findings(&mut |kinds, rows| {
        count(kinds, summary);
        sorter.add(rows)
    })?;
    drop((bit_memory, slot_memory));
    scan.second_pass(&open, summary, &mut sorter)?;
    sorter.finish(&mut |rows| writer.write(&rows))?;
    Ok(true)
}

/// What the second sum of a row that was met has beside it: sums are even.
const MET: u64 = 1;

/// Words that a thread looks at in a turn.
const TURN_WORDS: usize = 4096;

/// What was compared.
struct Ranked<'m, 'a> {
    scan: &'m Scan<'a>,
    bounds: Bounds,
    /// Which side was read first.
    base: usize,
    /// Which numbers each side has.
    sides: [Present<'m>; 2],
    /// Which numbers both sides have with other sums.
    differing: Bits<'m>,
    ranks: Vec<Rank>,
    /// The sums of the base's rows; once the other side was compared, by how much they differ.
    slots: &'m [[AtomicU64; 2]],
    /// Which row has which rank, where that is not the row's number.
    rows: Option<Vec<AtomicU32>>,
}

/// Sixty-four numbers: which of them the base has, and how many it has before them.
#[derive(Clone, Copy)]
struct Rank {
    bits: u64,
    before: u64,
}

impl Ranked<'_, '_> {
    fn compare(&mut self) -> Result<()> {
        let is_ascending = self.read_base()?;
        self.count();
        if !is_ascending {
            self.find_rows()?;
        }
        let rows_met = self.read_other()?;
        let keys_met = self.gather_met()?;
        // Some key of the other side comes more than once.
        if keys_met < rows_met { self.read_other_again() } else { Ok(()) }
    }

    /// Puts the sums of the base's rows where they belong, and says whether its keys ascend.
    fn read_base(&mut self) -> Result<bool> {
        let groups = self.scan.pair.sides()[self.base].groups();
        // Of each row group the first and the last number, plus one; nothing where they do not ascend.
        let ends: Vec<[AtomicU64; 2]> = groups.iter().map(|_| Default::default()).collect();
        let this = &*self;
        this.each_group(this.base, |(), scratch, group, numbers| {
            if let ([first, .., last] | [first @ last], true) = (numbers, numbers.is_sorted_by(|a, b| a < b))
            {
                ends[group][0].store(first + 1, Ordering::Relaxed);
                ends[group][1].store(last + 1, Ordering::Relaxed);
            }
            this.sides[this.base].add(numbers);
            let slots = &this.slots[groups[group].first_row as usize..];
            this.scan.columns.sums(this.base, group, scratch, &mut |start, sums| {
                for (slot, sums) in slots[start..].iter().zip(sums) {
                    slot[0].store(sums[0], Ordering::Relaxed);
                    slot[1].store(sums[1], Ordering::Relaxed);
                }
            })
        })?;
        let ends: Vec<[u64; 2]> = ends.into_iter().map(|ends| ends.map(AtomicU64::into_inner)).collect();
        let ascend = ends.iter().all(|[first, _]| *first > 0);
        Ok(ascend && ends.is_sorted_by(|before, after| before[1] < after[0]))
    }

    /// Counts the base's numbers before each.
    fn count(&mut self) {
        let mut before = 0;
        let present = &self.sides[self.base].once;
        self.ranks = (0..self.bounds.words() as usize)
            .map(|word| {
                let rank = Rank { bits: present.word(word), before };
                before += u64::from(rank.bits.count_ones());
                rank
            })
            .collect();
    }

    /// Finds out which row has which rank, where the base's keys do not ascend. Its keys are read again for it.
    fn find_rows(&mut self) -> Result<()> {
        let table = self.scan.pair.sides()[self.base];
        let rows: Vec<AtomicU32> = (0..table.rows()).map(|_| AtomicU32::new(0)).collect();
        let next = AtomicUsize::new(0);
        let this = &*self;
        this.scan.in_threads(|| {
            let mut numbers = Vec::new();
            loop {
                let group = next.fetch_add(1, Ordering::Relaxed);
                let Some(found) = table.groups().get(group) else { return Ok(()) };
                this.bounds.numbers_of(this.scan, this.base, group, &mut numbers)?;
                for (row, number) in (found.first_row..).zip(&numbers) {
                    // Always there: the same keys have set these bits.
                    let rank = this.rank(*number);
                    if let Some(place) = rows.get(rank) {
                        place.store(row as u32, Ordering::Relaxed);
                    }
                }
                this.scan.meter.add(0)?;
            }
        })?;
        self.rows = Some(rows);
        Ok(())
    }

    /// Compares the rows of the other side, and says how many of their keys the base has.
    fn read_other(&self) -> Result<u64> {
        let other = 1 - self.base;
        let rows_met = AtomicU64::new(0);
        self.each_group(other, |regions: &mut Regions, scratch, group, numbers| {
            self.scan.columns.sums(other, group, scratch, &mut |start, sums| {
                if start % TURN_ROWS == 0 {
                    let turn = &numbers[start..numbers.len().min(start + TURN_ROWS)];
                    regions.begin(turn, self.bounds.numbers);
                }
                let end = start + sums.len();
                regions.put(&numbers[start..end], sums);
                if end % TURN_ROWS == 0 || end == numbers.len() {
                    let met: u64 =
                        regions.rows().chunks(BLOCK_ROWS).map(|rows| self.compare_rows(rows)).sum();
                    rows_met.fetch_add(met, Ordering::Relaxed);
                }
            })
        })?;
        Ok(rows_met.into_inner())
    }

    /// Compares some rows of the other side, and says how many of their keys the base has.
    fn compare_rows(&self, rows: &[Row]) -> u64 {
        let mut slots = [NO_SLOT; BLOCK_ROWS];
        // A look at each, before anything is done with it: memory is waited for all at once.
        let seen = rows.iter().map(|row| self.ranks[(row.number / 64) as usize].bits);
        std::hint::black_box(seen.fold(0, |seen, bits| seen | bits));
        for (slot, row) in slots.iter_mut().zip(rows) {
            *slot = self.slot(row.number);
        }
        let seen = slots.iter().take(rows.len()).filter_map(|slot| self.slots.get(*slot));
        std::hint::black_box(seen.fold(0, |seen, [_, weighted]| seen | weighted.load(Ordering::Relaxed)));
        let mut met = 0;
        for (slot, Row { number, sums }) in slots.iter().zip(rows) {
            let Some([plain, weighted]) = self.slots.get(*slot) else {
                self.sides[1 - self.base].add(&[*number]);
                continue;
            };
            met += 1;
            let found = [plain.load(Ordering::Relaxed), weighted.load(Ordering::Relaxed)];
            if found == *sums {
                weighted.store(found[1] | MET, Ordering::Relaxed);
            } else {
                self.differing.set((number / 64) as usize, 1 << (number % 64));
                plain.store(found[0].wrapping_sub(sums[0]), Ordering::Relaxed);
                weighted.store(found[1].wrapping_sub(sums[1]) | MET, Ordering::Relaxed);
            }
        }
        met
    }

    /// Sets the other side's bits of all keys of the base that were met, and says how many these are.
    fn gather_met(&self) -> Result<u64> {
        let next = AtomicUsize::new(0);
        let keys_met = AtomicU64::new(0);
        let other = self.sides[1 - self.base].once;
        self.scan.in_threads(|| {
            loop {
                let start = next.fetch_add(TURN_WORDS, Ordering::Relaxed);
                let Some(ranks) = self.ranks.get(start..) else { return Ok(()) };
                let mut count = 0;
                for (word, rank) in (start..).zip(ranks.iter().take(TURN_WORDS)) {
                    let (mut rest, mut met, mut place) = (rank.bits, 0, rank.before as usize);
                    while rest != 0 {
                        let bit = rest & rest.wrapping_neg();
                        rest ^= bit;
                        let [_, weighted] = &self.slots[self.slot_of(place)];
                        if weighted.load(Ordering::Relaxed) & MET != 0 {
                            met |= bit;
                        }
                        place += 1;
                    }
                    count += u64::from(met.count_ones());
                    other.put(word, other.word(word) | met);
                }
                keys_met.fetch_add(count, Ordering::Relaxed);
            }
        })?;
        Ok(keys_met.into_inner())
    }

    /// Finds out which keys the other side has more than once.
    fn read_other_again(&self) -> Result<()> {
        let (this, other) = (self.sides[1 - self.base], 1 - self.base);
        (0..self.bounds.words() as usize).for_each(|word| this.once.put(word, 0));
        let (scan, next) = (self.scan, AtomicUsize::new(0));
        scan.in_threads(|| {
            let mut numbers = Vec::new();
            loop {
                let group = next.fetch_add(1, Ordering::Relaxed);
                if group >= scan.pair.sides()[other].groups().len() {
                    return Ok(());
                }
                self.bounds.numbers_of(scan, other, group, &mut numbers)?;
                this.add(&numbers);
                scan.meter.add(0)?;
            }
        })
    }

    /// Gives out the numbers of each row group's keys, in all threads, with what a thread keeps from group to group.
    fn each_group<K: Default>(
        &self,
        side: usize,
        found: impl Fn(&mut K, &mut Scratch, usize, &[u64]) -> Result<()> + Sync,
    ) -> Result<()> {
        let scan = self.scan;
        let groups: &[foreign::Group] = scan.pair.sides()[side].groups();
        let next = AtomicUsize::new(0);
        scan.in_threads(|| {
            let (mut kept, mut scratch) = (K::default(), Scratch::default());
            let mut numbers = Vec::new();
            loop {
                let group = next.fetch_add(1, Ordering::Relaxed);
                if group >= groups.len() {
                    return Ok(());
                }
                self.bounds.numbers_of(scan, side, group, &mut numbers)?;
                found(&mut kept, &mut scratch, group, &numbers)?;
                scan.meter.add(numbers.len() as u64)?;
            }
        })
    }

    /// How many of the base's numbers are smaller than this one, which is one of them; or [`NO_SLOT`].
    fn rank(&self, number: u64) -> usize {
        let rank = self.ranks[(number / 64) as usize];
        let bit = 1 << (number % 64);
        if rank.bits & bit == 0 {
            return NO_SLOT;
        }
        rank.before as usize + (rank.bits & (bit - 1)).count_ones() as usize
    }

    /// Where the sums of the base's row with this number are.
    fn slot(&self, number: u64) -> usize {
        self.slot_of(self.rank(number))
    }

    fn slot_of(&self, rank: usize) -> usize {
        match &self.rows {
            None => rank,
            Some(rows) => rows.get(rank).map_or(NO_SLOT, |row| row.load(Ordering::Relaxed) as usize),
        }
    }

    /// By how much the sums of the two rows with this number differ.
    fn differences(&self, number: u64) -> [u64; 2] {
        let found = self.slots.get(self.slot(number));
        found.map_or([0, 0], |[plain, weighted]| {
            [plain.load(Ordering::Relaxed), weighted.load(Ordering::Relaxed) & !MET]
        })
    }

    /// The keys whose rows differ in more than one column; nothing where there are none.
    fn open(&self) -> Option<Filter> {
        let mut filter = None;
        let columns = self.scan.columns.len();
        self.each_finding(|kind, number| {
            if kind == FindingKind::Mismatched && only_column(&self.differences(number), columns).is_none() {
                filter.get_or_insert_with(|| self.scan.filter()).add(self.bounds.first.wrapping_add(number));
            }
            Ok(())
        })
        .ok()?;
        filter
    }

    /// Gives out all findings in key order, but for the rows that differ in more than one column.
    fn findings(&self, write: &mut dyn FnMut(&[FindingKind], RecordBatch) -> Result<()>) -> Result<()> {
        let mut found = Found::default();
        let columns = self.scan.columns.len();
        self.each_finding(|kind, number| {
            let column = match kind {
                FindingKind::Mismatched => match only_column(&self.differences(number), columns) {
                    None => return Ok(()),
                    column => column,
                },
                _ => None,
            };
            found.add(kind, number, column);
            if found.is_full() {
                std::mem::take(&mut found).write(self.scan, self.bounds, write)
            } else {
                Ok(())
            }
        })?;
        found.write(self.scan, self.bounds, write)
    }

    fn each_finding(&self, found: impl FnMut(FindingKind, u64) -> Result<()>) -> Result<()> {
        each_finding(self.bounds, &self.sides, Some(self.differing), found)
    }
}

/// The side that is read first: one whose keys seem to ascend, else the smaller one.
fn base(scan: &Scan<'_>) -> usize {
    let is_ordered = scan.pair.orders.map(|order| order != foreign::Ordering::Unknown);
    let [old, new] = scan.pair.sides().map(foreign::ForeignTable::rows);
    match is_ordered {
        [true, false] => 0,
        [false, true] => 1,
        _ => usize::from(new < old),
    }
}
