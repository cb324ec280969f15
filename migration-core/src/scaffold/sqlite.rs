//! The statements of a scaffold in SQLite's SQL.

use super::Statements;
use super::guess::{Field, Guess, Shape, Source};
use super::page::{columns, lines};
use super::postgres::row_reverse;
use super::spelling::Spelling;
use crate::catalog::{ColumnKind, ColumnSchema};
use crate::quote::sqlite::{literal, plain, plain_table};

/// A function takes at most a hundred arguments in older versions: two for each field of an object, and one for
/// the object that they are put into.
const FIELDS_MAX: usize = 49;

/// How names are written here.
const SPELLING: Spelling = Spelling { plain, plain_table };

pub(super) fn statements(guess: &Guess<'_>) -> Statements {
    let old = SPELLING.old_table(guess);
    let keys = SPELLING.tuple("", &guess.key);
    match guess.shape {
        Shape::Row => Statements {
            projection: projection(guess, ""),
            reverse: row_reverse(guess, SPELLING, |value, _, _| value),
            removal: Some(format!(
                "delete from {old} as o\nwhere {in_keys}\n  and not exists (select 1 from {new} as n where {same})",
                in_keys = SPELLING.in_keys("o.", &guess.key),
                new = SPELLING.new_table(guess),
                same = SPELLING.same_key(guess),
            )),
            retire: format!("delete from {old}\nwhere {keys} in (:keys)"),
        },
        Shape::Array(array) => Statements {
            projection: projection(guess, &elements(array)),
            reverse: Some(array_reverse(guess, array)),
            removal: None,
            retire: format!(
                "update {old}\nset {array} = {empty}\nwhere {keys} in (:keys)",
                empty = if array.kind == ColumnKind::Bytes { "jsonb('[]')" } else { "'[]'" },
                array = plain(&array.name),
            ),
        },
    }
}

fn projection(guess: &Guess<'_>, join: &str) -> String {
    let named = |expression: String, name: &str| {
        let name = plain(name);
        // Without a name of its own, a column's name is not promised.
        format!("{expression} as {name}")
    };
    let scope = guess
        .key
        .iter()
        .zip(&guess.scope)
        .map(|(key, name)| (named(format!("o.{}", plain(key)), name), None));
    let fields =
        guess.fields.iter().map(|field| (named(source(field), &field.column.name), guess.doubt(field)));
    format!(
        "select {columns}\nfrom {old} as o{join}\nwhere {in_keys}",
        columns = columns(&scope.chain(fields).collect::<Vec<_>>()),
        old = SPELLING.old_table(guess),
        in_keys = SPELLING.in_keys("o.", &guess.key),
    )
}

fn elements(array: &ColumnSchema) -> String {
    // The order of a cross join is kept: from the old row to its elements.
    format!("\ncross join json_each(o.{}) as s", plain(&array.name))
}

/// The expression that gives a field's value.
fn source(field: &Field<'_>) -> String {
    match field.source {
        Source::Column(old) => format!("o.{}", plain(&old.name)),
        Source::Element => element(field.column),
        Source::Unknown => "null".to_owned(),
    }
}

fn element(column: &ColumnSchema) -> String {
    let path = path(&column.name);
    if column.kind == ColumnKind::Bytes {
        format!("unhex(s.value ->> {path})")
    } else if is_json(column) {
        // A null of JSON is a value; what the new table means is that there is none.
        format!("nullif(s.value -> {path}, 'null')")
    } else {
        format!("s.value ->> {path}")
    }
}

/// The value of a new column as JSON is to hold it.
fn json_value(column: &ColumnSchema) -> String {
    let value = format!("n.{}", plain(&column.name));
    if column.kind == ColumnKind::Bytes {
        format!("case when {value} is not null then hex({value}) end")
    } else if is_json(column) {
        format!("json({value})")
    } else if column.kind == ColumnKind::Bool || column.sql_type.to_ascii_lowercase().contains("bool") {
        format!("json(case when {value} then 'true' when not {value} then 'false' end)")
    } else {
        value
    }
}

fn is_json(column: &ColumnSchema) -> bool {
    column.kind == ColumnKind::Json || column.sql_type.to_ascii_lowercase().contains("json")
}

/// The path of an object's field, as a literal.
fn path(field: &str) -> String {
    let is_plain = field.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && field.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    literal(&if is_plain { format!("$.{field}") } else { format!("$.{}", serde_json::Value::from(field)) })
}

fn array_reverse(guess: &Guess<'_>, array: &ColumnSchema) -> String {
    let mut object = String::new();
    for (index, fields) in guess.fields.chunks(FIELDS_MAX).enumerate() {
        let pair = |field: &Field<'_>| {
            let name = &field.column.name;
            let name = if index == 0 { literal(name) } else { path(name) };
            format!("{name}, {}", json_value(field.column))
        };
        let pairs = lines(fields.iter().map(pair), 12);
        object = if index == 0 {
            format!("json_object(\n            {pairs})")
        } else {
            format!("json_set({object},\n            {pairs})")
        };
    }
    let order: Vec<_> = guess.beyond_scope().into_iter().map(|name| format!("n.{}", plain(name))).collect();
    format!(
        "update {old} as o\nset {array} = (\n    select {group}(\n        {object}\n        order by {order})\n    \
         from {new} as n\n    where {same})\nwhere {in_keys}",
        old = SPELLING.old_table(guess),
        array = plain(&array.name),
        // Of no rows both make an empty array.
        group = if array.kind == ColumnKind::Bytes { "jsonb_group_array" } else { "json_group_array" },
        order = order.join(", "),
        new = SPELLING.new_table(guess),
        same = SPELLING.same_key(guess),
        in_keys = SPELLING.in_keys("o.", &guess.key),
    )
}
