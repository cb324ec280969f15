//! Sorts rows by key within a budget of memory: sorted runs on the disk, then one merge of them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use super::merge::{BATCH_ROWS, Merge};
use crate::error::{Error, Result};
use crate::keys::Keys;

/// Where runs wait, in the snapshot's folder.
const FOLDER: &str = "sorting.tmp";

/// Sorting holds the rows as they came, put together, and in order.
const COPIES: u64 = 3;

/// Rows of one run are numbered with 32 bits.
const RUN_ROWS_MAX: usize = u32::MAX as usize;

/// Takes rows in any order and gives them out by key. Rows of one key keep the order in which they came.
pub(crate) struct Sorter {
    folder: PathBuf,
    key: Vec<String>,
    run_bytes_max: u64,
    buffer: Vec<RecordBatch>,
    buffer_bytes: u64,
    buffer_rows: usize,
    runs: Vec<PathBuf>,
}

impl Sorter {
    pub(crate) fn new(snapshot: &Path, key: Vec<String>, memory_bytes_max: u64) -> Result<Self> {
        let folder = snapshot.join(FOLDER);
        remove(&folder)?;
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        let run_bytes_max = memory_bytes_max / COPIES;
        Ok(Self {
            folder,
            key,
            run_bytes_max,
            buffer: Vec::new(),
            buffer_bytes: 0,
            buffer_rows: 0,
            runs: Vec::new(),
        })
    }

    pub(crate) fn add(&mut self, batch: RecordBatch) -> Result<()> {
        let full =
            self.buffer_bytes >= self.run_bytes_max || self.buffer_rows + batch.num_rows() > RUN_ROWS_MAX;
        if full && !self.buffer.is_empty() {
            self.spill()?;
        }
        self.buffer_bytes += batch.get_array_memory_size() as u64;
        self.buffer_rows += batch.num_rows();
        self.buffer.push(batch);
        Ok(())
    }

    /// Gives out all rows in key order.
    pub(crate) fn finish(mut self, out: &mut impl FnMut(RecordBatch) -> Result<()>) -> Result<()> {
        if self.runs.is_empty() {
            if let Some(sorted) = self.sorted()? {
                for start in (0..sorted.num_rows()).step_by(BATCH_ROWS) {
                    out(sorted.slice(start, BATCH_ROWS.min(sorted.num_rows() - start)))?;
                }
            }
        } else {
            self.spill()?;
            let mut readers = Vec::with_capacity(self.runs.len());
            for path in &self.runs {
                let file = File::open(path).map_err(Error::io("open", path))?;
                let reader = ParquetRecordBatchReaderBuilder::try_new(file)
                    .and_then(|builder| builder.with_batch_size(BATCH_ROWS).build())
                    .map_err(|error| Error::corrupt(path, None)(error.to_string()))?;
                let path = path.clone();
                readers.push(
                    reader.map(move |batch| {
                        batch.map_err(|error| Error::corrupt(&path, None)(error.to_string()))
                    }),
                );
            }
            Merge::new(readers, &self.key)?.run(out)?;
        }
        remove(&self.folder)
    }

    /// Writes what is in memory as a sorted run.
    fn spill(&mut self) -> Result<()> {
        let Some(sorted) = self.sorted()? else { return Ok(()) };
        let path = self.folder.join(format!("run-{:05}.parquet", self.runs.len()));
        let file = File::create(&path).map_err(Error::io("create", &path))?;
        // Runs are written and read once: the fastest compression that still spares the disk.
        let properties = WriterProperties::builder()
            .set_compression(Compression::LZ4_RAW)
            .set_dictionary_enabled(false)
            .set_max_row_group_row_count(Some(8 * BATCH_ROWS))
            .build();
        let mut writer = ArrowWriter::try_new(file, sorted.schema(), Some(properties))
            .map_err(Error::parquet_write(&path))?;
        writer.write(&sorted).map_err(Error::parquet_write(&path))?;
        writer.close().map_err(Error::parquet_write(&path))?;
        self.runs.push(path);
        Ok(())
    }

    fn sorted(&mut self) -> Result<Option<RecordBatch>> {
        let buffer = std::mem::take(&mut self.buffer);
        (self.buffer_bytes, self.buffer_rows) = (0, 0);
        let Some(first) = buffer.first() else { return Ok(None) };
        let rows = concat_batches(&first.schema(), &buffer).map_err(Error::arrow("sort a dump"))?;
        drop(buffer);
        let keys = keys_of(&rows, &self.key)?;
        let mut order: Vec<u32> = (0..rows.num_rows() as u32).collect();
        order.sort_by(|left, right| keys.compare(*left as usize, &keys, *right as usize));
        let sorted =
            take_record_batch(&rows, &UInt32Array::from(order)).map_err(Error::arrow("sort a dump"))?;
        Ok(Some(sorted))
    }
}

impl Drop for Sorter {
    /// After an error the runs are of no use, and large. If they cannot be removed now, the next import does it.
    fn drop(&mut self) {
        let _ = remove(&self.folder);
    }
}

/// The keys of rows.
pub(super) fn keys_of(rows: &RecordBatch, key: &[String]) -> Result<Keys> {
    let columns = key.iter().filter_map(|name| rows.column_by_name(name).cloned()).collect();
    Keys::new(columns, rows.num_rows(), key)
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", folder)(error)),
        _ => Ok(()),
    }
}
