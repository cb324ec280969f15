//! Proof of a manifest on Postgres.

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, PgConnection, Pool, Postgres, Row};

use super::constraints::postgres::violations;
use super::dependence::postgres::dependence;
use super::explain::postgres::explain;
use super::projection::postgres::ProjectionCheck;
use super::{CheckFault, CheckReport, Proof};
use crate::catalog::ColumnKind;
use crate::catalog::postgres::planned_rows;
use crate::connect::Connected;
use crate::error::{Error, Result};
use crate::fence::Fence;
use crate::key::Key;
use crate::mirror::postgres::{bind_keys, bound_keys, parse_key};
use crate::mirror::{Direction, Mirror, Subject};
use crate::phase::Epoch;
use crate::plan::Plan;
use crate::quote::postgres::{list, quote, table};
use crate::rows::postgres::{collect, exported, keyed_rows, order};

/// Up to this size a table's keys are numbered to pick some at even distances; a larger one is
/// sampled by pages, which reads a small part of it.
const NUMBERED_ROWS_MAX: u64 = 100_000;

/// How many pages are sampled for each key that is wanted: keys from many pages are better spread than
/// all the keys of a few, and a few hundred pages more are read in no time.
const PAGES_PER_KEY: f64 = 4.0;

/// How often a key's reversal is tried that loses a race to a writer.
const TRIES: u32 = 10;

#[async_trait]
impl Proof for Connected<Postgres> {
    async fn sample_keys(&self, subject: &Subject, count: u32) -> Result<Vec<Key>> {
        let plan = &subject.plan;
        let failed = || Error::database(format!("sampling keys of {}", plan.old()));
        let mut connection = self.pool.acquire().await.map_err(failed())?;
        let all = format!("select 1 from {}", table(plan.old()));
        let sample = if planned_rows(&mut connection, &all).await.map_err(failed())? <= NUMBERED_ROWS_MAX {
            numbered_sample(plan)
        } else {
            let pages = pages(&mut connection, plan).await.map_err(failed())?;
            page_sample(plan, 100.0 * PAGES_PER_KEY * f64::from(count) / pages)
        };
        let sample = sqlx::query(AssertSqlSafe(sample))
            .bind(i64::from(count))
            .fetch_all(&mut *connection)
            .await
            .map_err(failed())?;
        let key = |row: &sqlx::postgres::PgRow| {
            let values = plan.key().iter().enumerate().map(|(index, column)| {
                let text: String = row.try_get(index).map_err(failed())?;
                parse_key(&text, column)
            });
            Ok(Key::new(values.collect::<Result<Vec<_>>>()?))
        };
        sample.iter().map(key).collect()
    }

    async fn check_projection(&self, subject: &Subject, keys: &[Key]) -> Result<CheckReport> {
        let plan = &subject.plan;
        let failed = || Error::database(format!("checking the projection of {}", plan.old()));
        // One snapshot for all keys: a row that moves from one key to another meanwhile is not two rows.
        let begin = "begin transaction isolation level repeatable read read only";
        let mut transaction = self.pool.begin_with(begin).await.map_err(failed())?;
        let mut check = ProjectionCheck::new(&mut transaction, plan).await?;
        for key in keys {
            check.key(&mut transaction, key).await?;
        }
        check.all_at_once(&mut transaction, keys).await?;
        let mut report = check.into_report();
        if let [key, ..] = keys {
            explain(&mut transaction, plan, key, &mut report).await?;
            report.faults.extend(violations(&mut transaction, plan, keys).await?);
            report.warnings = dependence(&mut transaction, plan, keys).await?;
        }
        transaction.rollback().await.map_err(failed())?;
        Ok(report)
    }

    async fn check_reverse(&self, subject: &Subject, keys: &[Key]) -> Result<CheckReport> {
        let mut report = CheckReport::default();
        if subject.plan.reverse().is_empty() {
            return Ok(report);
        }
        for key in keys {
            let found = reverse_undone(&self.pool, subject, key).await;
            report.keys += 1;
            let fault = match found {
                Ok(Reversed { rows, fault }) => {
                    report.rows += rows;
                    let Some(fault) = fault else { continue };
                    fault
                }
                Err(error) if !is_about_data(&error) => return Err(error),
                Err(error) => CheckFault {
                    message: format!("key {key}: {error}"),
                    hint: error.hint().unwrap_or_else(|| "mend mapping.reverse".to_owned()),
                },
            };
            // The same mistake shows with every key: one example is enough.
            if report.faults.iter().all(|known| known.hint != fault.hint) {
                report.faults.push(fault);
            }
        }
        Ok(report)
    }
}

