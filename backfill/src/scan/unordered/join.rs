//! Compares partition by partition, and brings out what is found.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use arrow::array::RecordBatch;

use super::key_table::KeyTable;
use super::partitions::Partitions;
use super::table::{Outcome, Table};
use super::{Pass, Scan};
use crate::error::{Error, Result};
use crate::findings::{FindingKind, ScanSummary};
use crate::import::Sorter;
use crate::scan::engine::count;
use crate::scan::rows::findings_rows;

/// Findings that go to be sorted at a time.
const FINDINGS_MAX: usize = 16 * 1024;

/// Which columns differ in rows of a key's id with these differences; nothing where it is not to be said now.
type Explain<'a> = &'a (dyn Fn(u64, &[u64]) -> Option<Vec<usize>> + Sync);

/// Findings, and the kind of each.
type Batch = (Vec<FindingKind>, RecordBatch);

impl Scan<'_> {
    /// Compares partition by partition. `explain` says which columns differ in rows with these differences, or that it is
    /// not to be said now.
    pub(super) fn join(
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
                    let (mut table, mut keys) = (Table::new(words), KeyTable::new());
                    loop {
                        let partition = next.fetch_add(1, Ordering::Relaxed);
                        if partition >= partitions.count() {
                            return Ok(());
                        }
                        self.meter.add(0)?;
                        if self.has_ids_alone(words) {
                            self.compare_keys(partitions, partition, &mut keys, &sender)?;
                        } else {
                            self.compare_rows(
                                partitions,
                                partition,
                                (pass, words),
                                &mut table,
                                explain,
                                &sender,
                            )?;
                        }
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

    fn compare_keys(
        &self,
        partitions: &Partitions,
        partition: usize,
        table: &mut KeyTable,
        sender: &SyncSender<Batch>,
    ) -> Result<()> {
        table.clear();
        for side in 0..2 {
            partitions.read_ids(side, partition, |ids| {
                table.add(side, ids.iter().map(|id| u64::from_le_bytes(*id)));
            })?;
        }
        let mut gathered = Gathered::default();
        for (kind, id) in table.findings(partitions.common_bits(partition)) {
            gathered.kinds.push(kind);
            gathered.keys.push((id, &[]));
            self.send(&mut gathered, FINDINGS_MAX, sender)?;
        }
        self.send(&mut gathered, 1, sender)
    }

    fn compare_rows(
        &self,
        partitions: &Partitions,
        partition: usize,
        (pass, words): (Pass, usize),
        table: &mut Table,
        explain: Explain<'_>,
        sender: &SyncSender<Batch>,
    ) -> Result<()> {
        table.clear();
        for side in 0..2 {
            partitions.read(side, partition, words, self.code.is_narrow(), |id, key, payload| {
                table.add(side, id, key, payload);
            })?;
        }
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
            gathered.keys.push(table.key(entry));
            self.send(&mut gathered, FINDINGS_MAX, sender)?;
        }
        self.send(&mut gathered, 1, sender)
    }

    /// Sends what is gathered, if there are at least so many.
    fn send(&self, gathered: &mut Gathered<'_>, at_least: usize, sender: &SyncSender<Batch>) -> Result<()> {
        if gathered.kinds.len() < at_least {
            return Ok(());
        }
        let Gathered { kinds, keys, mismatched, columns } = std::mem::take(gathered);
        let keys = self.code.arrays(keys.into_iter(), &self.pair.key_types)?;
        let (schema, names) = (&self.pair.findings_schema, &self.pair.values);
        let rows = findings_rows(schema, names, &kinds, keys, mismatched, columns)?;
        // Without a receiver sorting has failed, and nobody reads this error.
        sender.send((kinds, rows)).map_err(|_| Error::WorkerLost)
    }
}

/// Findings of a partition, on their way out.
#[derive(Default)]
struct Gathered<'k> {
    kinds: Vec<FindingKind>,
    /// Ids, and keys where these are more.
    keys: Vec<(u64, &'k [u8])>,
    /// Which of them are mismatches, and the columns that differ in each of these.
    mismatched: Vec<usize>,
    columns: Vec<Vec<usize>>,
}
