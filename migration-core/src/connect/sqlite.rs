//! Connecting to SQLite.

use std::str::FromStr;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Pool, Sqlite};

use super::{AnyDatabase, Engine};
use crate::error::{Error, Result};
use crate::url::{DatabaseUrl, EngineKind};

/// How long a statement waits for another writer. There is one writer at a time, so a batch of a job
/// may stand before a request of the application; ten seconds are more than any batch takes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Writers wait for each other anyway; a few more connections let reads go on beside them.
const CONNECTIONS_MAX: u32 = 8;

/// How many rows a reading thread may be ahead of who takes them: enough that the two rarely wait for
/// each other, little enough that wide rows do not fill the memory.
const ROW_BUFFER: usize = 512;

impl Engine for Sqlite {
    fn connect(url: &DatabaseUrl) -> BoxFuture<'_, Result<Pool<Self>>> {
        async move {
            let options = options(url)?;
            SqlitePoolOptions::new()
                .max_connections(CONNECTIONS_MAX)
                .connect_with(options)
                .await
                .map_err(Error::database(format!("connecting to {url}")))
        }
        .boxed()
    }

    fn database(pool: Pool<Self>) -> AnyDatabase {
        AnyDatabase::sqlite(pool, DatabaseUrl::of_application(EngineKind::Sqlite))
    }
}

fn options(url: &DatabaseUrl) -> Result<SqliteConnectOptions> {
    let fault = Error::database(format!("connecting to {url}"));
    let text = url.expose();
    // Each connection would have a database of its own, or share one without the write-ahead log.
    if text.contains(":memory:") || text.contains("mode=memory") {
        return Err(fault(sqlx::Error::Configuration(
            "a database in memory cannot be shared by several connections; give the path of a file".into(),
        )));
    }
    let options = SqliteConnectOptions::from_str(text).map_err(fault)?;
    Ok(options
        // Readers do not hold up writers, nor writers readers: shadow reads and snapshots rely on it.
        .journal_mode(SqliteJournalMode::Wal)
        // `normal` would be safe against a killed process too, but after a loss of power the last
        // commits could be gone that had been acknowledged.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .row_buffer_size(ROW_BUFFER))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn fault(url: &str) -> Error {
        Sqlite::connect(&DatabaseUrl::parse(url).unwrap()).await.unwrap_err()
    }

    #[tokio::test]
    async fn a_missing_file_is_an_error_with_a_hint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing.db");
        let error = fault(&format!("sqlite:{}", path.display())).await;
        assert!(error.to_string().contains("missing.db"), "{error}");
        assert!(error.hint().unwrap().contains("mode=rwc"), "{error}");
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_is_created_only_when_the_url_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new.db");
        let url = DatabaseUrl::parse(&format!("sqlite://{}?mode=rwc", path.display())).unwrap();
        let pool = Sqlite::connect(&url).await.unwrap();
        let mode: String = sqlx::query_scalar("pragma journal_mode").fetch_one(&pool).await.unwrap();
        assert_eq!(mode, "wal");
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_database_in_memory_is_refused() {
        for url in ["sqlite::memory:", "sqlite://x?mode=memory"] {
            assert!(fault(url).await.to_string().contains("memory"));
        }
    }
}
