//! Ranges of scopes in Postgres: bounds from a sample of the table, and the filter of a range.

use std::num::NonZeroUsize;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row};

use super::worthwhile;
use crate::catalog::{ColumnKind, ColumnSchema};
use crate::phase::Side;
use crate::plan::Plan;
use crate::quote::postgres::{literal, quote, table};
use crate::rows::ScopeRange;
use crate::rows::postgres::{sorted, typed};

/// Pages that are looked at for each bound. Rows of one page mostly have neighbouring keys, so that a page is one draw;
/// from 64 a range comes out within an eighth of its size, and reading them takes milliseconds.
const PAGES_PER_RANGE: i64 = 64;

/// Ascending scopes between `count` ranges of about the same size, or between fewer.
pub(in crate::rows) async fn bounds(
    connection: &mut PgConnection,
    plan: &Plan,
    side: Side,
    count: NonZeroUsize,
    query: impl Fn(&ScopeRange) -> String,
) -> sqlx::Result<Vec<Vec<String>>> {
    if count.get() == 1 {
        return Ok(Vec::new());
    }
    let all = sampled(connection, plan, side, count.get()).await?;
    let Some(middle) = all.get(all.len() / 2) else { return Ok(all) };
    let range = ScopeRange { from: Some(middle.clone()), to: all.get(all.len() / 2 + 1).cloned() };
    let whole_cost = cost(connection, &query(&ScopeRange::WHOLE)).await?;
    let range_cost = cost(connection, &query(&range)).await?;
    let ranges = NonZeroUsize::MIN.saturating_add(all.len());
    let worth = worthwhile(whole_cost, range_cost, ranges);
    // Every so many-th of the bounds.
    Ok((1..worth).filter_map(|number| all.get(number * ranges.get() / worth - 1).cloned()).collect())
}

/// The condition of a range on rows under the alias `p`.
pub(in crate::rows) fn within(plan: &Plan, range: &ScopeRange) -> String {
    let scope: Vec<&ColumnSchema> = columns(plan, plan.scope());
    let expressions: Vec<_> = scope.iter().map(|column| sorted(column.kind, &typed(column, "p"))).collect();
    let compared = |operator: &str, bound: &Vec<String>| {
        let literals: Vec<_> =
            bound.iter().zip(&scope).map(|(text, column)| bound_literal(column, text)).collect();
        format!("({}) {operator} ({})", expressions.join(", "), literals.join(", "))
    };
    let conditions: Vec<_> = [
        range.from.as_ref().map(|bound| compared(">=", bound)),
        range.to.as_ref().map(|bound| compared("<", bound)),
    ]
    .into_iter()
    .flatten()
    .collect();
    if conditions.is_empty() { String::new() } else { format!(" where {}", conditions.join(" and ")) }
}

/// The scopes at which each of `count` equal parts of a sample begins, but for the first.
async fn sampled(
    connection: &mut PgConnection,
    plan: &Plan,
    side: Side,
    count: usize,
) -> sqlx::Result<Vec<Vec<String>>> {
    let scope = columns(plan, plan.scope());
    let (name, key): (_, Vec<&String>) = match side {
        Side::Old => (plan.old(), plan.key().iter().map(|column| &column.name).collect()),
        Side::New => (plan.new_table(), plan.scope().iter().collect()),
    };
    let pages: i64 = sqlx::query_scalar(
        "select coalesce(sum(pg_relation_size(oid)), 0)::bigint / current_setting('block_size')::bigint
         from pg_catalog.pg_class
         where oid = to_regclass($1) or oid in (select relid from pg_partition_tree(to_regclass($1)))",
    )
    .bind(table(name))
    .fetch_one(&mut *connection)
    .await?;
    let wanted = PAGES_PER_RANGE * i64::try_from(count).unwrap_or(i64::MAX / PAGES_PER_RANGE);
    let sample = if wanted < pages {
        format!("tablesample system ({})", 100.0 * wanted as f64 / pages as f64)
    } else {
        String::new()
    };
    // The new column's type first, as everywhere: both sides are cut where both are sorted alike.
    let expressions: Vec<_> = scope
        .iter()
        .zip(key)
        .map(|(column, key)| sorted(column.kind, &format!("t.{}::{}", quote(key), column.sql_type)))
        .collect();
    let named = |with: &dyn Fn(usize) -> String| (0..scope.len()).map(with).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "select distinct on (tile) {texts} from (
             select {names}, ntile({count}) over (order by {names}) as tile from (
                 select {aliased} from {table} as t {sample}
             ) as drawn
         ) as tiled
         order by tile, {names}",
        texts = named(&|index| format!("k{index}::text as t{index}")),
        names = named(&|index| format!("k{index}")),
        aliased = named(&|index| format!("{} as k{index}", expressions[index])),
        table = table(name),
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(connection).await?;
    let mut bounds = Vec::with_capacity(rows.len());
    for row in rows.iter().skip(1) {
        let bound: Option<Vec<String>> =
            (0..scope.len()).map(|column| row.try_get(column)).collect::<sqlx::Result<_>>()?;
        // NULL is no scope: the read says which row has it.
        bounds.extend(bound);
    }
    bounds.dedup();
    Ok(bounds)
}

/// What the planner thinks that a query costs.
async fn cost(connection: &mut PgConnection, query: &str) -> sqlx::Result<f64> {
    let statement = AssertSqlSafe(format!("explain (format json) {query}"));
    let row = sqlx::query(statement).fetch_one(connection).await?;
    let text: String = row.try_get_unchecked(0)?;
    let plan: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| sqlx::Error::Decode(error.into()))?;
    Ok(plan.pointer("/0/Plan/Total Cost").and_then(serde_json::Value::as_f64).unwrap_or(0.0))
}

/// A bound in the type that its column is sorted by.
fn bound_literal(column: &ColumnSchema, text: &str) -> String {
    match column.kind {
        ColumnKind::Text | ColumnKind::Json | ColumnKind::Numeric | ColumnKind::Other => {
            format!("{}::text", literal(text))
        }
        _ => format!("{}::{}", literal(text), column.sql_type),
    }
}

fn columns<'a>(plan: &'a Plan, names: &[String]) -> Vec<&'a ColumnSchema> {
    names.iter().filter_map(|name| plan.columns().iter().find(|column| column.name == *name)).collect()
}
