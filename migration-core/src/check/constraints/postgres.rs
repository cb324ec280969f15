//! Check constraints and foreign keys of the new table in Postgres.
//!
//! A constraint is proven where the projection gives all of its columns: what a default or a generated column would hold is
//! not known before the row is written. Constraints of domains show when a value is cast.

use std::collections::HashMap;

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row};

use super::{dangling, refused};
use crate::check::CheckFault;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::mirror::postgres::{bind_keys, bound_keys};
use crate::plan::Plan;
use crate::quote::postgres::{quote, table};

/// A constraint as the catalogue has it.
struct Constraint {
    name: String,
    columns: Vec<String>,
    rule: Rule,
}

enum Rule {
    /// What must not be false, and the same as people read it.
    Check { expression: String, definition: String },
    /// The table, spelled for SQL, and its columns.
    Reference { table: String, columns: Vec<String> },
}

/// Finds rows of the keys that the new table would refuse. The connection is in a transaction that reads one snapshot.
pub(in crate::check) async fn violations(
    connection: &mut PgConnection,
    plan: &Plan,
    keys: &[Key],
) -> Result<Vec<CheckFault>> {
    let types = types(connection, plan).await?;
    let columns = plan.columns().iter().map(|column| {
        let declared = types.get(&column.name).unwrap_or(&column.sql_type);
        format!("p.{0}::{declared} as {0}", quote(&column.name))
    });
    // Under the new table's name, by which a constraint may speak of it.
    let rows = format!(
        "(select {} from ({}) as p) as {}",
        columns.collect::<Vec<_>>().join(", "),
        plan.projection().render(&bound_keys(plan, 1)),
        quote(&plan.new_table().table)
    );
    let mut faults = Vec::new();
    for constraint in constraints(connection, plan).await? {
        let is_given = |name: &String| plan.columns().iter().any(|column| column.name == *name);
        if !constraint.columns.iter().all(is_given) {
            continue;
        }
        let (condition, shown) = match &constraint.rule {
            Rule::Check { expression, .. } => (format!("({expression}) is false"), "''".to_owned()),
            Rule::Reference { table, columns } => dangles(&constraint.columns, table, columns),
        };
        let query = format!(
            "select {}, {shown} from {rows} where {condition} limit 1",
            texts(plan.scope().iter().map(|name| quote(name)))
        );
        let Some(row) = first(connection, plan, keys, query).await? else { continue };
        let text = |index| row.try_get::<String, _>(index).map_err(reading());
        let key = text(0)?;
        faults.push(match &constraint.rule {
            Rule::Check { definition, .. } => refused(&key, &format!("{} {definition}", constraint.name)),
            Rule::Reference { table, columns } => {
                dangling(&key, &constraint.columns, &text(1)?, table, columns)
            }
        });
    }
    Ok(faults)
}

/// The condition that a row refers to nothing, and what it refers to.
fn dangles(columns: &[String], table: &str, referenced: &[String]) -> (String, String) {
    let set = columns.iter().map(|name| format!("{} is not null", quote(name)));
    let same = columns
        .iter()
        .zip(referenced)
        .map(|(column, referenced)| format!("crossfade_r.{} = {}", quote(referenced), quote(column)));
    let condition = format!(
        "{} and not exists (select 1 from {table} as crossfade_r where {})",
        set.collect::<Vec<_>>().join(" and "),
        same.collect::<Vec<_>>().join(" and ")
    );
    (condition, texts(columns.iter().map(|name| quote(name))))
}

fn texts(columns: impl Iterator<Item = String>) -> String {
    columns.map(|column| format!("coalesce({column}::text, 'NULL')")).collect::<Vec<_>>().join(" || ', ' || ")
}

/// The first row of a query. A constraint that cannot be put as one, or fails on the way, proves nothing.
async fn first(
    connection: &mut PgConnection,
    plan: &Plan,
    keys: &[Key],
    query: String,
) -> Result<Option<PgRow>> {
    sqlx::raw_sql("savepoint crossfade_constraint").execute(&mut *connection).await.map_err(reading())?;
    let outcome =
        bind_keys(sqlx::query(AssertSqlSafe(query)), plan, keys).fetch_optional(&mut *connection).await;
    let end = "rollback to savepoint crossfade_constraint";
    match outcome {
        Ok(row) => Ok(row),
        Err(error) if error.as_database_error().is_some() => {
            tracing::debug!(%error, "a constraint of the new table could not be proven");
            sqlx::raw_sql(end).execute(connection).await.map_err(reading())?;
            Ok(None)
        }
        Err(error) => Err(reading()(error)),
    }
}

async fn types(connection: &mut PgConnection, plan: &Plan) -> Result<HashMap<String, String>> {
    let types: Vec<(String, String)> = sqlx::query_as(
        "select a.attname::text, format_type(a.atttypid, a.atttypmod) from pg_catalog.pg_attribute as a
         where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped",
    )
    .bind(table(plan.new_table()))
    .fetch_all(connection)
    .await
    .map_err(reading())?;
    Ok(types.into_iter().collect())
}

/// The constraints that can be judged row by row. A reference to the new table itself may be met by another row that comes
/// with it, and one to a table that may not be read cannot be followed.
async fn constraints(connection: &mut PgConnection, plan: &Plan) -> Result<Vec<Constraint>> {
    let names = |key: &str, relation: &str| {
        format!(
            "array(select a.attname::text from unnest(c.{key}) with ordinality as k(number, place)
                   join pg_catalog.pg_attribute as a on a.attrelid = c.{relation} and a.attnum = k.number
                   order by k.place)"
        )
    };
    let query = format!(
        "select c.conname::text as name, c.contype = 'c' as is_check, {} as columns,
                pg_get_expr(c.conbin, c.conrelid) as expression, pg_get_constraintdef(c.oid) as definition,
                c.confrelid::regclass::text as referenced, {} as referenced_columns
         from pg_catalog.pg_constraint as c
         where c.conrelid = to_regclass($1)
           and (c.contype = 'c' or c.contype = 'f' and c.confrelid <> c.conrelid
                and has_table_privilege(c.confrelid, 'select'))
         order by c.conname",
        names("conkey", "conrelid"),
        names("confkey", "confrelid"),
    );
    let rows = sqlx::query(AssertSqlSafe(query))
        .bind(table(plan.new_table()))
        .fetch_all(connection)
        .await
        .map_err(reading())?;
    let constraint = |row: &PgRow| -> sqlx::Result<Constraint> {
        let rule = if row.try_get("is_check")? {
            Rule::Check { expression: row.try_get("expression")?, definition: row.try_get("definition")? }
        } else {
            Rule::Reference { table: row.try_get("referenced")?, columns: row.try_get("referenced_columns")? }
        };
        Ok(Constraint { name: row.try_get("name")?, columns: row.try_get("columns")?, rule })
    };
    rows.iter().map(constraint).collect::<sqlx::Result<_>>().map_err(reading())
}

fn reading() -> impl FnOnce(sqlx::Error) -> Error {
    Error::database("proving the new table's constraints")
}
