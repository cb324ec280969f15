//! How names and values of the manifest become SQL: one place per engine, and nothing else builds SQL from text.

pub(crate) mod postgres;
pub(crate) mod sqlite;

use crate::manifest::TableName;

/// A table's name behind its schema's, where it has one, each spelled by an engine's `spell`.
fn qualified(name: &TableName, spell: fn(&str) -> String) -> String {
    match &name.schema {
        Some(schema) => format!("{}.{}", spell(schema), spell(&name.table)),
        None => spell(&name.table),
    }
}

/// A list of identifiers, each spelled by an engine's `spell` behind `prefix`.
fn listed<'a>(
    prefix: &str,
    identifiers: impl IntoIterator<Item = &'a String>,
    spell: fn(&str) -> String,
) -> String {
    let names = identifiers.into_iter().map(|identifier| format!("{prefix}{}", spell(identifier)));
    names.collect::<Vec<_>>().join(", ")
}
