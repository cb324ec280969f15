use std::{fmt, thread};

use sqlx::{Database, Pool};
use tempfile::TempDir;

use crate::postgres;

/// An empty database of one test, which goes away with this value.
pub struct TestDatabase<DB: Database> {
    url: String,
    pool: Pool<DB>,
    // Declared last, so that the pool is gone before its database.
    _home: Home,
}

/// What has to be removed with a database.
#[derive(Debug)]
pub(crate) enum Home {
    Postgres {
        /// The URL of another database on the same server.
        server: String,
        name: String,
    },
    Sqlite {
        /// Holds the folder of the database's files until the database goes away.
        _folder: TempDir,
    },
}

impl<DB: Database> TestDatabase<DB> {
    pub(crate) fn new(url: String, pool: Pool<DB>, home: Home) -> Self {
        Self { url, pool, _home: home }
    }

    /// The URL, which other processes can connect to as well.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A pool of connections, opened as they are needed. A clone of it lives no longer than the database.
    pub fn pool(&self) -> &Pool<DB> {
        &self.pool
    }
}

impl<DB: Database> fmt::Debug for TestDatabase<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestDatabase").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        match self {
            Self::Sqlite { .. } => {}
            Self::Postgres { server, name } => {
                // The test's own runtime cannot be entered a second time from here, and may be shutting down.
                thread::scope(|scope| {
                    scope.spawn(|| {
                        if let Ok(runtime) =
                            tokio::runtime::Builder::new_current_thread().enable_all().build()
                        {
                            runtime.block_on(postgres::drop_database(server, name));
                        }
                    });
                });
            }
        }
    }
}
