//! SQL has its homes.

use std::path::Path;

use super::{SOURCES, assert_tidy, files_below, is_rust, literals::string_literals, read};

/// The files which may hold SQL, in whatever folder. The other home is `migrations/<engine>/`.
const HOMES: &[&str] = &["postgres.rs", "mysql.rs", "sqlite.rs"];

/// Files that hold SQL elsewhere, each with its reason.
const EXCEPTIONS: &[(&str, &str)] = &[];

#[test]
fn sql_stands_in_the_files_of_its_engine() {
    let mut complaints = Vec::new();
    let sources = SOURCES.iter().flat_map(|folder| files_below(folder));
    for path in
        sources.filter(|path| is_rust(path) && !is_home(path) && !is_tests(path) && !is_exception(path))
    {
        let source = read(&path);
        for literal in string_literals(shipped_part(&source)) {
            if looks_like_sql(literal.text) {
                complaints.push(format!(
                    "{}:{}: SQL belongs in {} or migrations/<engine>/: {:?}",
                    path.display(),
                    literal.line,
                    HOMES.join(", "),
                    literal.text
                ));
            }
        }
    }
    assert_tidy(&complaints);
}

#[test]
fn every_exception_is_still_needed() {
    let complaints: Vec<String> = EXCEPTIONS
        .iter()
        .filter(|(path, _)| {
            let source = read(Path::new(path));
            !string_literals(shipped_part(&source)).iter().any(|literal| looks_like_sql(literal.text))
        })
        .map(|(path, reason)| format!("{path}: holds no SQL; remove its exception ({reason})"))
        .collect();
    assert_tidy(&complaints);
}

fn is_home(path: &Path) -> bool {
    HOMES.iter().any(|home| path.file_name().is_some_and(|name| name == *home))
}

/// Unit tests in a file of their own.
fn is_tests(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "tests.rs")
}

fn is_exception(path: &Path) -> bool {
    EXCEPTIONS.iter().any(|(exception, _)| path == Path::new(exception))
}

/// The text before the unit tests: those may play the part of an application, which has SQL of its own.
fn shipped_part(source: &str) -> &str {
    source.find("#[cfg(test)]").map_or(source, |tests| &source[..tests])
}

/// Whether a text holds the beginning of a statement.
fn looks_like_sql(text: &str) -> bool {
    /// Words that follow each other at once.
    const PAIRS: &[[&str; 2]] = &[
        ["insert", "into"],
        ["delete", "from"],
        ["create", "table"],
        ["create", "index"],
        ["alter", "table"],
        ["drop", "table"],
        ["truncate", "table"],
    ];
    /// Words with others between them.
    const SPREAD: &[[&str; 2]] = &[["select", "from"], ["update", "set"]];

    let text = text.to_ascii_lowercase().replace("\\n", " ");
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || "(),;\"\\".contains(c))
        .filter(|word| !word.is_empty())
        .collect();
    let adjacent = words.windows(2).any(|pair| PAIRS.iter().any(|statement| pair == statement));
    let spread = SPREAD.iter().any(|[first, second]| {
        let mut words = words.iter();
        words.any(|word| word == first) && words.any(|word| word == second)
    });
    adjacent || spread
}

#[test]
fn statements_are_recognised_and_prose_is_not() {
    for sql in [
        "select 1 from t",
        "\n  SELECT a,\n b\nFROM t",
        "with x as (select a from b) select * from x",
        "insert into {table} (a) values (1)",
        "update t set a = 1",
        "delete\\nfrom t",
        "create table if not exists t (a int)",
    ] {
        assert!(looks_like_sql(sql), "{sql}");
    }
    for prose in [
        "selected from",
        "the updated settings",
        "a table was created",
        "deleted rows",
        "from here, select",
        "create {table}, or drop it from the table",
    ] {
        assert!(!looks_like_sql(prose), "{prose}");
    }
}

#[test]
fn unit_tests_may_hold_sql() {
    let source = "const A: &str = \"a\";\n#[cfg(test)]\nmod tests { const B: &str = \"select b from c\"; }";
    assert!(!string_literals(shipped_part(source)).iter().any(|literal| looks_like_sql(literal.text)));
}
