//! Writes findings in key order, cut into chunks.

use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::compute::BatchCoalescer;
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::SUMMARY_FILE;
use super::checkpoint::{Checkpoint, Cut};
use super::summary::{FindingsFile, ScanSummary};
use crate::durable::{DurableFile, claim, claim_again, release, write_json};
use crate::error::{Error, Result};
use crate::keys::Keys;
use crate::snapshot::checksum_text;

/// What chunks' names begin with.
const FILE_PREFIX: &str = "findings-";

/// Findings go to the encoder in batches of this many, whatever batches they come in: where pages end depends on
/// batches, and the same findings must give the same bytes.
const BATCH_ROWS: usize = 8 * 1024;

/// Writes findings in key order, cut into chunks that never split a scope key.
pub(crate) struct FindingsWriter {
    folder: PathBuf,
    schema: SchemaRef,
    scope: Vec<String>,
    chunk_keys_max: u64,
    chunk: Option<Chunk>,
    last_scope: Option<Keys>,
    files: Vec<FindingsFile>,
    /// The findings of the chunk in hand; nothing once there are too many to be held.
    pending: Option<Vec<RecordBatch>>,
    pending_rows: usize,
    checkpoints: u64,
}

/// Findings of a chunk that are held to go on from. One scope key can have any number of them; a scan of which a chunk has
/// more than this goes on from where that chunk began.
const PENDING_ROWS_MAX: usize = 256 * 1024;

struct Chunk {
    file: ArrowWriter<DurableFile>,
    buffer: BatchCoalescer,
    findings: u64,
    scope_keys: u64,
}

impl FindingsWriter {
    /// Begins findings in `folder`, which must not hold a finished scan.
    pub(crate) fn create(
        folder: PathBuf,
        schema: SchemaRef,
        scope: Vec<String>,
        chunk_keys_max: u64,
    ) -> Result<Self> {
        let writer = Self::of(folder, schema, scope, chunk_keys_max)?;
        claim(&writer.folder, FILE_PREFIX)?;
        Checkpoint::remove(&writer.folder)?;
        Ok(writer)
    }

    /// Like [`create`](Self::create), but goes on with what a scan of the same things left that was stopped: says where,
    /// and puts the counts so far into `summary`.
    pub(crate) fn resume(
        folder: PathBuf,
        schema: SchemaRef,
        scope: Vec<String>,
        summary: &mut ScanSummary,
    ) -> Result<(Self, Cut)> {
        let mut writer = Self::of(folder, schema, scope, summary.chunk_keys_max)?;
        let Some(resumed) = Checkpoint::read(&writer.folder, summary, &writer.schema) else {
            claim(&writer.folder, FILE_PREFIX)?;
            Checkpoint::remove(&writer.folder)?;
            return Ok((writer, Cut::default()));
        };
        let keep: Vec<&str> = resumed.files.iter().map(|file| file.name.as_str()).collect();
        claim_again(&writer.folder, FILE_PREFIX, &keep)?;
        writer.files = resumed.files;
        for batch in &resumed.pending {
            writer.write(batch)?;
        }
        // What was pending was removed, and must be there again before anything else is written.
        writer.checkpoint(resumed.done, summary)?;
        Ok((writer, resumed.done))
    }

    fn of(folder: PathBuf, schema: SchemaRef, scope: Vec<String>, chunk_keys_max: u64) -> Result<Self> {
        if folder.join(SUMMARY_FILE).exists() {
            return Err(Error::FindingsPresent { path: folder });
        }
        Ok(Self {
            folder,
            schema,
            scope,
            chunk_keys_max,
            chunk: None,
            last_scope: None,
            files: Vec::new(),
            pending: Some(Vec::new()),
            pending_rows: 0,
            checkpoints: 0,
        })
    }

    /// Makes durable that everything before `done` is compared and written.
    pub(crate) fn checkpoint(&mut self, done: Cut, summary: &ScanSummary) -> Result<()> {
        let Some(pending) = &self.pending else { return Ok(()) };
        Checkpoint::write(&self.folder, done, summary, &self.files, pending, self.checkpoints)?;
        self.checkpoints += 1;
        Ok(())
    }