/// Keys at even distances, first and last row included where there is room. Binds the number of keys.
fn numbered_sample(plan: &Plan) -> String {
    // Of the n-th row of N, n * count mod N is below count for just count rows, evenly spread.
    format!(
        "select {texts} from (
             select {key}, row_number() over (order by {key}) - 1 as crossfade_position,
                    count(*) over () as crossfade_total
             from {old}) as s
         where crossfade_position * $1 % crossfade_total < $1
         order by {ordered} limit $1",
        texts = key_texts(plan),
        key = key_columns(plan, ""),
        ordered = key_columns(plan, "s."),
        old = table(plan.old()),
    )
}

/// The old table's size in pages, partitions included.
async fn pages(connection: &mut PgConnection, plan: &Plan) -> sqlx::Result<f64> {
    sqlx::query_scalar(
        "select greatest(1, sum(pg_relation_size(oid)) / current_setting('block_size')::numeric)::float8
         from pg_catalog.pg_class
         where oid = to_regclass($1) or oid in (select relid from pg_partition_tree(to_regclass($1)))",
    )
    .bind(table(plan.old()))
    .fetch_one(connection)
    .await
}

/// A quarter of the keys from each end, the rest from this percentage of all pages, where the ends are left
/// out: a key that was picked twice would be one less. Binds the number of keys.
fn page_sample(plan: &Plan, percent: f64) -> String {
    let percent = percent.min(100.0);
    format!(
        "with ends as materialized (
             (select {key} from {old} order by {key} limit $1 / 4)
             union (select {key} from {old} order by {descending} limit $1 / 4)
         )
         select {texts} from (
             select {key} from ends
             union all (
                 select {key} from {old} tablesample system ({percent})
                 where ({key}) not in (select {key} from ends) order by random() limit $1 - $1 / 4 * 2)
         ) as s
         order by {ordered} limit $1",
        texts = key_texts(plan),
        key = key_columns(plan, ""),
        ordered = key_columns(plan, "s."),
        descending = plan
            .key()
            .iter()
            .map(|column| format!("{} desc", quote(&column.name)))
            .collect::<Vec<_>>()
            .join(", "),
        old = table(plan.old()),
    )
}

/// The key's columns behind `prefix`. Unprefixed, `order by` would take them for the texts of the same
/// name in the select list.
fn key_columns(plan: &Plan, prefix: &str) -> String {
    let names: Vec<String> = plan.key().iter().map(|column| column.name.clone()).collect();
    list(prefix, &names)
}

/// The key's columns as texts that [`parse_key`] reads.
fn key_texts(plan: &Plan) -> String {
    let text = |column: &crate::catalog::ColumnSchema| match column.kind {
        ColumnKind::Bytes => format!("encode({}, 'hex')", quote(&column.name)),
        _ => format!("{}::text", quote(&column.name)),
    };
    plan.key().iter().map(text).collect::<Vec<_>>().join(", ")
}

/// Whether an error speaks of the manifest or the data, rather than of the database's state: data
/// exceptions, violated constraints, wrong numbers of rows, wrong statements, and what functions raise.
pub(super) fn is_about_data(error: &Error) -> bool {
    let Error::Database { source, .. } = error else { return matches!(error, Error::Value { .. }) };
    let code = source.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| {
        code != "42501" && ["21", "22", "23", "42", "P0"].iter().any(|class| code.starts_with(class))
    })
}

/// What reversing one key showed: how many rows it has, and what is wrong with them.
struct Reversed {
    rows: u64,
    fault: Option<CheckFault>,
}

