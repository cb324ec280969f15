//! What executors have written, read and turned into the answer that becomes findings.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::types::UInt64Type;
use arrow::array::{Array, ArrayRef, BooleanArray, ListBuilder, RecordBatch, StringBuilder};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Field, SchemaRef};
use crossfade_backfill::row_hash::column_hashes;
use crossfade_backfill::scan::Comparison;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::error::{Error, Result};
use crate::plan::{NEW_ROWS, OLD_ROWS, Question, new_name, old_name};

/// What executors have written.
pub(crate) struct Answer<'a> {
    files: Vec<PathBuf>,
    key: &'a [String],
    schema: SchemaRef,
    /// The columns whose values are there to be compared; none where rows have hashes.
    columns: Option<&'a [String]>,
}

impl<'a> Answer<'a> {
    /// Opens what is in `folder`, and sees that it is as many rows as the cluster says that it wrote. It may be more:
    /// what an executor wrote before it was lost has been written again by another.
    pub(crate) fn open(
        folder: &Path,
        question: &Question<'a>,
        comparison: &Comparison,
        written: u64,
    ) -> Result<Self> {
        let files = parquet_files(folder)?;
        let mut found = 0;
        for path in &files {
            found += row_count(path)?;
        }
        if found < written {
            return Err(Error::ResultsElsewhere { path: folder.to_owned(), written, found });
        }
        Ok(Self {
            files,
            key: question.key,
            schema: comparison.answer_schema(),
            columns: (!question.is_hashed()).then_some(question.columns),
        })
    }

    /// The answer, batch by batch, in any order.
    pub(crate) fn batches(&self) -> impl Iterator<Item = Result<RecordBatch>> + '_ {
        self.files.iter().flat_map(move |path| {
            let (batches, failed) = match reader(path).and_then(|reader| built(path, reader)) {
                Ok(batches) => (Some(batches), None),
                Err(error) => (None, Some(Err(error))),
            };
            let batches = batches.into_iter().flatten();
            let answers =
                batches.map(move |batch| self.answer(&batch.map_err(|error| corrupt(path, error))?, path));
            failed.into_iter().chain(answers)
        })
    }

    fn answer(&self, written: &RecordBatch, path: &Path) -> Result<RecordBatch> {
        let column = |name: &str| {
            written.column_by_name(name).ok_or_else(|| corrupt(path, format!("it has no column {name}")))
        };
        let to_type = |array: &ArrayRef, data_type: &DataType| {
            cast(array, data_type).map_err(|error| corrupt(path, error))
        };
        let counts =
            [to_type(column(OLD_ROWS)?, &DataType::UInt64)?, to_type(column(NEW_ROWS)?, &DataType::UInt64)?];
        let mut arrays = Vec::with_capacity(self.schema.fields().len());
        for (position, field) in self.schema.fields().iter().take(self.key.len()).enumerate() {
            let array = column(field.name())?;
            self.check_nulls(array, position, &counts)?;
            arrays.push(to_type(array, field.data_type())?);
        }
        let [old_rows, new_rows] =
            counts.each_ref().map(|counts| counts.as_primitive::<UInt64Type>().values().clone());
        arrays.extend(counts);
        let is_pair = |row: usize| old_rows[row] == 1 && new_rows[row] == 1;

        let item = Field::new("item", DataType::Utf8, false);
        let mut named = ListBuilder::new(StringBuilder::new()).with_field(item);
        let mut kept = vec![true; written.num_rows()];
        match self.columns {
            None => (0..written.num_rows()).for_each(|row| named.append(!is_pair(row))),
            Some(columns) => {
                let differing = differing(written, columns, column)?;
                for row in 0..written.num_rows() {
                    if is_pair(row) {
                        kept[row] = !differing[row].is_empty();
                        differing[row].iter().for_each(|name| named.values().append_value(name));
                    }
                    named.append(true);
                }
            }
        }
        arrays.push(Arc::new(named.finish()));
        RecordBatch::try_new(self.schema.clone(), arrays)
            .and_then(|answer| filter_record_batch(&answer, &BooleanArray::from(kept)))
            .map_err(|error| corrupt(path, error))
    }

    fn check_nulls(&self, array: &ArrayRef, position: usize, counts: &[ArrayRef; 2]) -> Result<()> {
        let Some(row) = (0..array.len()).find(|&row| array.is_null(row)) else { return Ok(()) };
        let [old_rows, new_rows] =
            counts.each_ref().map(|counts| counts.as_primitive::<UInt64Type>().value(row));
        Err(Error::KeyNull { column: self.key[position].clone(), old_rows, new_rows })
    }
}

/// For each row the names of the columns whose values are not equal, by the definition that decides everywhere: that of the
/// row hash.
fn differing<'a>(
    written: &RecordBatch,
    columns: &'a [String],
    column: impl Fn(&str) -> Result<&'a ArrayRef>,
) -> Result<Vec<Vec<&'a str>>> {
    let mut differing = vec![Vec::new(); written.num_rows()];
    for (position, name) in columns.iter().enumerate() {
        let old = column_hashes(column(&old_name(position))?, position, name)?;
        let new = column_hashes(column(&new_name(position))?, position, name)?;
        for (names, _) in differing.iter_mut().zip(old.iter().zip(&new)).filter(|(_, (old, new))| old != new)
        {
            names.push(name.as_str());
        }
    }
    Ok(differing)
}

/// The Parquet files of a folder, by name. What is still being written has another name.
pub(crate) fn parquet_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let path = entry.map_err(Error::io("list", folder))?.path();
        if path.extension().is_some_and(|extension| extension == "parquet") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// How many rows a Parquet file has.
pub(crate) fn row_count(path: &Path) -> Result<u64> {
    let rows = reader(path)?.metadata().file_metadata().num_rows();
    Ok(u64::try_from(rows).unwrap_or(0))
}

fn reader(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| corrupt(path, error))
}

fn built(
    path: &Path,
    reader: ParquetRecordBatchReaderBuilder<File>,
) -> Result<parquet::arrow::arrow_reader::ParquetRecordBatchReader> {
    reader.build().map_err(|error| corrupt(path, error))
}

fn corrupt(path: &Path, detail: impl ToString) -> Error {
    let (path, detail) = (path.to_owned(), detail.to_string());
    Error::Backfill(crossfade_backfill::Error::FileCorrupt { path, row_group: None, detail })
}
