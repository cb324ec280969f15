//! The inspection: a whole store against the ledger, while the traffic goes on.

use std::collections::BTreeMap;

use crossfade::Side;
use sqlx::{SqliteConnection, SqlitePool};

use crate::ledger::{Fault, Ledger};
use crate::subscription::{Result, Subscription};
use crate::{new, old};

/// What a store holds, and what is wrong with it.
pub(crate) struct Inspection {
    pub(crate) subscriptions: u64,
    pub(crate) faults: Vec<Fault>,
}

/// Compares a store with the ledger, customer by customer, as of one moment.
pub(crate) async fn inspect(pool: &SqlitePool, ledger: &Ledger, side: Side) -> Result<Inspection> {
    let mut transaction = pool.begin().await?;
    let from = ledger.now();
    // The first statement fixes what the transaction sees.
    sqlx::query("select 1 from customers limit 1").fetch_all(&mut *transaction).await?;
    let to = ledger.now();
    let mut stored = match side {
        Side::Old => load_old(&mut transaction).await?,
        Side::New => load_new(&mut transaction).await?,
    };
    let mut inspection = Inspection { subscriptions: 0, faults: Vec::new() };
    for customer in 1..=ledger.customers() {
        let answer = stored.remove(&customer).unwrap_or_default();
        inspection.subscriptions += answer.len() as u64;
        inspection.faults.extend(ledger.judge(customer, &answer, from, to));
    }
    for (customer, answer) in stored {
        inspection.faults.push(Fault::Unfounded(format!("there is no customer {customer}: {answer:?}")));
    }
    Ok(inspection)
}

async fn load_old(connection: &mut SqliteConnection) -> Result<BTreeMap<i64, Vec<Subscription>>> {
    let rows: Vec<(i64, String)> =
        sqlx::query_as("select id, subscriptions from customers").fetch_all(connection).await?;
    rows.into_iter().map(|(customer, array)| Ok((customer, old::parse(&array)?))).collect()
}

async fn load_new(connection: &mut SqliteConnection) -> Result<BTreeMap<i64, Vec<Subscription>>> {
    let rows: Vec<(i64, i64, String, i64, bool)> = sqlx::query_as(
        "select customer_id, id, plan, price_cents, cancelled from subscriptions order by customer_id, id",
    )
    .fetch_all(connection)
    .await?;
    let mut all = BTreeMap::<i64, Vec<Subscription>>::new();
    for (customer, id, plan, price_cents, cancelled) in rows {
        all.entry(customer).or_default().push(new::Row::from((id, plan, price_cents, cancelled)).into());
    }
    Ok(all)
}

/// How many customers' arrays still hold something.
pub(crate) async fn arrays_left(pool: &SqlitePool) -> Result<u64> {
    let count: i64 =
        sqlx::query_scalar("select count(*) from customers where json_array_length(subscriptions) > 0")
            .fetch_one(pool)
            .await?;
    Ok(count.unsigned_abs())
}
