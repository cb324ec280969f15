//! Rows out of SQLite.

use std::num::NonZeroUsize;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryBuilder, Float64Builder, Int64Builder, RecordBatch, StringBuilder};
use async_trait::async_trait;
use futures::TryStreamExt;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Sqlite, Transaction};
use tokio::sync::{Mutex, mpsc};

use super::{BATCH_ROWS, ConsistentRead, Moment, Rows, ScopeRange, WritePosition};
use crate::catalog::ColumnKind;
use crate::cell::sqlite::{Cell, Layout, as_stored, sort_key};
use crate::connect::Connected;
use crate::control::sqlite::{standing_of, unknown};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::mirror::Subject;
use crate::mirror::sqlite::{batches, bound, in_scope, projection};
use crate::phase::Side;
use crate::plan::Plan;
use crate::quote::sqlite::{list, quote, table};

#[async_trait]
impl Rows for Connected<Sqlite> {
    async fn read_both(&self, subject: &Subject) -> Result<Box<dyn ConsistentRead>> {
        let doing = "beginning a consistent read";
        let mut transaction = self.pool.begin().await.map_err(Error::database(doing))?;
        let journal: String = sqlx::query_scalar("pragma journal_mode")
            .fetch_one(&mut *transaction)
            .await
            .map_err(Error::database(doing))?;
        if journal != "wal" {
            // A long read would hold up every writer.
            return Err(Error::ControlStore {
                store: self.url.to_string(),
                what: format!("keeps a {journal} journal, in which readers hold up writers"),
                hint: "pragma journal_mode = wal turns it over; crossfade's own connections do so".to_owned(),
            });
        }
        // SQLite fixes what a transaction sees at its first read, so the standing and the time are
        // of that very moment.
        let row = sqlx::query_as(
            "select phase, ramp_ppm, epoch, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'),
                    (select encoding from pragma_encoding), (select data_version from pragma_data_version)
             from crossfade_migration where id = ?1",
        )
        .bind(subject.id.0)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(|error| self.fault(doing, error))?;
        let (phase, ramp, epoch, began_at, encoding, version): (String, i64, i64, String, String, i64) =
            row.ok_or_else(|| unknown(subject.id))?;
        if encoding != "UTF-8" {
            // Its texts would come in the order of UTF-16 units, which is another one.
            return Err(Error::ControlStore {
                store: self.url.to_string(),
                what: format!("is encoded in {encoding}"),
                hint: "dump it into a database with `pragma encoding = 'UTF-8'`".to_owned(),
            });
        }
        Ok(Box::new(SqliteRead {
            transaction: Mutex::new(transaction),
            plan: subject.plan.clone(),
            moment: Moment {
                point: format!("read transaction at {began_at}, data version {version}"),
                began_at,
                standing: standing_of(&phase, ramp, epoch)?,
            },
        }))
    }

    async fn written(&self) -> Result<WritePosition> {
        Err(self.no_replicas())
    }

    async fn has_replayed(&self, _position: &WritePosition) -> Result<bool> {
        Err(self.no_replicas())
    }
}

impl Connected<Sqlite> {
    fn no_replicas(&self) -> Error {
        Error::ControlStore {
            store: self.url.to_string(),
            what: "has no replicas".to_owned(),
            hint: "read from the database itself: readers hold nobody up".to_owned(),
        }
    }
}

/// A read transaction: in the write-ahead log, it sees one moment however long it lasts, and holds up
/// no writer.
struct SqliteRead {
    transaction: Mutex<Transaction<'static, Sqlite>>,
    plan: Plan,
    moment: Moment,
}

#[async_trait]
impl ConsistentRead for SqliteRead {
    fn moment(&self) -> &Moment {
        &self.moment
    }

    async fn hold(&self) -> Result<()> {
        // A file's transaction ends with this process, and no sooner.
        Ok(())
    }

    async fn estimate(&self, side: Side) -> Result<u64> {
        let sql = match side {
            Side::Old => {
                format!("select count(*) from ({})", self.plan.projection().render(&all_keys(&self.plan)))
            }
            Side::New => format!("select count(*) from {}", table(self.plan.new_table())),
        };
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(sql))
            .persistent(false)
            .fetch_one(&mut **self.transaction.lock().await)
            .await
            .map_err(Error::database(format!("counting the {side} rows")))?;
        Ok(count.unsigned_abs())
    }

    async fn ranges(&self, _side: Side, _count: NonZeroUsize) -> Result<Vec<ScopeRange>> {
        // The moment belongs to one transaction, which one connection has: two ranges could not be read at once.
        Ok(vec![ScopeRange::WHOLE])
    }

    async fn read(&self, side: Side, range: &ScopeRange, rows: mpsc::Sender<RecordBatch>) -> Result<u64> {
        if *range != ScopeRange::WHOLE {
            return Err(Error::ControlStore {
                store: self.moment.point.clone(),
                what: "was asked for a range that it has not given".to_owned(),
                hint: "read the ranges that it gives".to_owned(),
            });
        }
        let plan = &self.plan;
        let sql = match side {
            Side::Old => select_projection(plan, &format!("({})", plan.projection().render(&all_keys(plan)))),
            Side::New => select_new(plan, "true"),
        };
        let doing = format!("reading the {side} rows of migration {}", plan.name());
        let layout = Layout::new(plan, side);
        let mut builder = BatchBuilder::new(plan);
        let mut sent = 0;
        let mut transaction = self.transaction.lock().await;
        let mut stream = sqlx::query(AssertSqlSafe(sql)).persistent(false).fetch(&mut **transaction);
        loop {
            let row = stream.try_next().await.map_err(Error::database(doing.as_str()))?;
            let is_last = row.is_none();
            if let Some(row) = row {
                builder.push(&layout, &row)?;
            }
            if builder.rows == BATCH_ROWS || (is_last && builder.rows > 0) {
                let batch = builder.finish(plan)?;
                let count = batch.num_rows() as u64;
                if rows.send(batch).await.is_err() {
                    return Ok(sent);
                }
                sent += count;
            }
            if is_last {
                return Ok(sent);
            }
        }
    }
}

