//! Findings out of what an engine outside this crate has found.
//!
//! Such an engine answers with the keys that are not one row on each side with the same values, in any order, and may
//! say a key twice: work that was lost with a machine is done again. Sorting brings both in order. An answer that is
//! wrong is refused where that can be seen: each key has one answer, and the rows that are not in the answer are as
//! many on one side as on the other.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::types::UInt64Type;
use arrow::array::{
    Array, ArrayRef, BooleanArray, ListArray, ListBuilder, RecordBatch, StringArray, StringBuilder,
};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::ScanOptions;
use super::explain::{Explainer, columns_by_cost};
use super::find::Finder;
use super::hashed::{common_key_types, empty_summary};
use super::merge::Mismatch;
use crate::error::{Error, Result};
use crate::findings::{FindingKind, FindingsWriter, ScanSummary, findings_schema};
use crate::import::Sorter;
use crate::keys::{Keys, key_type};
use crate::snapshot::SnapshotPair;

/// The answer's columns behind those of the key.
const COUNTS: usize = 2;

/// What is compared, by whatever engine.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// The summary of a scan that has found nothing yet.
    pub(super) summary: ScanSummary,
    /// The types that the key's columns have in findings.
    pub(super) key_types: Vec<DataType>,
}

impl Comparison {
    /// The columns that identify a row: scope first, then the rest.
    pub fn key(&self) -> &[String] {
        &self.summary.key
    }

    /// Rows of both sides.
    pub fn rows(&self) -> u64 {
        self.summary.rows_old.saturating_add(self.summary.rows_new)
    }

    /// The types as which keys are compared, and by which an engine must group: what is equal there is one key.
    pub fn compared_as(&self) -> Vec<DataType> {
        self.key_types.iter().map(|own| key_type(own).unwrap_or_else(|| own.clone())).collect()
    }

    /// The columns of an answer: the key's as `key_0`, `key_1` and so on, how many rows of each side have it as `old_rows`
    /// and `new_rows`, and `columns`: those that differ, NULL where that has yet to be found out.
    pub fn answer_schema(&self) -> SchemaRef {
        let item = Arc::new(Field::new("item", DataType::Utf8, false));
        let mut fields: Vec<Field> = self
            .answer_key()
            .into_iter()
            .zip(self.compared_as())
            .map(|(name, data_type)| Field::new(name, data_type, false))
            .collect();
        fields.push(Field::new("old_rows", DataType::UInt64, false));
        fields.push(Field::new("new_rows", DataType::UInt64, false));
        fields.push(Field::new("columns", DataType::List(item), true));
        Arc::new(Schema::new(fields))
    }

    fn answer_key(&self) -> Vec<String> {
        (0..self.key().len()).map(|position| format!("key_{position}")).collect()
    }
}

impl From<&SnapshotPair> for Comparison {
    fn from(pair: &SnapshotPair) -> Self {
        let summary = empty_summary(pair, &ScanOptions::default());
        Self { summary, key_types: common_key_types(pair) }
    }
}

/// Writes an engine's answer as findings into `findings`, a folder that is created if it is not there. The findings are
/// those of [`scan`](super::scan) of the same rows, byte by byte.
///
/// Batches have the [answer's columns](Comparison::answer_schema). Mismatched rows that do not say which columns differ
/// are looked up in `explain_from`.
///
/// # Errors
///
/// [`Error::Answer`] if the answer contradicts itself, or the snapshots; the first error of `answer`; what
/// [`scan`](super::scan) gives for the folder and the snapshots.
pub fn conclude(
    comparison: &Comparison,
    explain_from: Option<&SnapshotPair>,
    answer: impl IntoIterator<Item = Result<RecordBatch>>,
    findings: impl Into<PathBuf>,
    options: &ScanOptions,
) -> Result<ScanSummary> {
    let folder = findings.into();
    let schema = findings_schema(comparison.key().iter().cloned().zip(comparison.key_types.iter().cloned()));
    let mut writer = FindingsWriter::create(
        folder.clone(),
        schema.clone(),
        comparison.summary.scope.clone(),
        options.chunk_keys_max.get(),
    )?;
    let key = comparison.answer_key();
    let mut sorter = Sorter::new(&folder, key.clone(), options.memory_bytes_max)?;
    for batch in answer {
        let batch = batch?;
        if batch.num_rows() > 0 {
            sorter.add(batch)?;
        }
    }
    let lookup = explain_from.map(|pair| Lookup::new(pair, &comparison.key_types));
    let summary = ScanSummary { chunk_keys_max: options.chunk_keys_max.get(), ..comparison.summary.clone() };
    let mut conclusion = Conclusion { comparison, schema, lookup, last: None, summary, gone: [0; 2] };
    sorter.finish(&mut |batch| {
        if let Some(found) = conclusion.add(&batch, &key)? {
            writer.write(&found)?;
        }
        Ok(())
    })?;
    conclusion.check_balance()?;
    writer.finish(conclusion.summary)
}

