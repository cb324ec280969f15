//! The old store: an array of subscriptions on the customer.

use sqlx::{SqliteConnection, SqlitePool};

use crate::subscription::{Error, Result, Subscription};

pub(crate) async fn list(pool: SqlitePool, customer: i64) -> Result<Vec<Subscription>> {
    load(&mut *pool.acquire().await?, customer).await
}

pub(crate) async fn insert(
    connection: &mut SqliteConnection,
    customer: i64,
    subscription: &Subscription,
) -> Result<()> {
    let mut all = load(connection, customer).await?;
    all.push(subscription.clone());
    store(connection, customer, &all).await
}

pub(crate) async fn change_price(
    connection: &mut SqliteConnection,
    customer: i64,
    id: i64,
    cents: i64,
) -> Result<()> {
    change(connection, customer, id, |subscription| subscription.price_cents = cents).await
}

pub(crate) async fn cancel(connection: &mut SqliteConnection, customer: i64, id: i64) -> Result<()> {
    change(connection, customer, id, |subscription| subscription.cancelled = true).await
}

pub(crate) async fn delete(connection: &mut SqliteConnection, customer: i64, id: i64) -> Result<()> {
    let mut all = load(connection, customer).await?;
    let before = all.len();
    all.retain(|subscription| subscription.id != id);
    if all.len() == before {
        return Err(Error::NotFound { customer, id });
    }
    store(connection, customer, &all).await
}

/// The array as it stands in the column.
pub(crate) fn parse(array: &str) -> Result<Vec<Subscription>> {
    let mut all: Vec<Subscription> = serde_json::from_str(array)?;
    all.sort_unstable_by_key(|subscription| subscription.id);
    Ok(all)
}

async fn load(connection: &mut SqliteConnection, customer: i64) -> Result<Vec<Subscription>> {
    let array: String = sqlx::query_scalar("select subscriptions from customers where id = ?1")
        .bind(customer)
        .fetch_one(connection)
        .await?;
    parse(&array)
}

async fn store(connection: &mut SqliteConnection, customer: i64, all: &[Subscription]) -> Result<()> {
    sqlx::query("update customers set subscriptions = ?2 where id = ?1")
        .bind(customer)
        .bind(serde_json::to_string(all)?)
        .execute(connection)
        .await?;
    Ok(())
}

async fn change(
    connection: &mut SqliteConnection,
    customer: i64,
    id: i64,
    apply: impl FnOnce(&mut Subscription),
) -> Result<()> {
    let mut all = load(connection, customer).await?;
    let found = all.iter_mut().find(|subscription| subscription.id == id);
    apply(found.ok_or(Error::NotFound { customer, id })?);
    store(connection, customer, &all).await
}