/// The rows of these keys on one side, in the plan's order.
pub(crate) async fn keyed_rows(
    connection: &mut SqliteConnection,
    plan: &Plan,
    side: Side,
    keys: &[Key],
) -> Result<Vec<Vec<Cell<'static>>>> {
    let layout = Layout::new(plan, side);
    let mut rows = Vec::new();
    for keys in batches(plan, keys) {
        let sql = match side {
            Side::Old => select_projection(plan, &projection(plan, keys)),
            Side::New => select_new(plan, &in_scope(plan, keys)),
        };
        let found = bound(sql, plan, keys)?
            .fetch_all(&mut *connection)
            .await
            .map_err(Error::database(format!("reading {side} rows of migration {}", plan.name())))?;
        for row in &found {
            rows.push(layout.row(row)?);
        }
    }
    Ok(rows)
}

/// Rows of the plan's columns as one record batch.
pub(crate) fn batch_of(plan: &Plan, rows: &[Vec<Cell<'static>>]) -> Result<RecordBatch> {
    let mut builder = BatchBuilder::new(plan);
    for row in rows {
        for (column, cell) in builder.columns.iter_mut().zip(row) {
            column.push(cell);
        }
        builder.rows += 1;
    }
    builder.finish(plan)
}

/// The query for the projection's rows as the new table would store them.
pub(crate) fn select_projection(plan: &Plan, projection: &str) -> String {
    let stored: Vec<_> = plan
        .columns()
        .iter()
        .map(|column| as_stored(&format!("p.{}", quote(&column.name)), column))
        .collect();
    let order = plan.order().iter().filter_map(|name| {
        let index = plan.columns().iter().position(|column| column.name == *name)?;
        Some(sort_key(&stored[index], &plan.columns()[index]))
    });
    format!(
        "select {} from {projection} as p order by {}",
        stored.join(", "),
        order.collect::<Vec<_>>().join(", ")
    )
}

fn select_new(plan: &Plan, condition: &str) -> String {
    let columns = plan.columns().iter().map(|column| quote(&column.name)).collect::<Vec<_>>();
    let order = plan.order().iter().filter_map(|name| {
        let column = plan.columns().iter().find(|column| column.name == *name)?;
        Some(sort_key(&quote(name), column))
    });
    format!(
        "select {} from {} where {condition} order by {}",
        columns.join(", "),
        table(plan.new_table()),
        order.collect::<Vec<_>>().join(", ")
    )
}

fn all_keys(plan: &Plan) -> String {
    let key = plan.key().iter().map(|column| &column.name).collect::<Vec<_>>();
    format!("select {} from {}", list("", key), table(plan.old()))
}

struct BatchBuilder {
    columns: Vec<ColumnBuilder>,
    rows: usize,
}

enum ColumnBuilder {
    Int(Int64Builder),
    Float(Float64Builder),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
}

impl BatchBuilder {
    fn new(plan: &Plan) -> BatchBuilder {
        let columns = plan.columns().iter().map(|column| match column.kind {
            ColumnKind::Int => ColumnBuilder::Int(Int64Builder::new()),
            ColumnKind::Float => ColumnBuilder::Float(Float64Builder::new()),
            ColumnKind::Bytes => ColumnBuilder::Bytes(BinaryBuilder::new()),
            _ => ColumnBuilder::Text(StringBuilder::new()),
        });
        BatchBuilder { columns: columns.collect(), rows: 0 }
    }

    fn push(&mut self, layout: &Layout<'_>, row: &SqliteRow) -> Result<()> {
        for (index, column) in self.columns.iter_mut().enumerate() {
            column.push(&layout.cell(row, index)?);
        }
        self.rows += 1;
        Ok(())
    }

    fn finish(&mut self, plan: &Plan) -> Result<RecordBatch> {
        self.rows = 0;
        let arrays = self.columns.iter_mut().map(ColumnBuilder::finish).collect();
        RecordBatch::try_new(plan.schema(), arrays)
            .map_err(|source| Error::Arrow { doing: format!("batching rows of {}", plan.name()), source })
    }
}

impl ColumnBuilder {
    /// Appends a cell that was decoded for this column: whatever is not of its kind is NULL.
    fn push(&mut self, cell: &Cell<'_>) {
        match (self, cell) {
            (ColumnBuilder::Int(builder), Cell::Int(number)) => builder.append_value(*number),
            (ColumnBuilder::Float(builder), Cell::Real(number)) => builder.append_value(*number),
            (ColumnBuilder::Text(builder), Cell::Text(text)) => builder.append_value(text),
            (ColumnBuilder::Bytes(builder), Cell::Bytes(bytes)) => builder.append_value(bytes),
            (ColumnBuilder::Int(builder), _) => builder.append_null(),
            (ColumnBuilder::Float(builder), _) => builder.append_null(),
            (ColumnBuilder::Text(builder), _) => builder.append_null(),
            (ColumnBuilder::Bytes(builder), _) => builder.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            ColumnBuilder::Int(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Float(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Text(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Bytes(builder) => Arc::new(builder.finish()),
        }
    }
}
