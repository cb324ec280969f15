//! SQL projections over dumps: the old shape turned into the new one, on this machine.
//!
//! A migration's own projection is in the SQL of its database, and runs there. Where only a dump of the old table is at hand,
//! a query in DataFusion's SQL says the same of the dump's columns: `unnest` turns lists into rows, `[…]` takes fields of
//! structs, and [`json`] has functions for JSON that is kept as text.

pub mod json;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossfade_backfill::Cancel;
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::ident;
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use parquet::arrow::ArrowWriter;

use crate::answer::parquet_files;
use crate::error::{Error, Result};
use crate::side::Side;

/// The name under which a query finds the dump.
pub const TABLE: &str = "old";

/// Memory for a query: what does not fit waits on the disk. That of an [import](crossfade_backfill::import).
const MEMORY_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// A query over a dump.
#[derive(Debug, Clone)]
pub struct Query {
    path: PathBuf,
    text: String,
}

/// A dump in the new shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Projected {
    /// Its folder: Parquet files, in the order of the query if that asks for one.
    pub folder: PathBuf,
    /// How many rows it has.
    pub rows: u64,
    /// The columns, as the query names them.
    pub columns: Vec<String>,
}

impl Query {
    /// Reads a query from a file.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
        Ok(Self { path: path.to_owned(), text })
    }

    /// A query whose text is at hand; `path` is for messages.
    pub fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into() }
    }
}

/// Runs a query over the dump in `dump`, a folder of Parquet files or one such file, and writes the rows into `out`, which must
/// not be there yet. With `columns` the query must give these, and they are written in this order; what else it
/// gives is left out.
///
/// # Errors
///
/// [`Error::Projection`] if the query does not fit the dump, or does anything but read; [`Error::ProjectionColumn`];
/// [`Error::Io`] if `out` is there or cannot be written; the errors of an [import](crossfade_backfill::import::import) about
/// files. After an error there is nothing in `out`.
pub async fn project(
    dump: &Path,
    query: &Query,
    columns: Option<&[String]>,
    out: &Path,
    cancel: &Cancel,
) -> Result<Projected> {
    if out.exists() {
        return Err(Error::io("create", out)(std::io::ErrorKind::AlreadyExists.into()));
    }
    let side = Side::of_folder(dump)?;
    let context = context()?;
    context.register_table(TABLE, side.table(&context)?.into_view()).map_err(Error::plan("read the dump"))?;
    let rows = rows(&context, query, columns).await?;
    let columns: Vec<String> = rows.schema().fields().iter().map(|field| field.name().clone()).collect();

    // What is half written has another name.
    let unfinished = out.with_extension("tmp");
    remove(&unfinished)?;
    fs::create_dir_all(&unfinished).map_err(Error::io("create", &unfinished))?;
    let written = tokio::select! {
        written = write(rows, query, &unfinished) => written,
        () = cancel.cancelled() => {
            Err(crossfade_backfill::Error::Cancelled { rows_done: 0, rows_total: side.rows }.into())
        }
    };
    let finished = written.and_then(|rows| {
        fs::rename(&unfinished, out).map_err(Error::io("rename", &unfinished))?;
        Ok(Projected { folder: out.to_owned(), rows, columns })
    });
    if finished.is_err() {
        // The first error is the one to tell; the next run removes what is left.
        let _ = remove(&unfinished);
    }
    finished
}

fn context() -> Result<SessionContext> {
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(MEMORY_BYTES_MAX)))
        .build_arc()
        .map_err(Error::plan("set up a session"))?;
    // Rows that a query puts in order stay so: several files would be filled in turns.
    let mut config = SessionConfig::new().set_usize("datafusion.execution.minimum_parallel_output_files", 1);
    let options = &mut config.options_mut().execution;
    options.parquet.schema_force_view_types = false;
    options.parquet.compression = Some("zstd(1)".to_owned());
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .build();
    let context = SessionContext::new_with_state(state);
    json::functions().into_iter().for_each(|function| context.register_udf(function));
    Ok(context)
}

/// The query's rows. It may only read, and only the dump.
async fn rows(context: &SessionContext, query: &Query, columns: Option<&[String]>) -> Result<DataFrame> {
    let failed = |source| Error::Projection { path: query.path.clone(), source: Box::new(source) };
    let only_reading =
        SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let rows = context.sql_with_options(&query.text, only_reading).await.map_err(failed)?;
    let Some(columns) = columns else { return Ok(rows) };
    let given = rows.schema().clone();
    if let Some(absent) = columns.iter().find(|column| given.index_of_column_by_name(None, column).is_none())
    {
        return Err(Error::ProjectionColumn { path: query.path.clone(), column: absent.clone() });
    }
    rows.select(columns.iter().map(ident).collect::<Vec<_>>()).map_err(failed)
}

async fn write(rows: DataFrame, query: &Query, folder: &Path) -> Result<u64> {
    let failed = |source| Error::Projection { path: query.path.clone(), source: Box::new(source) };
    let schema = Arc::new(rows.schema().as_arrow().clone());
    let path = format!("{}/", folder.display());
    rows.write_parquet(&path, DataFrameWriteOptions::new(), None).await.map_err(failed)?;
    let mut written = 0;
    for path in parquet_files(folder)? {
        written += crate::answer::row_count(&path)?;
    }
    if parquet_files(folder)?.is_empty() {
        // A scan needs the columns, also where there are no rows.
        let path = folder.join("empty.parquet");
        let file = fs::File::create(&path).map_err(Error::io("create", &path))?;
        ArrowWriter::try_new(file, schema, None)
            .and_then(ArrowWriter::close)
            .map_err(|source| crossfade_backfill::Error::ParquetWrite { path, source })?;
    }
    Ok(written)
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", folder)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
