//! The projection's rows against the new table's columns on Postgres.
//!
//! Keys are looked at one by one, so that a row that one key gives and another claims shows, and so that
//! a fault names its key. Everything is judged by the database, with the casts that the mirror uses.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Column, Executor, PgConnection, Row, SqlSafeStr, TypeInfo};

use crate::catalog::ColumnSchema;
use crate::check::postgres::is_about_data;
use crate::check::{CheckFault, CheckReport};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::mirror::postgres::{bind_keys, bound_keys};
use crate::plan::Plan;
use crate::quote::postgres::{quote, table};
use crate::rows::postgres::travelling;

/// Columns that are judged in one query: with [`JUDGEMENTS`] for each, and what says whose a row is beside the first of
/// them, it stays below the 1,664 columns that a query of Postgres may give.
const SLICE_COLUMNS_MAX: usize = 300;

/// Columns of a query that judge one column of the plan: whether it is NULL, whether it would be kept as another value,
/// and both values.
const JUDGEMENTS: usize = 4;

/// How much of a value a fault shows.
const SHOWN_CHARACTERS_MAX: u32 = 60;

/// Types whose values a cast may change without an error, so that it shows only on the way back. Not
/// among them are the text types: a number or a date need not be spelled as the database spells it.
const ROUND_TRIPS: &[&str] =
    &["INT2", "INT4", "INT8", "FLOAT4", "FLOAT8", "NUMERIC", "DATE", "TIME", "TIMESTAMP", "TIMESTAMPTZ"];

/// A check under way.
pub(in crate::check) struct ProjectionCheck<'p> {
    plan: &'p Plan,
    declared: Vec<Declared>,
    report: CheckReport,
    seen: HashSet<(About, usize)>,
    owners: HashMap<Vec<String>, Key>,
    has_errors: bool,
}

/// What a fault is about; each is reported once for each column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum About {
    Error,
    Rounding,
    Null,
    Duplicate,
    Scope,
    Together,
}

/// A column on both sides.
struct Declared {
    /// The new column's type as declared, with length, precision and domain.
    new: String,
    /// The projection's type, where a cast away from it may change the value silently.
    given: Option<String>,
}

impl<'p> ProjectionCheck<'p> {
    /// Reads the declared types. The connection is in a transaction that reads only.
    pub(in crate::check) async fn new(connection: &mut PgConnection, plan: &'p Plan) -> Result<Self> {
        let failed = || Error::database("reading the types of the projection");
        let types: Vec<(String, String)> = sqlx::query_as(
            "select a.attname::text, format_type(a.atttypid, a.atttypmod) from pg_catalog.pg_attribute as a
             where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped",
        )
        .bind(table(plan.new_table()))
        .fetch_all(&mut *connection)
        .await
        .map_err(failed())?;
        let types: HashMap<_, _> = types.into_iter().collect();
        let query = format!("select * from ({}) as p", plan.projection().render(&bound_keys(plan, 1)));
        let statement = connection.prepare(AssertSqlSafe(query).into_sql_str()).await.map_err(failed())?;
        let given: HashMap<&str, &str> = sqlx::Statement::columns(&statement)
            .iter()
            .map(|column| (column.name(), column.type_info().name()))
            .collect();
        let declared = plan.columns().iter().map(|column| Declared {
            new: types.get(&column.name).unwrap_or(&column.sql_type).clone(),
            given: given
                .get(column.name.as_str())
                .filter(|name| ROUND_TRIPS.contains(name))
                .map(|name| name.to_ascii_lowercase()),
        });
        let declared = declared.collect();
        // What fails is rolled back to here; there is nothing to lose.
        sqlx::raw_sql("savepoint crossfade_check").execute(connection).await.map_err(failed())?;
        Ok(ProjectionCheck {
            plan,
            declared,
            report: CheckReport::default(),
            seen: HashSet::new(),
            owners: HashMap::new(),
            has_errors: false,
        })
    }

    /// What has been found.
    pub(in crate::check) fn into_report(self) -> CheckReport {
        self.report
    }

    /// Looks at what the projection gives for one key.
    pub(in crate::check) async fn key(&mut self, connection: &mut PgConnection, key: &Key) -> Result<()> {
        self.report.keys += 1;
        let keys = std::slice::from_ref(key);
        // Whose the rows are goes first, and alone with the first slice of the columns.
        for first in (0..self.plan.columns().len()).step_by(SLICE_COLUMNS_MAX) {
            let slice = first..self.plan.columns().len().min(first + SLICE_COLUMNS_MAX);
            let mut list = self.judgement(slice.clone());
            if first == 0 {
                list.extend(self.ownership());
            }
            let sql = format!("select {} from {}", list.join(", "), self.keyed_projection());
            match self.run(connection, sql, keys).await? {
                Ok(rows) => {
                    for row in &rows {
                        self.values(key, row, slice.clone())?;
                        if first == 0 {
                            self.owner(key, row, slice.len() * JUDGEMENTS)?;
                        }
                    }
                }
                Err(message) => return self.diagnose(connection, key, message).await,
            }
        }
        Ok(())
    }

