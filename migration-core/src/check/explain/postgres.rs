//! Whether the projection of one key reads the whole old table on Postgres.

use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use crate::catalog::postgres::planned_rows;
use crate::check::{CheckFault, CheckReport};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::mirror::postgres::{bind_keys, bound_keys};
use crate::plan::Plan;
use crate::quote::postgres::table;

/// Up to this size a table is read as a whole in the time of a few page reads, and the planner may
/// choose to although it has an index.
const SCANNED_ROWS_MAX: u64 = 5_000;

/// Adds the plan for one key to the report, and a fault if it reads the whole old table.
pub(in crate::check) async fn explain(
    connection: &mut PgConnection,
    plan: &Plan,
    key: &Key,
    report: &mut CheckReport,
) -> Result<()> {
    let failed = || Error::database("explaining the projection");
    let names = old_tables(connection, plan).await.map_err(failed())?;
    let query = format!("select * from ({}) as p", plan.projection().render(&bound_keys(plan, 1)));
    let keys = std::slice::from_ref(key);

    let statement = AssertSqlSafe(format!("explain {query}"));
    let lines = bind_keys(sqlx::query(statement), plan, keys)
        .fetch_all(&mut *connection)
        .await
        .and_then(|rows| rows.iter().map(|row| row.try_get::<String, _>(0)).collect::<sqlx::Result<Vec<_>>>())
        .map_err(failed())?;
    report.explain = lines.join("\n");

    let chosen = plan_of(connection, plan, keys, &query).await.map_err(failed())?;
    // A small table is read as a whole because that is cheap. Where it still is when the planner has been
    // told to avoid that, there is no index to use, and it will be read as a whole when it is large.
    sqlx::raw_sql("set local enable_seqscan = off").execute(&mut *connection).await.map_err(failed())?;
    let avoiding = plan_of(connection, plan, keys, &query).await.map_err(failed())?;
    sqlx::raw_sql("reset enable_seqscan").execute(&mut *connection).await.map_err(failed())?;
    let all = format!("select 1 from {}", table(plan.old()));
    let is_large = planned_rows(connection, &all).await.map_err(failed())? > SCANNED_ROWS_MAX;

    report.is_scan = reads_whole(&avoiding, &names) || (is_large && reads_whole(&chosen, &names));
    if report.is_scan {
        let columns: Vec<_> = plan.key().iter().map(|column| column.name.as_str()).collect();
        report.faults.push(CheckFault {
            message: format!(
                "for one key, the projection reads the whole of table {}: {}",
                plan.old(),
                lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join("; ")
            ),
            hint: format!(
                "filter by the key's own columns, as in `where {} in (:keys)`, so that its index is used",
                match columns.as_slice() {
                    [column] => (*column).to_owned(),
                    columns => format!("({})", columns.join(", ")),
                }
            ),
        });
    }
    Ok(())
}

async fn plan_of(
    connection: &mut PgConnection,
    plan: &Plan,
    keys: &[Key],
    query: &str,
) -> sqlx::Result<Value> {
    let statement = AssertSqlSafe(format!("explain (format json) {query}"));
    // Not kept as a prepared statement: the settings that it is planned under differ.
    let row = bind_keys(sqlx::query(statement), plan, keys).persistent(false).fetch_one(connection).await?;
    let text: String = row.try_get_unchecked(0)?;
    serde_json::from_str(&text).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// The names under which a plan can speak of the old table: its own and its partitions'.
async fn old_tables(connection: &mut PgConnection, plan: &Plan) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "select relname::text from pg_catalog.pg_class
         where oid = to_regclass($1) or oid in (select relid from pg_partition_tree(to_regclass($1)))",
    )
    .bind(table(plan.old()))
    .fetch_all(connection)
    .await
}

/// Whether a plan reads one of these tables from end to end.
fn reads_whole(plan: &Value, tables: &[String]) -> bool {
    match plan {
        Value::Array(list) => list.iter().any(|value| reads_whole(value, tables)),
        Value::Object(node) => {
            let text = |name: &str| node.get(name).and_then(Value::as_str);
            let is_old = text("Relation Name").is_some_and(|name| tables.iter().any(|table| table == name));
            let is_whole = match text("Node Type") {
                Some("Seq Scan") => true,
                Some("Index Scan" | "Index Only Scan") => !node.contains_key("Index Cond"),
                _ => false,
            };
            (is_old && is_whole) || node.values().any(|value| reads_whole(value, tables))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_reads_are_found_wherever_they_stand() {
        let plan = |node: &str| -> Value {
            serde_json::from_str(&format!(
                r#"[{{"Plan": {{"Node Type": "Nested Loop", "Plans": [{node}]}}}}]"#
            ))
            .unwrap()
        };
        let tables = ["old".to_owned()];
        assert!(reads_whole(&plan(r#"{"Node Type": "Seq Scan", "Relation Name": "old"}"#), &tables));
        assert!(reads_whole(&plan(r#"{"Node Type": "Index Scan", "Relation Name": "old"}"#), &tables));
        assert!(!reads_whole(&plan(r#"{"Node Type": "Seq Scan", "Relation Name": "other"}"#), &tables));
        let keyed = r#"{"Node Type": "Index Scan", "Relation Name": "old", "Index Cond": "(id = 1)"}"#;
        assert!(!reads_whole(&plan(keyed), &tables));
    }
}
