//! Two tables as other tools have dumped them: what is to be compared, opened and checked.

use std::path::{Path, PathBuf};

use arrow::datatypes::{DataType, SchemaRef, TimeUnit};

use super::ScanOptions;
use super::conclude::Comparison;
use super::hashed::common_key_type;
use crate::error::{Error, Result};
use crate::findings::{FORMAT_VERSION, ScanInput, ScanSummary, findings_schema};
use crate::foreign::{ForeignTable, Ordering};
use crate::keys::{key_type, mergeable};
use crate::row_hash::comparable;

/// Two dumps to be compared: folders of Parquet files, or single files, that any tool wrote. A snapshot of ours is one too.
#[derive(Debug, Clone)]
pub struct Dumps {
    /// What the projection gives.
    pub old: PathBuf,
    /// What the new table holds.
    pub new: PathBuf,
    /// The columns that identify a row: scope first, then the rest.
    pub key: Vec<String>,
    /// How many of the key's columns are the scope.
    pub scope_columns: usize,
    /// What of the rows is compared.
    pub compared: Compared,
    /// In which order rows are.
    pub order: DumpOrder,
    /// What the dumps are of: nothing in them says so.
    pub origin: DumpOrigin,
}

/// What of the rows is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compared {
    /// All columns, which both dumps must have.
    AllColumns,
    /// The key and these columns, whatever others the dumps have.
    Columns(Vec<String>),
    /// Keys alone: which rows are missing, orphaned or duplicated, and not which differ.
    Keys,
}

/// In which order the rows of dumps are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DumpOrder {
    /// In key order if the files claim it or their bounds suggest it. Where only bounds did and rows turn out not to be,
    /// the scan begins again as an unordered one.
    Detect,
    /// In key order. A row out of order is an error.
    Ordered,
    /// In any order.
    Unordered,
}

/// What dumps are of, in the words of whoever took them.
#[derive(Debug, Clone, Default)]
pub struct DumpOrigin {
    /// The migration.
    pub migration: String,
    /// Hash of the migration's manifest.
    pub manifest_hash: String,
    /// The migration's epoch when the dumps began; 0 where nobody knows, which no epoch is.
    pub epoch: u64,
    /// The migration's phase when the dumps began.
    pub phase: String,
    /// Where the old and the new dump are from, where that is not where they lie.
    pub stores: Option<[String; 2]>,
}

/// Two dumps as an engine outside this crate reads them.
#[derive(Debug, Clone)]
pub struct DumpTables {
    /// The old one.
    pub old: DumpTable,
    /// The new one.
    pub new: DumpTable,
    /// The columns outside the key that are compared.
    pub values: Vec<String>,
    /// What is compared.
    pub comparison: Comparison,
}

/// One dump as an engine outside this crate reads it.
#[derive(Debug, Clone)]
pub struct DumpTable {
    /// Its files.
    pub files: Vec<PathBuf>,
    /// The columns that are compared, the key's first. The files may have others.
    pub schema: SchemaRef,
    /// How many rows it has.
    pub rows: u64,
}

impl Dumps {
    /// Opens both dumps, and checks that they can be compared.
    ///
    /// # Errors
    ///
    /// Those of [`scan_dumps`](super::scan_dumps) about files, columns and types.
    pub fn open(&self) -> Result<DumpTables> {
        // Another engine reads the files itself, and timestamps of such columns as it likes.
        let pair = DumpPair::open_as(self, Int96::AsItIs)?;
        let table = |table: &ForeignTable| DumpTable {
            files: table.files().iter().map(|file| file.path().to_owned()).collect(),
            schema: table.schema().clone(),
            rows: table.rows(),
        };
        let summary = pair.empty_summary(&ScanOptions::default());
        let comparison = Comparison { summary, key_types: pair.key_types.clone() };
        Ok(DumpTables { old: table(&pair.old), new: table(&pair.new), values: pair.values, comparison })
    }
}

/// Two dumps, checked to be comparable.
pub(super) struct DumpPair<'a> {
    pub(super) dumps: &'a Dumps,
    pub(super) old: ForeignTable,
    pub(super) new: ForeignTable,
    pub(super) orders: [Ordering; 2],
    /// The types that key columns of both sides are brought to.
    pub(super) key_types: Vec<DataType>,
    /// The columns outside the key that are compared.
    pub(super) values: Vec<String>,
    pub(super) findings_schema: SchemaRef,
}

/// What is made of timestamps with neither a unit nor a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Int96 {
    AsItIs,
    LikeTheOtherSide,
}

impl<'a> DumpPair<'a> {
    pub(super) fn open(dumps: &'a Dumps) -> Result<Self> {
        Self::open_as(dumps, Int96::LikeTheOtherSide)
    }

