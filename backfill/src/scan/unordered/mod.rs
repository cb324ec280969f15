//! Two dumps in any order: rows are put into partitions by their key, within a budget of memory and otherwise on the disk,
//! and each partition is compared by itself.
//!
//! What goes into a partition is the key and two sums over the hashes of a row's columns, the second of them weighted. Where
//! the sums of two rows differ by one column's hash, the two differences say which column it is; where more columns differ,
//! these rows are read a second time. Keys that are numbers close together need no partitions: `bitmap` compares them alone by
//! a bit for each, `ranked` finds each row's sums by counting bits, for rows that `regions` has put together. `join` compares
//! partitions: by `key_table` where rows are numbers alone, by `table` where there is more to them.
//!
//! What is found is sorted by key in the end, within the same budget, so that findings are those of an ordered scan.
//!
//! Partitions take as long as the dumps are large, and a scan that was stopped goes on from how far they were filled (`checkpoint`).
//! What needs no partitions fits into memory, and so takes no longer than reading the dumps once.

mod bitmap;
mod checkpoint;
mod join;
mod key_code;
mod key_table;
mod memory;
mod partitions;
mod present;
mod ranked;
mod regions;
mod table;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use super::ScanOptions;
use super::columns::{Columns, Scratch};
use super::dumps::DumpPair;
use super::engine::{Meter, ProgressFn};
use super::ordered::keys;
use super::sums::only_column;
use crate::error::{Error, Result};
use crate::findings::{FindingsWriter, ScanSummary};
use crate::import::Sorter;
use checkpoint::{Checkpoint, FORMAT};
use key_code::{KeyCode, mixed};
use partitions::{PARTITIONS, Partitions, Spill, remove};
use present::Bounds;

/// What of the budget holds rows of partitions; the rest is for the table of one, and for sorting what is found.
const PARTITIONS_SHARE: u64 = 2;
/// What of the budget each of these two has.
const WORKING_SHARE: u64 = 4;

/// A partition and the table of its keys should stay in a processor's cache.
const PARTITION_BYTES: u64 = 4 * 1024 * 1024;
/// Where rows are ids alone, the table has up to four times as many bytes, and it is all that is looked at.
const ID_PARTITION_BYTES: u64 = 1024 * 1024;

/// What a row takes in the table of a partition, at most, of what it is stored as.
const TABLE_FACTOR: u64 = 4;

/// Rows in partitions are more to write than findings are: they are kept so many times more seldom than findings, which is once a
/// minute. It costs writing what is in memory, half of the budget at most.
const KEEP_FACTOR: u32 = 12;

pub(super) fn run(
    pair: &DumpPair<'_>,
    folder: PathBuf,
    options: &ScanOptions,
    progress: ProgressFn<'_>,
) -> Result<ScanSummary> {
    let mut summary = pair.empty_summary(options);
    let schema = pair.findings_schema.clone();
    let mut writer = FindingsWriter::create(folder.clone(), schema, pair.scope(), summary.chunk_keys_max)?;
    let meter = Meter::new(pair.rows(), 0, progress);
    let code = KeyCode::new(&pair.key_types)?;
    let scan = Scan { pair, options, meter: &meter, code, columns: Columns::of(pair), folder };
    let is_done = match Bounds::of(pair) {
        Some(bounds) if scan.columns.len() == 0 => bitmap::run(&scan, bounds, &mut summary, &mut writer)?,
        Some(bounds) => ranked::run(&scan, bounds, &mut summary, &mut writer)?,
        None => false,
    };
    if !is_done {
        let mut sorter = scan.sorter()?;
        if let Some(open) = scan.first_pass(&mut summary, &mut sorter)? {
            scan.second_pass(&open, &mut summary, &mut sorter)?;
        }
        sorter.finish(&mut |rows| writer.write(&rows))?;
    }
    let summary = writer.finish(summary)?;
    forget(&scan.folder)?;
    Ok(summary)
}

/// Removes what a scan that was stopped has left to go on from.
pub(super) fn forget(findings: &Path) -> Result<()> {
    [Pass::First, Pass::Second].iter().try_for_each(|pass| remove(&pass.folder(findings)))
}

/// What all threads share.
struct Scan<'a> {
    pair: &'a DumpPair<'a>,
    options: &'a ScanOptions,
    meter: &'a Meter<'a>,
    code: KeyCode,
    columns: Columns<'a>,
    folder: PathBuf,
}

