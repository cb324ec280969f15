//! What the suite needs to know of an engine beside its seams.

use crossfade_migration_core::connect::Engine;
use crossfade_test_harness::TestDatabase;
use futures::FutureExt;
use futures::future::BoxFuture;
use sqlx::{AssertSqlSafe, Pool, Postgres, Sqlite, Transaction};
use uuid::Uuid;

/// An engine that the suite runs on.
pub(crate) trait TestEngine: Engine {
    /// The type of columns that hold bytes.
    const BYTES: &str;
    /// The type of columns that hold uuids.
    const UUID: &str;
    /// Makes a table where crossfade's would be.
    const FOREIGN_TABLE: &str;

    /// An empty database.
    fn fresh() -> BoxFuture<'static, TestDatabase<Self>>;

    /// Runs any number of statements.
    fn run(connection: &mut Self::Connection, sql: String) -> BoxFuture<'_, Result<(), sqlx::Error>>;

    /// The one text column that a query gives.
    fn lines(connection: &mut Self::Connection, sql: String) -> BoxFuture<'_, Vec<String>>;

    /// A transaction as applications begin them; of those that differ, `turn` picks one.
    fn begin(pool: &Pool<Self>, turn: u64) -> BoxFuture<'_, Result<Transaction<'static, Self>, sqlx::Error>>;

    /// Bytes as a literal.
    fn bytes(content: &[u8]) -> String;

    /// A uuid as a literal.
    fn uuid(uuid: Uuid) -> String;
}

impl TestEngine for Sqlite {
    const BYTES: &str = "blob";
    const UUID: &str = "blob";
    const FOREIGN_TABLE: &str = "create table crossfade_migration (mine integer)";

    fn fresh() -> BoxFuture<'static, TestDatabase<Self>> {
        crossfade_test_harness::sqlite().boxed()
    }

    fn run(connection: &mut Self::Connection, sql: String) -> BoxFuture<'_, Result<(), sqlx::Error>> {
        async move { sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop) }.boxed()
    }

    fn lines(connection: &mut Self::Connection, sql: String) -> BoxFuture<'_, Vec<String>> {
        async move { sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(connection).await.unwrap() }.boxed()
    }

    fn begin(pool: &Pool<Self>, _: u64) -> BoxFuture<'_, Result<Transaction<'static, Self>, sqlx::Error>> {
        pool.begin().boxed()
    }

    fn bytes(content: &[u8]) -> String {
        format!("x'{}'", content.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    fn uuid(uuid: Uuid) -> String {
        Self::bytes(uuid.as_bytes())
    }
}

impl TestEngine for Postgres {
    const BYTES: &str = "bytea";
    const UUID: &str = "uuid";
    const FOREIGN_TABLE: &str = "create schema crossfade; create table crossfade.migration (mine integer)";

    fn fresh() -> BoxFuture<'static, TestDatabase<Self>> {
        crossfade_test_harness::Postgres::shared().database().boxed()
    }

    fn run(connection: &mut Self::Connection, sql: String) -> BoxFuture<'_, Result<(), sqlx::Error>> {
        async move { sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop) }.boxed()
    }

    fn lines(connection: &mut Self::Connection, sql: String) -> BoxFuture<'_, Vec<String>> {
        async move { sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(connection).await.unwrap() }.boxed()
    }

    fn begin(pool: &Pool<Self>, turn: u64) -> BoxFuture<'_, Result<Transaction<'static, Self>, sqlx::Error>> {
        let begin = match turn % 3 {
            0 => "begin isolation level read committed",
            1 => "begin isolation level repeatable read",
            _ => "begin isolation level serializable",
        };
        pool.begin_with(begin).boxed()
    }

    fn bytes(content: &[u8]) -> String {
        format!("'\\x{}'::bytea", content.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    fn uuid(uuid: Uuid) -> String {
        format!("'{uuid}'::uuid")
    }
}
