//! Check constraints and foreign keys of the new table in SQLite.
//!
//! The sampled rows are written into an empty copy of the new table, in memory and for this connection alone: there the
//! database itself says what it refuses.

use std::collections::BTreeMap;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};

use super::{dangling, refused};
use crate::check::CheckFault;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::mirror::sqlite::{bound, projection};
use crate::plan::Plan;
use crate::quote::sqlite::{list, literal, quote, table};

/// The copy's name: no manifest speaks of it.
const COPY: &str = "crossfade_check_rows";

/// SQLite's result code for a row that a check constraint refuses.
const CHECK_FAILED: &str = "275";

/// Finds rows of the keys that the new table would refuse.
pub(in crate::check) async fn violations(
    options: &SqliteConnectOptions,
    plan: &Plan,
    keys: &[Key],
) -> Result<Vec<CheckFault>> {
    // The copy refers to no other table; what the real one refers to is looked up.
    let options = options.clone().foreign_keys(false).pragma("temp_store", "memory");
    let mut connection = options.connect().await.map_err(proving())?;
    let mut faults = references(&mut connection, plan, keys).await?;
    if copied(&mut connection, plan).await? {
        faults.extend(refusal(&mut connection, plan, keys).await?);
    }
    connection.close().await.map_err(proving())?;
    Ok(faults)
}

/// Makes the copy; `false` where the table has no statement that could be repeated under another name.
async fn copied(connection: &mut SqliteConnection, plan: &Plan) -> Result<bool> {
    let catalogue = match &plan.new_table().schema {
        Some(schema) => format!("{}.sqlite_schema", quote(schema)),
        None => "sqlite_schema".to_owned(),
    };
    let find = format!("select sql from {catalogue} where type = 'table' and name = ?1 collate nocase");
    let made: Option<String> = sqlx::query_scalar(AssertSqlSafe(find))
        .bind(&plan.new_table().table)
        .fetch_optional(&mut *connection)
        .await
        .map_err(proving())?;
    let Some(rest) = made.as_deref().and_then(|sql| sql.strip_prefix("CREATE TABLE ")).map(after_name) else {
        return Ok(false);
    };
    let statement = format!("create temp table {COPY} {rest}");
    Ok(sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await.is_ok())
}

/// What stands behind the name that a text begins with.
fn after_name(text: &str) -> &str {
    let close = match text.chars().next() {
        Some('[') => ']',
        Some(quote @ ('"' | '`' | '\'')) => quote,
        _ => return text.find(|c: char| c == '(' || c.is_whitespace()).map_or("", |end| &text[end..]),
    };
    let mut end = 1;
    while let Some(found) = text[end..].find(close) {
        end += found + 1;
        // Doubled, it is part of the name.
        if close == ']' || !text[end..].starts_with(close) {
            return &text[end..];
        }
        end += 1;
    }
    ""
}

/// The first row that a check constraint refuses. Whatever else may be wrong with a row is reported elsewhere.
async fn refusal(connection: &mut SqliteConnection, plan: &Plan, keys: &[Key]) -> Result<Option<CheckFault>> {
    let names: Vec<String> = plan.columns().iter().map(|column| column.name.clone()).collect();
    let columns = list("", &names);
    for key in keys {
        let key_alone = std::slice::from_ref(key);
        let insert = format!(
            "insert into temp.{COPY} ({columns}) select {columns} from {}",
            projection(plan, key_alone)
        );
        let Err(error) = bound(insert, plan, key_alone)?.execute(&mut *connection).await else { continue };
        let Some(error) = error.as_database_error() else { return Err(proving()(error)) };
        if error.code().as_deref() == Some(CHECK_FAILED) {
            return Ok(Some(refused(&key.to_string(), error.message())));
        }
    }
    Ok(None)
}

/// A foreign key.
#[derive(Default)]
struct Reference {
    table: String,
    columns: Vec<String>,
    referenced: Vec<Option<String>>,
}

