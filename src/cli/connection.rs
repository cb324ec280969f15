//! Which control store a command works on.

use clap::Args;
use crossfade::core::connect::AnyDatabase;
use crossfade::{DatabaseUrl, Manifest, Operator};

use super::failure::Failure;

/// Where the control store is.
#[derive(Debug, Args)]
pub(crate) struct Connection {
    /// The control store's URL; else CROSSFADE_CONTROL, else DATABASE_URL (`.env` is read).
    #[arg(long, global = true, value_name = "URL", env = "CROSSFADE_CONTROL", hide_env_values = true)]
    control: Option<String>,
}

impl Connection {
    /// Connects to the control store of registered migrations.
    pub(crate) async fn operator(&self) -> Result<Operator, Failure> {
        let url = match &self.control {
            Some(url) => url.clone(),
            None => std::env::var("DATABASE_URL").map_err(|_| Failure::NoControlStore)?,
        };
        connect(&DatabaseUrl::parse(&url).map_err(crossfade::Error::from)?).await
    }

    /// Connects to the database that a manifest names, which `--control` must agree with.
    pub(crate) async fn operator_of(&self, manifest: &Manifest) -> Result<Operator, Failure> {
        let url = manifest.database()?;
        if let Some(control) = &self.control
            && control != url.expose()
        {
            let what =
                "--control (or CROSSFADE_CONTROL) and the manifest name different databases".to_owned();
            return Err(
                crossfade::Error::SeveralDatabases { migration: manifest.name().to_owned(), what }.into()
            );
        }
        connect(&url).await
    }
}

/// Connects to a database.
pub(crate) async fn connect(url: &DatabaseUrl) -> Result<Operator, Failure> {
    Ok(Operator::new(AnyDatabase::connect(url).await?))
}

/// Reads and parses a manifest.
pub(crate) fn manifest(path: &std::path::Path) -> Result<Manifest, Failure> {
    let text = std::fs::read_to_string(path).map_err(|source| Failure::File {
        doing: "reading the manifest",
        path: path.to_owned(),
        source,
    })?;
    Ok(Manifest::parse(&text, &path.display().to_string()).map_err(crossfade::Error::from)?)
}
