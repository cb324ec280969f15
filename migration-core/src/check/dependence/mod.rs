//! What of a projection depends on who asks, and when: such values differ between the mirror, an export and a service.

pub(super) mod postgres;
pub(super) mod sqlite;

use std::collections::HashSet;

use super::CheckFault;

/// A warning on a function that the projection calls.
fn called(function: &str, depends_on: &str) -> CheckFault {
    CheckFault {
        message: format!("the projection calls {function}, which depends on {depends_on}"),
        hint: "let each value depend on the old row alone: what the mirror writes now and an export computes later must be \
               the same"
            .to_owned(),
    }
}

/// The words of an SQL text outside of its strings, quoted names and comments, in lower case, each with whether an opening
/// bracket follows it.
fn words(sql: &str) -> HashSet<(String, bool)> {
    let mut words = HashSet::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '\'' | '"' => quoted(rest, first),
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '$' => dollar_quoted(rest),
            _ if is_word(first) => {
                let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                words.insert((rest[..end].to_lowercase(), rest[end..].trim_start().starts_with('(')));
                end
            }
            _ => first.len_utf8(),
        };
        rest = &rest[length..];
    }
    words
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of a text in quotes; a doubled quote ends one and begins the next.
fn quoted(text: &str, quote: char) -> usize {
    text[1..].find(quote).map_or(text.len(), |end| end + 2)
}

/// The length of a text between two equal tags, or of the dollar alone where it begins none.
fn dollar_quoted(text: &str) -> usize {
    let Some(end) = text[1..].find('$') else { return 1 };
    let tag = &text[..end + 2];
    if !tag[1..=end].chars().all(is_word) {
        return 1;
    }
    text[tag.len()..].find(tag).map_or(1, |close| tag.len() + close + tag.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_that_are_code_count() {
        let sql = "select Now ( ), 'random()', \"now()\", $x$ random() $x$ -- random()\n /* random() */, o.v, $1 from current_date";
        let mut found: Vec<_> = words(sql).into_iter().collect();
        found.sort();
        let expected = [("1", false), ("current_date", false), ("from", false), ("now", true), ("o", false)];
        let expected = expected.into_iter().chain([("select", false), ("v", false)]);
        assert_eq!(found, expected.map(|(word, is_call)| (word.to_owned(), is_call)).collect::<Vec<_>>());
    }

    #[test]
    fn texts_that_never_end_are_no_panic() {
        for sql in ["'", "\"é", "/*", "$a$ é", "$", "--", "$é$"] {
            words(sql);
        }
    }
}
