//! Where a database is: `env:NAME`, `postgres://…` or `sqlite:PATH`, and never with its password shown.

use std::fmt;

/// The engines that a store can live on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EngineKind {
    /// PostgreSQL.
    Postgres,
    /// SQLite.
    Sqlite,
}

/// A database as the manifest names it: directly, or through the environment.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// The URL is in this environment variable.
    Env(String),
    /// The URL itself.
    Literal(DatabaseUrl),
}

/// A database's URL; it shows itself with the password masked.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct DatabaseUrl {
    text: String,
    engine: EngineKind,
}

/// A URL that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// The scheme belongs to no engine.
    #[error("{0:?} names no engine that crossfade knows (postgres:, sqlite:)")]
    UnknownEngine(String),
    /// `env:` without a name behind it.
    #[error("`env:` needs the name of a variable behind it")]
    NoVariable,
    /// The variable is not set.
    #[error("the environment variable {0} is not set")]
    Unset(String),
}

impl StoreUrl {
    /// Reads `env:NAME` or a database URL.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(text: &str) -> Result<StoreUrl, UrlError> {
        match text.strip_prefix("env:") {
            Some("") => Err(UrlError::NoVariable),
            Some(name) => Ok(StoreUrl::Env(name.to_owned())),
            None => DatabaseUrl::parse(text).map(StoreUrl::Literal),
        }
    }

    /// The database's URL, from the environment where it is kept there.
    ///
    /// # Errors
    /// When the variable is not set or holds no database URL.
    pub fn resolve(&self) -> Result<DatabaseUrl, UrlError> {
        match self {
            StoreUrl::Literal(url) => Ok(url.clone()),
            StoreUrl::Env(name) => {
                let text = std::env::var(name).map_err(|_| UrlError::Unset(name.clone()))?;
                DatabaseUrl::parse(&text)
            }
        }
    }
}

impl DatabaseUrl {
    /// Reads a database URL.
    ///
    /// # Errors
    /// When its scheme belongs to no engine.
    pub fn parse(text: &str) -> Result<DatabaseUrl, UrlError> {
        let scheme = text.split(':').next().unwrap_or_default();
        let engine = match scheme {
            "postgres" | "postgresql" => EngineKind::Postgres,
            "sqlite" => EngineKind::Sqlite,
            _ => return Err(UrlError::UnknownEngine(scheme.to_owned())),
        };
        Ok(DatabaseUrl { text: text.to_owned(), engine })
    }

    /// A stand-in for the URL of a pool that the application has made: it is only ever shown.
    pub(crate) fn of_application(engine: EngineKind) -> DatabaseUrl {
        DatabaseUrl { text: format!("the application's {engine} database"), engine }
    }

    /// The engine behind it.
    pub fn engine(&self) -> EngineKind {
        self.engine
    }

    /// The URL with its password: for a driver, never for a person.
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EngineKind::Postgres => "Postgres",
            EngineKind::Sqlite => "SQLite",
        })
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&masked(&self.text))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUrl::Env(name) => write!(f, "env:{name}"),
            StoreUrl::Literal(url) => url.fmt(f),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The URL with the password of its authority part, and any `password=` parameter, replaced.
fn masked(url: &str) -> String {
    let (body, query) = url.split_once('?').map_or((url, None), |(body, query)| (body, Some(query)));
    let mut masked = match body.split_once("://") {
        None => body.to_owned(),
        Some((scheme, rest)) => {
            // The last `@` ends the credentials: an unescaped one may stand in the password.
            match rest.rsplit_once('@') {
                Some((credentials, host)) => match credentials.split_once(':') {
                    Some((user, _)) => format!("{scheme}://{user}:***@{host}"),
                    None => body.to_owned(),
                },
                None => body.to_owned(),
            }
        }
    };
    if let Some(query) = query {
        let parameters = query.split('&').map(|parameter| match parameter.split_once('=') {
            Some((name, _)) if name.to_ascii_lowercase().contains("password") => format!("{name}=***"),
            _ => parameter.to_owned(),
        });
        masked.push('?');
        masked.push_str(&parameters.collect::<Vec<_>>().join("&"));
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_never_shown() {
        for url in [
            "postgres://ann:s3cret@host/db",
            "postgres://ann:s3cr@et@host/db",
            "postgres://host/db?user=ann&password=s3cret",
            "postgres:///db?sslpassword=s3cret&host=/run",
        ] {
            let url = DatabaseUrl::parse(url).unwrap();
            assert!(!format!("{url} {url:?}").contains("s3cr"), "{url}");
            assert!(url.to_string().contains("***"));
        }
        assert_eq!(DatabaseUrl::parse("sqlite:app.db").unwrap().to_string(), "sqlite:app.db");
    }

    #[test]
    fn a_url_comes_from_the_environment_or_stands_there() {
        assert_eq!(StoreUrl::parse("env:X").unwrap(), StoreUrl::Env("X".to_owned()));
        assert_eq!(StoreUrl::parse("env:"), Err(UrlError::NoVariable));
        let unset = StoreUrl::parse("env:CROSSFADE_SURELY_UNSET").unwrap().resolve();
        assert_eq!(unset, Err(UrlError::Unset("CROSSFADE_SURELY_UNSET".to_owned())));
        assert!(matches!(StoreUrl::parse("oracle://x"), Err(UrlError::UnknownEngine(_))));
    }
}
