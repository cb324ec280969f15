//! Keyed statements on SQLite.
//!
//! The one write lock of the database is the lock on every row: a transaction that has it reads the
//! newest committed state, and nobody else writes until it ends.

use futures::FutureExt;
use futures::future::BoxFuture;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{AssertSqlSafe, Row, Sqlite};

use super::{Direction, Mirror, Mirrored, Subject};
use crate::catalog::{ColumnKind, ColumnSchema};
use crate::cell::sqlite::{Affinity, Cell};
use crate::control::sqlite::control_error;
use crate::error::{Error, Result};
use crate::fence::Fence;
use crate::fence::sqlite::TAKE_WRITE_LOCK;
use crate::key::{Key, KeyValue};
use crate::phase::{Epoch, Side};
use crate::plan::Plan;
use crate::quote::sqlite::{keys as key_query, list, quote, table};
use crate::rows::sqlite::{batch_of, keyed_rows};
use crate::template::Template;

/// SQLite takes at most 32,766 parameters in a statement.
const PARAMETERS_MAX: usize = 32_766;

impl Mirror for Sqlite {
    fn mirror<'c>(
        connection: &'c mut Self::Connection,
        subject: &'c Subject,
        direction: Direction,
        keys: &'c [Key],
        expected: Epoch,
    ) -> BoxFuture<'c, Result<Mirrored>> {
        async move {
            Sqlite::fence(connection, subject.id, subject.plan.name(), Some(expected)).await?;
            match direction {
                Direction::OldToNew => follow_old(connection, &subject.plan, keys).await,
                Direction::NewToOld => follow_new(connection, &subject.plan, keys).await,
            }
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
            lock(connection, keys).await?;
            let mut copied = 0;
            for keys in batches(plan, keys) {
                copied += insert(connection, plan, keys, "do nothing").await?;
            }
            Ok(copied)
        }
        .boxed()
    }

    fn end_batch(_: &mut Self::Connection) -> BoxFuture<'_, Result<()>> {
        // Nobody writes under a snapshot that is older than the last commit.
        async { Ok(()) }.boxed()
    }

    fn differing<'c>(
        connection: &'c mut Self::Connection,
        subject: &'c Subject,
        keys: &'c [Key],
    ) -> BoxFuture<'c, Result<Vec<Key>>> {
        async move {
            let plan = &subject.plan;
            lock(connection, keys).await?;
            let mut old = by_key(plan, keyed_rows(connection, plan, Side::Old, keys).await?);
            let mut new = by_key(plan, keyed_rows(connection, plan, Side::New, keys).await?);
            let differing = keys.iter().filter(|key| old.remove(key) != new.remove(key)).cloned().collect();
            if old.is_empty() && new.is_empty() {
                return Ok(differing);
            }
            // Some rows bear a key in another spelling than was asked for (a collation ignores case,
            // 1.0 is 1): which key they belong to is for the database to say, one key at a time.
            let mut differing = Vec::new();
            for key in keys {
                let one = std::slice::from_ref(key);
                let mut old = keyed_rows(connection, plan, Side::Old, one).await?;
                let mut new = keyed_rows(connection, plan, Side::New, one).await?;
                old.sort();
                new.sort();
                if old != new {
                    differing.push(key.clone());
                }
            }
            Ok(differing)
        }
        .boxed()
    }

    fn projected<'c>(
        connection: &'c mut Self::Connection,
        subject: &'c Subject,
        keys: &'c [Key],
    ) -> BoxFuture<'c, Result<arrow::array::RecordBatch>> {
        async move {
            lock(connection, keys).await?;
            let rows = keyed_rows(connection, &subject.plan, Side::Old, keys).await?;
            batch_of(&subject.plan, &rows)
        }
        .boxed()
    }

    fn retire<'c>(
        connection: &'c mut Self::Connection,
        subject: &'c Subject,
        keys: &'c [Key],
    ) -> BoxFuture<'c, Result<()>> {
        async move {
            lock(connection, keys).await?;
            run(connection, &subject.plan, subject.plan.retire(), keys, "retiring old data").await.map(drop)
        }
        .boxed()
    }
}

/// Makes the new store equal to the projection for these keys, under the caller's write lock.
pub(crate) async fn follow_old(
    connection: &mut SqliteConnection,
    plan: &Plan,
    keys: &[Key],
) -> Result<Mirrored> {
    let mut mirrored = Mirrored::default();
    for keys in batches(plan, keys) {
        mirrored.removed += remove_orphans(connection, plan, keys).await?;
        mirrored.written += insert(connection, plan, keys, &update_differing(plan)).await?;
    }
    Ok(mirrored)
}

