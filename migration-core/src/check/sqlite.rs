//! Proof of a manifest on SQLite.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Row, Sqlite};

use super::constraints::sqlite::violations;
use super::dependence::sqlite::dependence;
use super::{CheckFault, CheckReport, Proof};
use crate::cell::sqlite::{Cell, Layout, as_stored, decode, raw};
use crate::connect::Connected;
use crate::error::{Error, Result};
use crate::fence::Fence;
use crate::key::Key;
use crate::mirror::Subject;
use crate::mirror::sqlite::{bind_cell, bound, follow_new, follow_old, projection};
use crate::phase::Side;
use crate::plan::Plan;
use crate::quote::sqlite::{list, quote, table};
use crate::rows::sqlite::keyed_rows;

#[async_trait]
impl Proof for Connected<Sqlite> {
    async fn sample_keys(&self, subject: &Subject, count: u32) -> Result<Vec<Key>> {
        let plan = &subject.plan;
        let names: Vec<_> = plan.key().iter().map(|column| &column.name).collect();
        let key = list("", names);
        // Of the n-th row of N, n * count mod N is below count for just count rows, evenly spread.
        let sql = format!(
            "select {key} from (
                 select {key}, row_number() over (order by {key}) - 1 as crossfade_position,
                        count(*) over () as crossfade_total
                 from {old})
             where crossfade_position * ?1 % crossfade_total < ?1
             order by {key} limit ?1",
            old = table(plan.old()),
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(count)
            .fetch_all(&self.pool)
            .await
            .map_err(Error::database(format!("sampling keys of {}", plan.old())))?;
        let layout = Layout::of_key(plan);
        rows.iter()
            .map(|row| {
                let values = layout.row(row)?;
                Ok(Key::new(values.iter().filter_map(Cell::key_value)))
            })
            .collect()
    }

    async fn check_projection(&self, subject: &Subject, keys: &[Key]) -> Result<CheckReport> {
        let plan = &subject.plan;
        // Queries only, as subqueries of ours; and never committed.
        let mut transaction = self.pool.begin().await.map_err(Error::database("beginning a check"))?;
        let mut check =
            Check { plan, report: CheckReport::default(), seen: HashSet::new(), owners: HashMap::new() };
        if let [key, ..] = keys {
            check.explain(&mut transaction, key).await?;
            check.report.warnings = dependence(&mut transaction, plan, key).await?;
        }
        for key in keys {
            check.key(&mut transaction, key).await?;
        }
        transaction.rollback().await.map_err(Error::database("ending a check"))?;
        check.report.faults.extend(violations(&self.pool.connect_options(), plan, keys).await?);
        Ok(check.report)
    }

