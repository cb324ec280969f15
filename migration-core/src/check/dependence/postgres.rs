//! What a projection's values depend on in Postgres.
//!
//! A catalogue cannot tell: most casts from and to text are declared to depend on the session, whatever is cast. So the
//! sampled rows are computed again under other settings, within the transaction that sees the same data, and compared byte by
//! byte in the form in which values travel, which depends on no setting. What only another moment would show is found by
//! the names of the functions that are called.

use std::collections::HashSet;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row};

use super::{called, words};
use crate::check::CheckFault;
use crate::check::postgres::is_about_data;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::mirror::postgres::{bind_keys, bound_keys};
use crate::plan::Plan;
use crate::quote::postgres::{literal, quote};

/// Settings that values may depend on, each with two values that are far apart and valid everywhere.
const SETTINGS: &[Setting] = &[
    // A day and two hours lie between the two: no date is the same in both.
    Setting {
        name: "TimeZone",
        values: &["<-12>+12", "<+14>-14"],
        hint: "say the zone, as in `(at at time zone 'UTC')::date`",
    },
    Setting {
        name: "DateStyle",
        values: &["ISO, DMY", "SQL, MDY"],
        hint: "read and write dates with a pattern: to_date(…), to_timestamp(…), to_char(…)",
    },
    Setting {
        name: "IntervalStyle",
        values: &["postgres", "iso_8601"],
        hint: "write intervals with to_char(…)",
    },
    Setting { name: "bytea_output", values: &["hex", "escape"], hint: "write bytes with encode(…)" },
    Setting {
        name: "extra_float_digits",
        values: &["1", "-15"],
        hint: "keep the number a number, or round it in the projection",
    },
    Setting {
        name: "lc_numeric",
        values: &["C"],
        hint: "use patterns that know no locale, such as 0 and . in place of D and G",
    },
    Setting { name: "lc_monetary", values: &["C"], hint: "cast money to numeric in a column of its own" },
    Setting { name: "lc_time", values: &["C"], hint: "use patterns without TM" },
];

struct Setting {
    name: &'static str,
    /// The session's own is compared too.
    values: &'static [&'static str],
    hint: &'static str,
}

/// Functions and values that differ from one moment or user to the next and not within a transaction, in which they
/// therefore look constant. With a bracket behind it where a name without one means a column.
const MOMENTARY: &[(&str, bool)] = &[
    ("now", true),
    ("transaction_timestamp", true),
    ("statement_timestamp", true),
    ("current_date", false),
    ("current_time", false),
    ("current_timestamp", false),
    ("localtime", false),
    ("localtimestamp", false),
    ("current_user", false),
    ("session_user", false),
    ("current_role", false),
    ("current_setting", true),
    ("pg_backend_pid", true),
];

/// Column by column, the values of all rows in an order of their own.
type Values = Vec<Vec<Option<Vec<u8>>>>;

/// Warns of what the projection depends on besides the old rows. The connection is in a transaction that reads one snapshot.
pub(in crate::check) async fn dependence(
    connection: &mut PgConnection,
    plan: &Plan,
    keys: &[Key],
) -> Result<Vec<CheckFault>> {
    let mut warnings = named(connection, plan).await?;
    let Ok(usual) = computed(connection, plan, keys, None).await? else {
        // That it fails is reported elsewhere.
        return Ok(warnings);
    };
    let Ok(again) = computed(connection, plan, keys, None).await? else { return Ok(warnings) };
    let mut known = HashSet::new();
    for (name, _) in differing(plan, &usual, &again, &mut known) {
        warnings.push(CheckFault {
            message: format!("column {name} is another each time it is computed, for the same old row"),
            hint: "let it depend on the old row alone; a default of the new table's column is set once"
                .to_owned(),
        });
    }
    for setting in SETTINGS {
        let mut before = ("the session's own", usual.clone());
        for value in setting.values {
            let Setting { name, hint, .. } = setting;
            match computed(connection, plan, keys, Some((name, value))).await? {
                Err(words) => warnings.push(CheckFault {
                    message: format!("the projection fails where {name} is {value}: {words}"),
                    hint: (*hint).to_owned(),
                }),
                Ok(values) => {
                    for (column, is_count) in differing(plan, &before.1, &values, &mut known) {
                        let what = if is_count {
                            "which rows it gives".to_owned()
                        } else {
                            format!("column {column}")
                        };
                        warnings.push(CheckFault {
                            message: format!(
                                "{what} depends on the session's {name}: it is another with {value} than with {}",
                                before.0
                            ),
                            hint: format!("{hint}; services, jobs and operators need not have the same settings"),
                        });
                    }
                    before = (value, values);
                }
            }
        }
    }
    Ok(warnings)
}