/// Reverses one key in a transaction of its own, so that writers wait for one key at most, and takes
/// that back.
async fn reverse_undone(pool: &Pool<Postgres>, subject: &Subject, key: &Key) -> Result<Reversed> {
    let mut tries = 1;
    loop {
        let mut transaction = Postgres::begin_write(pool).await?;
        let standing = Postgres::fence(&mut transaction, subject.id, subject.plan.name(), None).await?;
        let found = reverse(&mut transaction, subject, key, standing.epoch).await;
        transaction.rollback().await.map_err(Error::database("ending a check of the reverse path"))?;
        match found {
            // It writes both stores, first the one and then the other, as no writer does: a deadlock
            // with one says nothing of the mapping.
            Err(error) if error.is_retryable() && tries < TRIES => tries += 1,
            found => return found,
        }
    }
}

async fn reverse(
    connection: &mut PgConnection,
    subject: &Subject,
    key: &Key,
    epoch: Epoch,
) -> Result<Reversed> {
    let plan = &subject.plan;
    let keys = std::slice::from_ref(key);
    Postgres::mirror(connection, subject, Direction::OldToNew, keys, epoch).await?;
    let before = keyed_rows(connection, plan, keys).await?;
    let rows = before.num_rows() as u64;
    let faulty = |what: &str, hint: &str| {
        let fault = CheckFault { message: format!("key {key}: {what}"), hint: hint.to_owned() };
        Ok(Reversed { rows, fault: Some(fault) })
    };
    Postgres::mirror(connection, subject, Direction::NewToOld, keys, epoch).await?;
    if keyed_rows(connection, plan, keys).await? != before {
        return faulty(
            "after reversing rows that were just projected, the projection gives other rows",
            "make mapping.reverse the inverse of mapping.projection",
        );
    }
    if rows == 0 || !take_one_away(connection, plan, key).await? {
        return Ok(Reversed { rows, fault: None });
    }
    Postgres::mirror(connection, subject, Direction::NewToOld, keys, epoch).await?;
    if keyed_rows(connection, plan, keys).await? != new_rows(connection, plan, keys).await? {
        return faulty(
            "after a new row was deleted and reversed, the projection does not follow",
            "let mapping.reverse write the whole of a key, and also when none of its new rows is left",
        );
    }
    Ok(Reversed { rows, fault: None })
}

/// Deletes one of a key's new rows; `false` where another table's rows hold it fast.
async fn take_one_away(connection: &mut PgConnection, plan: &Plan, key: &Key) -> Result<bool> {
    let failed = || Error::database("taking a new row away");
    let new = table(plan.new_table());
    let sql = format!(
        "delete from {new} where (tableoid, ctid) = (
             select tableoid, ctid from {new} where ({scope}) in ({keys}) order by {row_key} limit 1)",
        scope = list("", plan.scope()),
        keys = bound_keys(plan, 1),
        row_key = list("", plan.row_key()),
    );
    sqlx::raw_sql("savepoint crossfade_delete").execute(&mut *connection).await.map_err(failed())?;
    let deleted = bind_keys(sqlx::query(AssertSqlSafe(sql)), plan, std::slice::from_ref(key))
        .execute(&mut *connection)
        .await;
    match deleted {
        Ok(_) => Ok(true),
        Err(error)
            if error
                .as_database_error()
                .is_some_and(sqlx::error::DatabaseError::is_foreign_key_violation) =>
        {
            sqlx::raw_sql("rollback to savepoint crossfade_delete")
                .execute(connection)
                .await
                .map_err(failed())?;
            Ok(false)
        }
        Err(error) => Err(failed()(error)),
    }
}

/// The new table's rows of these keys, as the projection's rows travel.
async fn new_rows(
    connection: &mut PgConnection,
    plan: &Plan,
    keys: &[Key],
) -> Result<arrow::array::RecordBatch> {
    let what = format!("table {}", plan.new_table());
    let sql = format!(
        "select {} from {} as p where ({}) in ({}) order by {}",
        exported(plan, "p"),
        table(plan.new_table()),
        list("p.", plan.scope()),
        bound_keys(plan, 1),
        order(plan, "p"),
    );
    let rows = bind_keys(sqlx::query(AssertSqlSafe(sql)), plan, keys)
        .fetch_all(connection)
        .await
        .map_err(Error::database(format!("reading {what}")))?;
    collect(plan, what, &rows)
}
