//! Two snapshots of ours: compared by the row hashes that they come with.

use std::path::PathBuf;

use arrow::datatypes::{DataType, SchemaRef};

use super::ScanOptions;
use super::cursor::Cursor;
use super::engine::{self, Comparer, Found, Meter, ProgressFn};
use super::explain::{Explainer, columns_by_cost};
use super::merge::{Segment, merge};
use super::plan::{KeyRange, Plan, RANGE_ROW_GROUPS_MAX, Shares};
use super::rows::findings_rows;
use super::shared_groups::{KEPT_PER_THREAD, SharedGroups};
use crate::error::Result;
use crate::findings::{FORMAT_VERSION, FindingsWriter, ScanSummary, findings_schema};
use crate::keys::{KeyedGroups, key_type};
use crate::snapshot::{RowGroups, SnapshotPair};

/// Findings that a thread gathers before it explains and sends them: enough that reading columns of single rows is
/// shared by many, few enough to be small beside a run.
const GATHERED_MAX: usize = 16 * 1024;

/// Runs per thread: on each side one being compared, one ahead, and the stored bytes of one being decoded; and those that are
/// kept.
const RUNS_PER_THREAD: u64 = 6 + KEPT_PER_THREAD as u64;

/// Enough that threads end at about the same time; more of them would explain fewer differences together.
const RANGES_PER_THREAD: usize = 4;

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
    let mut summary = empty_summary(pair, options);
    let (mut writer, done) = FindingsWriter::resume(folder, schema.clone(), scope, &mut summary)?;

    let old = RowGroups::new(pair.old(), &key_types);
    let new = RowGroups::new(pair.new_side(), &key_types);
    let run_bytes_max = old.scan_bytes_max().max(new.scan_bytes_max());
    let threads = options.affordable_threads(RUNS_PER_THREAD * run_bytes_max);
    let (old, new) = (SharedGroups::new(old, threads), SharedGroups::new(new, threads));
    let shares =
        Shares { threads, ranges_per_thread: RANGES_PER_THREAD, range_groups_max: RANGE_ROW_GROUPS_MAX };
    let plan = Plan::new(&old, &new, shares, done);
    let meter = Meter::new(old.rows() + new.rows(), done.rows(), progress);
    let names = pair.old().schema().fields().iter().map(|field| field.name().clone()).collect();
    let comparer = Hashed { pair, old: &old, new: &new, columns: columns_by_cost(pair), names, schema };
    engine::run(&comparer, &plan, threads, &meter, options, &mut writer, &mut summary)?;
    writer.finish(summary)
}

struct Hashed<'a> {
    pair: &'a SnapshotPair,
    old: &'a SharedGroups<RowGroups<'a>>,
    new: &'a SharedGroups<RowGroups<'a>>,
    columns: Vec<usize>,
    names: Vec<String>,
    schema: SchemaRef,
}

impl<'a> Comparer for Hashed<'a> {
    type Worker = Explainer<'a>;

    fn worker(&self) -> Explainer<'a> {
        Explainer::new(self.pair, self.columns.clone())
    }

    fn compare(
        &self,
        explainer: &mut Explainer<'a>,
        range: &KeyRange,
        found: &mut dyn FnMut(Found) -> Result<()>,
        compared: &dyn Fn(u64) -> Result<()>,
    ) -> Result<()> {
        let old = Cursor::new(self.old, range.old.clone());
        let new = Cursor::new(self.new, range.new.clone());
        let mut gathered: Vec<Segment> = Vec::new();
        let mut gathered_count = 0;
        let mut flush = |gathered: &mut Vec<Segment>| -> Result<()> {
            self.explained(explainer, std::mem::take(gathered))?.into_iter().try_for_each(&mut *found)
        };
        merge(
            old,
            new,
            |segment| {
                gathered_count += segment.kinds.len();
                gathered.push(segment);
                if gathered_count >= GATHERED_MAX {
                    gathered_count = 0;
                    flush(&mut gathered)?;
                }
                Ok(())
            },
            compared,
        )?;
        flush(&mut gathered)
    }
}

impl Hashed<'_> {
    /// Turns differences into findings: explains all of their mismatches together.
    fn explained(&self, explainer: &mut Explainer<'_>, gathered: Vec<Segment>) -> Result<Vec<Found>> {
        let mismatches: Vec<_> =
            gathered.iter().flat_map(|segment| segment.mismatches.iter().copied()).collect();
        let mut explanations = explainer.explain(&mismatches)?.into_iter();
        gathered
            .into_iter()
            .map(|segment| {
                let keys = segment.keys(&segment.places)?;
                let mismatched = segment.mismatches.iter().map(|mismatch| mismatch.at);
                let columns = explanations.by_ref().take(segment.mismatches.len());
                let rows =
                    findings_rows(&self.schema, &self.names, &segment.kinds, keys, mismatched, columns)?;
                Ok(Found { kinds: segment.kinds, rows })
            })
            .collect()
    }
}

/// The types that key columns of both sides are brought to: their own where they agree.
pub(super) fn common_key_types(pair: &SnapshotPair) -> Vec<DataType> {
    let (old, new) = (pair.old().schema(), pair.new_side().schema());
    pair.old()
        .manifest()
        .key
        .iter()
        .filter_map(|name| Some((old.column_with_name(name)?.1, new.column_with_name(name)?.1)))
        .map(|(old, new)| common_key_type(old.data_type(), new.data_type()))
        .collect()
}

/// The type that a key column of both sides is brought to: its own where they agree.
pub(super) fn common_key_type(old: &DataType, new: &DataType) -> DataType {
    if old == new { old.clone() } else { key_type(old).unwrap_or_else(|| old.clone()) }
}

pub(super) fn empty_summary(pair: &SnapshotPair, options: &ScanOptions) -> ScanSummary {
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
        columns: None,
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
