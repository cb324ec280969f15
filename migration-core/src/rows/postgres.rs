//! Rows out of Postgres: binary `copy` under an exported snapshot.

mod batch;
mod block;
mod copy;
mod numeric;
mod values;

use std::num::NonZeroUsize;

use async_trait::async_trait;
use futures::TryStreamExt;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection, Postgres, Row, Transaction, ValueRef};
use tokio::sync::{Mutex, mpsc};

use arrow::array::RecordBatch;

use super::changes::postgres as changes;
use super::ranges::postgres::{bounds, within};
use super::{Changes, ConsistentRead, Horizon, Kept, Moment, Rows, ScopeRange, WritePosition};
use crate::catalog::postgres::rows_estimate;
use crate::catalog::{ColumnKind, ColumnSchema};
use crate::connect::Connected;
use crate::control::postgres::{control_error, no_migration};
use crate::error::{Error, Result};
use crate::fence::postgres::standing;
use crate::key::Key;
use crate::mirror::Subject;
use crate::mirror::postgres::{bind_keys, bound_keys};
use crate::phase::Side;
use crate::plan::Plan;
use crate::projection::postgres::own_keys;
use crate::quote::postgres::{list, literal, quote, table};
use batch::Batch;
use copy::CopyStream;
use values::Form;

#[async_trait]
impl Rows for Connected<Postgres> {
    async fn read_both(&self, subject: &Subject) -> Result<Box<dyn ConsistentRead>> {
        let opening = || Error::database(format!("opening a snapshot of migration {}", subject.plan.name()));
        let begin = "begin transaction isolation level repeatable read read only";
        let mut transaction = self.pool.begin_with(begin).await.map_err(opening())?;
        // This transaction idles while others read under its snapshot, which ends with it.
        sqlx::query("set local idle_in_transaction_session_timeout = 0")
            .execute(&mut *transaction)
            .await
            .map_err(opening())?;
        // The time is the statement's start, which is before the snapshot is taken: what happened
        // later than `began_at` need not be in it, what happened earlier is.
        let (snapshot, point, began_at): (String, String, String) = sqlx::query_as(
            r#"select pg_export_snapshot(), pg_current_snapshot()::text,
                      to_char(statement_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"#,
        )
        .fetch_one(&mut *transaction)
        .await
        .map_err(opening())?;
        let row = sqlx::query("select phase, ramp_ppm, epoch from crossfade.migration where id = $1")
            .bind(subject.id.0)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(control_error(&self.url, "reading a standing"))?
            .ok_or_else(|| no_migration(subject.id))?;
        Ok(Box::new(Snapshot {
            plan: subject.plan.clone(),
            options: (*self.pool.connect_options()).clone(),
            moment: Moment { point: format!("snapshot {point}"), began_at, standing: standing(&row)? },
            transaction: Mutex::new(transaction),
            snapshot,
        }))
    }

    async fn written(&self) -> Result<WritePosition> {
        // Only what was inserted into the log before this can have been acknowledged before it.
        let row: (bool, String, Option<String>) = sqlx::query_as(
            "select pg_is_in_recovery(), system_identifier::text,
                    case when not pg_is_in_recovery() then pg_current_wal_insert_lsn()::text end
             from pg_control_system()",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(Error::database("reading how far writes have come"))?;
        match row {
            (false, origin, Some(position)) => Ok(WritePosition { origin, position }),
            _ => Err(self.misused("is a replica itself", "give the primary's URL as the database")),
        }
    }

    async fn has_replayed(&self, position: &WritePosition) -> Result<bool> {
        let (is_replica, origin, replayed): (bool, String, Option<bool>) = sqlx::query_as(
            "select pg_is_in_recovery(), system_identifier::text, pg_last_wal_replay_lsn() >= $1::text::pg_lsn
             from pg_control_system()",
        )
        .bind(&position.position)
        .fetch_one(&self.pool)
        .await
        .map_err(Error::database("reading how far a replica has come"))?;
        if origin != position.origin {
            return Err(self.misused("is no replica of the migration's database", "give the URL of one"));
        }
        if !is_replica {
            return Err(self.misused("is no replica", "leave the replica out to read from the primary"));
        }
        Ok(replayed.unwrap_or(false))
    }
}

impl Connected<Postgres> {
    fn misused(&self, what: &str, hint: &str) -> Error {
        Error::ControlStore { store: self.url.to_string(), what: what.to_owned(), hint: hint.to_owned() }
    }
}

/// A snapshot that is held open.
struct Snapshot {
    plan: Plan,
    options: PgConnectOptions,
    moment: Moment,
    /// Idles, and holds the snapshot.
    transaction: Mutex<Transaction<'static, Postgres>>,
    /// The name under which other transactions import the snapshot.
    snapshot: String,
}

impl Snapshot {
    /// A connection that sees the snapshot. Outside the pool: a copy can only be broken off by closing it.
    async fn reader(&self, what: &str) -> Result<PgConnection> {
        let reading = || Error::database(format!("reading {what}"));
        let mut connection = PgConnection::connect_with(&self.options).await.map_err(reading())?;
        let begin = format!(
            "begin transaction isolation level repeatable read read only;
             set transaction snapshot {};
             -- An export takes as long as it takes, whatever the role's requests may.
             set local statement_timeout = 0;
             -- It may have nothing to read for a while, as long as others have.
             set local idle_in_transaction_session_timeout = 0;
             -- As many processes work as there are connections, and no more: production has use for the others.
             set local max_parallel_workers_per_gather = 0;
             set local jit = off",
            literal(&self.snapshot)
        );
        sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut connection).await.map_err(reading())?;
        Ok(connection)
    }
}

#[async_trait]
impl ConsistentRead for Snapshot {
    fn moment(&self) -> &Moment {
        &self.moment
    }