/// Where mismatched rows are looked up.
struct Lookup<'a> {
    old: Finder<'a>,
    new: Finder<'a>,
    explainer: Explainer<'a>,
    names: Vec<String>,
}

impl<'a> Lookup<'a> {
    fn new(pair: &'a SnapshotPair, key_types: &'a [DataType]) -> Self {
        Self {
            old: Finder::new(pair.old(), key_types),
            new: Finder::new(pair.new_side(), key_types),
            explainer: Explainer::new(pair, columns_by_cost(pair)),
            names: pair.old().schema().fields().iter().map(|field| field.name().clone()).collect(),
        }
    }

    /// The names of the columns that differ, for each of these rows.
    fn explain(&mut self, keys: &Keys, rows: &[usize]) -> Result<Vec<Vec<String>>> {
        let mut mismatches = Vec::with_capacity(rows.len());
        for &row in rows {
            let (Some(old), Some(new)) = (self.old.find(keys, row)?, self.new.find(keys, row)?) else {
                let detail = format!("{} is said to differ, and is not on both sides", keys.display(row));
                return Err(Error::Answer { detail });
            };
            mismatches.push(Mismatch {
                at: row,
                old_row: old.row,
                new_row: new.row,
                hash_difference: old.hash.wrapping_sub(new.hash),
            });
        }
        if let Some(equal) = mismatches.iter().find(|mismatch| mismatch.hash_difference == 0) {
            let detail = format!("{} is said to differ, and does not", keys.display(equal.at));
            return Err(Error::Answer { detail });
        }
        let explained = self.explainer.explain(&mismatches)?;
        let named = |positions: Vec<usize>| positions.into_iter().map(|at| self.names[at].clone()).collect();
        Ok(explained.into_iter().map(named).collect())
    }
}

/// Turns sorted answers into findings.
struct Conclusion<'a> {
    comparison: &'a Comparison,
    schema: SchemaRef,
    lookup: Option<Lookup<'a>>,
    /// The last key, and how many rows of each side have it.
    last: Option<(Keys, [u64; COUNTS])>,
    summary: ScanSummary,
    /// Rows of each side that are in the answer.
    gone: [u64; COUNTS],
}

