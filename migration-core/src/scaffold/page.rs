//! The text of a manifest: comments, values and statements that are TOML whatever stands in them.

/// How wide comments are, in characters.
const COMMENT_WIDTH: usize = 110;

/// A manifest as it is written, line by line.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
}

impl Page {
    /// Sentences behind `#`, broken into lines.
    pub(super) fn comment(&mut self, sentences: &str) {
        let mut line = "#".to_owned();
        for word in one_line(sentences).split_whitespace() {
            if line.len() > 1 && line.chars().count() + 1 + word.chars().count() > COMMENT_WIDTH {
                self.line(&line);
                line = "#".to_owned();
            }
            line.push(' ');
            line.push_str(word);
        }
        self.line(&line);
    }

    /// Lines that are TOML once their `# ` is taken away.
    pub(super) fn proposal(&mut self, lines: &str) {
        for line in lines.lines() {
            self.line(format!("# {line}").trim_end());
        }
    }

    pub(super) fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    pub(super) fn space(&mut self) {
        self.text.push('\n');
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

/// A list of columns of a query, one on a line, each with what is to be said about it.
pub(super) fn columns(columns: &[(String, Option<String>)]) -> String {
    let mut text = String::new();
    for (index, (column, doubt)) in columns.iter().enumerate() {
        if index > 0 {
            text.push_str("\n       ");
        }
        text.push_str(column);
        if index + 1 < columns.len() {
            text.push(',');
        }
        if let Some(doubt) = doubt {
            text.push_str(" -- TODO: ");
            text.push_str(&one_line(doubt));
        }
    }
    text
}

/// A list with one item on a line, all but the first behind so many spaces.
pub(super) fn lines(items: impl Iterator<Item = String>, indent: usize) -> String {
    items.collect::<Vec<_>>().join(&format!(",\n{}", " ".repeat(indent)))
}

/// A value in quotes.
pub(super) fn value(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A list of values.
pub(super) fn values(texts: &[String]) -> String {
    let values: Vec<_> = texts.iter().map(|text| value(text)).collect();
    format!("[{}]", values.join(", "))
}

/// A statement in three quotes, which begin a line of their own.
pub(super) fn statement(sql: &str) -> String {
    let mut text = String::from("\"\"\"\n");
    let mut quotes = 0;
    for c in sql.chars() {
        quotes = if c == '"' { quotes + 1 } else { 0 };
        match c {
            '\\' => text.push_str("\\\\"),
            // Three would end the value.
            '"' if quotes == 3 => {
                text.push_str("\\\"");
                quotes = 0;
            }
            '\n' | '\t' => text.push(c),
            c if c.is_control() => text.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => text.push(c),
        }
    }
    // A quote at the end would join those that close.
    if text.ends_with('"') && quotes > 0 {
        text.truncate(text.len() - 1);
        text.push_str("\\\"");
    }
    text.push_str("\"\"\"");
    text
}

/// Names may hold anything; a comment ends with its line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_statement_comes_back_as_it_was() {
        for sql in [
            "select 1",
            "select \"a\"\"\"\"b\" from \"c\"",
            "'\\n' \u{7f} \r\n\ttab \"\"\"",
            "\"",
            "\"\"\"\"\"\"\"",
            "'''",
            "x\\",
        ] {
            let document = format!("sql = {}\nlist = {}", statement(sql), values(&[sql.to_owned()]));
            let table: toml::Table = document.parse().unwrap_or_else(|error| panic!("{document}: {error}"));
            assert_eq!(table["sql"].as_str(), Some(sql));
            assert_eq!(table["list"][0].as_str(), Some(sql));
        }
    }

    #[test]
    fn a_comment_cannot_be_left() {
        let mut page = Page::default();
        page.comment(&format!("a\nname = \"x\" {}", "word ".repeat(60)));
        let text = page.into_text();
        assert!(
            text.lines().all(|line| line.starts_with("# ") && line.chars().count() <= COMMENT_WIDTH),
            "{text}"
        );
    }

    #[test]
    fn doubts_stand_behind_the_comma() {
        let text = columns(&[("a".to_owned(), Some("why\nnot".to_owned())), ("b".to_owned(), None)]);
        assert_eq!(text, "a, -- TODO: why not\n       b");
    }
}