    async fn hold(&self) -> Result<()> {
        let mut transaction = self.transaction.lock().await;
        let holding = Error::database("holding a snapshot open");
        sqlx::query("select 1").execute(&mut **transaction).await.map(|_| ()).map_err(holding)
    }

    async fn estimate(&self, side: Side) -> Result<u64> {
        let query = format!("select 1 from {}", source(&self.plan, side));
        let table = match side {
            Side::Old => self.plan.old(),
            Side::New => self.plan.new_table(),
        };
        rows_estimate(&mut *self.transaction.lock().await, table, &query)
            .await
            .map_err(Error::database(format!("estimating the rows of {}", described(&self.plan, side))))
    }

    async fn ranges(&self, side: Side, count: NonZeroUsize) -> Result<Vec<ScopeRange>> {
        let what = described(&self.plan, side);
        let mut connection = self.reader(&what).await?;
        let query = |range: &ScopeRange| ordered_rows(&self.plan, side, range);
        let bounds = bounds(&mut connection, &self.plan, side, count, query)
            .await
            .map_err(Error::database(format!("cutting {what} into ranges")))?;
        connection.close().await.map_err(Error::database(format!("cutting {what} into ranges")))?;
        Ok(ScopeRange::between(bounds))
    }

    async fn read(&self, side: Side, range: &ScopeRange, rows: mpsc::Sender<RecordBatch>) -> Result<u64> {
        let mut kept = Kept::default();
        let count = self.read_next(&mut kept, side, range, rows).await?;
        kept.close().await?;
        Ok(count)
    }

