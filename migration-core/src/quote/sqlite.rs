//! Quoting for SQLite.

use crate::manifest::TableName;

/// An identifier in double quotes, so that every name means itself whatever its letters.
pub(crate) fn quote(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// A table's name, behind that of its database where one was given.
pub(crate) fn table(name: &TableName) -> String {
    match &name.schema {
        Some(schema) => format!("{}.{}", quote(schema), quote(&name.table)),
        None => quote(&name.table),
    }
}

/// A list of quoted identifiers, each behind `prefix` (an alias with its dot, or nothing).
pub(crate) fn list<'a>(prefix: &str, identifiers: impl IntoIterator<Item = &'a String>) -> String {
    identifiers
        .into_iter()
        .map(|identifier| format!("{prefix}{}", quote(identifier)))
        .collect::<Vec<_>>()
        .join(", ")
}

/// A query that gives `count` keys of `width` columns, as numbered parameters from 1: it may stand
/// any number of times in a statement, and its values are bound once.
pub(crate) fn keys(width: usize, count: usize) -> String {
    let rows = (0..count).map(|row| {
        let parameters = (1..=width).map(|column| format!("?{}", row * width + column)).collect::<Vec<_>>();
        format!("({})", parameters.join(", "))
    });
    format!("values {}", rows.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_themselves() {
        assert_eq!(quote("a\"b"), "\"a\"\"b\"");
        assert_eq!(table(&TableName::parse("main.users").unwrap()), "\"main\".\"users\"");
        assert_eq!(list("t.", &["a".to_owned(), "b c".to_owned()]), "t.\"a\", t.\"b c\"");
    }

    #[test]
    fn keys_are_numbered_parameters() {
        assert_eq!(keys(1, 2), "values (?1), (?2)");
        assert_eq!(keys(2, 2), "values (?1, ?2), (?3, ?4)");
    }
}
