//! Keyed statements on Postgres.
//!
//! The mirror is a function in the database, made when the migration is registered: fence, locks,
//! delete and upsert are one round trip, and each statement inside has a snapshot of its own, taken
//! after the locks before it were granted.

use std::collections::HashMap;
use std::fmt::Write as _;

use arrow::array::RecordBatch;
use futures::FutureExt;
use futures::future::BoxFuture;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Connection, Postgres, Row};

use super::{Direction, Mirror, Mirrored, Subject};
use crate::catalog::{ColumnKind, ColumnSchema};
use crate::control::MigrationId;
use crate::error::{Error, Result};
use crate::fence::postgres::fence_error;
use crate::key::{Key, KeyValue};
use crate::phase::Epoch;
use crate::plan::Plan;
use crate::quote::postgres::{quote, table};
use crate::rows::postgres::{exported, keyed_rows};

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
                _ => bind_keys(query, plan, keys),
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
            let lock = format!(
                "select count(*) from (select 1 {}) as locked",
                lock_rows(plan, &is_in_arrays(plan, &bound_arrays(plan, 1)), "share")
            );
            bind_keys(sqlx::query(AssertSqlSafe(lock)), plan, keys)
                .execute(&mut *connection)
                .await
                .map_err(Error::database(format!("locking rows of {} to copy them", plan.old())))?;
            let insert = insert_statement(plan, &bound_keys(plan, 1));
            // Mostly nothing is there yet, and an insert that need not look first takes half the time. The
            // savepoint takes it back where something is: a batch that is done again, or rows that
            // were written behind crossfade's back.
            let doing = || format!("copying rows into {}", plan.new_table());
            let mut savepoint = connection.begin().await.map_err(Error::database(doing()))?;
            let plain = bind_keys(sqlx::query(AssertSqlSafe(insert.clone())), plan, keys);
            match plain.execute(&mut *savepoint).await {
                Ok(done) => {
                    savepoint.commit().await.map_err(Error::database(doing()))?;
                    return Ok(done.rows_affected());
                }
                Err(error) if is_unique_violation(&error) => {
                    savepoint.rollback().await.map_err(Error::database(doing()))?;
                }
                Err(error) => return Err(Error::database(doing())(error)),
            }
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
            let mut differing = rows.iter().map(key).collect::<Result<Vec<_>>>()?;
            // In the order in which they were asked for, as on every engine.
            let places: HashMap<_, _> = keys.iter().enumerate().map(|(place, key)| (key, place)).collect();
            differing.sort_by_key(|key| places.get(key));
            Ok(differing)
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

/// The statements that create what a migration needs in the database: its lock, mirror and reverse
/// functions. They replace those of an earlier registration.
pub(crate) fn functions(id: MigrationId, plan: &Plan) -> Vec<String> {
    let mut functions = vec![lock_function(id, plan)];
    for shape in [Shape::One, Shape::Many] {
        functions.extend([mirror_function(id, plan, shape), reverse_function(id, plan, shape)]);
    }
    functions
}

/// How a function takes its keys. A list of keys is planned for an unknown number of them; for one
/// key, which is what a write mostly has, the same statements with plain parameters cost a quarter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    One,
    Many,
}

impl Shape {
    fn suffix(self) -> &'static str {
        match self {
            Shape::One => "_one",
            Shape::Many => "",
        }
    }

    fn parameters(self, plan: &Plan) -> String {
        let of = match self {
            Shape::One => "text",
            Shape::Many => "text[]",
        };
        let list: Vec<_> = (1..=plan.key().len()).map(|number| format!("crossfade_k{number} {of}")).collect();
        list.join(", ")
    }

    fn declarations(self, plan: &Plan) -> String {
        let list = plan.key().iter().enumerate().map(|(index, column)| {
            let of = match self {
                Shape::One => column.sql_type.clone(),
                Shape::Many => format!("{}[]", column.sql_type),
            };
            format!("crossfade_c{0} {of} := crossfade_k{0}::{of};", index + 1)
        });
        list.collect::<Vec<_>>().join("\n    ")
    }

    /// What stands in place of `:keys` inside a function.
    fn keys(self, plan: &Plan) -> String {
        let list: Vec<_> = (1..=plan.key().len()).map(|number| format!("crossfade_c{number}")).collect();
        match (self, list.as_slice()) {
            (Shape::One, [only]) => only.clone(),
            (Shape::One, several) => format!("row({})", several.join(", ")),
            (Shape::Many, [only]) => format!("select unnest({only})"),
            (Shape::Many, several) => format!("select * from unnest({})", several.join(", ")),
        }
    }

    /// Statements that lock the old rows of the keys, in key order.
    ///
    /// A key without an old row cannot be locked by row, so that two writers who create it at once
    /// would each mirror only what they see themselves. It is locked by name instead, and the rows are
    /// locked again: by then the one who came first has committed, and its row is there.
    fn lock(self, id: MigrationId, plan: &Plan) -> String {
        let id = id.0;
        match self {
            Shape::One => {
                let same: Vec<_> = plan
                    .key()
                    .iter()
                    .enumerate()
                    .map(|(index, column)| format!("o.{} = crossfade_c{}", quote(&column.name), index + 1))
                    .collect();
                let lock = lock_rows(plan, &same.join(" and "), "no key update");
                let texts: Vec<_> =
                    (1..=plan.key().len()).map(|number| format!("crossfade_c{number}::text")).collect();
                format!(
                    "perform 1 {lock};
    if not found then
        perform pg_advisory_xact_lock(hashtextextended(array[{texts}]::text, {id}));
        perform 1 {lock};
    end if;",
                    texts = texts.join(", "),
                )
            }
            Shape::Many => {
                let arguments: Vec<_> =
                    (1..=plan.key().len()).map(|number| format!("crossfade_k{number}")).collect();
                format!("perform crossfade.lock_{}({});", plan.name(), arguments.join(", "))
            }
        }
    }

    /// Whether a function's plans depend on its arguments: those of a list are never worth the time to
    /// make, and the database would make them anew for each call.
    fn settings(self) -> &'static str {
        match self {
            Shape::One => "",
            Shape::Many => "set plan_cache_mode = force_generic_plan ",
        }
    }
}

