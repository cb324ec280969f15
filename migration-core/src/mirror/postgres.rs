//! Keyed statements on Postgres.
//!
//! The mirror is a function in the database, made when the migration is registered: fence, locks,
//! delete and upsert are one round trip, and each statement inside has a snapshot of its own, taken
//! after the locks before it were granted.

use std::collections::HashMap;

use arrow::array::RecordBatch;
use futures::FutureExt;
use futures::future::BoxFuture;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Postgres, Row};

use super::functions::postgres::Shape;
use super::{Direction, Mirror, Mirrored, Subject};
use crate::catalog::{ColumnKind, ColumnSchema};
use crate::error::{Error, Result};
use crate::fence::postgres::fence_error;
use crate::key::{Key, KeyValue};
use crate::phase::Epoch;
use crate::plan::Plan;
use crate::quote::postgres::{quote, table};
use crate::rows::postgres::{exported, keyed_rows};

/// What a copy's insert runs under, until its transaction ends or the savepoint is rolled back to.
///
/// A list of keys is best looked up in the index, one after the other in key order: rows then come and go in
/// the order of both tables' pages. Left to itself the planner, which sees thousands of keys in a list, may read the
/// whole table instead, or make the list distinct by hashing, which leaves it in no order.
const PREPARE_COPY: &str = "set local plan_cache_mode = force_generic_plan;
    set local enable_hashagg = off;
    savepoint crossfade_copy";