    fn open_as(dumps: &'a Dumps, int96: Int96) -> Result<Self> {
        let (mut old, mut new) = (ForeignTable::open(&dumps.old)?, ForeignTable::open(&dumps.new)?);
        if dumps.key.is_empty() || dumps.scope_columns == 0 || dumps.scope_columns > dumps.key.len() {
            let detail = format!("{} scope columns of a key with {}", dumps.scope_columns, dumps.key.len());
            return Err(Error::KeyText { text: dumps.key.join(", "), detail });
        }
        let values: Vec<String> = match &dumps.compared {
            Compared::Keys => Vec::new(),
            Compared::Columns(columns) => columns.clone(),
            Compared::AllColumns => {
                let (old_names, new_names) = (names(old.schema()), names(new.schema()));
                if sorted(&old_names) != sorted(&new_names) {
                    let what = "the set of columns";
                    let (old, new) = (old_names.join(", "), new_names.join(", "));
                    return Err(Error::DumpsDiffer { what, old, new });
                }
                old_names
            }
        };
        let values: Vec<String> = values.into_iter().filter(|name| !dumps.key.contains(name)).collect();
        let all: Vec<String> = dumps.key.iter().chain(&values).cloned().collect();
        old.choose(&all)?;
        new.choose(&all)?;
        if int96 == Int96::LikeTheOtherSide {
            for name in &values {
                adopt(&mut old, &new, name)?;
                adopt(&mut new, &old, name)?;
            }
        }
        let mut key_types = Vec::with_capacity(dumps.key.len());
        for (position, (old, new)) in old.schema().fields().iter().zip(new.schema().fields()).enumerate() {
            let (name, old, new) = (old.name(), old.data_type(), new.data_type());
            let is_key = position < dumps.key.len();
            if is_key && let Some(data_type) = [old, new].into_iter().find(|one| key_type(one).is_none()) {
                return Err(Error::KeyType { column: name.clone(), data_type: data_type.to_string() });
            }
            if !comparable(old, new) || (is_key && !mergeable(old, new)) {
                let what = if is_key { "the type of a key column" } else { "the type of a column" };
                let column = |data_type| format!("{name} {data_type}");
                return Err(Error::DumpsDiffer { what, old: column(old), new: column(new) });
            }
            if is_key {
                key_types.push(common_key_type(old, new));
            }
        }
        let orders = [old.arrange(&dumps.key), new.arrange(&dumps.key)];
        let findings_schema = findings_schema(dumps.key.iter().cloned().zip(key_types.iter().cloned()));
        Ok(Self { dumps, old, new, orders, key_types, values, findings_schema })
    }

    /// Whether rows are to be compared as ones in key order.
    pub(super) fn is_ordered(&self) -> bool {
        match self.dumps.order {
            DumpOrder::Ordered => true,
            DumpOrder::Unordered => false,
            DumpOrder::Detect => !self.orders.contains(&Ordering::Unknown),
        }
    }

    /// Whether somebody claims that the table with this file is in key order.
    pub(super) fn claims(&self, path: &Path) -> bool {
        let has = |table: &ForeignTable| table.files().iter().any(|file| file.path() == path);
        let order = if has(&self.old) { self.orders[0] } else { self.orders[1] };
        order == Ordering::Claimed
    }

    pub(super) fn sides(&self) -> [&ForeignTable; 2] {
        [&self.old, &self.new]
    }

    pub(super) fn scope(&self) -> Vec<String> {
        self.dumps.key[..self.dumps.scope_columns].to_vec()
    }

    pub(super) fn rows(&self) -> u64 {
        self.old.rows() + self.new.rows()
    }

    pub(super) fn empty_summary(&self, options: &ScanOptions) -> ScanSummary {
        let DumpOrigin { migration, manifest_hash, epoch, phase, stores } = self.dumps.origin.clone();
        let [old_store, new_store] = stores.map_or([None, None], |stores| stores.map(Some));
        let (old, new) = (input(&self.old, old_store), input(&self.new, new_store));
        ScanSummary {
            format_version: FORMAT_VERSION,
            writer: concat!("crossfade ", env!("CARGO_PKG_VERSION")).to_owned(),
            migration,
            manifest_hash,
            epoch,
            phase,
            simultaneous: self.is_simultaneous(),
            old,
            new,
            key: self.dumps.key.clone(),
            scope: self.scope(),
            columns: Some(self.values.clone()),
            chunk_keys_max: options.chunk_keys_max.get(),
            rows_old: self.old.rows(),
            rows_new: self.new.rows(),
            missing: 0,
            mismatched: 0,
            orphaned: 0,
            duplicated: 0,
            chunks: Vec::new(),
            findings: None,
        }
    }

    fn is_simultaneous(&self) -> bool {
        match (self.old.manifest(), self.new.manifest()) {
            (Some(old), Some(new)) => old.store == new.store && old.consistent_point == new.consistent_point,
            _ => false,
        }
    }
}

/// INT96 says neither which zone its timestamps are in nor how finely they are meant: those of Spark are instants, those of
/// others may be times of day. They are what the other side's are. Nanoseconds are read only where the other side has
/// some, because as such years before 1678 and after 2262 do not fit.
fn adopt(table: &mut ForeignTable, other: &ForeignTable, name: &str) -> Result<()> {
    if !table.is_int96(name) || other.is_int96(name) {
        return Ok(());
    }
    let Some((_, field)) = other.schema().column_with_name(name) else { return Ok(()) };
    let DataType::Timestamp(unit, zone) = field.data_type() else { return Ok(()) };
    let unit = if *unit == TimeUnit::Nanosecond { TimeUnit::Nanosecond } else { TimeUnit::Microsecond };
    table.read_int96_as(name, &DataType::Timestamp(unit, zone.clone()))
}

/// A dump does not say when it was taken, nor of what: its folder's name is all there is.
fn input(table: &ForeignTable, store: Option<String>) -> ScanInput {
    match table.manifest() {
        Some(manifest) => manifest.into(),
        None => ScanInput {
            store: store.unwrap_or_else(|| table.path().display().to_string()),
            consistent_point: "unknown".into(),
            checksum: table.checksum(),
        },
    }
}

fn names(schema: &SchemaRef) -> Vec<String> {
    schema.fields().iter().map(|field| field.name().clone()).collect()
}

fn sorted(names: &[String]) -> Vec<&String> {
    let mut names: Vec<&String> = names.iter().collect();
    names.sort();
    names
}
