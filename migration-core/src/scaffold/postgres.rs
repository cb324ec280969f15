//! The statements of a scaffold in Postgres' SQL.

use super::Statements;
use super::guess::{Field, Guess, Shape, Source, WayBack};
use super::page::{columns, lines};
use super::spelling::Spelling;
use crate::catalog::{ColumnKind, ColumnSchema};
use crate::quote::postgres::{literal, plain, plain_table};

/// A function takes at most a hundred arguments, and each field of an object is two of them.
const FIELDS_MAX: usize = 50;

/// How names are written here.
const SPELLING: Spelling = Spelling { plain, plain_table };

pub(super) fn statements(guess: &Guess<'_>) -> Statements {
    let old = SPELLING.old_table(guess);
    let keys = SPELLING.tuple("", &guess.key);
    match guess.shape {
        Shape::Row => Statements {
            projection: projection(guess, ""),
            reverse: row_reverse(guess, SPELLING, converted),
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
            retire: format!("update {old}\nset {} = '[]'\nwhere {keys} in (:keys)", plain(&array.name)),
        },
    }
}

fn projection(guess: &Guess<'_>, join: &str) -> String {
    let named = |expression: String, name: &str| {
        let name = plain(name);
        if expression == format!("o.{name}") { expression } else { format!("{expression} as {name}") }
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
    let name = plain(&array.name);
    let value =
        if array.sql_type == "jsonb" { format!("o.{name}") } else { format!("cast(o.{name} as jsonb)") };
    format!("\ncross join jsonb_array_elements({value}) as s(value)")
}

/// The expression that gives a field's value.
fn source(field: &Field<'_>) -> String {
    match field.source {
        Source::Column(old) => converted(format!("o.{}", plain(&old.name)), old, field.column),
        Source::Element => element(field.column),
        Source::Unknown => "null".to_owned(),
    }
}

fn element(column: &ColumnSchema) -> String {
    let name = literal(&column.name);
    let sql_type = &column.sql_type;
    match column.kind {
        ColumnKind::Text => format!("s.value ->> {name}"),
        // A null of JSON is a value; what the new table means is that there is none.
        ColumnKind::Json if sql_type == "jsonb" => format!("nullif(s.value -> {name}, 'null')"),
        ColumnKind::Json => format!("cast(nullif(s.value -> {name}, 'null') as {sql_type})"),
        ColumnKind::Bytes => format!("decode(s.value ->> {name}, 'hex')"),
        _ if sql_type.ends_with("[]") => format!(
            "cast(case when jsonb_typeof(s.value -> {name}) = 'array'\n            \
             then array(select jsonb_array_elements_text(s.value -> {name})) end as {sql_type})"
        ),
        _ => format!("cast(s.value ->> {name} as {sql_type})"),
    }
}

/// A value of one column, for another.
fn converted(expression: String, from: &ColumnSchema, to: &ColumnSchema) -> String {
    match (from.kind, to.kind) {
        // Without a word about the zone, the answer would depend on who asks.
        (ColumnKind::Timestamp, ColumnKind::TimestampTz)
        | (ColumnKind::TimestampTz, ColumnKind::Timestamp) => {
            format!("{expression} at time zone 'UTC'")
        }
        (ColumnKind::Other, ColumnKind::Other) if from.sql_type == to.sql_type => expression,
        (one, other) if one == other && one != ColumnKind::Other => expression,
        _ => format!("cast({expression} as {})", to.sql_type),
    }
}

/// The way back of a row to a row: SQLite has taken over this syntax, and differs in how values are converted.
pub(super) fn row_reverse(
    guess: &Guess<'_>,
    spelling: Spelling,
    convert: fn(String, &ColumnSchema, &ColumnSchema) -> String,
) -> Option<String> {
    let plain = spelling.plain;
    let back = |(old, new): (&ColumnSchema, &ColumnSchema)| {
        (plain(&old.name), convert(format!("n.{}", plain(&new.name)), new, old))
    };
    let shared: Vec<_> = guess.shared().map(back).collect();
    let (old, new) = (spelling.old_table(guess), spelling.new_table(guess));
    match guess.way_back() {
        WayBack::None => None,
        WayBack::Update => Some(format!(
            "update {old} as o\nset {sets}\nfrom {new} as n\nwhere {same}\n  and {in_keys}",
            sets = lines(shared.iter().map(|(name, value)| format!("{name} = {value}")), 4),
            same = spelling.same_key(guess),
            in_keys = spelling.in_keys("o.", &guess.key),
        )),
        WayBack::Upsert => {
            let mut names: Vec<_> = guess.key.iter().map(|name| plain(name)).collect();
            let mut values: Vec<_> = guess.scope.iter().map(|name| format!("n.{}", plain(name))).collect();
            let key = names.join(", ");
            names.extend(shared.iter().map(|(name, _)| name.clone()));
            values.extend(shared.iter().map(|(_, value)| value.clone()));
            let resolution = if shared.is_empty() {
                "nothing".to_owned()
            } else {
                let sets = shared.iter().map(|(name, _)| format!("{name} = excluded.{name}"));
                format!("update\nset {}", lines(sets, 4))
            };
            Some(format!(
                "insert into {old} ({names})\nselect {values}\nfrom {new} as n\nwhere {in_keys}\non conflict ({key}) do {resolution}",
                names = names.join(", "),
                values = lines(values.into_iter(), 7),
                in_keys = spelling.in_keys("n.", &guess.scope),
            ))
        }
    }
}

fn array_reverse(guess: &Guess<'_>, array: &ColumnSchema) -> String {
    let pair = |field: &Field<'_>| {
        let column = field.column;
        let value = format!("n.{}", plain(&column.name));
        let value = if column.kind == ColumnKind::Bytes { format!("encode({value}, 'hex')") } else { value };
        format!("{}, {value}", literal(&column.name))
    };
    let pairs: Vec<_> = guess.fields.iter().map(pair).collect();
    let objects: Vec<_> = pairs
        .chunks(FIELDS_MAX)
        .map(|pairs| format!("jsonb_build_object(\n            {})", lines(pairs.iter().cloned(), 12)))
        .collect();
    let order: Vec<_> = guess.beyond_scope().into_iter().map(|name| format!("n.{}", plain(name))).collect();
    format!(
        "update {old} as o\nset {array} = coalesce((\n    select jsonb_agg(\n        {object}\n        order by {order})\n    \
         from {new} as n\n    where {same}), '[]')\nwhere {in_keys}",
        old = SPELLING.old_table(guess),
        array = plain(&array.name),
        object = objects.join(" || "),
        order = order.join(", "),
        new = SPELLING.new_table(guess),
        same = SPELLING.same_key(guess),
        in_keys = SPELLING.in_keys("o.", &guess.key),
    )
}