impl Mirror for Postgres {
    fn mirror<'c>(
        connection: &'c mut Self::Connection,
        subject: &'c Subject,
        direction: Direction,
        keys: &'c [Key],
        expected: Epoch,
    ) -> BoxFuture<'c, Result<Mirrored>> {
        async move {
            let plan = &subject.plan;
            let name = plan.name();
            let shape = if keys.len() == 1 { Shape::One } else { Shape::Many };
            let function = match direction {
                Direction::OldToNew => "mirror",
                Direction::NewToOld => "reverse",
            };
            let binds: Vec<_> = (2..2 + plan.key().len()).map(|number| format!("${number}")).collect();
            let suffix = shape.suffix();
            let sql = format!(
                "select written, removed from crossfade.{function}{suffix}_{name}($1, {})",
                binds.join(", ")
            );
            let query = sqlx::query(AssertSqlSafe(sql)).bind(expected.0);
            let query = match (shape, keys) {
                (Shape::One, [key]) => {
                    key.values().iter().fold(query, |query, value| query.bind(value.to_string()))
                }
                _ => bind_key_texts(query, plan, keys),
            };
            let row = query
                .fetch_one(connection)
                .await
                .map_err(|error| fence_error(error, name, Some(expected)))?;
            let count = |column: &str| row.try_get::<i64, _>(column).map(i64::unsigned_abs);
            let failed = |source| Error::Database { doing: "reading a mirror's counts".to_owned(), source };
            Ok(Mirrored {
                written: count("written").map_err(failed)?,
                removed: count("removed").map_err(failed)?,
            })
        }
        .boxed()
    }

    fn copy<'c>(
        connection: &'c mut Self::Connection,
        subject: &'c Subject,
        keys: &'c [Key],
    ) -> BoxFuture<'c, Result<u64>> {
        async move {
            let plan = &subject.plan;
            // Locked in a statement of its own: the projection below must have a snapshot that is newer
            // than the wait for a writer. A share lock lets other readers and foreign keys through and
            // holds up the writers of these keys alone.
            let sql = format!(
                "select count(*) from (select 1 {}) as locked",
                lock_rows(plan, &is_in_arrays(plan, &bound_arrays(plan, 1)), "share")
            );
            let doing = || format!("locking rows of {} to copy them", plan.old());
            let locked = bind_keys(sqlx::query(AssertSqlSafe(sql)), plan, keys)
                .fetch_one(&mut *connection)
                .await
                .and_then(|row| row.try_get::<i64, _>(0))
                .map_err(Error::database(doing()))?;
            // A key without a row may get one at any moment, and it may change while the insert below waits
            // for its new row. Its name is locked, so that who creates it cannot mirror it meanwhile.
            if locked.unsigned_abs() < keys.len() as u64 {
                lock(connection, subject, keys).await?;
            }
            let insert = insert_statement(plan, &bound_keys(plan, 1));
            let doing = || format!("copying rows into {}", plan.new_table());
            // Mostly nothing is there yet, and an insert that need not look first takes half the time. The
            // savepoint takes it back where something is: a batch that is done again, or rows that
            // were written behind crossfade's back.
            sqlx::raw_sql(PREPARE_COPY).execute(&mut *connection).await.map_err(Error::database(doing()))?;
            let plain = bind_keys(sqlx::query(AssertSqlSafe(insert.clone())), plan, keys);
            match plain.execute(&mut *connection).await {
                Ok(done) => return Ok(done.rows_affected()),
                Err(error) if is_unique_violation(&error) => {}
                Err(error) => return Err(Error::database(doing())(error)),
            }
            sqlx::raw_sql("rollback to savepoint crossfade_copy")
                .execute(&mut *connection)
                .await
                .map_err(Error::database(doing()))?;
            // Only a conflict on the row's own key means that it is there; on any other it cannot be copied.
            let careful = format!("{insert} on conflict ({}) do nothing", quoted(plan.row_key()));
            let done = bind_keys(sqlx::query(AssertSqlSafe(careful)), plan, keys)
                .execute(connection)
                .await
                .map_err(Error::database(doing()))?;
            Ok(done.rows_affected())
        }
        .boxed()
    }

    fn end_batch(connection: &mut Self::Connection) -> BoxFuture<'_, Result<()>> {
        async move {
            sqlx::query("select crossfade.batch_ends()")
                .execute(connection)
                .await
                .map_err(Error::database("ending a batch"))?;
            Ok(())
        }
        .boxed()
    }

    fn differing<'c>(
        connection: &'c mut Self::Connection,
        subject: &'c Subject,
        keys: &'c [Key],
    ) -> BoxFuture<'c, Result<Vec<Key>>> {
        async move {
            lock(connection, subject, keys).await?;
            let plan = &subject.plan;
            // Old rows are locked, so no mirror is under way for these keys; writes to the new table
            // behind crossfade's back are held off by locking its rows as well.
            let scope = scope_filter(plan, "n", &bound_keys(plan, 1));
            let new = table(plan.new_table());
            let lock_new = format!("select 1 from {new} as n where {scope} for update");
            bind_keys(sqlx::query(AssertSqlSafe(lock_new)), plan, keys)
                .execute(&mut *connection)
                .await
                .map_err(Error::database(format!("locking rows of {}", plan.new_table())))?;
            let texts: Vec<_> = plan.scope().iter().map(|column| key_text(plan, column)).collect();
            let sql = format!(
                "with old as materialized (select {old_exprs} from ({projection}) as p),
                      new as materialized (select {new_exprs} from {new} as n where {scope}),
                      different as ((select * from old except all select * from new)
                                    union all (select * from new except all select * from old))
                 select distinct {texts} from different",
                old_exprs = exported(plan, "p"),
                new_exprs = exported(plan, "n"),
                projection = plan.projection().render(&bound_keys(plan, 1)),
                texts = texts.join(", "),
            );
            let rows = bind_keys(sqlx::query(AssertSqlSafe(sql)), plan, keys)
                .fetch_all(connection)
                .await
                .map_err(Error::database("comparing old and new rows"))?;
            let key = |row: &sqlx::postgres::PgRow| -> Result<Key> {
                let values = plan.key().iter().enumerate().map(|(index, column)| {
                    let text: String = row.try_get(index).map_err(Error::database("reading a key"))?;
                    parse_key(&text, column)
                });
                Ok(Key::new(values.collect::<Result<Vec<_>>>()?))
            };
            // In the order in which they were asked for; then those that the database spells otherwise.
            let mut found = rows.iter().map(key).collect::<Result<Vec<_>>>()?;
            let places: HashMap<&Key, usize> = keys.iter().zip(0..).collect();
            found.sort_by_key(|key| places.get(key).copied().unwrap_or(usize::MAX));
            Ok(found)
        }
        .boxed()
    }

    fn projected<'c>(
        connection: &'c mut Self::Connection,
        subject: &'c Subject,
        keys: &'c [Key],
    ) -> BoxFuture<'c, Result<RecordBatch>> {
        async move {
            lock(connection, subject, keys).await?;
            keyed_rows(connection, &subject.plan, keys).await
        }
        .boxed()
    }

    fn retire<'c>(
        connection: &'c mut Self::Connection,
        subject: &'c Subject,
        keys: &'c [Key],
    ) -> BoxFuture<'c, Result<()>> {
        async move {
            if keys.is_empty() {
                return Ok(());
            }
            lock(connection, subject, keys).await?;
            let plan = &subject.plan;
            for statement in plan.retire() {
                let sql = statement.render(&bound_keys(plan, 1));
                bind_keys(sqlx::query(AssertSqlSafe(sql)), plan, keys)
                    .execute(&mut *connection)
                    .await
                    .map_err(Error::database("running mapping.retire"))?;
            }
            Ok(())
        }
        .boxed()
    }
}