    /// Looks whether the keys give at once what they give one by one.
    pub(in crate::check) async fn all_at_once(
        &mut self,
        connection: &mut PgConnection,
        keys: &[Key],
    ) -> Result<()> {
        if self.has_errors {
            return Ok(());
        }
        let hint =
            "let each row depend on its own key alone: no limit, window or aggregate over several keys";
        let sql = format!("select count(p) from {}", self.keyed_projection());
        match self.run(connection, sql, keys).await? {
            Ok(rows) => {
                let count: i64 = rows.first().map_or(Ok(0), |row| row.try_get(0)).map_err(reading())?;
                if count.unsigned_abs() != self.report.rows {
                    let message = format!(
                        "for {} keys at once the projection gives {count} rows, and for the same keys one by one {}",
                        keys.len(),
                        self.report.rows
                    );
                    self.fault(About::Together, 0, message, hint);
                }
            }
            Err(message) => {
                let message = format!("the projection fails for {} keys at once: {message}", keys.len());
                self.fault(About::Together, 0, message, hint);
            }
        }
        Ok(())
    }

    fn fault(&mut self, about: About, column: usize, message: String, hint: &str) {
        if self.seen.insert((about, column)) {
            self.report.faults.push(CheckFault { message, hint: hint.to_owned() });
        }
    }

    /// Runs a query; the inner error is the database's message about manifest or data.
    async fn run(
        &self,
        connection: &mut PgConnection,
        sql: String,
        keys: &[Key],
    ) -> Result<std::result::Result<Vec<PgRow>, String>> {
        let query = bind_keys(sqlx::query(AssertSqlSafe(sql)), self.plan, keys);
        let source = match query.fetch_all(&mut *connection).await {
            Ok(rows) => return Ok(Ok(rows)),
            Err(source) => source,
        };
        let words = source.as_database_error().map(|error| error.message().to_owned());
        let error = reading()(source);
        let Some(words) = words.filter(|_| is_about_data(&error)) else { return Err(error) };
        sqlx::raw_sql("rollback to savepoint crossfade_check").execute(connection).await.map_err(reading())?;
        Ok(Err(words))
    }

    /// The projection of the keys that are bound, under the alias `p`.
    fn keyed_projection(&self) -> String {
        format!("({}) as p", self.plan.projection().render(&bound_keys(self.plan, 1)))
    }

    /// The select list that judges values: [`JUDGEMENTS`] for each of these columns.
    fn judgement(&self, slice: Range<usize>) -> Vec<String> {
        let mut list = Vec::new();
        for (column, declared) in self.plan.columns()[slice.clone()].iter().zip(&self.declared[slice]) {
            let changed = changed(column, declared);
            let name = format!("p.{}", quote(&column.name));
            let kept = format!("{name}::{}", declared.new);
            list.push(format!("{kept} is null"));
            list.push(changed.clone());
            for value in [name, kept] {
                list.push(format!(
                    "case when {changed} then left({value}::text, {SHOWN_CHARACTERS_MAX}) end"
                ));
            }
        }
        list
    }

    /// The select list that says whose a row is: whether it is another key's, whose it is, and the new key.
    fn ownership(&self) -> Vec<String> {
        let mut list = Vec::new();
        let scope = || {
            let types = self.plan.key().iter().map(|column| column.sql_type.as_str());
            self.plan.scope().iter().map(|column| format!("p.{}", quote(column))).zip(types)
        };
        let is_own = format!(
            "({}) in ({})",
            scope().map(|(column, sql_type)| format!("{column}::{sql_type}")).collect::<Vec<_>>().join(", "),
            bound_keys(self.plan, 1)
        );
        list.push(format!("{is_own} is not true"));
        list.push(
            scope()
                .map(|(column, _)| format!("coalesce({column}::text, 'NULL')"))
                .collect::<Vec<_>>()
                .join(" || ', ' || "),
        );
        for column in self.row_key() {
            list.push(format!(
                "{}::text",
                travelling(column.kind, &format!("p.{}::{}", quote(&column.name), column.sql_type))
            ));
        }
        list
    }

