//! Dumps that other tools wrote, as the two sides of a comparison: without order, without hashes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use crossfade_backfill::findings::ScanInput;
use crossfade_backfill::scan::Comparison;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use xxhash_rust::xxh3::Xxh3Default;

use crate::answer::parquet_files;
use crate::error::{Error, Result};
use crate::side::{Side, file_url};

/// How many bytes of a file's end go into its checksum: the footer's length and the mark.
const FOOTER_TAIL_BYTES: u64 = 8;

/// A dump of one side.
#[derive(Debug, Clone)]
pub struct Dump {
    /// The dump's folder: all files in it that end in `.parquet`, or one such file.
    pub path: PathBuf,
    /// Where it is from, with secrets masked.
    pub store: String,
    /// The point in the store's time that it shows, in the store's own words.
    pub consistent_point: String,
}

/// The dumps of both sides, and what they are of.
#[derive(Debug, Clone)]
pub struct DumpPair {
    /// The old side, in the new table's shape.
    pub old: Dump,
    /// The new side.
    pub new: Dump,
    /// The columns to compare, the key's among them, in the projection's order. The dumps may have others.
    pub columns: Vec<String>,
    /// The new table's key: scope first, then the rest.
    pub key: Vec<String>,
    /// How many of the key's columns are the scope.
    pub scope_columns: usize,
    /// The migration.
    pub migration: String,
    /// Hash of the migration's manifest.
    pub manifest_hash: String,
    /// The migration's epoch when the dumps began.
    pub epoch: u64,
    /// The migration's phase when the dumps began.
    pub phase: String,
}

/// The dumps, opened.
pub(crate) struct Opened {
    pub(crate) old: Side,
    pub(crate) new: Side,
    /// The columns outside the key.
    pub(crate) columns: Vec<String>,
    pub(crate) comparison: Comparison,
}

impl DumpPair {
    pub(crate) fn open(&self) -> Result<Opened> {
        let (old, old_checksum) = open_side(&self.old.path, Some(&self.columns))?;
        let (new, new_checksum) = open_side(&self.new.path, Some(&self.columns))?;
        let key_types = Comparison::key_types_of(&self.new.path, &self.key, &old.schema, &new.schema)?;
        let input = |dump: &Dump, checksum| ScanInput {
            store: dump.store.clone(),
            consistent_point: dump.consistent_point.clone(),
            checksum,
        };
        let comparison = Comparison {
            migration: self.migration.clone(),
            manifest_hash: self.manifest_hash.clone(),
            epoch: self.epoch,
            phase: self.phase.clone(),
            simultaneous: self.old.store == self.new.store
                && self.old.consistent_point == self.new.consistent_point,
            old: input(&self.old, old_checksum),
            new: input(&self.new, new_checksum),
            key: self.key.clone(),
            key_types,
            scope: self.key[..self.scope_columns.min(self.key.len())].to_vec(),
            rows_old: old.rows,
            rows_new: new.rows,
        };
        let columns = self.columns.iter().filter(|name| !self.key.contains(name)).cloned().collect();
        Ok(Opened { old, new, columns, comparison })
    }
}

/// A dump's files, with the columns asked for or all of them, and the checksum of their names, lengths and footers: to read all of it
/// here is what a cluster is there to avoid.
pub(crate) fn open_side(path: &Path, columns: Option<&[String]>) -> Result<(Side, String)> {
    let files = dump_files(path)?;
    let mut hasher = Xxh3Default::new();
    let mut rows = 0_u64;
    let mut first: Option<(PathBuf, Arc<Schema>)> = None;
    for path in &files {
        let file = std::fs::File::open(path).map_err(Error::io("open", path))?;
        let length = file.metadata().map_err(Error::io("open", path))?.len();
        let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())
            .map_err(|error| corrupt(path, error.to_string()))?;
        let schema = selected(path, metadata.schema(), columns)?;
        match &first {
            None => first = Some((path.clone(), schema)),
            Some((first_path, first)) => same_types(path, &schema, first_path, first)?,
        }
        let file_rows = metadata.metadata().file_metadata().num_rows();
        rows = rows.saturating_add(u64::try_from(file_rows).unwrap_or(0));
        hasher.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        hasher.update(&length.to_le_bytes());
        hasher.update(&footer(&file, length).map_err(Error::io("read", path))?);
    }
    let Some((_, schema)) = first else {
        return Err(crossfade_backfill::Error::DumpAbsent { path: path.to_owned() }.into());
    };
    let files = files.iter().map(|path| file_url(path)).collect::<Result<_>>()?;
    Ok((Side { files, schema, rows }, format!("{:016x}", hasher.digest())))
}

fn dump_files(path: &Path) -> Result<Vec<PathBuf>> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(vec![path.to_owned()]),
        Ok(_) => parquet_files(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(crossfade_backfill::Error::DumpAbsent { path: path.to_owned() }.into())
        }
        Err(error) => Err(Error::io("open", path)(error)),
    }
}

fn footer(mut file: &std::fs::File, length: u64) -> std::io::Result<Vec<u8>> {
    use std::io::{Read, Seek, SeekFrom};
    let mut tail = [0; FOOTER_TAIL_BYTES as usize];
    file.seek(SeekFrom::Start(length.saturating_sub(FOOTER_TAIL_BYTES)))?;
    file.read_exact(&mut tail)?;
    let [a, b, c, d, ..] = tail;
    let footer_bytes = u64::from(u32::from_le_bytes([a, b, c, d])) + FOOTER_TAIL_BYTES;
    let mut footer = Vec::new();
    file.seek(SeekFrom::Start(length.saturating_sub(footer_bytes)))?;
    file.read_to_end(&mut footer)?;
    Ok(footer)
}

/// The columns asked for, or all. Nullability is widened, because a dump's files may differ in it.
fn selected(path: &Path, schema: &Schema, columns: Option<&[String]>) -> Result<Arc<Schema>> {
    let Some(columns) = columns else {
        let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        return Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())));
    };
    let fields = columns.iter().map(|name| match schema.column_with_name(name) {
        Some((_, field)) => Ok(field.clone().with_nullable(true)),
        None => Err(file_schema(path, format!("it has no column {name}"))),
    });
    Ok(Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?)))
}

fn same_types(path: &Path, schema: &Schema, first_path: &Path, first: &Schema) -> Result<()> {
    let types = |field: &Field| -> DataType { field.data_type().clone() };
    let pairs = schema.fields().iter().zip(first.fields());
    match pairs.into_iter().find(|(found, expected)| types(found) != types(expected)) {
        None => Ok(()),
        Some((found, expected)) => Err(file_schema(
            path,
            format!(
                "{} is {} where {} has {}",
                found.name(),
                found.data_type(),
                first_path.display(),
                expected.data_type()
            ),
        )),
    }
}

fn file_schema(path: &Path, detail: String) -> Error {
    crossfade_backfill::Error::FileSchema { path: path.to_owned(), detail }.into()
}

fn corrupt(path: &Path, detail: String) -> Error {
    crossfade_backfill::Error::FileCorrupt { path: path.to_owned(), row_group: None, detail }.into()
}
