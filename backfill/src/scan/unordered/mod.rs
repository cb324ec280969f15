//! Two dumps in any order: rows are put into partitions by their key, within a budget of memory and otherwise on the disk,
//! and each partition is compared by itself.
//!
//! What goes into a partition is the key and two sums over the hashes of a row's columns, the second of them weighted. Where
//! the sums of two rows differ by one column's hash, the two differences say which column it is; where more columns differ,
//! these rows are read a second time. Keys that are numbers close together need no partitions: `bitmap` compares them alone by
//! a bit for each, `ranked` finds each row's sums by counting bits.
//!
//! What is found is sorted by key in the end, within the same budget, so that findings are those of an ordered scan.
//!
//! Partitions take as long as the dumps are large, and a scan that was stopped goes on from how far they were filled (`checkpoint`).
//! What needs no partitions fits into memory, and so takes no longer than reading the dumps once.

mod bitmap;
mod checkpoint;
mod key_code;
mod memory;
mod partitions;
mod present;
mod ranked;
mod sums;
mod table;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Instant;

use arrow::array::RecordBatch;

use super::ScanOptions;
use super::columns::{Columns, Scratch};
use super::dumps::DumpPair;
use super::engine::{Meter, ProgressFn, count};
use super::ordered::keys;
use super::rows::findings_rows;
use crate::error::{Error, Result};
use crate::findings::{FindingKind, FindingsWriter, ScanSummary};
use crate::import::Sorter;
use checkpoint::Checkpoint;
use key_code::{KeyCode, mixed};
use partitions::{Partitions, Spill, remove};
use present::Bounds;
use sums::Sums;
use table::{Outcome, Table};

/// What of the budget holds rows of partitions; the rest is for the table of one, and for sorting what is found.
const PARTITIONS_SHARE: u64 = 2;
/// What of the budget each of these two has.
const WORKING_SHARE: u64 = 4;

/// A partition and the table of its keys should stay in a processor's cache.
const PARTITION_BYTES: u64 = 4 * 1024 * 1024;

/// Few enough that writing them in turns does not cost more than it saves, many enough for more threads than there are.
const PARTITIONS: std::ops::RangeInclusive<u64> = 16..=4096;

/// A row in the table of a partition, beyond what it is stored as.
const TABLE_FACTOR: u64 = 3;

/// Rows in partitions are more to write than findings are: they are kept so many times more seldom than findings, which is once a
/// minute. It costs writing what is in memory, half of the budget at most.
const KEEP_FACTOR: u32 = 12;

/// Findings that go to be sorted at a time.
const FINDINGS_MAX: usize = 16 * 1024;

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

/// Which columns differ in rows of a key's id with these differences; nothing where it is not to be said now.
type Explain<'a> = &'a (dyn Fn(u64, &[u64]) -> Option<Vec<usize>> + Sync);