/// Runs the reverse statements for these keys, under the caller's write lock.
pub(crate) async fn follow_new(
    connection: &mut SqliteConnection,
    plan: &Plan,
    keys: &[Key],
) -> Result<Mirrored> {
    let written = run(connection, plan, plan.reverse(), keys, "mirroring to the old store").await?;
    Ok(Mirrored { written, removed: 0 })
}

/// The projection of these keys as a subquery; its parameters are those of [`bound`].
pub(crate) fn projection(plan: &Plan, keys: &[Key]) -> String {
    format!("({})", plan.projection().render(&key_query(plan.key().len(), keys.len())))
}

/// The condition that a row of the new table is in the scope of these keys.
pub(crate) fn in_scope(plan: &Plan, keys: &[Key]) -> String {
    format!("({}) in ({})", list("", plan.scope()), key_query(plan.key().len(), keys.len()))
}

/// The keys in portions that fit into one statement.
pub(crate) fn batches<'k>(plan: &Plan, keys: &'k [Key]) -> impl Iterator<Item = &'k [Key]> {
    keys.chunks(PARAMETERS_MAX / plan.key().len().max(1))
}

/// A statement with the keys as its parameters.
///
/// # Errors
/// [`Error::Key`] for a key that has no one meaning in SQLite.
pub(crate) fn bound(
    sql: String,
    plan: &Plan,
    keys: &[Key],
) -> Result<Query<'static, Sqlite, SqliteArguments>> {
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for key in keys {
        for (value, column) in key.values().iter().zip(plan.key()) {
            if column.kind == ColumnKind::Other {
                return Err(Error::Key {
                    migration: plan.name().to_owned(),
                    key: key.to_string(),
                    reason: format!(
                        "column {} has no declared type, so that a number cannot be told from its digits",
                        column.name
                    ),
                });
            }
            query = match value {
                KeyValue::Int(number) => query.bind(*number),
                KeyValue::Text(text) => bind_text(query, text, column),
                KeyValue::Uuid(uuid) => query.bind(uuid.as_bytes().to_vec()),
                KeyValue::Bytes(bytes) => query.bind(bytes.clone()),
            };
        }
    }
    Ok(query)
}

/// Binds a value that was decoded from `column`, as the column holds it.
pub(crate) fn bind_cell(
    query: Query<'static, Sqlite, SqliteArguments>,
    cell: &Cell<'_>,
    column: &ColumnSchema,
) -> Query<'static, Sqlite, SqliteArguments> {
    match cell {
        Cell::Null => query.bind(None::<i64>),
        Cell::Int(number) => query.bind(*number),
        Cell::Real(number) => query.bind(*number),
        Cell::Text(text) => bind_text(query, text, column),
        Cell::Bytes(bytes) => query.bind(bytes.to_vec()),
    }
}

/// Where a column turns texts into numbers, the text of a number stands for the number.
fn bind_text(
    query: Query<'static, Sqlite, SqliteArguments>,
    text: &str,
    column: &ColumnSchema,
) -> Query<'static, Sqlite, SqliteArguments> {
    let is_numeric = matches!(Affinity::of(&column.sql_type), Affinity::Numeric | Affinity::Real);
    if !is_numeric || !text.ends_with(|c: char| c.is_ascii_digit()) {
        return query.bind(text.to_owned());
    }
    match (text.parse::<i64>(), text.parse::<f64>()) {
        (Ok(number), _) => query.bind(number),
        (_, Ok(number)) => query.bind(number),
        _ => query.bind(text.to_owned()),
    }
}

/// Takes the write lock where there is anything to do; it is the lock on the old rows as well.
async fn lock(connection: &mut SqliteConnection, keys: &[Key]) -> Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    sqlx::query(TAKE_WRITE_LOCK)
        .execute(connection)
        .await
        .map(drop)
        .map_err(|error| control_error(None, "locking keys", error))
}

async fn remove_orphans(connection: &mut SqliteConnection, plan: &Plan, keys: &[Key]) -> Result<u64> {
    let key = list("", plan.row_key());
    // One NULL among them would make `not in` true of nothing.
    let not_null = plan.row_key().iter().map(|column| format!("{} is not null", quote(column)));
    let sql = format!(
        "delete from {new} where {scope} and ({key}) not in (select {key} from {projection} where {not_null})",
        new = table(plan.new_table()),
        scope = in_scope(plan, keys),
        projection = projection(plan, keys),
        not_null = not_null.collect::<Vec<_>>().join(" and "),
    );
    let done = bound(sql, plan, keys)?
        .execute(connection)
        .await
        .map_err(Error::database(format!("removing orphans from {}", plan.new_table())))?;
    Ok(done.rows_affected())
}

