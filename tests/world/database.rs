//! A database of either engine, as tests see it.

use std::time::{Duration, Instant};

use crossfade_test_harness::{Postgres, TestDatabase, sqlite};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, Sqlite};

/// How long something that must happen is waited for before its test fails: far longer than it takes.
const WITHIN: Duration = Duration::from_secs(60);

/// A pause between two looks.
const POLL: Duration = Duration::from_millis(10);

/// A database of one test.
pub(crate) enum Database {
    Postgres(TestDatabase<sqlx::Postgres>),
    Sqlite(TestDatabase<Sqlite>),
}

/// A customer whose row no command gets past, until this is let go.
pub(crate) enum Held {
    /// A transaction that has locked the row.
    Postgres(PgConnection),
    /// Triggers, named after the customer because connections may remember dropped names, that count for ever when the customer or its contacts are written.
    Sqlite { customer: u32 },
}

impl Database {
    pub(crate) async fn postgres() -> Database {
        Database::Postgres(Postgres::shared().database().await)
    }

    pub(crate) async fn sqlite() -> Database {
        Database::Sqlite(sqlite().await)
    }

    pub(crate) fn url(&self) -> &str {
        match self {
            Database::Postgres(database) => database.url(),
            Database::Sqlite(database) => database.url(),
        }
    }

    /// Runs statements.
    pub(crate) async fn execute(&self, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Database::Postgres(database) => {
                sqlx::raw_sql(sql).execute(database.pool()).await.unwrap();
            }
            Database::Sqlite(database) => {
                sqlx::raw_sql(sql).execute(database.pool()).await.unwrap();
            }
        }
    }

    /// The one number that a query gives.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Database::Postgres(database) => sqlx::query_scalar(sql).fetch_one(database.pool()).await.unwrap(),
            Database::Sqlite(database) => sqlx::query_scalar(sql).fetch_one(database.pool()).await.unwrap(),
        }
    }

    /// The texts that a query gives, each on a line of its own.
    pub(crate) async fn lines(&self, sql: &str) -> String {
        let sql = AssertSqlSafe(sql.to_owned());
        let lines: Vec<String> = match self {
            Database::Postgres(database) => {
                let rows = sqlx::query(sql).fetch_all(database.pool()).await.unwrap();
                rows.iter().map(|row| row.get(0)).collect()
            }
            Database::Sqlite(database) => {
                let rows = sqlx::query(sql).fetch_all(database.pool()).await.unwrap();
                rows.iter().map(|row| row.get(0)).collect()
            }
        };
        lines.join("\n")
    }

    /// Waits until a query gives a number that is large enough.
    pub(crate) async fn wait_for(&self, sql: &str, at_least: i64) {
        let deadline = Instant::now() + WITHIN;
        loop {
            let number = self.number(sql).await;
            if number >= at_least {
                return;
            }
            assert!(Instant::now() < deadline, "waited for {at_least} and saw {number}: {sql}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// The names of all tables, crossfade's own among them.
    pub(crate) async fn tables(&self) -> String {
        self.lines(match self {
            Database::Postgres(_) => {
                "select schemaname || '.' || tablename from pg_tables
                 where schemaname not in ('pg_catalog', 'information_schema') order by 1"
            }
            Database::Sqlite(_) => "select name from sqlite_schema order by name",
        })
        .await
    }

    /// One of crossfade's own tables, as SQL names it.
    pub(crate) fn own_table(&self, name: &str) -> String {
        match self {
            Database::Postgres(_) => format!("crossfade.{name}"),
            Database::Sqlite(_) => format!("crossfade_{name}"),
        }
    }

    /// Lets no command write this customer or its contacts.
    pub(crate) async fn hold(&self, customer: u32) -> Held {
        match self {
            Database::Postgres(database) => {
                let mut connection = PgConnection::connect(database.url()).await.unwrap();
                let lock = format!("begin; select 1 from customers where id = {customer} for update");
                sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut connection).await.unwrap();
                Held::Postgres(connection)
            }
            Database::Sqlite(_) => {
                let events = [
                    ("insert on contacts", "new.customer_id"),
                    ("update on contacts", "new.customer_id"),
                    ("delete on contacts", "old.customer_id"),
                    ("update on customers", "new.id"),
                ];
                for (number, (event, key)) in events.iter().enumerate() {
                    self.execute(&format!(
                        "create trigger held_{customer}_{number} before {event} when {key} = {customer} begin
                             select count(*) from (
                                 with recursive numbers (n) as (select 1 union all select n + 1 from numbers)
                                 select n from numbers);
                         end"
                    ))
                    .await;
                }
                Held::Sqlite { customer }
            }
        }
    }

    /// Waits until a command stands before the customer that is held.
    pub(crate) async fn wait_until_held_up(&self) {
        match self {
            // Locks are shown to everybody.
            Database::Postgres(_) => {
                self.wait_for(
                    "select count(*) from pg_stat_activity
                     where datname = current_database() and wait_event_type = 'Lock'",
                    1,
                )
                .await;
            }
            // Whoever counts has SQLite's only write lock: nobody else can take it.
            Database::Sqlite(database) => {
                let deadline = Instant::now() + WITHIN;
                let mut connection = sqlx::SqliteConnection::connect(database.url()).await.unwrap();
                sqlx::query("pragma busy_timeout = 0").execute(&mut connection).await.unwrap();
                let mut refused = 0;
                // Batches hold the lock as well, but none as long as many looks in a row.
                while refused < 50 {
                    if sqlx::query("begin immediate").execute(&mut connection).await.is_ok() {
                        sqlx::query("rollback").execute(&mut connection).await.unwrap();
                        refused = 0;
                    } else {
                        refused += 1;
                    }
                    assert!(Instant::now() < deadline, "nothing is held up");
                    tokio::time::sleep(POLL).await;
                }
                connection.close().await.unwrap();
            }
        }
    }

    /// Lets commands go on. Those that stood before the customer must have been ended before.
    pub(crate) async fn release(&self, held: Held) {
        match held {
            Held::Postgres(connection) => connection.close().await.unwrap(),
            Held::Sqlite { customer } => {
                let drops: String =
                    (0..4).map(|number| format!("drop trigger held_{customer}_{number};")).collect();
                self.execute(&drops).await;
            }
        }
    }
}
