//! Threads: who compares which range, and how findings get out in key order.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use arrow::array::{ArrayRef, ListBuilder, RecordBatch, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Field, SchemaRef};

use super::cursor::Cursor;
use super::explain::{Explainer, columns_by_cost};
use super::merge::{Differences, merge};
use super::plan::{KeyRange, key_ranges};
use super::{Progress, ScanOptions};
use crate::error::{Error, Result};
use crate::findings::{FORMAT_VERSION, FindingKind, FindingsWriter, ScanSummary, findings_schema};
use crate::keys::key_type;
use crate::snapshot::{RowGroups, SnapshotPair};

/// Findings that a thread gathers before it explains and sends them: enough that reading columns of single rows is
/// shared by many, few enough to be small beside a run.
const GATHERED_MAX: usize = 16 * 1024;

/// Batches of findings that wait per thread for the ranges before them to be written.
const WAITING_BATCHES_MAX: usize = 4;

/// Runs per thread: on each side one being compared, one ahead, and the stored bytes of one being decoded.
const RUNS_PER_THREAD: u64 = 6;

type ProgressFn<'a> = &'a (dyn Fn(Progress) -> ControlFlow<()> + Sync);

pub(super) fn run(
    pair: &SnapshotPair,
    folder: PathBuf,
    options: &ScanOptions,
    progress: ProgressFn<'_>,
) -> Result<ScanSummary> {
    let key_types = common_key_types(pair);
    let key = &pair.old().manifest().key;
    let schema = findings_schema(key.iter().cloned().zip(key_types.iter().cloned()));
    let scope = pair.old().manifest().scope.clone();
    let mut writer = FindingsWriter::create(folder, schema.clone(), scope, options.chunk_keys_max.get())?;

    let old = RowGroups::new(pair.old(), &key_types);
    let new = RowGroups::new(pair.new_side(), &key_types);
    let threads = thread_count(options, old.scan_bytes_max().max(new.scan_bytes_max()));
    let ranges = key_ranges(&old, &new, threads)?;
    let columns = columns_by_cost(pair);
    let meter = Meter::new(old.rows() + new.rows(), progress);
    let job = Job { pair, old, new, ranges, columns, schema, meter };

    let mut summary = empty_summary(pair, options);
    thread::scope(|scope| {
        let receivers: Vec<Receiver<Message>> = (0..threads.min(job.ranges.len()))
            .map(|worker| {
                let (sender, receiver) = sync_channel(WAITING_BATCHES_MAX);
                let job = &job;
                scope.spawn(move || work(job, worker, threads, &sender));
                receiver
            })
            .collect();
        let drained = drain(&job, &receivers, &mut writer, &mut summary);
        job.meter.stop.store(drained.is_err(), Ordering::Relaxed);
        drained
    })?;
    writer.finish(summary)
}

/// What all threads share.
struct Job<'a> {
    pair: &'a SnapshotPair,
    old: RowGroups<'a>,
    new: RowGroups<'a>,
    ranges: Vec<KeyRange>,
    columns: Vec<usize>,
    schema: SchemaRef,
    meter: Meter<'a>,
}

/// What a worker sends to the writer.
enum Message {
    Findings(Found),
    RangeDone,
    Failed(Box<Error>),
}

/// Findings as they are written, and the kind of each.
struct Found {
    kinds: Vec<FindingKind>,
    rows: RecordBatch,
}

/// Takes every `threads`-th range. Which thread takes which is fixed, and each has a channel of its own: whoever is
/// ahead waits for the writer, whoever the writer waits for never does.
fn work(job: &Job<'_>, worker: usize, threads: usize, sender: &SyncSender<Message>) {
    let mut explainer = Explainer::new(job.pair, &job.columns);
    for range in job.ranges.iter().skip(worker).step_by(threads) {
        let message = match compare_range(job, range, &mut explainer, sender) {
            Ok(()) => Message::RangeDone,
            Err(error) => Message::Failed(Box::new(error)),
        };
        let failed = matches!(message, Message::Failed(_));
        if sender.send(message).is_err() || failed {
            return;
        }
    }
}

/// Writes what the threads find, range by range.
fn drain(
    job: &Job<'_>,
    receivers: &[Receiver<Message>],
    writer: &mut FindingsWriter,
    summary: &mut ScanSummary,
) -> Result<()> {
    for receiver in receivers.iter().cycle().take(job.ranges.len()) {
        loop {
            match receiver.recv() {
                Ok(Message::Findings(found)) => {
                    count(&found.kinds, summary);
                    writer.write(&found.rows)?;
                }
                Ok(Message::RangeDone) => break,
                Ok(Message::Failed(error)) => return Err(*error),
                Err(_) => return Err(Error::WorkerLost),
            }
        }
    }
    Ok(())
}

fn compare_range(
    job: &Job<'_>,
    range: &KeyRange,
    explainer: &mut Explainer<'_>,
    sender: &SyncSender<Message>,
) -> Result<()> {
    let old = Cursor::new(&job.old, range.old.clone());
    let new = Cursor::new(&job.new, range.new.clone());
    let mut gathered: Vec<Differences> = Vec::new();
    let mut gathered_count = 0;
    let mut flush = |gathered: &mut Vec<Differences>| -> Result<()> {
        for found in explained(job, explainer, std::mem::take(gathered))? {
            // Without a receiver another range has failed, and nobody reads this error.
            sender.send(Message::Findings(found)).map_err(|_| job.meter.cancelled())?;
        }
        Ok(())
    };
    merge(
        old,
        new,
        |differences| {
            gathered_count += differences.kinds.len();
            gathered.push(differences);
            if gathered_count >= GATHERED_MAX {
                gathered_count = 0;
                flush(&mut gathered)?;
            }
            Ok(())
        },
        |rows| job.meter.add(rows),
    )?;
    flush(&mut gathered)
}

