//! Which names of tables and columns mean the same thing.

/// Endings that say how a column holds its data rather than what it holds.
const FORMS_OF_STORAGE: &[&str] = &["json", "list", "array"];

/// Whether two names mean the same: in singular or plural, in snake case or camel case.
pub(super) fn alike(one: &str, other: &str) -> bool {
    let others = forms(other);
    forms(one).iter().any(|form| others.contains(form))
}

/// Whether two names are the same but for the way in which their words are put together.
pub(super) fn same(one: &str, other: &str) -> bool {
    fold(one) == fold(other)
}

/// Whether a column's name says that it holds the rows of a table; how plainly, from 1 up.
///
/// `owner` is the table that the column is in: `orders` of a customer may have become `customer_orders`.
pub(super) fn holds_rows_of(column: &str, table: &str, owner: &str) -> Option<u8> {
    let plain = without_storage(column);
    let (column_words, table_words) = (words(plain), words(table));
    let own = match words(owner).len() {
        length if length < table_words.len() && alike(owner, &table_words[..length].join("_")) => {
            Some(table_words[length..].join("_"))
        }
        _ => None,
    };
    let is_part = |part: &[String], whole: &[String]| {
        let length = part.len();
        length > 0
            && length < whole.len()
            && (alike(&part.join("_"), &whole[..length].join("_"))
                || alike(&part.join("_"), &whole[whole.len() - length..].join("_")))
    };
    if alike(plain, table) {
        Some(3)
    } else if own.is_some_and(|own| alike(plain, &own)) {
        Some(2)
    } else if is_part(&column_words, &table_words) || is_part(&table_words, &column_words) {
        Some(1)
    } else {
        None
    }
}

/// Whether a name speaks of several things, or of the way in which several things are stored.
pub(super) fn is_plural(column: &str) -> bool {
    without_storage(column) != column || singular(column) != column
}

/// The name of one of the things that a table is named after.
pub(super) fn singular(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let ends = |endings: &[&str]| endings.iter().any(|ending| lower.ends_with(ending));
    let cut = |length: usize| name[..name.len() - length].to_owned();
    if ends(&["ies"]) && name.len() > 4 {
        format!("{}y", cut(3))
    } else if ends(&["sses", "xes", "zes", "ches", "shes", "uses"]) {
        cut(2)
    } else if ends(&["s"]) && !ends(&["ss", "us", "is"]) && name.len() > 2 {
        cut(1)
    } else {
        name.to_owned()
    }
}

/// All that a name may be in the singular, and the name itself. English has no rule that is always right;
/// among several tries two forms of a word meet.
pub(super) fn forms(name: &str) -> Vec<String> {
    let folded = fold(name);
    let mut forms = vec![folded.clone()];
    for (ending, replacement) in [("ies", "y"), ("es", ""), ("s", "")] {
        if let Some(stem) = folded.strip_suffix(ending)
            && stem.len() > 1
        {
            forms.push(format!("{stem}{replacement}"));
        }
    }
    forms
}

fn fold(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

fn words(name: &str) -> Vec<String> {
    name.split('_').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn without_storage(column: &str) -> &str {
    FORMS_OF_STORAGE
        .iter()
        .find_map(|form| column.strip_suffix(form)?.strip_suffix('_'))
        .filter(|rest| !rest.is_empty())
        .unwrap_or(column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn singular_and_plural_meet() {
        for (one, other) in [
            ("customers", "customer"),
            ("addresses", "address"),
            ("categories", "category"),
            ("houses", "house"),
            ("statuses", "status"),
            ("orderLines", "order_line"),
        ] {
            assert!(alike(one, other) && alike(other, one), "{one} {other}");
        }
        assert!(!alike("customers", "orders"));
        for (plural, word) in [
            ("customers", "customer"),
            ("addresses", "address"),
            ("categories", "category"),
            ("statuses", "status"),
            ("status", "status"),
            ("address", "address"),
        ] {
            assert_eq!(singular(plural), word);
        }
    }

    #[test]
    fn a_column_is_found_by_the_table_that_it_became() {
        for (column, table, rank) in [
            ("subscriptions", "subscriptions", Some(3)),
            ("rentals", "rental", Some(3)),
            ("subscriptions_json", "subscriptions", Some(3)),
            ("subscriptions", "customer_subscriptions", Some(2)),
            ("subscriptions", "subscriptions_v2", Some(1)),
            ("active_subscriptions", "subscriptions", Some(1)),
            ("settings", "subscriptions", None),
            ("subscriptions", "customer_orders", None),
        ] {
            assert_eq!(holds_rows_of(column, table, "customers"), rank, "{column} {table}");
        }
    }

    #[test]
    fn one_thing_is_told_from_several() {
        assert!(is_plural("emails") && is_plural("email_list"));
        assert!(!is_plural("email") && !is_plural("status"));
    }
}
