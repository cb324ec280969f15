//! The database of the show: a SQLite file full of customers.

use std::path::Path;
use std::time::Duration;

use fastrand::Rng;
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use crate::subscription::{Result, Subscription};

/// SQLite lets one writer in at a time; a request waits this long for those before it.
const BUSY_TIMEOUT: Duration = Duration::from_secs(20);

/// As many requests as are in flight at once; more connections would only wait for each other.
const CONNECTIONS_MAX: u32 = 8;

/// How many customers are inserted by one statement.
const INSERT_CUSTOMERS: usize = 5_000;

/// The most subscriptions that a customer begins with.
const SUBSCRIPTIONS_MAX: i64 = 6;

/// What can be subscribed to, and for how many cents.
const PLANS: [(&str, i64); 4] = [("basic", 499), ("family", 1_499), ("pro", 2_999), ("team", 9_999)];

/// Creates the file, its tables and its customers, who are the same for the same seed. Gives the
/// service's pool, and each customer's subscriptions, the customer with key 1 first.
pub(crate) async fn create(
    path: &Path,
    customers: usize,
    seed: u64,
) -> Result<(SqlitePool, Vec<Vec<Subscription>>)> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // Safe against a process that is killed, which the show does; it does not cut the power.
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(BUSY_TIMEOUT);
    let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS_MAX).connect_with(options).await?;
    sqlx::raw_sql(include_str!("schema.sql")).execute(&pool).await?;
    let mut rng = Rng::with_seed(seed);
    let all: Vec<_> = (0..customers).map(|_| subscriptions(&mut rng)).collect();
    let mut transaction = pool.begin_with("begin immediate").await?;
    for (index, chunk) in all.chunks(INSERT_CUSTOMERS).enumerate() {
        sqlx::query(
            "insert into customers (id, name, subscriptions)
             select ?1 + key, 'Customer ' || (?1 + key), value from json_each(?2)",
        )
        .bind((index * INSERT_CUSTOMERS + 1) as i64)
        .bind(serde_json::to_string(chunk)?)
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await?;
    Ok((pool, all))
}

/// A new subscription, to any of the plans.
pub(crate) fn subscription(id: i64, rng: &mut Rng) -> Subscription {
    let (plan, price_cents) = PLANS[rng.usize(..PLANS.len())];
    Subscription { id, plan: plan.to_owned(), price_cents, cancelled: false }
}

fn subscriptions(rng: &mut Rng) -> Vec<Subscription> {
    let count = rng.i64(0..=SUBSCRIPTIONS_MAX);
    let one = |id| Subscription { cancelled: rng.u8(..5) == 0, ..subscription(id, rng) };
    (1..=count).map(one).collect()
}
