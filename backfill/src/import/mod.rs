//! Dumps that other tools wrote, turned into snapshots.
//!
//! Database services, DuckDB, Spark and pyarrow write tables as folders of Parquet files, without row hashes and in any
//! order. An import gives such a folder the order, the hashes and the manifest that a scan needs, once, within a budget of
//! memory; after that it is a snapshot like any other.

mod merge;
mod sort;
mod source;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::Schema;

use crate::error::{Error, Result};
use crate::keys::Keys;
use crate::snapshot::{Side, SnapshotHeader, SnapshotManifest, SnapshotWriter};
pub(crate) use sort::Sorter;
use source::Source;

/// Memory for sorting.
const MEMORY_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// A dump and what it is of.
#[derive(Debug, Clone)]
pub struct Dump {
    /// The dump's folder: all files in it that end in `.parquet`, or one such file.
    pub path: PathBuf,
    /// The columns to take, in the projection's order. The dump may have others, and have them in another order.
    pub columns: Vec<String>,
    /// The migration.
    pub migration: String,
    /// Hash of the migration's manifest.
    pub manifest_hash: String,
    /// Which side the dump is of.
    pub side: Side,
    /// The store that it was taken from, with its secrets masked.
    pub store: String,
    /// The point in the store's time that it shows, in the store's own words.
    pub consistent_point: String,
    /// The migration's epoch when the dump began. Whoever took the dump must know it: nothing in the dump says so.
    pub epoch: u64,
    /// The migration's phase when the dump began.
    pub phase: String,
    /// When the dump began, as RFC 3339.
    pub started_at: String,
    /// The new table's key: scope first, then the rest.
    pub key: Vec<String>,
    /// How many of the key's columns are the scope.
    pub scope_columns: usize,
}

/// How an import runs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ImportOptions {
    /// How many bytes of rows are sorted in memory at a time. What does not fit waits on the disk, beside the snapshot.
    pub memory_bytes_max: u64,
}

impl Default for ImportOptions {
    /// One GiB.
    fn default() -> Self {
        Self { memory_bytes_max: MEMORY_BYTES_MAX }
    }
}

/// Writes a dump as the snapshot in `folder`. A dump that is in key order already is only copied; any other is sorted.
///
/// # Errors
///
/// [`Error::DumpAbsent`]; [`Error::FileSchema`] if a file lacks a column or has it with another type than the first;
/// [`Error::FileCorrupt`]; [`Error::KeyNull`], naming file and row; what [`SnapshotWriter`] gives.
pub fn import(dump: Dump, folder: impl Into<PathBuf>, options: &ImportOptions) -> Result<SnapshotManifest> {
    let folder = folder.into();
    let source = Source::open(&dump.path, &dump.columns)?;
    let mut writer = SnapshotWriter::create(&folder, header(&dump, source.schema()))?;
    if is_in_order(&source, &dump.key)? {
        for batch in source.batches(&dump.columns) {
            writer.write(&batch?)?;
        }
    } else {
        let mut sorter = Sorter::new(&folder, dump.key.clone(), options.memory_bytes_max)?;
        for batch in source.batches(&dump.columns) {
            sorter.add(batch?)?;
        }
        sorter.finish(&mut |batch| writer.write(&batch))?;
    }
    writer.finish()
}

/// Whether rows come in key order. Reads the keys only, and also sees to it that none is NULL, while it is still known
/// which file and row it is.
fn is_in_order(source: &Source, key: &[String]) -> Result<bool> {
    let mut in_order = true;
    let mut last: Option<Keys> = None;
    for file in source.files() {
        let mut row = 0;
        for batch in file.batches(key) {
            let batch = batch?;
            if batch.num_rows() == 0 {
                continue;
            }
            check_nulls(file.path(), &batch, row)?;
            row += batch.num_rows() as u64;
            if !in_order {
                continue;
            }
            let keys = Keys::new(batch.columns().to_vec(), batch.num_rows(), key)?;
            let follows = last.is_none_or(|last| last.compare(0, &keys, 0).is_le());
            in_order = follows && !matches!(keys.ascent(), crate::keys::Ascent::BrokenAt(_));
            last = Some(keys.slice(keys.rows() - 1, 1));
        }
    }
    Ok(in_order)
}

fn check_nulls(path: &Path, keys: &arrow::array::RecordBatch, first_row: u64) -> Result<()> {
    for (column, field) in keys.columns().iter().zip(keys.schema_ref().fields()) {
        let nulls = column.logical_nulls();
        if let Some(row) = nulls.and_then(|nulls| nulls.iter().position(|valid| !valid)) {
            let column = field.name().clone();
            return Err(Error::KeyNull { path: path.to_owned(), row: first_row + row as u64, column });
        }
    }
    Ok(())
}

fn header(dump: &Dump, schema: Arc<Schema>) -> SnapshotHeader {
    SnapshotHeader {
        migration: dump.migration.clone(),
        manifest_hash: dump.manifest_hash.clone(),
        side: dump.side,
        store: dump.store.clone(),
        consistent_point: dump.consistent_point.clone(),
        epoch: dump.epoch,
        phase: dump.phase.clone(),
        started_at: dump.started_at.clone(),
        schema,
        key: dump.key.clone(),
        scope_columns: dump.scope_columns,
    }
}

#[cfg(test)]
mod tests;