impl Scan<'_> {
    fn sorter(&self) -> Result<Sorter> {
        // The key columns have other names in findings where theirs are taken.
        let fields = self.pair.findings_schema.fields();
        let names = fields[1..=self.pair.dumps.key.len()].iter().map(|field| field.name().clone()).collect();
        Sorter::new(&self.folder, names, self.options.unordered_bytes_max / WORKING_SHARE)
    }

    fn filter(&self) -> Filter {
        Filter::new(self.options.unordered_bytes_max / WORKING_SHARE / 2)
    }

    /// Compares all rows by their sums. Gives a filter of the keys whose rows differ in more than one column.
    fn first_pass(&self, summary: &mut ScanSummary, sorter: &mut Sorter) -> Result<Option<Filter>> {
        let columns = self.columns.len();
        let words = if columns == 0 { 0 } else { 2 };
        let folder = Pass::First.folder(&self.folder);
        // Before anything is found, it says no more than what is compared, and how.
        let about = summary.clone();
        let resumed =
            Checkpoint::read(&folder, &about).and_then(|Checkpoint { groups, file_bytes, .. }| {
                let budget = self.options.unordered_bytes_max / PARTITIONS_SHARE;
                Some((Partitions::again(folder.clone(), &file_bytes, budget)?, groups))
            });
        let (partitions, done) = match resumed {
            Some(resumed) => resumed,
            None => (self.partitions(folder.clone(), words)?, [0, 0]),
        };
        self.meter.add(self.rows_of(done))?;
        let mut keep = |groups| {
            let kept = partitions.keep().and_then(|file_bytes| {
                Checkpoint { format: FORMAT, about: about.clone(), groups, file_bytes }.write(&folder)
            });
            match kept {
                // It may well end without a disk.
                Err(error @ Error::DiskFull { .. }) => {
                    tracing::warn!(%error, "if this scan is stopped, it cannot go on from here");
                    Ok(())
                }
                kept => kept,
            }
        };
        self.fill(&partitions, done, &mut keep, |group, spill| {
            if self.has_ids_alone(words) {
                group.keys.numbers(0, spill.ids);
                spill.spill.put_ids(spill.ids)?;
                return self.meter.add(group.keys.rows() as u64);
            }
            let mut sums = Vec::with_capacity(if columns == 0 { 0 } else { group.keys.rows() });
            self.columns.sums(group.side, group.number, spill.scratch, &mut |_, found| {
                sums.extend_from_slice(found);
            })?;
            self.code.records(&group.keys, |row, id, key| {
                let sums = sums.get(row).map_or(&[][..], |sums: &[u64; 2]| sums);
                spill.spill.put(id, key, sums)
            })?;
            self.meter.add(group.keys.rows() as u64)
        })?;
        let filter = OnceLock::new();
        self.join(&partitions, (Pass::First, words), summary, sorter, &|id, differences| match only_column(
            differences,
            columns,
        ) {
            Some(column) => Some(vec![column]),
            None => {
                filter.get_or_init(|| self.filter()).add(id);
                None
            }
        })?;
        Ok(filter.into_inner())
    }

    /// Reads the rows that differ in more than one column again, with a hash for each column.
    fn second_pass(&self, open: &Filter, summary: &mut ScanSummary, sorter: &mut Sorter) -> Result<()> {
        let words = self.columns.len();
        let partitions = self.partitions(Pass::Second.folder(&self.folder), words)?;
        self.fill(&partitions, [0, 0], &mut |_| Ok(()), |group, spill| {
            let mut rows = Vec::new();
            self.code.records(&group.keys, |row, id, key| {
                if open.has(id) {
                    rows.push((row, id, key.map(<[u8]>::to_vec)));
                }
                Ok(())
            })?;
            let mut hashes = vec![0; rows.len() * words];
            self.columns.hashes(
                group.side,
                group.number,
                spill.scratch,
                &mut |position, start, column| {
                    let first = rows.partition_point(|(row, ..)| *row < start);
                    for (place, (row, ..)) in rows.iter().enumerate().skip(first) {
                        let Some(hash) = column.get(row - start) else { break };
                        hashes[place * words + position] = *hash;
                    }
                },
            )?;
            for ((_, id, key), hashes) in rows.iter().zip(hashes.chunks_exact(words)) {
                spill.spill.put(*id, key.as_deref(), hashes)?;
            }
            self.meter.add(0)
        })?;
        // The first pass has said all about other keys. Keys that only look like one of those sought are equal here, or
        // differ in one column, which it has said too.
        self.join(&partitions, (Pass::Second, words), summary, sorter, &|_, differences| {
            let columns: Vec<usize> = (0..words).filter(|column| differences[*column] != 0).collect();
            (columns.len() > 1).then_some(columns)
        })
    }

    /// Whether rows with so many words are no more than ids in partitions.
    fn has_ids_alone(&self, words: usize) -> bool {
        words == 0 && self.code.is_narrow()
    }

    fn partitions(&self, folder: PathBuf, words: usize) -> Result<Partitions> {
        let budget = self.options.unordered_bytes_max;
        let bytes = self.pair.rows() * self.code.record_bytes(self.pair, words);
        let table_max = budget / WORKING_SHARE / self.options.threads.get() as u64;
        let (partition_bytes, count_max) =
            if self.has_ids_alone(words) { (ID_PARTITION_BYTES, 1024) } else { (PARTITION_BYTES, 256) };
        let count = (bytes / partition_bytes).clamp(*PARTITIONS.start(), count_max);
        let count = count.max(bytes * TABLE_FACTOR / table_max.max(1)).min(*PARTITIONS.end());
        Partitions::new(folder, count.next_power_of_two() as usize, budget / PARTITIONS_SHARE)
    }

    /// How many rows so many row groups of each side have.
    fn rows_of(&self, groups: [usize; 2]) -> u64 {
        let sides = self.pair.sides().into_iter().zip(groups);
        sides
            .map(|(table, count)| table.groups().get(count).map_or(table.rows(), |next| next.first_row))
            .sum()
    }

    /// Puts the rows of both sides into partitions, from these row groups on. Now and then, when nobody does, `keep` is told
    /// whose rows are in them.
    fn fill(
        &self,
        partitions: &Partitions,
        done: [usize; 2],
        keep: &mut dyn FnMut([usize; 2]) -> Result<()>,
        put: impl Fn(&GroupKeys, &mut Filling<'_, '_>) -> Result<()> + Sync,
    ) -> Result<()> {
        let groups = self.pair.sides().map(|table| table.groups().len());
        let next = done.map(AtomicUsize::new);
        let every = self.options.checkpoint_every * KEEP_FACTOR;
        loop {
            let begun = Instant::now();
            self.in_threads(|| {
                let (mut scratch, mut ids) = (Scratch::default(), Vec::new());
                for side in 0..2 {
                    let mut spill = partitions.spill(side);
                    let mut is_due = false;
                    while !is_due {
                        let number = next[side].fetch_add(1, Ordering::Relaxed);
                        if number >= groups[side] {
                            break;
                        }
                        let names = &self.pair.dumps.key;
                        let keys = keys(self.pair.sides()[side], number, names, &self.pair.key_types)?;
                        let group = GroupKeys { side, number, keys };
                        let (spill, scratch, ids) = (&mut spill, &mut scratch, &mut ids);
                        put(&group, &mut Filling { spill, scratch, ids })?;
                        is_due = begun.elapsed() >= every;
                    }
                    spill.finish()?;
                    if is_due {
                        break;
                    }
                }
                Ok(())
            })?;
            // Whoever has taken a row group has put all of its rows.
            let done = [0, 1].map(|side| next[side].load(Ordering::Relaxed).min(groups[side]));
            if done == groups {
                return Ok(());
            }
            keep(done)?;
        }
    }

    /// Runs the same in all threads, and gives the first error.
    fn in_threads(&self, run: impl Fn() -> Result<()> + Sync) -> Result<()> {
        thread::scope(|scope| {
            let threads: Vec<_> = (0..self.options.threads.get())
                .map(|_| {
                    scope.spawn(|| {
                        let done = run();
                        if done.is_err() {
                            self.meter.stop();
                        }
                        done
                    })
                })
                .collect();
            let results: Vec<Result<()>> =
                threads.into_iter().map(|thread| thread.join().unwrap_or(Err(Error::WorkerLost))).collect();
            // What stopped the others says more than that they were stopped.
            let mut first = Ok(());
            for result in results {
                match (&first, &result) {
                    (Ok(()), Err(_)) => first = result,
                    (Err(Error::Cancelled { .. } | Error::WorkerLost), Err(_)) => first = result,
                    _ => {}
                }
            }
            first
        })
    }
}

