//! How far a scan is, durable: what a killed scan goes on from.
//!
//! Beside the chunks that are finished lie `findings-progress.json` and, as Parquet, the findings of the chunk that was
//! being written. The scan that goes on writes these again, and from there on the same bytes as one that was never killed.

use std::fs;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::summary::{FindingsFile, ScanSummary};
use crate::durable::{DurableFile, write_json};
use crate::error::{Error, Result};
use crate::snapshot::checksum_text;

/// The file that says how far a scan is.
const PROGRESS_FILE: &str = "findings-progress.json";

/// Where the findings of an unfinished chunk wait. Two names in turn: the one that the progress file names is whole.
const PENDING_FILES: [&str; 2] = ["findings-pending-0.parquet", "findings-pending-1.parquet"];

/// A place between two keys: how many rows of each side come before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cut {
    pub(crate) old: u64,
    pub(crate) new: u64,
}

impl Cut {
    /// How many rows come before it.
    pub(crate) fn rows(self) -> u64 {
        self.old + self.new
    }
}

/// How far a scan is.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    /// What is compared and how, with the counts so far.
    summary: ScanSummary,
    /// What of the rows was compared.
    done: Cut,
    /// The findings of the chunk that was being written.
    pending: Option<FindingsFile>,
}

/// What a scan goes on from.
pub(super) struct Resumed {
    pub(super) done: Cut,
    pub(super) files: Vec<FindingsFile>,
    pub(super) pending: Vec<RecordBatch>,
}

impl Checkpoint {
    /// Makes it durable that everything before `done` is compared and written.
    pub(super) fn write(
        folder: &Path,
        done: Cut,
        summary: &ScanSummary,
        files: &[FindingsFile],
        pending: &[RecordBatch],
        turn: u64,
    ) -> Result<()> {
        let mut summary = summary.clone();
        summary.chunks = files.to_vec();
        let name = PENDING_FILES[(turn % 2) as usize];
        let pending = match pending.first() {
            Some(first) => Some(write_pending(folder.join(name), name, first.schema(), pending)?),
            None => None,
        };
        write_json(&folder.join(PROGRESS_FILE), &Self { summary, done, pending })
    }

    /// Reads how far a scan of the same things came; nothing if there was none, or what it left is not whole. The counts
    /// so far are put into `summary`.
    pub(super) fn read(folder: &Path, summary: &mut ScanSummary, schema: &SchemaRef) -> Option<Resumed> {
        let text = fs::read(folder.join(PROGRESS_FILE)).ok()?;
        let Self { summary: found, done, pending } = serde_json::from_slice(&text).ok()?;
        let counted = ScanSummary {
            missing: found.missing,
            mismatched: found.mismatched,
            orphaned: found.orphaned,
            duplicated: found.duplicated,
            ..summary.clone()
        };
        // All but the chunks must be as it would be now: the same inputs, options and version.
        let files = found.chunks.clone();
        if (ScanSummary { chunks: Vec::new(), ..found }) != counted {
            return None;
        }
        for file in files.iter().chain(&pending) {
            let bytes = fs::read(folder.join(&file.name)).ok()?;
            if checksum_text(xxh3_64(&bytes)) != file.checksum {
                return None;
            }
        }
        let pending = match pending {
            Some(file) => read_pending(&folder.join(file.name), schema)?,
            None => Vec::new(),
        };
        *summary = counted;
        Some(Resumed { done, files, pending })
    }

    /// Removes everything that is only there to go on from.
    pub(super) fn remove(folder: &Path) -> Result<()> {
        for name in PENDING_FILES.into_iter().chain([PROGRESS_FILE]) {
            let path = folder.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn write_pending(
    path: PathBuf,
    name: &str,
    schema: SchemaRef,
    pending: &[RecordBatch],
) -> Result<FindingsFile> {
    let file = DurableFile::create(path.clone())?;
    let mut writer = ArrowWriter::try_new(file, schema, None).map_err(Error::parquet_write(&path))?;
    for batch in pending {
        writer.write(batch).map_err(Error::parquet_write(&path))?;
    }
    writer.finish().map_err(Error::parquet_write(&path))?;
    let written = writer.inner_mut().finish()?;
    let findings = pending.iter().map(|batch| batch.num_rows() as u64).sum();
    let checksum = checksum_text(written.checksum);
    Ok(FindingsFile { name: name.to_owned(), findings, scope_keys: 0, bytes: written.bytes, checksum })
}

fn read_pending(path: &Path, schema: &SchemaRef) -> Option<Vec<RecordBatch>> {
    let bytes = bytes::Bytes::from(fs::read(path).ok()?);
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).ok()?.build().ok()?;
    reader
        .map(|batch| RecordBatch::try_new(schema.clone(), batch.ok()?.columns().to_vec()).ok())
        .collect()
}