/// Turns differences into findings: explains all of their mismatches together.
fn explained(job: &Job<'_>, explainer: &mut Explainer<'_>, gathered: Vec<Differences>) -> Result<Vec<Found>> {
    let mismatches: Vec<_> =
        gathered.iter().flat_map(|differences| differences.mismatches.iter().copied()).collect();
    let mut explanations = explainer.explain(&mismatches)?.into_iter();
    gathered
        .into_iter()
        .map(|differences| {
            let explanations = explanations.by_ref().take(differences.mismatches.len());
            let rows = findings(job, &differences, explanations)?;
            Ok(Found { kinds: differences.kinds, rows })
        })
        .collect()
}

fn findings(
    job: &Job<'_>,
    differences: &Differences,
    explanations: impl Iterator<Item = Vec<usize>>,
) -> Result<RecordBatch> {
    let fields = job.pair.old().schema().fields();
    let item = Field::new("item", DataType::Utf8, false);
    let mut columns = ListBuilder::new(StringBuilder::new()).with_field(item);
    let mut explained = differences.mismatches.iter().zip(explanations).peekable();
    for row in 0..differences.kinds.len() {
        if let Some((_, positions)) = explained.next_if(|(mismatch, _)| mismatch.at == row) {
            for position in positions {
                columns.values().append_value(fields[position].name());
            }
        }
        columns.append(true);
    }
    let kinds = StringArray::from_iter_values(differences.kinds.iter().map(|kind| kind.name()));
    let mut arrays: Vec<ArrayRef> = vec![Arc::new(kinds)];
    arrays.extend(differences.keys.iter().cloned());
    arrays.push(Arc::new(columns.finish()));
    RecordBatch::try_new(job.schema.clone(), arrays).map_err(Error::arrow("gather findings"))
}

fn count(kinds: &[FindingKind], summary: &mut ScanSummary) {
    for kind in kinds {
        match kind {
            FindingKind::Missing => summary.missing += 1,
            FindingKind::Mismatched => summary.mismatched += 1,
            FindingKind::Orphaned => summary.orphaned += 1,
            FindingKind::Duplicated => summary.duplicated += 1,
        }
    }
}

/// The types that key columns of both sides are brought to: their own where they agree.
fn common_key_types(pair: &SnapshotPair) -> Vec<DataType> {
    let (old, new) = (pair.old().schema(), pair.new_side().schema());
    pair.old()
        .manifest()
        .key
        .iter()
        .filter_map(|name| Some((old.column_with_name(name)?.1, new.column_with_name(name)?.1)))
        .map(|(old, new)| {
            let own = old.data_type().clone();
            if old.data_type() == new.data_type() { own } else { key_type(&own).unwrap_or(own) }
        })
        .collect()
}

fn thread_count(options: &ScanOptions, run_bytes_max: u64) -> usize {
    let thread_bytes = (run_bytes_max * RUNS_PER_THREAD).max(1);
    let affordable = usize::try_from(options.memory_bytes_max / thread_bytes).unwrap_or(usize::MAX);
    options.threads.get().min(affordable).max(1)
}

fn empty_summary(pair: &SnapshotPair, options: &ScanOptions) -> ScanSummary {
    let (old, new) = (pair.old().manifest(), pair.new_side().manifest());
    ScanSummary {
        format_version: FORMAT_VERSION,
        writer: concat!("crossfade ", env!("CARGO_PKG_VERSION")).to_owned(),
        migration: old.migration.clone(),
        manifest_hash: old.manifest_hash.clone(),
        epoch: old.epoch,
        phase: old.phase.clone(),
        simultaneous: pair.is_simultaneous(),
        old: old.into(),
        new: new.into(),
        key: old.key.clone(),
        scope: old.scope.clone(),
        chunk_keys_max: options.chunk_keys_max.get(),
        rows_old: old.rows,
        rows_new: new.rows,
        missing: 0,
        mismatched: 0,
        orphaned: 0,
        duplicated: 0,
        chunks: Vec::new(),
        findings: None,
    }
}

/// Counts compared rows for all threads, and stops them.
struct Meter<'a> {
    rows_done: AtomicU64,
    rows_total: u64,
    stop: AtomicBool,
    progress: ProgressFn<'a>,
}

impl<'a> Meter<'a> {
    fn new(rows_total: u64, progress: ProgressFn<'a>) -> Self {
        Self { rows_done: AtomicU64::new(0), rows_total, stop: AtomicBool::new(false), progress }
    }

    fn add(&self, rows: u64) -> Result<()> {
        let rows_done = self.rows_done.fetch_add(rows, Ordering::Relaxed) + rows;
        let progress = Progress { rows_done, rows_total: self.rows_total };
        if (self.progress)(progress).is_break() {
            self.stop.store(true, Ordering::Relaxed);
        }
        if self.stop.load(Ordering::Relaxed) { Err(self.cancelled()) } else { Ok(()) }
    }

    fn cancelled(&self) -> Error {
        Error::Cancelled { rows_done: self.rows_done.load(Ordering::Relaxed), rows_total: self.rows_total }
    }
}