    fn row_key(&self) -> impl Iterator<Item = &'p ColumnSchema> {
        let plan = self.plan;
        plan.row_key().iter().filter_map(|name| plan.columns().iter().find(|column| column.name == *name))
    }

    fn values(&mut self, key: &Key, row: &PgRow, slice: Range<usize>) -> Result<()> {
        let plan = self.plan;
        for (place, index) in slice.enumerate() {
            let (column, place) = (&plan.columns()[index], place * JUDGEMENTS);
            let is_null: bool = row.try_get(place).map_err(reading())?;
            let is_changed: bool = row.try_get(place + 1).map_err(reading())?;
            let name = &column.name;
            if is_null && (!column.nullable || plan.order().contains(name)) {
                let message =
                    format!("key {key}: the projection gives NULL in column {name}, which may not be NULL");
                let hint = "give a value with coalesce(…), or leave the row out of the projection";
                self.fault(About::Null, index, message, hint);
            }
            if is_changed {
                let shown = |index| row.try_get::<Option<String>, _>(index).map_err(reading());
                let message = format!(
                    "key {key}: column {name} of type {} would keep {} as {}",
                    self.declared[index].new,
                    shown(place + 2)?.unwrap_or_default(),
                    shown(place + 3)?.unwrap_or_default(),
                );
                let hint =
                    "declare the column so that it holds every value, or shorten or round in the projection";
                self.fault(About::Rounding, index, message, hint);
            }
        }
        Ok(())
    }

    /// Looks whose a row is, which the columns from `rest` on say.
    fn owner(&mut self, key: &Key, row: &PgRow, rest: usize) -> Result<()> {
        let plan = self.plan;
        self.report.rows += 1;
        let is_foreign: bool = row.try_get(rest).map_err(reading())?;
        if is_foreign {
            let owner: String = row.try_get(rest + 1).map_err(reading())?;
            let message =
                format!("key {key}: the projection gives a row of key {owner} ({})", plan.scope().join(", "));
            self.fault(About::Scope, 0, message, "give the old row's own key as the scope's columns");
        }
        let texts = (0..plan.row_key().len()).map(|place| row.try_get::<Option<String>, _>(rest + 2 + place));
        let texts = texts.collect::<sqlx::Result<Option<Vec<String>>>>().map_err(reading())?;
        // A NULL in a key has just been reported.
        if let Some(texts) = texts {
            self.once(key, texts);
        }
        Ok(())
    }

    /// Looks whether the row with this key is the only one.
    fn once(&mut self, key: &Key, row_key: Vec<String>) {
        let (names, spelt) = (self.plan.row_key().join(", "), row_key.join(", "));
        let Some(other) = self.owners.insert(row_key, key.clone()) else { return };
        let message = if other == *key {
            format!("key {key}: the projection gives two rows with ({names}) = ({spelt})")
        } else {
            format!("keys {other} and {key} both give a row with ({names}) = ({spelt})")
        };
        let hint = "add what tells them apart to the new table's key, or give one row in the projection";
        self.fault(About::Duplicate, 0, message, hint);
    }

    /// Finds the columns for which a key's rows fail.
    async fn diagnose(&mut self, connection: &mut PgConnection, key: &Key, message: String) -> Result<()> {
        self.has_errors = true;
        let keys = std::slice::from_ref(key);
        // A count of whole rows computes every column; a count of rows alone would leave them out.
        let count = format!("select count(p) from {}", self.keyed_projection());
        if let Err(message) = self.run(connection, count, keys).await? {
            let message = format!("key {key}: the projection fails: {message}");
            self.fault(About::Error, usize::MAX, message, "mend the projection, or the row");
            return Ok(());
        }
        let mut is_found = false;
        for (index, column) in self.plan.columns().iter().enumerate() {
            let sql = format!(
                "select p.{name}::{new} from {projection}",
                name = quote(&column.name),
                new = self.declared[index].new,
                projection = self.keyed_projection(),
            );
            if let Err(message) = self.run(connection, sql, keys).await? {
                let message = format!(
                    "key {key}: the projection gives a value in column {}, which does not fit its type {}: {message}",
                    column.name, self.declared[index].new
                );
                self.fault(About::Error, index, message, "cast it in the projection, or mend the row");
                is_found = true;
            }
        }
        if !is_found {
            let message = format!("key {key}: the projection fails: {message}");
            self.fault(About::Error, usize::MAX, message, "mend the projection, or the row");
        }
        Ok(())
    }
}

/// Whether the declared column would hold another value than the projection gives.
fn changed(column: &ColumnSchema, declared: &Declared) -> String {
    let name = format!("p.{}", quote(&column.name));
    let whole = travelling(column.kind, &format!("{name}::{}", column.sql_type));
    let kept = travelling(column.kind, &format!("{name}::{}", declared.new));
    match &declared.given {
        None => format!("({whole} is distinct from {kept})"),
        Some(given) => {
            format!(
                "({whole} is distinct from {kept} or {name} is distinct from {name}::{}::{given})",
                column.sql_type
            )
        }
    }
}

fn reading() -> impl FnOnce(sqlx::Error) -> Error {
    Error::database("running the projection for sampled keys")
}