    async fn read_next(
        &self,
        kept: &mut Kept,
        side: Side,
        range: &ScopeRange,
        rows: mpsc::Sender<RecordBatch>,
    ) -> Result<u64> {
        let what = described(&self.plan, side);
        let reading = || Error::database(format!("reading {what}"));
        // Taken out, and put back when all is read: after half a copy a connection is good for nothing.
        let mut connection = match kept.connection.take() {
            Some(connection) => connection,
            None => self.reader(&what).await?,
        };
        let mut full = Vec::new();
        let mut stream = CopyStream::new(Batch::new(&self.plan, what.clone(), Form::Raw));
        let query = ordered_rows(&self.plan, side, range);
        let copy = format!("copy ({query}) to stdout (format binary)");
        let mut pieces = connection.copy_out_raw(&copy).await.map_err(reading())?;
        // What goes wrong is described only then: there is a piece for each row.
        while let Some(piece) = pieces.try_next().await.map_err(|source| reading()(source))? {
            stream.feed(&piece, &mut full)?;
            for batch in full.drain(..) {
                if rows.send(batch).await.is_err() {
                    return Ok(stream.rows());
                }
            }
        }
        drop(pieces);
        let (count, last) = stream.finish()?;
        kept.connection = Some(connection);
        if let Some(batch) = last {
            // A receiver that is gone wants no more, and there is no more.
            let _ = rows.send(batch).await;
        }
        Ok(count)
    }

    fn changes(&self) -> Option<&dyn Changes> {
        Some(self)
    }
}

#[async_trait]
impl Changes for Snapshot {
    async fn horizon(&self, side: Side) -> Result<std::result::Result<Horizon, String>> {
        let what = described(&self.plan, side);
        let reading = || Error::database(format!("looking up what {what} rests on"));
        let mut connection = self.reader(&what).await?;
        let horizon = match changes::horizon(&mut connection, &self.plan, side).await {
            Ok(horizon) => horizon,
            // Not every role may ask all of this, and an export goes without an answer.
            Err(source) => match reading()(source) {
                lost if lost.is_connection_lost() => return Err(lost),
                error => Err(error.to_string()),
            },
        };
        connection.close().await.map_err(reading())?;
        Ok(horizon)
    }