/// Inserts what the projection gives; `otherwise` says what becomes of rows whose key is there.
async fn insert(
    connection: &mut SqliteConnection,
    plan: &Plan,
    keys: &[Key],
    otherwise: &str,
) -> Result<u64> {
    let columns = plan.columns().iter().map(|column| &column.name).collect::<Vec<_>>();
    let columns = list("", columns);
    // A primary key may be NULL in SQLite, and such a row would be inserted again each time.
    let nullable =
        plan.columns().iter().find(|column| plan.row_key().contains(&column.name) && column.nullable);
    let is_null = plan.row_key().iter().map(|column| format!("{} is null", quote(column)));
    // `where true` keeps `on conflict` from being read as the beginning of a join.
    let sql = format!(
        "insert into {new} ({columns}) select {columns} from {projection} where true
         on conflict ({key}) {otherwise} returning {is_null}",
        new = table(plan.new_table()),
        projection = projection(plan, keys),
        key = list("", plan.row_key()),
        is_null = is_null.collect::<Vec<_>>().join(" or "),
    );
    let doing = format!("writing what the projection gives to {}", plan.new_table());
    let query = bound(sql, plan, keys)?;
    let Some(column) = nullable else {
        let done = query.execute(connection).await.map_err(Error::database(doing))?;
        return Ok(done.rows_affected());
    };
    let rows = query.fetch_all(connection).await.map_err(Error::database(doing.as_str()))?;
    for row in &rows {
        if row.try_get::<bool, _>(0).map_err(Error::database(doing.as_str()))? {
            return Err(Error::Value {
                what: format!("the projection of {}", plan.old()),
                column: column.name.clone(),
                value: "NULL".to_owned(),
                sql_type: column.sql_type.clone(),
            });
        }
    }
    Ok(rows.len() as u64)
}

/// The end of an upsert that touches a row only where it differs.
fn update_differing(plan: &Plan) -> String {
    let others: Vec<_> =
        plan.columns().iter().filter(|column| !plan.row_key().contains(&column.name)).collect();
    if others.is_empty() {
        return "do nothing".to_owned();
    }
    let set = others.iter().map(|column| {
        let column = quote(&column.name);
        format!("{column} = excluded.{column}")
    });
    let differs = others.iter().map(|column| {
        let name = quote(&column.name);
        // Bytewise, whatever the column's collation holds equal; and without a declared type, 1 and
        // 1.0 are stored differently though they compare equal.
        let binary = format!("{name} collate binary is not excluded.{name}");
        match column.kind {
            ColumnKind::Other => format!("{binary} or typeof({name}) is not typeof(excluded.{name})"),
            _ => binary,
        }
    });
    format!(
        "do update set {} where {}",
        set.collect::<Vec<_>>().join(", "),
        differs.collect::<Vec<_>>().join(" or ")
    )
}

async fn run(
    connection: &mut SqliteConnection,
    plan: &Plan,
    statements: &[Template],
    keys: &[Key],
    doing: &str,
) -> Result<u64> {
    let mut affected = 0;
    for keys in batches(plan, keys) {
        for statement in statements {
            let sql = statement.render(&key_query(plan.key().len(), keys.len()));
            let done = bound(sql, plan, keys)?
                .execute(&mut *connection)
                .await
                .map_err(Error::database(format!("{doing} of migration {}", plan.name())))?;
            affected += done.rows_affected();
        }
    }
    Ok(affected)
}

type RowsByKey = std::collections::HashMap<Key, Vec<Vec<Cell<'static>>>>;

fn by_key(plan: &Plan, rows: Vec<Vec<Cell<'static>>>) -> RowsByKey {
    let scope: Vec<_> = plan
        .scope()
        .iter()
        .filter_map(|name| plan.columns().iter().position(|column| column.name == *name))
        .collect();
    let mut by_key = RowsByKey::new();
    for row in rows {
        let key = Key::new(scope.iter().filter_map(|&index| row[index].key_value()));
        by_key.entry(key).or_default().push(row);
    }
    // Two rows may have one key in the projection: then the rest of the row decides the order.
    by_key.values_mut().for_each(|rows| rows.sort());
    by_key
}