/// The columns in which the values differ that have not been told yet; one that stands for the rows where their number does.
fn differing(plan: &Plan, one: &Values, other: &Values, known: &mut HashSet<String>) -> Vec<(String, bool)> {
    let count = |values: &Values| values.first().map_or(0, Vec::len);
    let found = if count(one) == count(other) {
        let columns = plan.columns().iter().zip(one.iter().zip(other));
        columns
            .filter(|(_, (one, other))| one != other)
            .map(|(column, _)| (column.name.clone(), false))
            .collect()
    } else {
        vec![(String::new(), true)]
    };
    found.into_iter().filter(|(name, _): &(String, bool)| known.insert(name.clone())).collect()
}

/// What the projection gives for the keys, in the new table's types; the inner error is the database's on the data.
async fn computed(
    connection: &mut PgConnection,
    plan: &Plan,
    keys: &[Key],
    setting: Option<(&str, &str)>,
) -> Result<std::result::Result<Values, String>> {
    let failed = || Error::database("computing the projection under other settings");
    let columns =
        plan.columns().iter().map(|column| format!("p.{}::{}", quote(&column.name), column.sql_type));
    let query = format!(
        "select {} from ({}) as p",
        columns.collect::<Vec<_>>().join(", "),
        plan.projection().render(&bound_keys(plan, 1))
    );
    let begin = match setting {
        None => "savepoint crossfade_setting".to_owned(),
        Some((name, value)) => format!("savepoint crossfade_setting; set local {name} = {}", literal(value)),
    };
    sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut *connection).await.map_err(failed())?;
    // Not kept as a prepared statement: constants in it are read under the settings of the moment.
    let statement = bind_keys(sqlx::query(AssertSqlSafe(query)), plan, keys).persistent(false);
    let outcome = statement.fetch_all(&mut *connection).await;
    let end = "rollback to savepoint crossfade_setting";
    sqlx::raw_sql(end).execute(connection).await.map_err(failed())?;
    let rows = match outcome {
        Ok(rows) => rows,
        Err(source) => {
            let words = source.as_database_error().map(|error| error.message().to_owned());
            let error = failed()(source);
            return match words.filter(|_| is_about_data(&error)) {
                Some(words) => Ok(Err(words)),
                None => Err(error),
            };
        }
    };
    let mut values: Values = vec![Vec::with_capacity(rows.len()); plan.columns().len()];
    for row in &rows {
        for (index, column) in values.iter_mut().enumerate() {
            let value = row.try_get_raw(index).map_err(failed())?;
            let bytes = value.as_bytes().ok().map(<[u8]>::to_vec);
            column.push(bytes);
        }
    }
    // Rows come in any order.
    values.iter_mut().for_each(|column| column.sort());
    Ok(Ok(values))
}

/// Warns of functions that are called by name.
async fn named(connection: &mut PgConnection, plan: &Plan) -> Result<Vec<CheckFault>> {
    let words = words(&plan.projection().render(""));
    let calls: Vec<&String> = words.iter().filter(|(_, is_call)| *is_call).map(|(word, _)| word).collect();
    // A name that has a function for every occasion counts only if none of them may be relied on.
    let volatile: Vec<String> = sqlx::query_scalar(
        "select proname::text from pg_catalog.pg_proc where proname = any($1) and prokind = 'f'
         group by proname having bool_and(provolatile = 'v') order by proname",
    )
    .bind(calls)
    .fetch_all(connection)
    .await
    .map_err(Error::database("looking up the functions of the projection"))?;
    let chance = "more than its arguments (it is declared volatile)";
    let mut warnings: Vec<_> = volatile.iter().map(|name| called(&format!("{name}()"), chance)).collect();
    let momentary = MOMENTARY.iter().filter(|(name, is_call)| {
        words.contains(&((*name).to_owned(), true))
            || (!is_call && words.contains(&((*name).to_owned(), false)))
    });
    warnings.extend(momentary.map(|(name, is_call)| {
        let function = if *is_call { format!("{name}()") } else { (*name).to_owned() };
        called(&function, "the moment and the session")
    }));
    Ok(warnings)
}
