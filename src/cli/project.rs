//! `crossfade project`: a dump of the old table turned into the new one's shape, offline.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use crossfade::core::gate::counted;
use crossfade::distributed::projection::{Query, project};
use serde::Serialize;

use super::failure::Failure;
use super::output::Output;
use super::progress;

/// Run a query over a Parquet dump of the old table, and write the rows as Parquet in the new table's shape.
///
/// The dump is the table `old`. The SQL is DataFusion's, whatever the database's is: `unnest` turns lists into rows,
/// `s['field']` takes a struct's field, `json_elements` and `json_text` take JSON apart that is kept as text.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  crossfade project --dump dumps/customers --query projection.sql --out dumps/old"
)]
pub(crate) struct Project {
    /// The dump: a folder of Parquet files, or one such file.
    #[arg(long, value_name = "PATH")]
    dump: PathBuf,
    /// The file with the query.
    #[arg(long, value_name = "FILE")]
    query: PathBuf,
    /// The folder to write to; it must not be there yet.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A column that the query must give; once for each. Others are left out then.
    #[arg(long = "column", value_name = "NAME")]
    columns: Vec<String>,
}

/// What was written.
#[derive(Debug, Serialize)]
struct Written {
    folder: PathBuf,
    rows: u64,
    columns: Vec<String>,
}

impl Project {
    pub(crate) async fn run(self, output: Output) -> Result<ExitCode, Failure> {
        let cancel = progress::cancel_on_interrupt(output);
        let query = Query::read(&self.query)?;
        let columns = (!self.columns.is_empty()).then_some(self.columns.as_slice());
        let projected = project(&self.dump, &query, columns, &self.out, &cancel).await?;
        let written = Written { folder: projected.folder, rows: projected.rows, columns: projected.columns };
        output.result(&written, |written| {
            format!(
                "wrote {} to {}: {}",
                counted(written.rows, "row"),
                written.folder.display(),
                written.columns.join(", ")
            )
        });
        Ok(ExitCode::SUCCESS)
    }
}
