//! A database with customers whose two plans move into rows of their own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crossfade_backfill::findings::ScanSummary;
use crossfade_backfill::progress::Silent;
use crossfade_backfill::queue::Tunables;
use crossfade_backfill::scan::ScanOptions;
use crossfade_backfill::{Cancel, Migration, export};
use crossfade_migration_core::connect::{AnyDatabase, Engine};
use crossfade_migration_core::control::Account;
use crossfade_migration_core::manifest::Manifest;
use crossfade_migration_core::mirror::{Direction, Subject};
use crossfade_migration_core::operate::Operator;
use crossfade_migration_core::phase::{Epoch, Phase, Ramp, Standing};
use crossfade_migration_core::plan::Plan;
use crossfade_migration_core::url::DatabaseUrl;
use crossfade_test_harness::{Postgres as Server, TestDatabase};
use futures::FutureExt;
use futures::future::BoxFuture;
use sqlx::{AssertSqlSafe, Pool, Postgres, Sqlite};
use tempfile::TempDir;

/// Long enough for any test machine.
const PATIENCE: Duration = Duration::from_secs(30);

const MAPPING: &str = r#"projection = """
    select id as customer_id, 'a' as slot, plan_a as plan from customers
    where id in (:keys) and plan_a is not null
    union all
    select id, 'b', plan_b from customers where id in (:keys) and plan_b is not null"""
reverse = """update customers set
    plan_a = (select plan from subscriptions s where s.customer_id = customers.id and slot = 'a'),
    plan_b = (select plan from subscriptions s where s.customer_id = customers.id and slot = 'b')
    where id in (:keys)""""#;

const RETIRE: &str = r#"retire = "update customers set plan_a = null, plan_b = null where id in (:keys)""#;

/// What differs between the engines beside their seams.
pub(crate) trait TestEngine: Engine {
    /// An empty database.
    fn fresh() -> BoxFuture<'static, TestDatabase<Self>>;

    /// Runs any number of statements.
    fn run(pool: &Pool<Self>, sql: String) -> BoxFuture<'_, ()>;

    /// Runs a statement in a transaction.
    fn run_in(connection: &mut Self::Connection, sql: String) -> BoxFuture<'_, Result<(), sqlx::Error>>;

    /// The one text column that a query gives.
    fn lines(pool: &Pool<Self>, sql: String) -> BoxFuture<'_, Vec<String>>;

    /// A query for the numbers from 1 to `count`, in a column `n` of `numbers`.
    fn numbers(count: u32) -> String;
}

macro_rules! test_engine {
    ($engine:ident, $database:expr, $numbers:expr) => {
        impl TestEngine for $engine {
            fn fresh() -> BoxFuture<'static, TestDatabase<Self>> {
                async { $database.await }.boxed()
            }

            fn run(pool: &Pool<Self>, sql: String) -> BoxFuture<'_, ()> {
                async move {
                    sqlx::raw_sql(AssertSqlSafe(sql)).execute(pool).await.unwrap();
                }
                .boxed()
            }

            fn run_in(
                connection: &mut Self::Connection,
                sql: String,
            ) -> BoxFuture<'_, Result<(), sqlx::Error>> {
                async move { sqlx::query(AssertSqlSafe(sql)).execute(connection).await.map(|_| ()) }.boxed()
            }

            fn lines(pool: &Pool<Self>, sql: String) -> BoxFuture<'_, Vec<String>> {
                async move { sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(pool).await.unwrap() }.boxed()
            }

            fn numbers(count: u32) -> String {
                let numbers: fn(u32) -> String = $numbers;
                numbers(count)
            }
        }
    };
}

test_engine!(Sqlite, crossfade_test_harness::sqlite(), |count| format!(
    "with recursive numbers (n) as (select 1 union all select n + 1 from numbers where n < {count})"
));
test_engine!(Postgres, Server::shared().database(), |count| format!(
    "with numbers (n) as (select generate_series(1, {count}))"
));

pub(crate) struct World<E: TestEngine> {
    pub(crate) migration: Migration,
    pub(crate) pool: Pool<E>,
    pub(crate) url: String,
    pub(crate) folder: TempDir,
    _database: TestDatabase<E>,
}

/// The migration as any process finds it.
pub(crate) async fn open(url: &str) -> Migration {
    let database = AnyDatabase::connect(&DatabaseUrl::parse(url).unwrap()).await.unwrap();
    let registered = database.control.migration("moving").await.unwrap();
    let plan = Plan::read(&registered.manifest, &*database.store).await.unwrap();
    Migration::new(&database, Subject { id: registered.id, plan })
}

impl<E: TestEngine> World<E> {
    /// So many customers, none of them copied, in `dual_write`.
    pub(crate) async fn new(customers: u32) -> World<E> {
        Self::mapped(customers, &format!("{MAPPING}\n{RETIRE}")).await
    }

    pub(crate) async fn without_retire(customers: u32) -> World<E> {
        Self::mapped(customers, MAPPING).await
    }

    /// The same as [`World::new`], on a database of the caller's.
    pub(crate) async fn on(database: TestDatabase<E>, customers: u32) -> World<E> {
        Self::mapped_on(database, customers, &format!("{MAPPING}\n{RETIRE}")).await
    }

    async fn mapped(customers: u32, mapping: &str) -> World<E> {
        Self::mapped_on(E::fresh().await, customers, mapping).await
    }

    async fn mapped_on(database: TestDatabase<E>, customers: u32, mapping: &str) -> World<E> {
        let url = database.url().to_owned();
        let pool = E::connect(&DatabaseUrl::parse(&url).unwrap()).await.unwrap();
        let numbers = E::numbers(customers);
        E::run(
            &pool,
            format!(
                "create table customers (id integer primary key, plan_a text, plan_b text);
                 create table subscriptions (
                     customer_id integer not null, slot text not null, plan text not null check (plan <> 'refused'),
                     primary key (customer_id, slot));
                 insert into customers (id, plan_a, plan_b)
                 {numbers} select n, case when n % 3 <> 0 then 'basic' end, case when n % 2 = 0 then 'plus' end
                 from numbers"
            ),
        )
        .await;
        let manifest = Manifest::parse(
            &format!(
                "name = \"moving\"\n[old]\nurl = \"{url}\"\ntable = \"customers\"\nkey = [\"id\"]\n\
                 [new]\nurl = \"{url}\"\ntable = \"subscriptions\"\nscope = [\"customer_id\"]\n\
                 key = [\"customer_id\", \"slot\"]\n[mapping]\n{mapping}\n"
            ),
            "test.toml",
        )
        .unwrap();
        let any = AnyDatabase::connect(&DatabaseUrl::parse(&url).unwrap()).await.unwrap();
        any.control.install().await.unwrap();
        let plan = Plan::read(&manifest, &*any.store).await.unwrap();
        any.control.register(&manifest, &plan, &account()).await.unwrap();
        let migration = open(&url).await;
        let world = World { migration, pool, url, folder: tempfile::tempdir().unwrap(), _database: database };
        world.enter(Phase::DualWrite).await;
        world
    }

    /// Moves to a phase, at full ramp and a new epoch.
    pub(crate) async fn enter(&self, phase: Phase) {
        let registered = self.migration.control.migration("moving").await.unwrap();
        let to = Standing { phase, ramp: Ramp::FULL, epoch: registered.standing.epoch.next() };
        self.migration.control.change(&registered, to, &account(), PATIENCE).await.unwrap();
    }

    pub(crate) async fn operator(&self) -> Operator {
        Operator::new(AnyDatabase::connect(&DatabaseUrl::parse(&self.url).unwrap()).await.unwrap())
    }

    pub(crate) async fn epoch(&self) -> Epoch {
        self.migration.control.standing(self.migration.subject.id).await.unwrap().epoch
    }

    pub(crate) async fn run(&self, sql: impl Into<String>) {
        E::run(&self.pool, sql.into()).await;
    }

    pub(crate) async fn lines(&self, sql: impl Into<String>) -> Vec<String> {
        E::lines(&self.pool, sql.into()).await
    }

    /// Writes a customer as an application does: the old row and its mirror in one transaction, run again as long as it
    /// loses races.
    pub(crate) async fn write(&self, sql: String, id: i64) {
        loop {
            let epoch = self.epoch().await;
            match self.try_write(&sql, id, Direction::OldToNew, epoch).await {
                Ok(()) => return,
                Err(error) if error.is_retryable() => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Writes one side of a customer and mirrors it to the other, at an epoch.
    pub(crate) async fn try_write(
        &self,
        sql: &str,
        id: i64,
        direction: Direction,
        epoch: Epoch,
    ) -> crossfade_migration_core::Result<()> {
        use crossfade_migration_core::Error;
        let mut transaction = E::begin_write(&self.pool).await?;
        E::run_in(&mut transaction, sql.to_owned()).await.map_err(Error::database("writing"))?;
        let key = self.migration.subject.plan.coerce(&id.into())?;
        E::mirror(&mut transaction, &self.migration.subject, direction, &[key], epoch).await?;
        transaction.commit().await.map_err(Error::database("committing"))
    }

    /// What the new store should hold.
    pub(crate) async fn projected(&self) -> Vec<String> {
        self.lines(
            "select line from (
                select id, 'a' as slot, id || ' a ' || plan_a as line from customers where plan_a is not null
                union all
                select id, 'b', id || ' b ' || plan_b from customers where plan_b is not null
             ) p order by id, slot",
        )
        .await
    }

    /// What it holds.
    pub(crate) async fn subscriptions(&self) -> Vec<String> {
        self.lines(
            "select customer_id || ' ' || slot || ' ' || plan from subscriptions order by customer_id, slot",
        )
        .await
    }

    /// Exports and scans into a folder of this name, and gives the findings' folder.
    pub(crate) async fn scan(&self, name: &str, chunk_keys_max: u64) -> (PathBuf, ScanSummary) {
        let folder = self.path(name);
        let pair = export::export(&self.migration, &folder, &Silent, &Cancel::new()).await.unwrap().pair;
        let findings = folder.join("findings");
        let mut options = ScanOptions::default();
        options.chunk_keys_max = chunk_keys_max.try_into().unwrap();
        let summary = crossfade_backfill::scan::scan(&pair, &findings, &options, &|_| {
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
        (findings, summary)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }
}

/// Workers that do their work at once.
pub(crate) fn tunables() -> Tunables {
    Tunables { workers: 2, batch_keys_max: 50, batch_ms: 100, work_percent: 100 }
}

pub(crate) fn account() -> Account {
    Account { actor: "tester".to_owned(), reason: None, forced: false, evidence: serde_json::Value::Null }
}

/// Runs something that must be awaited from within a callback that cannot wait.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(future))
}