/// Findings, and the kind of each.
type Batch = (Vec<FindingKind>, RecordBatch);

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
                Checkpoint { about: about.clone(), groups, file_bytes }.write(&folder)
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
            let mut sums = Sums::new(columns, group.keys.rows());
            self.columns.hashes(
                group.side,
                group.number,
                spill.scratch,
                &mut |position, start, hashes| {
                    sums.add(position, start, hashes);
                },
            )?;
            self.code
                .records(&group.keys, |row, id, key| spill.spill.put(id, key, &sums.of(row)[..words]))?;
            self.meter.add(group.keys.rows() as u64)
        })?;
        let filter = self.filter();
        let is_open = AtomicU64::new(0);
        self.join(&partitions, (Pass::First, words), summary, sorter, &|id, differences| {
            match sums::only_column(differences, columns) {
                Some(column) => Some(vec![column]),
                None => {
                    is_open.fetch_add(1, Ordering::Relaxed);
                    filter.add(id);
                    None
                }
            }
        })?;
        Ok((is_open.into_inner() > 0).then_some(filter))
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

    fn partitions(&self, folder: PathBuf, words: usize) -> Result<Partitions> {
        let budget = self.options.unordered_bytes_max;
        let bytes = self.pair.rows() * self.code.record_bytes(self.pair, words);
        let table_max = budget / WORKING_SHARE / self.options.threads.get() as u64;
        let count = (bytes / PARTITION_BYTES).clamp(*PARTITIONS.start(), 256);
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
                let mut scratch = Scratch::default();
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
                        put(&group, &mut Filling { spill: &mut spill, scratch: &mut scratch })?;
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

    /// Compares partition by partition. `explain` says which columns differ in rows with these differences, or that it is
    /// not to be said now.
    fn join(
        &self,
        partitions: &Partitions,
        (pass, words): (Pass, usize),
        summary: &mut ScanSummary,
        sorter: &mut Sorter,
        explain: Explain<'_>,
    ) -> Result<()> {
        let next = AtomicUsize::new(0);
        let (sender, receiver) = sync_channel::<Batch>(self.options.threads.get() * 2);
        thread::scope(|scope| {
            let worked = scope.spawn(|| {
                let sender = sender;
                self.in_threads(|| {
                    let mut table = Table::new(words);
                    loop {
                        let partition = next.fetch_add(1, Ordering::Relaxed);
                        if partition >= partitions.count() {
                            return Ok(());
                        }
                        self.meter.add(0)?;
                        table.clear();
                        for side in 0..2 {
                            partitions.read(
                                side,
                                partition,
                                words,
                                self.code.is_narrow(),
                                |id, key, payload| {
                                    table.add(side, id, key, payload);
                                },
                            )?;
                        }
                        self.found(&table, pass, explain, &sender)?;
                    }
                })
            });
            for (kinds, rows) in receiver {
                count(&kinds, summary);
                sorter.add(rows)?;
            }
            worked.join().unwrap_or(Err(Error::WorkerLost))
        })
    }

    fn found(
        &self,
        table: &Table,
        pass: Pass,
        explain: Explain<'_>,
        sender: &SyncSender<Batch>,
    ) -> Result<()> {
        let mut gathered = Gathered::default();
        for entry in 0..table.len() {
            let kind = match table.outcome(entry) {
                Outcome::Equal => continue,
                Outcome::Differs => {
                    let Some(differing) = explain(table.id(entry), table.words(entry)) else { continue };
                    gathered.mismatched.push(gathered.kinds.len());
                    gathered.columns.push(differing);
                    FindingKind::Mismatched
                }
                _ if pass == Pass::Second => continue,
                Outcome::OnlyOld => FindingKind::Missing,
                Outcome::OnlyNew => FindingKind::Orphaned,
                Outcome::Repeated => FindingKind::Duplicated,
            };
            gathered.kinds.push(kind);
            gathered.entries.push(entry);
            if gathered.kinds.len() == FINDINGS_MAX {
                self.send(std::mem::take(&mut gathered), table, sender)?;
            }
        }
        if gathered.kinds.is_empty() { Ok(()) } else { self.send(gathered, table, sender) }
    }

    fn send(&self, gathered: Gathered, table: &Table, sender: &SyncSender<Batch>) -> Result<()> {
        let Gathered { kinds, entries, mismatched, columns } = gathered;
        let keys = self.code.arrays(entries.iter().map(|entry| table.key(*entry)), &self.pair.key_types)?;
        let (schema, names) = (&self.pair.findings_schema, &self.pair.values);
        let rows = findings_rows(schema, names, &kinds, keys, mismatched, columns)?;
        // Without a receiver sorting has failed, and nobody reads this error.
        sender.send((kinds, rows)).map_err(|_| Error::WorkerLost)
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

/// Findings of a partition, on their way out.
#[derive(Default)]
struct Gathered {
    kinds: Vec<FindingKind>,
    /// Where in the partition's table each has its key.
    entries: Vec<usize>,
    /// Which of them are mismatches, and the columns that differ in each of these.
    mismatched: Vec<usize>,
    columns: Vec<Vec<usize>>,
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