    async fn is_unchanged(&self, side: Side, range: &ScopeRange, since: &Horizon, rows: u64) -> Result<bool> {
        let what = described(&self.plan, side);
        let reading = || Error::database(format!("looking for changes in {what}"));
        let mut connection = self.reader(&what).await?;
        let unchanged = changes::is_unchanged(&mut connection, &self.plan, side, range, since, rows);
        let unchanged = unchanged.await.map_err(reading())?;
        connection.close().await.map_err(reading())?;
        Ok(unchanged)
    }
}

/// What the projection gives for these keys, in the plan's order and schema, as this transaction sees it.
pub(crate) async fn keyed_rows(
    connection: &mut PgConnection,
    plan: &Plan,
    keys: &[Key],
) -> Result<RecordBatch> {
    let what = format!("the projection of {}", plan.old());
    let sql = format!(
        "select {} from ({}) as p order by {}",
        exported(plan, "p"),
        plan.projection().render(&bound_keys(plan, 1)),
        order(plan, "p"),
    );
    let rows = bind_keys(sqlx::query(AssertSqlSafe(sql)), plan, keys)
        .fetch_all(connection)
        .await
        .map_err(Error::database(format!("reading {what}")))?;
    collect(plan, what, &rows)
}

/// Rows of [`exported`] columns that an ordinary query with parameters gave, as one batch.
pub(crate) fn collect(plan: &Plan, what: String, rows: &[sqlx::postgres::PgRow]) -> Result<RecordBatch> {
    let mut batch = Batch::new(plan, what.clone(), Form::Travelling);
    for row in rows {
        for column in 0..batch.width() {
            let value = row.try_get_raw(column).map_err(Error::database(format!("reading {what}")))?;
            // Queries with parameters answer in the binary format.
            let bytes = if value.is_null() {
                None
            } else {
                Some(value.as_bytes().map_err(|error| Error::Database {
                    doing: format!("reading {what}"),
                    source: sqlx::Error::Decode(error),
                })?)
            };
            batch.push(column, bytes)?;
        }
        batch.end_row();
        if !batch.fits() {
            return Err(Error::Arrow {
                doing: format!("reading {what}"),
                source: arrow::error::ArrowError::OffsetOverflowError(i32::MAX as usize),
            });
        }
    }
    batch.take()
}

/// The columns of a row as they travel, each under its own name: the new column's type first, so that
/// both sides have been through the same type, then the form that travels.
pub(crate) fn exported(plan: &Plan, alias: &str) -> String {
    let columns = plan.columns().iter().map(|column| {
        format!("{} as {}", travelling(column.kind, &typed(column, alias)), quote(&column.name))
    });
    columns.collect::<Vec<_>>().join(", ")
}

/// The order of exported rows. It sorts by the new column's type where that sorts as the form that
/// travels does, so that an index can give the order.
pub(crate) fn order(plan: &Plan, alias: &str) -> String {
    let of = |name: &String| plan.columns().iter().find(|column| column.name == *name);
    let columns = plan.order().iter().filter_map(of);
    columns.map(|column| sorted(column.kind, &typed(column, alias))).collect::<Vec<_>>().join(", ")
}

/// What a value of a new column's type is sorted by.
pub(super) fn sorted(kind: ColumnKind, typed: &str) -> String {
    match kind {
        ColumnKind::Json | ColumnKind::Numeric | ColumnKind::Other => travelling(kind, typed),
        ColumnKind::Text => format!("{typed} collate \"C\""),
        _ => typed.to_owned(),
    }
}

pub(super) fn typed(column: &ColumnSchema, alias: &str) -> String {
    format!("{alias}.{}::{}", quote(&column.name), column.sql_type)
}

/// A value of a new column's type, in the form in which it travels.
pub(crate) fn travelling(kind: ColumnKind, typed: &str) -> String {
    match kind {
        ColumnKind::Bool
        | ColumnKind::Bytes
        | ColumnKind::Uuid
        | ColumnKind::Date
        | ColumnKind::Timestamp
        | ColumnKind::TimestampTz => typed.to_owned(),
        ColumnKind::Int => format!("{typed}::int8"),
        ColumnKind::Float => format!("{typed}::float8"),
        // Bytewise, so that equal means equal and sorted means sorted wherever the rows arrive.
        ColumnKind::Text => format!("{typed}::text collate \"C\""),
        ColumnKind::Json => format!("{typed}::jsonb::text collate \"C\""),
        ColumnKind::Numeric => format!("trim_scale({typed})::text collate \"C\""),
        ColumnKind::Other => format!("{typed}::text collate \"C\""),
    }
}

/// The columns of a row as an export asks for them: in a form that costs the server less than the one in which they
/// travel, and that is turned into it on arrival.
fn raw(plan: &Plan) -> String {
    let columns = plan.columns().iter().map(|column| {
        let typed = typed(column, "p");
        let raw = match column.kind {
            ColumnKind::Int | ColumnKind::Float | ColumnKind::Numeric => typed,
            ColumnKind::Json => format!("{typed}::jsonb"),
            kind => travelling(kind, &typed),
        };
        format!("{raw} as {}", quote(&column.name))
    });
    columns.collect::<Vec<_>>().join(", ")
}

/// A query for the rows of one side in a range, in order and in their raw form.
///
/// The range is asked of what the projection gives, not of the keys that it is given: whatever the projection makes of a
/// key, each of its rows is in one range and no other.
fn ordered_rows(plan: &Plan, side: Side, range: &ScopeRange) -> String {
    let (columns, source, order) = (raw(plan), source(plan, side), order(plan, "p"));
    format!("select {columns} from {source}{} order by {order}", within(plan, range))
}

/// Where all rows of one side come from, under the alias `p`.
fn source(plan: &Plan, side: Side) -> String {
    match side {
        Side::Old => format!("({}) as p", every_key(plan)),
        Side::New => format!("{} as p", table(plan.new_table())),
    }
}

/// The projection of all keys.
fn every_key(plan: &Plan) -> String {
    if let Some(own) = own_keys(plan) {
        return plan.projection().render_each(|number| own[number].clone());
    }
    let keys: Vec<String> = plan.key().iter().map(|column| column.name.clone()).collect();
    plan.projection().render(&format!("select {} from {}", list("", &keys), table(plan.old())))
}

fn described(plan: &Plan, side: Side) -> String {
    match side {
        Side::Old => format!("the projection of {}", plan.old()),
        Side::New => format!("table {}", plan.new_table()),
    }
}
