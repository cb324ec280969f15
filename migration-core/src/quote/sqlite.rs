//! Quoting for SQLite.

use crate::manifest::TableName;

/// Words that mean something else where a column or a table is named.
#[rustfmt::skip]
const RESERVED: &[&str] = &[
    "add", "all", "alter", "and", "as", "autoincrement", "between", "case", "cast", "check", "collate",
    "commit", "constraint", "create", "cross", "current_date", "current_time", "current_timestamp",
    "default", "deferrable", "delete", "distinct", "drop", "else", "escape", "except", "exists",
    "false", "foreign", "from", "full", "group", "having", "in", "index", "inner", "insert",
    "intersect", "into", "is", "isnull", "join", "left", "limit", "natural", "not", "nothing",
    "notnull", "null", "on", "or", "order", "outer", "primary", "raise", "references", "returning",
    "right", "select", "set", "table", "then", "to", "transaction", "true", "union", "unique", "update",
    "using", "values", "when", "where", "with",
];

/// An identifier in double quotes, so that every name means itself whatever its letters.
pub(crate) fn quote(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// A table's name, behind that of its database where one was given.
pub(crate) fn table(name: &TableName) -> String {
    super::qualified(name, quote)
}

/// An identifier as people write it: in quotes only where it would mean something else without.
pub(crate) fn plain(identifier: &str) -> String {
    let is_plain = identifier.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && identifier.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !RESERVED.contains(&identifier.to_ascii_lowercase().as_str());
    if is_plain { identifier.to_owned() } else { quote(identifier) }
}

/// A table's name as people write it.
pub(crate) fn plain_table(name: &TableName) -> String {
    super::qualified(name, plain)
}

/// A list of quoted identifiers, each behind `prefix` (an alias with its dot, or nothing).
pub(crate) fn list<'a>(prefix: &str, identifiers: impl IntoIterator<Item = &'a String>) -> String {
    super::listed(prefix, identifiers, quote)
}

/// Text as a literal.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
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
    fn names_are_plain_where_they_may_be() {
        assert_eq!(plain("customer_id2"), "customer_id2");
        assert_eq!(plain("order"), "\"order\"");
        assert_eq!(plain("2nd"), "\"2nd\"");
        assert_eq!(plain("ü"), "\"ü\"");
        assert_eq!(plain_table(&TableName::parse("app.table").unwrap()), "app.\"table\"");
        assert_eq!(plain("customerId"), "customerId");
    }

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
