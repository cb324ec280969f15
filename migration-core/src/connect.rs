//! From a URL to everything that is done with a database: the one place that chooses an engine.

mod postgres;
mod sqlite;

use std::sync::Arc;

use sqlx::Pool;

use crate::catalog::Catalog;
use crate::check::Proof;
use crate::comparisons::ComparisonLog;
use crate::control::{EvidenceLog, Registry, StandingStore};
use crate::error::Result;
use crate::fleet::Fleet;
use crate::mirror::Mirror;
use crate::rows::Rows;
use crate::url::{DatabaseUrl, EngineKind};
use crate::work::Workbench;

/// A connected database, seen through one engine.
///
/// The traits of this crate's seams are implemented on `Connected<Postgres>` and `Connected<Sqlite>`.
#[derive(Debug)]
pub struct Connected<DB: sqlx::Database> {
    /// The connections.
    pub pool: Pool<DB>,
    /// The database's URL; it shows itself masked.
    pub url: DatabaseUrl,
}

impl<DB: sqlx::Database> Clone for Connected<DB> {
    fn clone(&self) -> Self {
        Connected { pool: self.pool.clone(), url: self.url.clone() }
    }
}

/// An engine on which a whole migration can be carried.
pub trait Engine: Mirror {
    /// Connects to the database.
    fn connect(url: &DatabaseUrl) -> futures::future::BoxFuture<'_, Result<Pool<Self>>>;

    /// The database behind a pool that the application has made.
    fn database(pool: Pool<Self>) -> AnyDatabase;
}

/// The control store: everything that crossfade itself keeps.
pub trait Control: Registry + StandingStore + EvidenceLog + Fleet + ComparisonLog {}

impl<T: Registry + StandingStore + EvidenceLog + Fleet + ComparisonLog> Control for T {}

/// The stores: everything that is done to the two tables.
pub trait Store: Catalog + Proof + Rows + Workbench {}

impl<T: Catalog + Proof + Rows + Workbench> Store for T {}

/// A database whose engine has been chosen by its URL.
#[derive(Clone)]
pub struct AnyDatabase {
    /// The control store in it.
    pub control: Arc<dyn Control>,
    /// The two tables in it.
    pub store: Arc<dyn Store>,
    /// Its URL.
    pub url: DatabaseUrl,
    /// The engine's own pool, for parts of crossfade that keep tables of their own.
    pub pool: AnyPool,
}

/// A pool of one of the engines.
#[derive(Debug, Clone)]
pub enum AnyPool {
    /// PostgreSQL.
    Postgres(Pool<sqlx::Postgres>),
    /// SQLite.
    Sqlite(Pool<sqlx::Sqlite>),
}

impl AnyDatabase {
    /// Connects to the database that the URL names.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn connect(url: &DatabaseUrl) -> Result<AnyDatabase> {
        Ok(match url.engine() {
            EngineKind::Postgres => Self::postgres(sqlx::Postgres::connect(url).await?, url.clone()),
            EngineKind::Sqlite => Self::sqlite(sqlx::Sqlite::connect(url).await?, url.clone()),
        })
    }

    /// The database behind a pool of Postgres connections.
    pub fn postgres(pool: Pool<sqlx::Postgres>, url: DatabaseUrl) -> AnyDatabase {
        let connected = Arc::new(Connected { pool: pool.clone(), url: url.clone() });
        AnyDatabase { control: connected.clone(), store: connected, url, pool: AnyPool::Postgres(pool) }
    }

    /// The database behind a pool of SQLite connections.
    pub fn sqlite(pool: Pool<sqlx::Sqlite>, url: DatabaseUrl) -> AnyDatabase {
        let connected = Arc::new(Connected { pool: pool.clone(), url: url.clone() });
        AnyDatabase { control: connected.clone(), store: connected, url, pool: AnyPool::Sqlite(pool) }
    }
}