/// The second pass looks at rows again of which the first could not say which columns differ, and says nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    First,
    Second,
}

impl Pass {
    /// The folder for what does not fit into memory.
    fn folder(self, findings: &Path) -> PathBuf {
        findings.join(match self {
            Self::First => "partitions.tmp",
            Self::Second => "partitions-again.tmp",
        })
    }
}

/// A row group's keys.
struct GroupKeys {
    side: usize,
    number: usize,
    keys: crate::keys::Keys,
}

/// Where a thread puts rows, and what it decompresses with.
struct Filling<'a, 'p> {
    spill: &'a mut Spill<'p>,
    scratch: &'a mut Scratch,
    /// A row group's ids, over the same memory.
    ids: &'a mut Vec<u64>,
}

/// Keys that are sought, or few others: a bit for what each is mixed to.
struct Filter {
    bits: Vec<AtomicU64>,
}

impl Filter {
    fn new(bytes: u64) -> Self {
        let words = (bytes / 8).clamp(1024, 16 * 1024 * 1024).next_power_of_two() as usize;
        Self { bits: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    fn add(&self, id: u64) {
        let (word, bit) = self.place(id);
        self.bits[word].fetch_or(bit, Ordering::Relaxed);
    }

    fn has(&self, id: u64) -> bool {
        let (word, bit) = self.place(id);
        self.bits[word].load(Ordering::Relaxed) & bit != 0
    }

    fn place(&self, id: u64) -> (usize, u64) {
        let mixed = mixed(id);
        ((mixed >> 6) as usize & (self.bits.len() - 1), 1 << (mixed & 63))
    }
}