async fn references(connection: &mut SqliteConnection, plan: &Plan, keys: &[Key]) -> Result<Vec<CheckFault>> {
    let new = plan.new_table();
    let mut found = BTreeMap::<i64, Reference>::new();
    let rows = sqlx::query(AssertSqlSafe(pragma(plan, "foreign_key_list", &new.table)))
        .fetch_all(&mut *connection)
        .await
        .map_err(proving())?;
    for row in &rows {
        let reference = found.entry(row.try_get("id").map_err(proving())?).or_default();
        reference.table = row.try_get("table").map_err(proving())?;
        reference.columns.push(row.try_get("from").map_err(proving())?);
        reference.referenced.push(row.try_get("to").map_err(proving())?);
    }
    let mut faults = Vec::new();
    for reference in found.values() {
        let is_given =
            |name: &String| plan.columns().iter().any(|column| column.name.eq_ignore_ascii_case(name));
        // Another row that comes with it may meet a reference to the table itself.
        if reference.table.eq_ignore_ascii_case(&new.table) || !reference.columns.iter().all(is_given) {
            continue;
        }
        let names = match reference.referenced.iter().cloned().collect::<Option<Vec<String>>>() {
            Some(names) => names,
            None => primary_key(connection, plan, &reference.table).await?,
        };
        if names.len() == reference.columns.len() {
            faults.extend(dangles(connection, plan, keys, reference, &names).await?);
        }
    }
    Ok(faults)
}

/// The first row that refers to nothing.
async fn dangles(
    connection: &mut SqliteConnection,
    plan: &Plan,
    keys: &[Key],
    reference: &Reference,
    names: &[String],
) -> Result<Option<CheckFault>> {
    let mut there = plan.new_table().clone();
    there.table.clone_from(&reference.table);
    let column = |name: &String| format!("p.{}", quote(name));
    let set = reference.columns.iter().map(|name| format!("{} is not null", column(name)));
    let same =
        reference.columns.iter().zip(names).map(|(from, to)| format!("r.{} = {}", quote(to), column(from)));
    let shown = reference.columns.iter().map(|name| format!("cast({} as text)", column(name)));
    for key in keys {
        let key_alone = std::slice::from_ref(key);
        let query = format!(
            "select {} from {} as p where {} and not exists (select 1 from {} as r where {}) limit 1",
            shown.clone().collect::<Vec<_>>().join(" || ', ' || "),
            projection(plan, key_alone),
            set.clone().collect::<Vec<_>>().join(" and "),
            table(&there),
            same.clone().collect::<Vec<_>>().join(" and "),
        );
        let row = bound(query, plan, key_alone)?.fetch_optional(&mut *connection).await;
        match row {
            Ok(Some(row)) => {
                let values: String = row.try_get(0).map_err(proving())?;
                let referenced = &reference.table;
                return Ok(Some(dangling(&key.to_string(), &reference.columns, &values, referenced, names)));
            }
            Ok(None) => {}
            // A table that is not there, or values that the projection fails for: told elsewhere, or at the first write.
            Err(error) if error.as_database_error().is_some() => return Ok(None),
            Err(error) => return Err(proving()(error)),
        }
    }
    Ok(None)
}

async fn primary_key(connection: &mut SqliteConnection, plan: &Plan, of: &str) -> Result<Vec<String>> {
    let rows = sqlx::query(AssertSqlSafe(pragma(plan, "table_info", of)))
        .fetch_all(connection)
        .await
        .map_err(proving())?;
    let mut columns = Vec::new();
    for row in &rows {
        let (place, name): (i64, String) =
            (row.try_get("pk").map_err(proving())?, row.try_get("name").map_err(proving())?);
        if place > 0 {
            columns.push((place, name));
        }
    }
    columns.sort();
    Ok(columns.into_iter().map(|(_, name)| name).collect())
}

fn pragma(plan: &Plan, name: &str, argument: &str) -> String {
    let schema = plan.new_table().schema.as_deref().map(|schema| format!("{}.", quote(schema)));
    format!("pragma {}{name}({})", schema.unwrap_or_default(), literal(argument))
}

fn proving() -> impl FnOnce(sqlx::Error) -> Error {
    Error::database("proving the new table's constraints")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_left_out_however_they_are_quoted() {
        for name in ["plain", "\"a (b\"", "\"a\"\"b\"", "[a b]", "`a`", "'a'"] {
            assert_eq!(after_name(&format!("{name} (id integer)")).trim(), "(id integer)", "{name}");
        }
        assert_eq!(after_name("plain(id)"), "(id)");
        for broken in ["", "\"", "[a", "\"\"\"", "é"] {
            after_name(broken);
        }
    }
}