    /// Writes the next findings.
    pub(crate) fn write(&mut self, findings: &RecordBatch) -> Result<()> {
        let rows = findings.num_rows();
        if rows == 0 {
            return Ok(());
        }
        let scope = Keys::new(findings.columns()[1..=self.scope.len()].to_vec(), rows, &self.scope)?;
        let mut start = 0;
        for row in 0..rows {
            let same = match (row, &self.last_scope) {
                (0, None) => false,
                (0, Some(last)) => last.compare(0, &scope, 0).is_eq(),
                (row, _) => scope.compare(row - 1, &scope, row).is_eq(),
            };
            if same {
                continue;
            }
            if self.chunk.as_ref().is_some_and(|chunk| chunk.scope_keys == self.chunk_keys_max) {
                self.append(findings.slice(start, row - start))?;
                self.finish_chunk()?;
                start = row;
            }
            self.chunk()?.scope_keys += 1;
        }
        self.last_scope = Some(scope.slice(rows - 1, 1));
        self.append(findings.slice(start, rows - start))
    }

    /// Completes the findings: the last chunk, then the summary, which makes it all valid.
    pub(crate) fn finish(mut self, mut summary: ScanSummary) -> Result<ScanSummary> {
        self.finish_chunk()?;
        summary.chunks = self.files;
        write_json(&self.folder.join(SUMMARY_FILE), &summary)?;
        Checkpoint::remove(&self.folder)?;
        release(&self.folder, FILE_PREFIX)?;
        summary.findings = Some(self.folder);
        Ok(summary)
    }

    fn chunk(&mut self) -> Result<&mut Chunk> {
        match &mut self.chunk {
            Some(chunk) => Ok(chunk),
            none => Ok(none.insert(Chunk::begin(&self.folder, self.files.len(), &self.schema)?)),
        }
    }

    fn append(&mut self, findings: RecordBatch) -> Result<()> {
        self.pending_rows += findings.num_rows();
        if self.pending_rows > PENDING_ROWS_MAX {
            self.pending = None;
        }
        if let Some(pending) = &mut self.pending {
            pending.push(findings.clone());
        }
        let chunk = self.chunk()?;
        chunk.findings += findings.num_rows() as u64;
        chunk.buffer.push_batch(findings).map_err(Error::arrow("gather findings"))?;
        chunk.write_completed()
    }

    fn finish_chunk(&mut self) -> Result<()> {
        let Some(mut chunk) = self.chunk.take() else { return Ok(()) };
        (self.pending, self.pending_rows) = (Some(Vec::new()), 0);
        chunk.buffer.finish_buffered_batch().map_err(Error::arrow("gather findings"))?;
        chunk.write_completed()?;
        let file = &mut chunk.file;
        file.finish().map_err(|source| Error::parquet_write(file.inner().path())(source))?;
        let written = file.inner_mut().finish()?;
        self.files.push(FindingsFile {
            name: file_name(self.files.len()),
            findings: chunk.findings,
            scope_keys: chunk.scope_keys,
            bytes: written.bytes,
            checksum: checksum_text(written.checksum),
        });
        Ok(())
    }
}

impl Chunk {
    fn begin(folder: &Path, index: usize, schema: &SchemaRef) -> Result<Self> {
        let path = folder.join(file_name(index));
        let properties = WriterProperties::builder()
            .set_created_by(concat!("crossfade ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .build();
        let file = DurableFile::create(path.clone())?;
        Ok(Self {
            file: ArrowWriter::try_new(file, schema.clone(), Some(properties))
                .map_err(Error::parquet_write(path))?,
            buffer: BatchCoalescer::new(schema.clone(), BATCH_ROWS),
            findings: 0,
            scope_keys: 0,
        })
    }

    fn write_completed(&mut self) -> Result<()> {
        while let Some(batch) = self.buffer.next_completed_batch() {
            let file = &mut self.file;
            file.write(&batch).map_err(|source| Error::parquet_write(file.inner().path())(source))?;
        }
        Ok(())
    }
}

fn file_name(index: usize) -> String {
    format!("{FILE_PREFIX}{index:05}.parquet")
}
