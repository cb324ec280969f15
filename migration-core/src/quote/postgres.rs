//! Quoting for Postgres.

use crate::manifest::TableName;

/// An identifier in double quotes, so that every name means itself whatever its letters.
pub(crate) fn quote(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// A table's name, with its schema where one was given; otherwise the search path finds it.
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

/// Text as a literal that means the same whatever `standard_conforming_strings` says.
pub(crate) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_themselves() {
        assert_eq!(quote("Order"), "\"Order\"");
        assert_eq!(quote("a\"b"), "\"a\"\"b\"");
        assert_eq!(table(&TableName::parse("app.users").unwrap()), "\"app\".\"users\"");
        assert_eq!(table(&TableName::parse("users").unwrap()), "\"users\"");
        assert_eq!(list("t.", &["a".to_owned(), "b".to_owned()]), "t.\"a\", t.\"b\"");
    }

    #[test]
    fn literals_cannot_be_left() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("\\' or true --"), "E'\\\\'' or true --'");
    }
}
