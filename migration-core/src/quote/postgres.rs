//! Quoting for Postgres.

use crate::manifest::TableName;

/// Words that mean something else where a column or a table is named.
#[rustfmt::skip]
const RESERVED: &[&str] = &[
    "all", "analyse", "analyze", "and", "any", "array", "as", "asc", "asymmetric", "authorization",
    "binary", "both", "case", "cast", "check", "collate", "collation", "column", "concurrently",
    "constraint", "create", "cross", "current_catalog", "current_date", "current_role",
    "current_schema", "current_time", "current_timestamp", "current_user", "default", "deferrable",
    "desc", "distinct", "do", "else", "end", "except", "false", "fetch", "for", "foreign", "freeze",
    "from", "full", "grant", "group", "having", "ilike", "in", "initially", "inner", "intersect",
    "into", "is", "isnull", "join", "lateral", "leading", "left", "like", "limit", "localtime",
    "localtimestamp", "natural", "not", "notnull", "null", "offset", "on", "only", "or", "order",
    "outer", "overlaps", "placing", "primary", "references", "returning", "right", "select",
    "session_user", "similar", "some", "symmetric", "system_user", "table", "tablesample", "then", "to",
    "trailing", "true", "union", "unique", "user", "using", "variadic", "verbose", "when", "where",
    "window", "with",
];

/// An identifier in double quotes, so that every name means itself whatever its letters.
pub(crate) fn quote(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// A table's name, with its schema where one was given; otherwise the search path finds it.
pub(crate) fn table(name: &TableName) -> String {
    super::qualified(name, quote)
}

/// An identifier as people write it: in quotes only where it would mean something else without.
pub(crate) fn plain(identifier: &str) -> String {
    let is_plain = identifier.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && identifier.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !RESERVED.contains(&identifier);
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

/// Text as a literal that means the same whatever `standard_conforming_strings` says.
pub(crate) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
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
        assert_eq!(plain("Plan"), "\"Plan\"");
    }

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
