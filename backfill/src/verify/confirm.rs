//! The second look: which findings are still true when both stores are locked for their keys.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::cast::AsArray;
use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Field, Schema};
use crossfade_migration_core::Error as CoreError;
use crossfade_migration_core::key::Key;
use crossfade_migration_core::phase::Epoch;
use crossfade_migration_core::plan::Plan;

use super::set_count;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::findings::{FindingKind, Findings, FindingsWriter, ScanSummary};
use crate::migration::Migration;
use crate::progress::{Meter, Progress, Stage, Wait};
use crate::queue::Tunables;
use crate::scope_keys::scope_keys;
use crate::workers::{Pace, jitter};

/// How often a look that lost a race is taken again: about ten seconds, because a verification that fails has to start
/// over.
const RETRIES_MAX: u32 = 20;

/// The kinds, in the order in which they are counted.
const KINDS: [FindingKind; 4] =
    [FindingKind::Missing, FindingKind::Mismatched, FindingKind::Orphaned, FindingKind::Duplicated];

/// Writes those findings into `out` whose keys still differ, and gives their summary.
pub(super) async fn confirmed(
    migration: &Migration,
    epoch: Epoch,
    findings: Findings,
    out: PathBuf,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<ScanSummary> {
    let summary = findings.summary().clone();
    let total = summary.chunks.iter().map(|chunk| chunk.scope_keys).sum();
    let meter = Meter::new(progress, Stage::Recheck, 0, Some(total));
    let findings = Arc::new(findings);
    let mut second = Second { migration, epoch, meter, pace: Pace::new(), cancel };
    let mut written = Written { writer: None, out, counts: [0; 4] };
    for index in 0..findings.chunks() {
        let plan = migration.subject.clone();
        let source = findings.clone();
        let keys = blocking(move || scope_keys(&plan.plan, source.chunk(index)?.keys())).await?;
        let differing = second.look(&keys).await?;
        let plan = migration.subject.clone();
        let source = findings.clone();
        written = blocking(move || written.take(&source, index, &plan.plan, &differing)).await?;
    }
    second.meter.finish();
    blocking(move || written.finish(summary)).await
}

struct Second<'a> {
    migration: &'a Migration,
    epoch: Epoch,
    meter: Meter<'a>,
    pace: Pace,
    cancel: &'a Cancel,
}

impl Second<'_> {
    /// Which of these keys still differ.
    async fn look(&mut self, keys: &[Key]) -> Result<HashSet<Key>> {
        let tunables = self.migration.tunables;
        let mut differing = HashSet::new();
        let mut rest = keys;
        while !rest.is_empty() {
            if self.cancel.is_cancelled() {
                return Err(Error::Stopped { what: "verification" });
            }
            let batch = &rest[..self.pace.keys(Tunables::BATCH_KEYS_MAX as usize).min(rest.len())];
            let started = Instant::now();
            let found = self.batch(batch).await?;
            self.pace.took(batch.len(), started.elapsed(), tunables.batch_time());
            // A database that spells a key in another way than it was asked for cannot clear any of the batch.
            if found.iter().all(|key| batch.contains(key)) {
                differing.extend(found);
            } else {
                differing.extend(batch.iter().cloned());
            }
            self.meter.add(batch.len() as u64);
            rest = &rest[batch.len()..];
        }
        Ok(differing)
    }

    async fn batch(&self, keys: &[Key]) -> Result<Vec<Key>> {
        let mut attempt = 0;
        loop {
            match self.migration.store.recheck(&self.migration.subject, self.epoch, keys).await {
                Ok(found) => return Ok(found),
                Err(CoreError::StaleEpoch { migration, expected, found }) => {
                    return Err(Error::MovedOn {
                        migration,
                        what: "verification",
                        from: expected.0,
                        to: found.0,
                    });
                }
                Err(error) if error.is_retryable() && attempt < RETRIES_MAX => {
                    self.meter.wait(Wait::Retry { error: error.to_string() });
                    tokio::time::sleep(jitter(attempt)).await;
                    attempt += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

struct Written {
    writer: Option<FindingsWriter>,
    out: PathBuf,
    counts: [u64; 4],
}

impl Written {
    /// Writes the findings of a chunk whose keys are among `differing`.
    fn take(
        mut self,
        findings: &Findings,
        index: usize,
        plan: &Plan,
        differing: &HashSet<Key>,
    ) -> Result<Self> {
        for batch in findings.findings(index)? {
            let batch = batch?;
            let writer = match &mut self.writer {
                Some(writer) => writer,
                none => none.insert(begin(&self.out, findings, &batch)?),
            };
            if batch.num_rows() == 0 {
                continue;
            }
            let keys = scope_keys(plan, &scope_rows(findings, &batch)?)?;
            let still: BooleanArray = keys.iter().map(|key| Some(differing.contains(key))).collect();
            let kept =
                filter_record_batch(&batch, &still).map_err(Error::arrow("pick confirmed findings"))?;
            let kinds = kept.column(0).as_string::<i32>();
            for kind in kinds.iter().flatten() {
                if let Some(position) = KINDS.iter().position(|known| known.name() == kind) {
                    self.counts[position] += 1;
                }
            }
            writer.write(&kept)?;
        }
        Ok(self)
    }

    fn finish(self, mut summary: ScanSummary) -> Result<ScanSummary> {
        for (kind, count) in KINDS.into_iter().zip(self.counts) {
            set_count(&mut summary, kind, count);
        }
        summary.findings = None;
        match self.writer {
            Some(writer) => writer.finish(summary),
            // There was no finding at all.
            None => Ok(summary),
        }
    }
}

fn begin(out: &std::path::Path, findings: &Findings, first: &RecordBatch) -> Result<FindingsWriter> {
    let summary = findings.summary();
    FindingsWriter::create(out.to_owned(), first.schema(), summary.scope.clone(), summary.chunk_keys_max)
}

/// The scope columns, which come right after the kind, under their own names.
fn scope_rows(findings: &Findings, batch: &RecordBatch) -> Result<RecordBatch> {
    let scope = &findings.summary().scope;
    let columns = batch.columns()[1..=scope.len()].to_vec();
    let fields: Vec<Field> = scope
        .iter()
        .zip(&columns)
        .map(|(name, column)| Field::new(name, column.data_type().clone(), false))
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(Error::arrow("read findings"))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::WorkerLost)?
}
