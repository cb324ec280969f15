//! Dumps that other tools wrote, as tables that executors read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use crossfade_backfill::scan::DumpTable;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};

use crate::answer::parquet_files;
use crate::error::{Error, Result};
use crate::side::{Side, file_url};

impl Side {
    /// A dump of which it is known already what is compared.
    pub(crate) fn of_dump(table: &DumpTable) -> Result<Self> {
        let files = table.files.iter().map(|path| file_url(path)).collect::<Result<_>>()?;
        Ok(Self { files, schema: table.schema.clone(), rows: table.rows })
    }

    /// All columns of a dump of any shape. Nullability is widened, because a dump's files may differ in it.
    pub(crate) fn of_folder(path: &Path) -> Result<Self> {
        let files = dump_files(path)?;
        let mut rows = 0_u64;
        let mut first: Option<(&Path, Arc<Schema>)> = None;
        for path in &files {
            let file = std::fs::File::open(path).map_err(Error::io("open", path))?;
            let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())
                .map_err(|error| corrupt(path, error.to_string()))?;
            let fields = metadata.schema().fields().iter();
            let schema = Schema::new(
                fields.map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<_>>(),
            );
            match &first {
                None => first = Some((path, Arc::new(schema))),
                Some((first_path, first)) => same_columns(path, &schema, first_path, first)?,
            }
            let file_rows = metadata.metadata().file_metadata().num_rows();
            rows = rows.saturating_add(u64::try_from(file_rows).unwrap_or(0));
        }
        let Some((_, schema)) = first else {
            return Err(crossfade_backfill::Error::DumpAbsent { path: path.to_owned() }.into());
        };
        let files = files.iter().map(|path| file_url(path)).collect::<Result<_>>()?;
        Ok(Self { files, schema, rows })
    }
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

fn same_columns(path: &Path, schema: &Schema, first_path: &Path, first: &Schema) -> Result<()> {
    let missing = |found: &Field| {
        first.field_with_name(found.name()).map(Field::data_type).ok() != Some(found.data_type())
    };
    let differing = schema.fields().iter().find(|found| missing(found));
    let detail = match differing {
        Some(found) => {
            format!("{} {} is not in {}", found.name(), found.data_type(), first_path.display())
        }
        None if schema.fields().len() < first.fields().len() => {
            format!("it has fewer columns than {}", first_path.display())
        }
        None => return Ok(()),
    };
    Err(crossfade_backfill::Error::FileSchema { path: path.to_owned(), detail }.into())
}

fn corrupt(path: &Path, detail: String) -> Error {
    crossfade_backfill::Error::FileCorrupt { path: path.to_owned(), row_group: None, detail }.into()
}