async fn lock(connection: &mut sqlx::PgConnection, subject: &Subject, keys: &[Key]) -> Result<()> {
    let plan = &subject.plan;
    let binds: Vec<_> = (1..=plan.key().len()).map(|number| format!("${number}")).collect();
    let sql = format!("select crossfade.lock_{}({})", plan.name(), binds.join(", "));
    bind_key_texts(sqlx::query(AssertSqlSafe(sql)), plan, keys)
        .execute(connection)
        .await
        .map_err(Error::database(format!("locking rows of {}", plan.old())))?;
    Ok(())
}

/// What stands in place of `:keys` in a statement whose parameters from `first` on are the key's
/// columns, each a list: see [`bind_keys`].
pub(crate) fn bound_keys(plan: &Plan, first: usize) -> String {
    match bound_arrays(plan, first).as_slice() {
        [only] => format!("select unnest({only})"),
        several => format!("select * from unnest({})", several.join(", ")),
    }
}

/// Binds keys to the parameters of [`bound_keys`]. Integers travel as they are: thousands of them in a batch are
/// not worth a text each.
pub(crate) fn bind_keys<'q>(
    mut query: Query<'q, Postgres, PgArguments>,
    plan: &Plan,
    keys: &[Key],
) -> Query<'q, Postgres, PgArguments> {
    for (index, column) in plan.key().iter().enumerate() {
        let values = keys.iter().map(|key| &key.values()[index]);
        query = match column.kind {
            ColumnKind::Int => query.bind(values.filter_map(integer).collect::<Vec<i64>>()),
            _ => query.bind(values.map(ToString::to_string).collect::<Vec<String>>()),
        };
    }
    query
}

/// Binds keys to the parameters of a function of the migration's, which are lists of texts.
fn bind_key_texts<'q>(
    mut query: Query<'q, Postgres, PgArguments>,
    plan: &Plan,
    keys: &[Key],
) -> Query<'q, Postgres, PgArguments> {
    for index in 0..plan.key().len() {
        query = query.bind(keys.iter().map(|key| key.values()[index].to_string()).collect::<Vec<String>>());
    }
    query
}

/// The integer that a coerced key has in an integer column.
fn integer(value: &KeyValue) -> Option<i64> {
    match value {
        KeyValue::Int(value) => Some(*value),
        _ => None,
    }
}

/// The rest of a statement that locks the old rows that `condition` picks. They are sorted below the
/// lock, so that every transaction locks in the same order.
pub(super) fn lock_rows(plan: &Plan, condition: &str, strength: &str) -> String {
    let columns: Vec<_> = plan.key().iter().map(|column| format!("o.{}", quote(&column.name))).collect();
    format!(
        "from {} as o where {condition} order by {} for {strength}",
        table(plan.old()),
        columns.join(", ")
    )
}