async fn lock(connection: &mut sqlx::PgConnection, subject: &Subject, keys: &[Key]) -> Result<()> {
    let plan = &subject.plan;
    let binds: Vec<_> = (1..=plan.key().len()).map(|number| format!("${number}")).collect();
    let sql = format!("select crossfade.lock_{}({})", plan.name(), binds.join(", "));
    bind_keys(sqlx::query(AssertSqlSafe(sql)), plan, keys)
        .execute(connection)
        .await
        .map_err(Error::database(format!("locking rows of {}", plan.old())))?;
    Ok(())
}

/// Locks a list of keys: see [`Shape::lock`].
fn lock_function(id: MigrationId, plan: &Plan) -> String {
    let shape = Shape::Many;
    let numbers = 1..=plan.key().len();
    let texts: Vec<_> = numbers.clone().map(|number| format!("crossfade_k.c{number}::text")).collect();
    let names: Vec<_> = numbers.clone().map(|number| format!("c{number}")).collect();
    let variables: Vec<_> = numbers.map(|number| format!("crossfade_c{number}")).collect();
    let same: Vec<_> = plan
        .key()
        .iter()
        .enumerate()
        .map(|(index, column)| format!("o.{} = crossfade_k.c{}", quote(&column.name), index + 1))
        .collect();
    let body = format!(
        "declare
    {declarations}
    crossfade_key text;
begin
    for crossfade_try in 1..2 loop
        perform count(*) from (select 1 {lock}) as locked;
        if crossfade_try = 1 then
            for crossfade_key in
                select array[{texts}]::text from unnest({variables}) as crossfade_k({names})
                where not exists (select 1 from {old} as o where {same})
                order by 1
            loop
                perform pg_advisory_xact_lock(hashtextextended(crossfade_key, {id}));
            end loop;
            exit when not found;
        end if;
    end loop;
end",
        declarations = shape.declarations(plan),
        lock = lock_rows(plan, &is_in_arrays(plan, &variables), "no key update"),
        texts = texts.join(", "),
        variables = variables.join(", "),
        names = names.join(", "),
        old = table(plan.old()),
        same = same.join(" and "),
        id = id.0,
    );
    let settings = format!("returns void {}", shape.settings());
    function(&format!("lock_{}", plan.name()), &shape.parameters(plan), &settings, &body)
}

fn mirror_function(id: MigrationId, plan: &Plan, shape: Shape) -> String {
    let keys = shape.keys(plan);
    let projection = plan.projection().render(&keys);
    let same: Vec<_> = plan
        .row_key()
        .iter()
        .filter_map(|name| plan.columns().iter().find(|column| column.name == *name))
        .map(|column| format!("p.{0}::{1} = t.{0}", quote(&column.name), column.sql_type))
        .collect();
    // Under a snapshot of the whole transaction the projection may be older than the wait for the lock. A
    // new row that another mirror has changed or removed since cannot be locked then: the call fails
    // with 40001, where it would else write back what it still sees.
    let statements = format!(
        "if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
        perform 1 from {new} as t where {scope} for update;
    end if;
    delete from {new} as t
    where {scope} and not exists (select 1 from ({projection}) as p where {same});
    get diagnostics removed = row_count;
    {insert}
    on conflict ({conflict}) {resolution};
    get diagnostics written = row_count;",
        new = table(plan.new_table()),
        scope = scope_filter(plan, "t", &keys),
        same = same.join(" and "),
        insert = insert_statement(plan, &keys),
        conflict = quoted(plan.row_key()),
        resolution = resolution(plan),
    );
    fenced_function("mirror", id, plan, shape, "", &statements)
}

