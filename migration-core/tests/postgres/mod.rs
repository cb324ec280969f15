//! What only Postgres can show: its types, its snapshots, its locks.

mod catalog;
mod check;
mod control;
mod projection;
mod rows;

use crossfade_migration_core::catalog::Catalog;
use crossfade_migration_core::connect::{Connected, Engine};
use crossfade_migration_core::control::{Account, Registry};
use crossfade_migration_core::manifest::Manifest;
use crossfade_migration_core::mirror::Subject;
use crossfade_migration_core::plan::Plan;
use crossfade_migration_core::url::DatabaseUrl;
use crossfade_test_harness::{Postgres as Server, TestDatabase};
use sqlx::{AssertSqlSafe, Postgres};

/// A database of one test, and crossfade's view of it.
struct Fixture {
    store: Connected<Postgres>,
    // Gone last, and the database with it.
    _database: TestDatabase<Postgres>,
}

impl Fixture {
    /// An empty database after these statements.
    async fn new(setup: &str) -> Fixture {
        let database = Server::shared().database().await;
        let url = DatabaseUrl::parse(database.url()).unwrap();
        let pool = Postgres::connect(&url).await.unwrap();
        let fixture = Fixture { store: Connected { pool, url }, _database: database };
        fixture.run(setup).await;
        fixture
    }

    /// Runs statements without looking at what they give.
    async fn run(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&self.store.pool).await.unwrap();
    }

    /// Installs crossfade's tables and registers a manifest.
    async fn register(&self, manifest: &Manifest) -> Subject {
        self.store.install().await.unwrap();
        let plan = Plan::read(manifest, &self.store as &dyn Catalog).await.unwrap();
        self.store.register(manifest, &plan, &account()).await.unwrap();
        let id = self.store.migration(manifest.name()).await.unwrap().id;
        Subject { id, plan }
    }
}

fn account() -> Account {
    Account { actor: "tester".to_owned(), reason: None, forced: false, evidence: serde_json::Value::Null }
}

/// A migration of `old(id)` to `new(id)`, column by column.
fn manifest(old: &str, new: &str, projection: &str, gates: &str) -> Manifest {
    let text = format!(
        r#"
name = "moved"
[old]
url = "postgres:///unused"
table = "{old}"
key = ["id"]
[new]
url = "postgres:///unused"
table = "{new}"
scope = ["id"]
key = ["id"]
[mapping]
projection = """{projection}"""
[gates]
{gates}
"#
    );
    Manifest::parse(&text, "test").unwrap()
}