impl Conclusion<'_> {
    fn add(&mut self, answer: &RecordBatch, key: &[String]) -> Result<Option<RecordBatch>> {
        let answer = self.without_repetitions(answer, key)?;
        if answer.num_rows() == 0 {
            return Ok(None);
        }
        let counts = counts(&answer, key.len())?;
        let keys = Keys::new(answer.columns()[..key.len()].to_vec(), answer.num_rows(), key)?;
        let kinds: Vec<FindingKind> = counts
            .iter()
            .enumerate()
            .map(|(row, counts)| kind(*counts).ok_or_else(|| nothing_wrong(&keys, row)))
            .collect::<Result<_>>()?;
        for (kind, [old, new]) in kinds.iter().zip(&counts) {
            match kind {
                FindingKind::Missing => self.summary.missing += 1,
                FindingKind::Mismatched => self.summary.mismatched += 1,
                FindingKind::Orphaned => self.summary.orphaned += 1,
                FindingKind::Duplicated => self.summary.duplicated += 1,
            }
            self.gone = [self.gone[0].saturating_add(*old), self.gone[1].saturating_add(*new)];
        }
        let columns = self.columns(&answer, &keys, &kinds)?;
        let names = StringArray::from_iter_values(kinds.iter().map(|kind| kind.name()));
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(names)];
        for (array, own) in answer.columns().iter().zip(&self.comparison.key_types) {
            arrays.push(cast(array, own).map_err(Error::arrow("bring keys to their own type"))?);
        }
        arrays.push(Arc::new(columns));
        RecordBatch::try_new(self.schema.clone(), arrays).map(Some).map_err(Error::arrow("gather findings"))
    }

    /// Each key once. What was said twice must have been said alike.
    fn without_repetitions(&mut self, answer: &RecordBatch, key: &[String]) -> Result<RecordBatch> {
        let rows = answer.num_rows();
        let keys = Keys::new(answer.columns()[..key.len()].to_vec(), rows, key)?;
        let counts = counts(answer, key.len())?;
        let mut kept = Vec::with_capacity(rows);
        for row in 0..rows {
            let before = match (row, &self.last) {
                (0, None) => None,
                (0, Some((last, counts))) => last.compare(0, &keys, 0).is_eq().then_some(*counts),
                (row, _) => keys.compare(row - 1, &keys, row).is_eq().then_some(counts[row - 1]),
            };
            if before.is_some_and(|before| before != counts[row]) {
                let detail = format!("{} is answered twice, and differently", keys.display(row));
                return Err(Error::Answer { detail });
            }
            kept.push(before.is_none());
        }
        self.last = Some((keys.slice(rows - 1, 1), counts[rows - 1]));
        filter_record_batch(answer, &BooleanArray::from(kept)).map_err(Error::arrow("gather findings"))
    }

    fn columns(&mut self, answer: &RecordBatch, keys: &Keys, kinds: &[FindingKind]) -> Result<ListArray> {
        let said = answer.column(self.comparison.key().len() + COUNTS).as_list::<i32>();
        let open: Vec<usize> = (0..kinds.len())
            .filter(|&row| kinds[row] == FindingKind::Mismatched && said.is_null(row))
            .collect();
        let explained = match &mut self.lookup {
            Some(lookup) => lookup.explain(keys, &open)?,
            None if open.is_empty() => Vec::new(),
            None => {
                let detail = format!("{} differs, and no column is named", keys.display(open[0]));
                return Err(Error::Answer { detail });
            }
        };
        let mut explained = open.iter().zip(explained).peekable();
        let item = Field::new("item", DataType::Utf8, false);
        let mut columns = ListBuilder::new(StringBuilder::new()).with_field(item);
        for (row, kind) in kinds.iter().enumerate() {
            if let Some((_, names)) = explained.next_if(|(open, _)| **open == row) {
                names.iter().for_each(|name| columns.values().append_value(name));
            } else if *kind == FindingKind::Mismatched {
                let names = said.value(row);
                names
                    .as_string::<i32>()
                    .iter()
                    .flatten()
                    .for_each(|name| columns.values().append_value(name));
            }
            columns.append(true);
        }
        Ok(columns.finish())
    }

    /// Rows that are not in the answer are equal on both sides, so there are as many of them on both. An answer in which
    /// rows of one side were lost on the way does not pass.
    fn check_balance(&self) -> Result<()> {
        let rest = |rows: u64, gone: u64| rows.checked_sub(gone);
        let old = rest(self.summary.rows_old, self.gone[0]);
        let new = rest(self.summary.rows_new, self.gone[1]);
        if old.is_some() && old == new {
            return Ok(());
        }
        let detail = format!(
            "it leaves {} of {} old rows and {} of {} new ones as equal, which cannot be",
            old.map_or_else(|| "fewer than none".to_owned(), |rows| rows.to_string()),
            self.summary.rows_old,
            new.map_or_else(|| "fewer than none".to_owned(), |rows| rows.to_string()),
            self.summary.rows_new
        );
        Err(Error::Answer { detail })
    }
}

/// How many rows of each side have each key.
fn counts(answer: &RecordBatch, key_columns: usize) -> Result<Vec<[u64; COUNTS]>> {
    let side = |position: usize| {
        let column = answer.columns().get(key_columns + position);
        column.and_then(|column| column.as_primitive_opt::<UInt64Type>()).ok_or_else(|| Error::Answer {
            detail: format!("it does not have its {COUNTS} columns of counts"),
        })
    };
    let (old, new) = (side(0)?, side(1)?);
    Ok(old.values().iter().zip(new.values()).map(|(old, new)| [*old, *new]).collect())
}

fn kind(counts: [u64; COUNTS]) -> Option<FindingKind> {
    match counts {
        [0, 0] => None,
        [1, 0] => Some(FindingKind::Missing),
        [0, 1] => Some(FindingKind::Orphaned),
        [1, 1] => Some(FindingKind::Mismatched),
        _ => Some(FindingKind::Duplicated),
    }
}

fn nothing_wrong(keys: &Keys, row: usize) -> Error {
    Error::Answer { detail: format!("{} is in it, and on neither side", keys.display(row)) }
}

#[cfg(test)]
mod tests;
