//! One side of a comparison as a table that executors read: its files, its columns, how they are compared.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use crossfade_backfill::snapshot::{ROW_HASH_COLUMN, Snapshot};
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::prelude::{DataFrame, SessionContext};
use url::Url;

use crate::error::{Error, Result};

/// One side of a comparison.
pub(crate) struct Side {
    /// The files, as executors find them.
    pub(crate) files: Vec<Url>,
    /// All columns of the files.
    pub(crate) schema: SchemaRef,
    /// How many rows there are.
    pub(crate) rows: u64,
}

impl Side {
    /// The files of a snapshot, with its row hash.
    pub(crate) fn of_snapshot(snapshot: &Snapshot) -> Result<Self> {
        let manifest = snapshot.manifest();
        let files = manifest
            .files
            .iter()
            .map(|file| file_url(&snapshot.folder().join(&file.name)))
            .collect::<Result<_>>()?;
        Ok(Self { files, schema: snapshot.stored_schema(), rows: snapshot.rows() })
    }

    /// The rows as a table of a session.
    pub(crate) fn table(&self, context: &SessionContext) -> Result<DataFrame> {
        let urls = self
            .files
            .iter()
            .map(|url| ListingTableUrl::try_new(url.clone(), None))
            .collect::<Result<Vec<_>, _>>()
            .map_err(Error::plan("name the files"))?;
        // Any name will do: the files are named one by one.
        let options = ListingOptions::new(Arc::new(ParquetFormat::default())).with_file_extension("");
        let config = ListingTableConfig::new_with_multi_paths(urls)
            .with_listing_options(options)
            .with_schema(self.schema.clone());
        ListingTable::try_new(config)
            .and_then(|table| context.read_table(Arc::new(table)))
            .map_err(Error::plan("read the files"))
    }

    pub(crate) fn data_type(&self, column: &str) -> Option<&DataType> {
        self.schema.column_with_name(column).map(|(_, field)| field.data_type())
    }

    /// Whether rows have hashes of our own.
    pub(crate) fn is_hashed(&self) -> bool {
        self.schema.column_with_name(ROW_HASH_COLUMN).is_some()
    }
}

/// A file or folder as executors find it: by its absolute path.
pub(crate) fn file_url(path: &Path) -> Result<Url> {
    let absolute = std::fs::canonicalize(path).map_err(Error::io("open", path))?;
    Url::from_file_path(&absolute).map_err(|()| Error::Path { path: absolute })
}

/// A folder as executors find it. The slash at its end says that it is one.
pub(crate) fn folder_url(path: &Path) -> Result<Url> {
    let absolute = std::fs::canonicalize(path).map_err(Error::io("open", path))?;
    Url::from_directory_path(&absolute).map_err(|()| Error::Path { path: absolute })
}
