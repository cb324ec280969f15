//! Opens a snapshot and gives out its rows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::ROW_HASH_COLUMN;
use super::file::DataFile;
use super::manifest::SnapshotManifest;
use crate::error::Result;

/// An open, validated snapshot of one side.
#[derive(Debug)]
pub struct Snapshot {
    folder: PathBuf,
    manifest: SnapshotManifest,
    schema: SchemaRef,
    files: Vec<DataFile>,
}

impl Snapshot {
    /// Opens the snapshot in `folder`: reads its manifest, and checks that each file is there, as long as it should
    /// be, has a readable footer, the manifest's columns and as many rows as it says. What the rows contain is
    /// checked when they are read, or by [`verify_checksums`](Self::verify_checksums).
    ///
    /// # Errors
    ///
    /// What [`SnapshotManifest::read`] gives; [`Error::FileAbsent`], [`Error::FileLength`], [`Error::FileCorrupt`] or
    /// [`Error::FileSchema`].
    ///
    /// [`Error::FileAbsent`]: crate::Error::FileAbsent
    /// [`Error::FileLength`]: crate::Error::FileLength
    /// [`Error::FileCorrupt`]: crate::Error::FileCorrupt
    /// [`Error::FileSchema`]: crate::Error::FileSchema
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self> {
        let folder = folder.into();
        let manifest = SnapshotManifest::read(&folder)?;
        let mut files = Vec::with_capacity(manifest.files.len());
        let mut first_row = 0;
        for entry in &manifest.files {
            let file = DataFile::open(&folder, &manifest, entry, first_row)?;
            first_row = file.rows().end;
            files.push(file);
        }
        let schema = files.first().map_or_else(Schema::empty, |file| {
            let stored = file.metadata().schema().fields();
            Schema::new(stored[..manifest.columns.len()].to_vec())
        });
        Ok(Self { folder, manifest, schema: schema.into(), files })
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it is of.
    pub fn manifest(&self) -> &SnapshotManifest {
        &self.manifest
    }

    /// The projection's columns, without the row hash. Key columns are never NULL.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The columns of its files: the projection's, then the row hash.
    pub fn stored_schema(&self) -> SchemaRef {
        let mut fields: Vec<Field> =
            self.schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        fields.push(Field::new(ROW_HASH_COLUMN, DataType::UInt64, false));
        Arc::new(Schema::new(fields))
    }

    /// How many rows it has.
    pub fn rows(&self) -> u64 {
        self.manifest.rows
    }

    /// All its rows in key order, with the row hash as the last column.
    pub fn batches(&self) -> impl Iterator<Item = Result<RecordBatch>> {
        self.files.iter().flat_map(DataFile::batches)
    }

    /// Reads every byte and compares it with the checksums of the manifest. A scan does not need this: it verifies what
    /// it reads as it goes.
    ///
    /// # Errors
    ///
    /// [`Error::FileCorrupt`](crate::Error::FileCorrupt) for the first file that is not what was written.
    pub fn verify_checksums(&self) -> Result<()> {
        self.files.iter().try_for_each(DataFile::verify)
    }

    pub(crate) fn files(&self) -> &[DataFile] {
        &self.files
    }
}