fn reverse_function(id: MigrationId, plan: &Plan, shape: Shape) -> String {
    let mut statements = "written := 0;\n    removed := 0;\n".to_owned();
    for statement in plan.reverse() {
        // Writing to a String cannot fail.
        let _ = write!(
            statements,
            "    {};\n    get diagnostics crossfade_rows = row_count;\n    written := written + crossfade_rows;\n",
            statement.render(&shape.keys(plan)).trim_end()
        );
    }
    fenced_function("reverse", id, plan, shape, "crossfade_rows bigint;", &statements)
}

/// A function that fences, locks its keys, runs the statements, and returns how many rows they touched.
fn fenced_function(
    what: &str,
    id: MigrationId,
    plan: &Plan,
    shape: Shape,
    variables: &str,
    statements: &str,
) -> String {
    let body = format!(
        "declare
    {declarations}
    {variables}
begin
    perform crossfade.fence({id}, crossfade_epoch);
    {lock}
    {statements}
    return next;
end",
        declarations = shape.declarations(plan),
        id = id.0,
        lock = shape.lock(id, plan),
    );
    function(
        &format!("{what}{}_{}", shape.suffix(), plan.name()),
        &format!("crossfade_epoch bigint, {}", shape.parameters(plan)),
        &format!("returns table (written bigint, removed bigint) {}", shape.settings()),
        &body,
    )
}

fn function(name: &str, parameters: &str, returns: &str, body: &str) -> String {
    // The manifest's statements may hold dollar quotes of their own; the tag must not be one of them.
    let tag = (0..).map(|number| format!("$crossfade{number}$")).find(|tag| !body.contains(tag.as_str()));
    let tag = tag.unwrap_or_default();
    format!(
        "create or replace function crossfade.{name}({parameters}) {returns} language plpgsql volatile as {tag}\n\
         #variable_conflict use_column\n{body}\n{tag}"
    )
}

/// What stands in place of `:keys` in a statement whose parameters from `first` on are the key's
/// columns, each a list of texts.
pub(crate) fn bound_keys(plan: &Plan, first: usize) -> String {
    match bound_arrays(plan, first).as_slice() {
        [only] => format!("select unnest({only})"),
        several => format!("select * from unnest({})", several.join(", ")),
    }
}

pub(crate) fn bind_keys<'q>(
    mut query: Query<'q, Postgres, PgArguments>,
    plan: &Plan,
    keys: &[Key],
) -> Query<'q, Postgres, PgArguments> {
    for index in 0..plan.key().len() {
        let column: Vec<String> = keys.iter().map(|key| key.values()[index].to_string()).collect();
        query = query.bind(column);
    }
    query
}

/// The rest of a statement that locks the old rows that `condition` picks. They are sorted below the
/// lock, so that every transaction locks in the same order.
fn lock_rows(plan: &Plan, condition: &str, strength: &str) -> String {
    let columns: Vec<_> = plan.key().iter().map(|column| format!("o.{}", quote(&column.name))).collect();
    format!(
        "from {} as o where {condition} order by {} for {strength}",
        table(plan.old()),
        columns.join(", ")
    )
}

/// Picks old rows whose keys are in these arrays, one for each column of the key. One array is searched
/// in the index in its order; joining it, as `:keys` has to, takes three times as long.
fn is_in_arrays(plan: &Plan, arrays: &[String]) -> String {
    match (plan.key(), arrays) {
        ([column], [array]) => format!("o.{} = any({array})", quote(&column.name)),
        (columns, arrays) => {
            let columns: Vec<_> = columns.iter().map(|column| format!("o.{}", quote(&column.name))).collect();
            format!("({}) in (select * from unnest({}))", columns.join(", "), arrays.join(", "))
        }
    }
}

/// The key's columns as parameters from `first` on, each a list of texts, in the columns' own types.
fn bound_arrays(plan: &Plan, first: usize) -> Vec<String> {
    let cast = |(index, column): (usize, &ColumnSchema)| {
        format!("${}::text[]::{}[]", first + index, column.sql_type)
    };
    plan.key().iter().enumerate().map(cast).collect()
}

fn scope_filter(plan: &Plan, alias: &str, keys: &str) -> String {
    let columns: Vec<_> = plan.scope().iter().map(|column| format!("{alias}.{}", quote(column))).collect();
    format!("({}) in ({keys})", columns.join(", "))
}

fn insert_statement(plan: &Plan, keys: &str) -> String {
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
fn resolution(plan: &Plan) -> String {
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

fn quoted(names: &[String]) -> String {
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