/// Picks old rows whose keys are in these arrays, one for each column of the key. One array is searched
/// in the index in its order; joining it, as `:keys` has to, takes three times as long.
pub(super) fn is_in_arrays(plan: &Plan, arrays: &[String]) -> String {
    match (plan.key(), arrays) {
        ([column], [array]) => format!("o.{} = any({array})", quote(&column.name)),
        (columns, arrays) => {
            let columns: Vec<_> = columns.iter().map(|column| format!("o.{}", quote(&column.name))).collect();
            format!("({}) in (select * from unnest({}))", columns.join(", "), arrays.join(", "))
        }
    }
}

/// The key's columns as parameters from `first` on, each a list, in the columns' own types.
fn bound_arrays(plan: &Plan, first: usize) -> Vec<String> {
    let cast = |(index, column): (usize, &ColumnSchema)| {
        let sent = if column.kind == ColumnKind::Int { "bigint" } else { "text" };
        format!("${}::{sent}[]::{}[]", first + index, column.sql_type)
    };
    plan.key().iter().enumerate().map(cast).collect()
}

pub(super) fn scope_filter(plan: &Plan, alias: &str, keys: &str) -> String {
    let columns: Vec<_> = plan.scope().iter().map(|column| format!("{alias}.{}", quote(column))).collect();
    format!("({}) in ({keys})", columns.join(", "))
}

pub(super) fn insert_statement(plan: &Plan, keys: &str) -> String {
    // The cast is to the type without its length or precision; the assignment to the column does the
    // rest, and refuses what is too long instead of cutting it.
    let values: Vec<_> = plan
        .columns()
        .iter()
        .map(|column| format!("p.{}::{}", quote(&column.name), column.sql_type))
        .collect();
    let names: Vec<_> = plan.columns().iter().map(|column| column.name.clone()).collect();
    format!(
        "insert into {new} as t ({names}) select {values} from ({projection}) as p",
        new = table(plan.new_table()),
        names = quoted(&names),
        values = values.join(", "),
        projection = plan.projection().render(keys),
    )
}

/// What an upsert does to a row that is there: update it where it differs.
pub(super) fn resolution(plan: &Plan) -> String {
    let rest: Vec<_> =
        plan.columns().iter().filter(|column| !plan.row_key().contains(&column.name)).collect();
    if rest.is_empty() {
        return "do nothing".to_owned();
    }
    let set: Vec<_> = rest.iter().map(|column| format!("{0} = excluded.{0}", quote(&column.name))).collect();
    let differs: Vec<_> = rest
        .iter()
        .map(|column| {
            let cast = if has_equality(column) { "" } else { "::text" };
            format!("t.{0}{cast} is distinct from excluded.{0}{cast}", quote(&column.name))
        })
        .collect();
    format!("do update set {} where {}", set.join(", "), differs.join(" or "))
}

/// Whether the column's type surely has an equality operator; json, xml and the geometric types
/// have none and are compared as text.
fn has_equality(column: &ColumnSchema) -> bool {
    match column.kind {
        ColumnKind::Json => column.sql_type == "jsonb",
        ColumnKind::Other => false,
        _ => true,
    }
}

fn is_unique_violation(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

pub(super) fn quoted(names: &[String]) -> String {
    names.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ")
}

/// A scope column of an exported row as text that [`parse_key`] reads.
fn key_text(plan: &Plan, column: &str) -> String {
    let is_bytes =
        plan.columns().iter().any(|schema| schema.name == column && schema.kind == ColumnKind::Bytes);
    let column = quote(column);
    if is_bytes { format!("encode({column}, 'hex')") } else { format!("{column}::text") }
}

pub(crate) fn parse_key(text: &str, column: &ColumnSchema) -> Result<KeyValue> {
    let parsed = match column.kind {
        ColumnKind::Int => text.parse().ok().map(KeyValue::Int),
        ColumnKind::Uuid => text.parse().ok().map(KeyValue::Uuid),
        ColumnKind::Bytes => unhex(text).map(KeyValue::Bytes),
        _ => Some(KeyValue::Text(text.to_owned())),
    };
    parsed.ok_or_else(|| Error::Value {
        what: "a key".to_owned(),
        column: column.name.clone(),
        value: text.to_owned(),
        sql_type: column.sql_type.clone(),
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pair = |index: usize| u8::from_str_radix(text.get(index..index + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(pair).collect()
}