    async fn check_reverse(&self, subject: &Subject, keys: &[Key]) -> Result<CheckReport> {
        let plan = &subject.plan;
        let mut report = CheckReport::default();
        if plan.reverse().is_empty() {
            return Ok(report);
        }
        for key in keys {
            // One transaction for each key: writers wait for one key at most, not for all of them.
            let mut transaction = Sqlite::begin_write(&self.pool).await?;
            let found = reverse_one(&mut transaction, plan, key, &mut report).await;
            transaction.rollback().await.map_err(Error::database("ending a check of the reverse path"))?;
            report.keys += 1;
            let fault = match found {
                Ok(None) => continue,
                Ok(Some(fault)) => fault,
                Err(error) if error.is_retryable() => return Err(error),
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

/// What a fault is about; each is reported once for each column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum About {
    Type,
    Rounding,
    Null,
    Duplicate,
    Scope,
}

struct Check<'p> {
    plan: &'p Plan,
    report: CheckReport,
    seen: HashSet<(About, usize)>,
    owners: HashMap<Vec<String>, Key>,
}

impl Check<'_> {
    fn fault(&mut self, about: About, column: usize, message: String, hint: &str) {
        if self.seen.insert((about, column)) {
            self.report.faults.push(CheckFault { message, hint: hint.to_owned() });
        }
    }

    async fn explain(&mut self, connection: &mut SqliteConnection, key: &Key) -> Result<()> {
        let plan = self.plan;
        let keys = std::slice::from_ref(key);
        let query = format!("select * from {}", projection(plan, keys));
        let doing = "explaining the projection";
        let steps = bound(format!("explain query plan {query}"), plan, keys)?
            .fetch_all(&mut *connection)
            .await
            .map_err(Error::database(doing))?;
        let details: Result<Vec<String>, _> = steps.iter().map(|step| step.try_get("detail")).collect();
        self.report.explain = details.map_err(Error::database(doing))?.join("\n");

        // The plan names tables by their aliases. The program behind it names them by the page on
        // which they begin, and `Rewind` and `Last` are how it starts to read a whole one.
        let catalogue = match &plan.old().schema {
            Some(schema) => format!("{}.sqlite_schema", quote(schema)),
            None => "sqlite_schema".to_owned(),
        };
        let pages: Vec<i64> = sqlx::query_scalar(AssertSqlSafe(format!(
            "select rootpage from {catalogue} where tbl_name = ?1 collate nocase and rootpage > 0"
        )))
        .bind(&plan.old().table)
        .fetch_all(&mut *connection)
        .await
        .map_err(Error::database(doing))?;
        let program = bound(format!("explain {query}"), plan, keys)?
            .fetch_all(&mut *connection)
            .await
            .map_err(Error::database(doing))?;
        let mut cursors = HashSet::new();
        for step in &program {
            let read = || Ok((step.try_get("opcode")?, step.try_get("p1")?, step.try_get("p2")?));
            let (opcode, cursor, page): (String, i64, i64) = read().map_err(Error::database(doing))?;
            match opcode.as_str() {
                "OpenRead" if pages.contains(&page) => {
                    cursors.insert(cursor);
                }
                "Rewind" | "Last" if cursors.contains(&cursor) => self.report.is_scan = true,
                _ => {}
            }
        }
        if self.report.is_scan {
            let names: Vec<_> = plan.key().iter().map(|column| column.name.clone()).collect();
            self.report.faults.push(CheckFault {
                message: format!(
                    "for one key, the projection reads the whole of table {}: {}",
                    plan.old(),
                    self.report.explain.replace('\n', "; ")
                ),
                hint: format!(
                    "filter by the key's own columns, as in `where {} in (:keys)`, so that its index is used",
                    match names.as_slice() {
                        [name] => name.clone(),
                        names => format!("({})", names.join(", ")),
                    }
                ),
            });
        }
        Ok(())
    }

    /// Looks at what the projection gives for one key; alone, so that a row that belongs to another
    /// sampled key shows as well.
    async fn key(&mut self, connection: &mut SqliteConnection, key: &Key) -> Result<()> {
        let plan = self.plan;
        let columns = plan.columns();
        let stored: Vec<_> =
            columns.iter().map(|column| as_stored(&format!("p.{}", quote(&column.name)), column)).collect();
        let plain: Vec<_> = columns.iter().map(|column| format!("p.{}", quote(&column.name))).collect();
        let keys = std::slice::from_ref(key);
        let sql = format!(
            "select {}, {} from {} as p",
            stored.join(", "),
            plain.join(", "),
            projection(plan, keys)
        );
        let rows = bound(sql, plan, keys)?
            .fetch_all(&mut *connection)
            .await
            .map_err(Error::database(format!("running the projection for key {key}")))?;
        self.report.keys += 1;
        for row in &rows {
            self.report.rows += 1;
            let mut cells = Vec::with_capacity(columns.len());
            for (index, column) in columns.iter().enumerate() {
                let is_key = plan.order().contains(&column.name);
                let stored = raw(row, index)?;
                let given = raw(row, columns.len() + index)?;
                let name = &column.name;
                if matches!(stored, Cell::Null) {
                    if is_key || !column.nullable {
                        self.fault(
                            About::Null,
                            index,
                            format!(
                                "key {key}: the projection gives NULL in column {name}, which may not be NULL"
                            ),
                            "give a value with coalesce(…), or leave the row out of the projection",
                        );
                    }
                } else if is_rounded(&given, &stored) {
                    self.fault(
                        About::Rounding,
                        index,
                        format!(
                            "key {key}: column {name} of type {} would keep {} as {}",
                            column.sql_type,
                            given.show(),
                            stored.show()
                        ),
                        "declare the column as text or integer, or round in the projection",
                    );
                }
                // A NULL in a key has just been reported.
                let is_strict = is_key && stored != Cell::Null;
                match decode(stored.into_owned(), column, is_strict) {
                    Ok(cell) => cells.push(cell),
                    Err(cell) => {
                        self.fault(
                            About::Type,
                            index,
                            format!(
                                "key {key}: the projection gives {} in column {name}, which does not fit its type {}",
                                cell.show(),
                                column.sql_type
                            ),
                            "cast it in the projection, or mend the row",
                        );
                        cells.push(cell);
                    }
                }
            }
            self.row(key, &cells);
        }
        Ok(())
    }

    /// Looks whose a row is.
    fn row(&mut self, key: &Key, cells: &[Cell<'_>]) {
        let plan = self.plan;
        let pick = |names: &[String]| -> Vec<&Cell<'_>> {
            names
                .iter()
                .filter_map(|name| plan.columns().iter().position(|column| column.name == *name))
                .map(|index| &cells[index])
                .collect()
        };
        let scope = pick(plan.scope());
        if scope.iter().any(|cell| matches!(cell, Cell::Null)) {
            return;
        }
        let owner = Key::new(scope.iter().filter_map(|cell| cell.key_value()));
        if owner != *key {
            self.fault(
                About::Scope,
                0,
                format!("key {key}: the projection gives a row of key {owner} ({})", plan.scope().join(", ")),
                "give the old row's own key as the scope's columns",
            );
        }
        let row_key: Vec<_> = pick(plan.row_key()).iter().map(|cell| cell.show()).collect();
        let spelt = row_key.join(", ");
        if let Some(other) = self.owners.insert(row_key, key.clone()) {
            let message = if other == *key {
                format!(
                    "key {key}: the projection gives two rows with ({}) = ({spelt})",
                    plan.row_key().join(", ")
                )
            } else {
                format!(
                    "keys {other} and {key} both give a row with ({}) = ({spelt})",
                    plan.row_key().join(", ")
                )
            };
            self.fault(
                About::Duplicate,
                0,
                message,
                "add what tells them apart to the new table's key, or give one row in the projection",
            );
        }
    }
}

/// Whether a number lost digits on its way into its column: more than a floating point number has, or
/// more than the text of one.
fn is_rounded(given: &Cell<'_>, stored: &Cell<'_>) -> bool {
    match (given, stored) {
        (Cell::Text(text), Cell::Real(number)) => digits(text) != digits(&format!("{number:e}")),
        (Cell::Real(number), Cell::Text(text)) => text.parse() != Ok(*number),
        _ => false,
    }
}

/// A decimal number's sign, its digits without zeros at the ends, and the exponent of the first.
fn digits(text: &str) -> Option<(bool, String, i64)> {
    let text = text.trim();
    let is_negative = text.starts_with('-');
    let text = text.trim_start_matches(['+', '-']);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let leading = all.len() - all.trim_start_matches('0').len();
    let significant = all.trim_matches('0').to_owned();
    if significant.is_empty() {
        return Some((false, significant, 0));
    }
    Some((is_negative, significant, exponent + whole.len() as i64 - leading as i64))
}

async fn reverse_one(
    connection: &mut SqliteConnection,
    plan: &Plan,
    key: &Key,
    report: &mut CheckReport,
) -> Result<Option<CheckFault>> {
    let keys = std::slice::from_ref(key);
    follow_old(connection, plan, keys).await?;
    let before = keyed_rows(connection, plan, Side::Old, keys).await?;
    report.rows += before.len() as u64;
    follow_new(connection, plan, keys).await?;
    if keyed_rows(connection, plan, Side::Old, keys).await? != before {
        return Ok(Some(CheckFault {
            message: format!(
                "key {key}: after reversing rows that were just projected, the projection gives other rows"
            ),
            hint: "make mapping.reverse the inverse of mapping.projection".to_owned(),
        }));
    }
    let Some(row) = keyed_rows(connection, plan, Side::New, keys).await?.into_iter().next() else {
        return Ok(None);
    };
    let picked = plan.row_key().iter().filter_map(|name| {
        let index = plan.columns().iter().position(|column| column.name == *name)?;
        Some((&plan.columns()[index], &row[index]))
    });
    let conditions = (1..=plan.row_key().len())
        .zip(plan.row_key())
        .map(|(number, name)| format!("{} = ?{number}", quote(name)))
        .collect::<Vec<_>>()
        .join(" and ");
    let sql = format!("delete from {} where {conditions}", table(plan.new_table()));
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for (column, cell) in picked {
        query = bind_cell(query, cell, column);
    }
    query.execute(&mut *connection).await.map_err(Error::database("taking a new row away"))?;
    follow_new(connection, plan, keys).await?;
    let expected = keyed_rows(connection, plan, Side::New, keys).await?;
    if keyed_rows(connection, plan, Side::Old, keys).await? != expected {
        return Ok(Some(CheckFault {
            message: format!(
                "key {key}: after a new row was deleted and reversed, the projection does not follow"
            ),
            hint: "let mapping.reverse write the whole of a key, and also when none of its new rows is left"
                .to_owned(),
        }));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_by_their_digits() {
        for (a, b) in
            [("1.50", "1.5e0"), ("0.001", "1e-3"), ("-1200", "-1.2e3"), ("0", "-0e0"), ("+7", "7.0")]
        {
            assert_eq!(digits(a), digits(b), "{a} {b}");
        }
        assert_ne!(digits("12345678901234567890"), digits("1.2345678901234567e19"));
        assert!(is_rounded(
            &Cell::Text("0.12345678901234567890".into()),
            &Cell::Real(0.123_456_789_012_345_68)
        ));
        assert!(is_rounded(&Cell::Real(0.1 + 0.2), &Cell::Text("0.3".into())));
        assert!(!is_rounded(&Cell::Text("1.25".into()), &Cell::Real(1.25)));
    }
}
