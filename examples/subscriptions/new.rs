//! The new store: a table of subscriptions.

use sqlx::sqlite::SqliteQueryResult;
use sqlx::{SqliteConnection, SqlitePool};

use crate::service::Release;
use crate::subscription::{Error, Result, Subscription};

/// A row, column by column.
pub(crate) type Row = (i64, String, i64, bool);

pub(crate) async fn list(pool: SqlitePool, customer: i64, release: Release) -> Result<Vec<Subscription>> {
    let query = match release {
        Release::Flawed => {
            "select id, plan, price_cents, cancelled from subscriptions
             where customer_id = ?1 and not cancelled order by id"
        }
        Release::Mended => {
            "select id, plan, price_cents, cancelled from subscriptions where customer_id = ?1 order by id"
        }
    };
    let rows: Vec<Row> = sqlx::query_as(query).bind(customer).fetch_all(&pool).await?;
    Ok(rows.into_iter().map(Subscription::from).collect())
}

pub(crate) async fn insert(
    connection: &mut SqliteConnection,
    customer: i64,
    subscription: &Subscription,
) -> Result<()> {
    sqlx::query(
        "insert into subscriptions (customer_id, id, plan, price_cents, cancelled) values (?1, ?2, ?3, ?4, ?5)",
    )
    .bind(customer)
    .bind(subscription.id)
    .bind(&subscription.plan)
    .bind(subscription.price_cents)
    .bind(subscription.cancelled)
    .execute(connection)
    .await?;
    Ok(())
}

pub(crate) async fn change_price(
    connection: &mut SqliteConnection,
    customer: i64,
    id: i64,
    cents: i64,
) -> Result<()> {
    let changed = sqlx::query("update subscriptions set price_cents = ?3 where customer_id = ?1 and id = ?2")
        .bind(customer)
        .bind(id)
        .bind(cents)
        .execute(connection)
        .await?;
    found(&changed, customer, id)
}

pub(crate) async fn cancel(connection: &mut SqliteConnection, customer: i64, id: i64) -> Result<()> {
    let changed = sqlx::query("update subscriptions set cancelled = true where customer_id = ?1 and id = ?2")
        .bind(customer)
        .bind(id)
        .execute(connection)
        .await?;
    found(&changed, customer, id)
}

pub(crate) async fn delete(connection: &mut SqliteConnection, customer: i64, id: i64) -> Result<()> {
    let deleted = sqlx::query("delete from subscriptions where customer_id = ?1 and id = ?2")
        .bind(customer)
        .bind(id)
        .execute(connection)
        .await?;
    found(&deleted, customer, id)
}

impl From<Row> for Subscription {
    fn from((id, plan, price_cents, cancelled): Row) -> Subscription {
        Subscription { id, plan, price_cents, cancelled }
    }
}

fn found(outcome: &SqliteQueryResult, customer: i64, id: i64) -> Result<()> {
    if outcome.rows_affected() == 1 { Ok(()) } else { Err(Error::NotFound { customer, id }) }
}
