//! Reads findings, chunk by chunk, as work to be done.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{Field, Schema};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use xxhash_rust::xxh3::xxh3_64;

use super::{FindingKind, ScanSummary};
use crate::error::{Error, Result};
use crate::keys::Keys;
use crate::snapshot::checksum_text;

/// The findings of a finished scan.
#[derive(Debug, Clone)]
pub struct Findings {
    folder: PathBuf,
    summary: ScanSummary,
}

/// One chunk of findings as work to be done: its scope keys, each once, and what each needs.
#[derive(Debug, Clone)]
pub struct FindingsChunk {
    keys: RecordBatch,
    needs: Vec<Need>,
}

/// What a scope key needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Need {
    /// New lacks rows of this key, and has no wrong ones: insert what is absent.
    Copy,
    /// New has rows of this key that are wrong, too many, or not to be told apart: bring the whole key over.
    Repair,
}

impl Findings {
    /// Opens the findings in `folder`, and checks that all chunks are there in full length.
    ///
    /// # Errors
    ///
    /// What [`ScanSummary::read`] gives; [`Error::FileAbsent`] or [`Error::FileLength`] for a chunk.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self> {
        let folder = folder.into();
        let summary = ScanSummary::read(&folder)?;
        for file in &summary.chunks {
            let path = folder.join(&file.name);
            let found = match fs::metadata(&path) {
                Ok(metadata) => metadata.len(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(Error::FileAbsent { path });
                }
                Err(error) => return Err(Error::io("open", path)(error)),
            };
            if found != file.bytes {
                return Err(Error::FileLength { path, expected: file.bytes, found });
            }
        }
        Ok(Self { folder, summary })
    }

    /// What was compared and how much was found.
    pub fn summary(&self) -> &ScanSummary {
        &self.summary
    }

    /// The findings' folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How many chunks there are.
    pub fn chunks(&self) -> usize {
        self.summary.chunks.len()
    }

    /// The chunk's scope keys in key order, and what each needs.
    ///
    /// # Errors
    ///
    /// [`Error::ChunkAbsent`]; [`Error::FileCorrupt`] if the chunk is not what the scan wrote.
    pub fn chunk(&self, index: usize) -> Result<FindingsChunk> {
        let mut work = Vec::new();
        let mut needs = Vec::new();
        let mut last: Option<Keys> = None;
        let mut schema = None;
        for findings in self.findings(index)? {
            let findings = findings?;
            let rows = findings.num_rows();
            if rows == 0 {
                continue;
            }
            let scope_rows = self.scope_rows(&findings)?;
            schema.get_or_insert(scope_rows.schema());
            let keys = Keys::new(scope_rows.columns().to_vec(), rows, &self.summary.scope)?;
            let kinds = findings.column(0).as_string_opt::<i32>();
            let mut first_rows = Vec::new();
            for row in 0..rows {
                let same = match (row, &last) {
                    (0, None) => false,
                    (0, Some(last)) => last.compare(0, &keys, 0).is_eq(),
                    (row, _) => keys.compare(row - 1, &keys, row).is_eq(),
                };
                let need = match kinds.and_then(|kinds| FindingKind::from_name(kinds.value(row))) {
                    Some(FindingKind::Missing) => Need::Copy,
                    Some(FindingKind::Mismatched | FindingKind::Orphaned | FindingKind::Duplicated) => {
                        Need::Repair
                    }
                    None => return Err(self.corrupt(index, "it has a finding of no known kind".into())),
                };
                match needs.last_mut().filter(|_| same) {
                    Some(merged) => {
                        if need == Need::Repair {
                            *merged = Need::Repair;
                        }
                    }
                    None => {
                        first_rows.push(row as u32);
                        needs.push(need);
                    }
                }
            }
            last = Some(keys.slice(rows - 1, 1));
            let first_rows = UInt32Array::from(first_rows);
            work.push(take_record_batch(&scope_rows, &first_rows).map_err(Error::arrow("read findings"))?);
        }
        let schema = schema.ok_or_else(|| self.corrupt(index, "it is empty".into()))?;
        let keys = concat_batches(&schema, &work).map_err(Error::arrow("read findings"))?;
        Ok(FindingsChunk { keys, needs })
    }

    /// The chunk's findings as they were written, in key order.
    ///
    /// # Errors
    ///
    /// [`Error::ChunkAbsent`]; [`Error::FileCorrupt`] if the chunk is not what the scan wrote.
    pub fn findings(&self, index: usize) -> Result<impl Iterator<Item = Result<RecordBatch>>> {
        let reader = self.reader(index)?;
        Ok(reader.map(move |batch| batch.map_err(|error| self.corrupt(index, error.to_string()))))
    }

    fn reader(&self, index: usize) -> Result<ParquetRecordBatchReader> {
        let file = self.summary.chunks.get(index).ok_or_else(|| Error::ChunkAbsent {
            path: self.folder.clone(),
            asked: index,
            chunks: self.chunks(),
        })?;
        let path = self.folder.join(&file.name);
        // A chunk is bounded by its number of scope keys, and compressed: a few MiB at most.
        let bytes = Bytes::from(fs::read(&path).map_err(Error::io("read", &path))?);
        if checksum_text(xxh3_64(&bytes)) != file.checksum {
            return Err(self.corrupt(index, "its checksum is not its summary's".into()));
        }
        ParquetRecordBatchReaderBuilder::try_new(bytes)
            .and_then(ParquetRecordBatchReaderBuilder::build)
            .map_err(|error| self.corrupt(index, error.to_string()))
    }

    /// The scope columns under their own names.
    fn scope_rows(&self, findings: &RecordBatch) -> Result<RecordBatch> {
        let scope = &self.summary.scope;
        let columns = findings.columns()[1..=scope.len()].to_vec();
        let fields: Vec<Field> = scope
            .iter()
            .zip(&columns)
            .map(|(name, column)| Field::new(name, column.data_type().clone(), false))
            .collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(Error::arrow("read findings"))
    }

    fn corrupt(&self, index: usize, detail: String) -> Error {
        let name = self.summary.chunks.get(index).map_or("", |file| file.name.as_str());
        Error::corrupt(&self.folder.join(name), None)(detail)
    }
}

impl FindingsChunk {
    /// The scope keys, each once, in key order, with the columns' own names and types.
    pub fn keys(&self) -> &RecordBatch {
        &self.keys
    }

    /// What each of them needs.
    pub fn needs(&self) -> &[Need] {
        &self.needs
    }
}
