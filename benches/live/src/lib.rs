//! What the benchmarks share: the tables, the migration, and figures.

use std::time::Duration;

use crossfade::core::connect::AnyDatabase;
use crossfade::{DatabaseUrl, Manifest, Operator, Order, Ramp, Request};
use sqlx::PgPool;

/// What can go wrong in a benchmark ends it.
pub type Fault = Box<dyn std::error::Error + Send + Sync>;

/// A million customers is the figure that the copy is judged on; fewer serve the others.
pub async fn create_tables(pool: &PgPool, customers: i64, per_customer: i64) -> Result<(), Fault> {
    sqlx::raw_sql(
        "create table customers (id bigint primary key, email text not null, subscriptions jsonb not null);
         create table subscriptions (customer_id bigint not null, id bigint not null, plan text not null,
             quantity integer not null, primary key (customer_id, id));",
    )
    .execute(pool)
    .await?;
    sqlx::query(
        "insert into customers
         select c, 'customer' || c || '@example.org',
                (select jsonb_agg(jsonb_build_object('id', c * 10 + s, 'plan', 'plan-' || s, 'quantity', s))
                 from generate_series(1, $2) s)
         from generate_series(1, $1) c",
    )
    .bind(customers)
    .bind(per_customer)
    .execute(pool)
    .await?;
    sqlx::raw_sql("vacuum analyze customers").execute(pool).await?;
    Ok(())
}

/// The migration that every benchmark measures, with thresholds that a quiet table passes.
pub fn manifest(url: &str) -> Result<Manifest, Fault> {
    let text = format!(
        r#"name = "subscriptions"
[old]
url = "{url}"
table = "customers"
key = ["id"]
[new]
url = "{url}"
table = "subscriptions"
scope = ["customer_id"]
key = ["customer_id", "id"]
[mapping]
projection = """
select c.id as customer_id, (s.value->>'id')::bigint as id, s.value->>'plan' as plan,
       (s.value->>'quantity')::integer as quantity
from customers c, jsonb_array_elements(c.subscriptions) s(value)
where c.id in (:keys)"""
[gates]
comparisons_min = 0
soak_min = "0s"
"#
    );
    Ok(Manifest::parse(&text, "manifest")?)
}

/// Registers the migration and enters `dual_write` for every key.
pub async fn enter_dual_write(url: &str) -> Result<Operator, Fault> {
    let operator = Operator::new(AnyDatabase::connect(&DatabaseUrl::parse(url)?).await?);
    operator.init(&manifest(url)?, "benchmark").await?;
    operator.carry_out("subscriptions", &order(Request::Advance { ramp: Ramp::FULL })).await?;
    Ok(operator)
}

/// An order of the benchmark's.
pub fn order(request: Request) -> Order {
    Order {
        decided_at: None,
        request,
        actor: "benchmark".to_owned(),
        reason: None,
        force: false,
        dry_run: false,
        patience: Duration::from_secs(30),
    }
}

/// The value that `share` of the samples do not exceed; the samples are sorted by this.
pub fn quantile(samples: &mut [f64], share: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let index = ((samples.len() as f64 * share).ceil() as usize).clamp(1, samples.len().max(1)) - 1;
    samples.get(index).copied().unwrap_or(f64::NAN)
}

/// The middle of the samples.
pub fn median(samples: &mut [f64]) -> f64 {
    quantile(samples, 0.5)
}
