//! `crossfade new`: a manifest from two live tables.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use crossfade::StoreUrl;
use crossfade::core::catalog::TableSchema;
use crossfade::core::manifest::TableName;
use crossfade::core::scaffold::{Scaffold, scaffold};
use crossfade::core::url::EngineKind;

use super::connection;
use super::failure::Failure;
use super::output::Output;

/// Write a manifest by reading the two tables.
///
/// What cannot be known from the tables is marked in the manifest; `crossfade check` says what is left to do.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  crossfade new subscriptions --old env:DATABASE_URL#customers --new env:DATABASE_URL#subscriptions -o subscriptions.toml"
)]
pub(crate) struct New {
    /// The migration's name: lower-case letters, digits and underscores.
    name: String,
    /// The old table: URL#TABLE, where URL may be env:NAME.
    #[arg(long, value_name = "URL#TABLE", value_parser = place)]
    old: Place,
    /// The new table: URL#TABLE, where URL may be env:NAME.
    #[arg(long, value_name = "URL#TABLE", value_parser = place)]
    new: Place,
    /// The file to write; standard output where it is left out.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// A table in a database.
#[derive(Debug, Clone)]
struct Place {
    url: StoreUrl,
    text: String,
    table: TableName,
}

fn place(text: &str) -> Result<Place, String> {
    let (url, table) = text.rsplit_once('#').ok_or("write URL#TABLE, as in env:DATABASE_URL#customers")?;
    Ok(Place {
        url: StoreUrl::parse(url).map_err(|error| error.to_string())?,
        text: url.to_owned(),
        table: TableName::parse(table).ok_or_else(|| format!("{table:?} is no table name"))?,
    })
}

impl Place {
    async fn schema(&self) -> Result<(TableSchema, EngineKind), Failure> {
        let url = self.url.resolve().map_err(crossfade::Error::from)?;
        let operator = connection::connect(&url).await?;
        Ok((operator.database().store.table(&self.table).await?, url.engine()))
    }
}

impl New {
    pub(crate) async fn run(self, output: Output) -> Result<ExitCode, Failure> {
        if let Some(path) = self.output.as_ref().filter(|path| path.exists()) {
            return Err(Failure::Exists(path.clone()));
        }
        let (old, engine) = self.old.schema().await?;
        let (new, _) = self.new.schema().await?;
        let text = scaffold(&Scaffold {
            name: &self.name,
            engine,
            old: &old,
            new: &new,
            old_url: &self.old.text,
            new_url: &self.new.text,
        });
        match &self.output {
            None => output.result(&serde_json::json!({ "manifest": text }), |_| text.clone()),
            Some(path) => {
                std::fs::write(path, &text).map_err(|source| Failure::File {
                    doing: "writing",
                    path: path.clone(),
                    source,
                })?;
                let result = serde_json::json!({ "file": path, "manifest": text });
                output.result(&result, |_| {
                    format!("wrote {0}\nnext: read it, then crossfade check {0}", path.display())
                });
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
