//! The files of a dump as one stream of batches with the columns asked for.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};

use crate::error::{Error, Result};
use crate::foreign::parquet_files;

/// The files of a dump.
pub(super) struct Source {
    files: Vec<SourceFile>,
    schema: SchemaRef,
}

/// One file of a dump.
pub(super) struct SourceFile {
    path: PathBuf,
    metadata: ArrowReaderMetadata,
}

impl Source {
    /// Opens a dump and checks that all files have these columns, with the same types.
    pub(super) fn open(path: &Path, columns: &[String]) -> Result<Self> {
        let mut files = Vec::new();
        for path in parquet_files(path)? {
            let file = File::open(&path).map_err(Error::io("open", &path))?;
            let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())
                .map_err(|error| Error::corrupt(&path, None)(error.to_string()))?;
            files.push(SourceFile { path, metadata });
        }
        let Some(first) = files.first() else { return Err(Error::DumpAbsent { path: path.to_owned() }) };
        let schema = first.columns(columns)?;
        for file in &files[1..] {
            let found = file.columns(columns)?;
            let differing = found
                .fields()
                .iter()
                .zip(schema.fields())
                .find(|(found, first)| found.data_type() != first.data_type());
            if let Some((found, expected)) = differing {
                let detail = format!(
                    "{} is {} where {} has {}",
                    found.name(),
                    found.data_type(),
                    first.path.display(),
                    expected.data_type()
                );
                return Err(Error::FileSchema { path: file.path.clone(), detail });
            }
        }
        Ok(Self { files, schema })
    }

    pub(super) fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    pub(super) fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// These columns of all rows, in this order, as they lie in the files.
    pub(super) fn batches<'a>(
        &'a self,
        columns: &'a [String],
    ) -> impl Iterator<Item = Result<RecordBatch>> + 'a {
        self.files.iter().flat_map(move |file| file.batches(columns))
    }
}

impl SourceFile {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// These columns of all rows, in this order.
    pub(super) fn batches<'a>(
        &'a self,
        columns: &'a [String],
    ) -> impl Iterator<Item = Result<RecordBatch>> + 'a {
        let (reader, failed) = match self.reader(columns) {
            Ok(reader) => (Some(reader), None),
            Err(error) => (None, Some(Err(error))),
        };
        let batches = reader.into_iter().flatten().map(move |batch| {
            let batch = batch.map_err(|error| self.corrupt(error.to_string()))?;
            self.in_order(&batch, columns)
        });
        failed.into_iter().chain(batches)
    }

    fn reader(&self, columns: &[String]) -> Result<ParquetRecordBatchReader> {
        let fields = self.metadata.schema().fields();
        let positions = fields.iter().enumerate().filter(|(_, field)| columns.contains(field.name()));
        let mask =
            ProjectionMask::roots(self.metadata.parquet_schema(), positions.map(|(position, _)| position));
        let file = File::open(&self.path).map_err(Error::io("open", &self.path))?;
        ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
            .with_projection(mask)
            .build()
            .map_err(|error| self.corrupt(error.to_string()))
    }

    /// A reader gives columns in the file's order. Nullability is widened, because a dump's files may differ in it.
    fn in_order(&self, batch: &RecordBatch, columns: &[String]) -> Result<RecordBatch> {
        let schema = self.columns(columns)?;
        let arrays = columns.iter().filter_map(|name| batch.column_by_name(name).cloned()).collect();
        RecordBatch::try_new(schema, arrays).map_err(Error::arrow("order a dump's columns"))
    }

    fn columns(&self, columns: &[String]) -> Result<SchemaRef> {
        let schema = self.metadata.schema();
        let fields = columns.iter().map(|name| match schema.column_with_name(name) {
            Some((_, field)) => Ok(field.clone().with_nullable(true)),
            None => {
                let detail = format!("it has no column {name}");
                Err(Error::FileSchema { path: self.path.clone(), detail })
            }
        });
        Ok(Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?)))
    }

    fn corrupt(&self, detail: String) -> Error {
        Error::corrupt(&self.path, None)(detail)
    }
}
