//! SQL of the manifest with `:keys` where the key filter goes.

use std::fmt;

/// A statement of the manifest, cut where `:keys` stands.
///
/// Quoted text, quoted identifiers, comments and Postgres' dollar quotes are left alone, and so is
/// the cast `::keys`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<String>,
}

/// What is wrong with a statement of the manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// There is nothing in it.
    #[error("the statement is empty")]
    Empty,
    /// There is no `:keys`, so that it would apply to the whole table.
    #[error("the statement has no `:keys`, so it would always apply to the whole table")]
    NoKeys,
    /// There is more than one statement.
    #[error("there is more than one statement")]
    SeveralStatements,
    /// A quote or comment is not closed.
    #[error("a quote or comment is not closed")]
    Unclosed,
}

impl Template {
    /// Cuts one statement at its `:keys`.
    ///
    /// # Errors
    /// When it is empty, lacks `:keys`, holds a second statement, or a quote is left open.
    pub fn parse(sql: &str) -> Result<Template, TemplateError> {
        let sql = sql.trim().trim_end_matches(';').trim_end();
        if sql.is_empty() {
            return Err(TemplateError::Empty);
        }
        let bytes = sql.as_bytes();
        let mut parts = Vec::new();
        let mut start = 0;
        let mut at = 0;
        while at < bytes.len() {
            let rest = &sql[at..];
            if let Some(length) = opaque(rest)? {
                at += length;
            } else if rest.starts_with("::") {
                at += 2;
            } else if is_keys(rest) {
                parts.push(sql[start..at].to_owned());
                at += ":keys".len();
                start = at;
            } else if bytes[at] == b';' {
                return Err(TemplateError::SeveralStatements);
            } else {
                at += rest.chars().next().map_or(1, char::len_utf8);
            }
        }
        if parts.is_empty() {
            return Err(TemplateError::NoKeys);
        }
        // A line comment at the end would swallow what is put behind the statement.
        parts.push(format!("{}\n", &sql[start..]));
        Ok(Template { parts })
    }

    /// The statement with `keys` in place of each `:keys`.
    pub fn render(&self, keys: &str) -> String {
        self.parts.join(keys)
    }

    /// The statement with what `keys` gives for their number in place of each `:keys`.
    pub(crate) fn render_each(&self, keys: impl Fn(usize) -> String) -> String {
        let mut sql = String::new();
        for (number, part) in self.parts.iter().enumerate() {
            sql.push_str(part);
            if number < self.occurrences() {
                sql.push_str(&keys(number));
            }
        }
        sql
    }

    /// How often `:keys` stands in it.
    pub fn occurrences(&self) -> usize {
        self.parts.len() - 1
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(":keys").trim_end())
    }
}

fn is_keys(rest: &str) -> bool {
    rest.strip_prefix(":keys")
        .is_some_and(|after| !after.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// The length of the quoted or commented stretch that `rest` begins with, if it does.
fn opaque(rest: &str) -> Result<Option<usize>, TemplateError> {
    let until = |opening: usize, closing: &str| {
        rest[opening..]
            .find(closing)
            .map(|found| opening + found + closing.len())
            .ok_or(TemplateError::Unclosed)
    };
    if rest.starts_with('\'') || rest.starts_with('"') {
        // A doubled quote closes and opens again at once, so it needs no case of its own.
        return until(1, &rest[..1]).map(Some);
    }
    if rest.starts_with("--") {
        return Ok(Some(rest.find('\n').map_or(rest.len(), |end| end + 1)));
    }
    if rest.starts_with("/*") {
        return until(2, "*/").map(Some);
    }
    if let Some(tag) = dollar_tag(rest) {
        return until(tag.len(), tag).map(Some);
    }
    Ok(None)
}

fn dollar_tag(rest: &str) -> Option<&str> {
    let inner = rest.strip_prefix('$')?;
    let end = inner.find('$')?;
    let is_tag = inner[..end].chars().all(|c| c.is_alphanumeric() || c == '_')
        && !inner.starts_with(|c: char| c.is_ascii_digit());
    is_tag.then(|| &rest[..end + 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_is_replaced() {
        let template = Template::parse("select * from t where a in (:keys) or b in (:keys);").unwrap();
        assert_eq!(template.occurrences(), 2);
        assert_eq!(template.render("$1").trim_end(), "select * from t where a in ($1) or b in ($1)");
    }

    #[test]
    fn quotes_comments_and_casts_are_left_alone() {
        for sql in [
            "select ':keys' from t where a in (:keys)",
            "select 'it''s :keys' from t where a in (:keys)",
            "select \":keys\" from t where a in (:keys)",
            "select 1 -- :keys ; '\n from t where a in (:keys)",
            "select /* ; :keys */ 1 from t where a in (:keys)",
            "select $q$ ; :keys $q$ from t where a in (:keys)",
            "select a::keys, :keys_of from t where a in (:keys)",
            "select 'ü' from t where ü in (:keys) -- done",
        ] {
            assert_eq!(Template::parse(sql).unwrap().occurrences(), 1, "{sql}");
        }
    }

    #[test]
    fn faults_are_named() {
        assert_eq!(Template::parse(" ; "), Err(TemplateError::Empty));
        assert_eq!(Template::parse("select 1"), Err(TemplateError::NoKeys));
        assert_eq!(Template::parse("select ':keys'"), Err(TemplateError::NoKeys));
        assert_eq!(Template::parse("select (:keys); drop table t"), Err(TemplateError::SeveralStatements));
        assert_eq!(Template::parse("select 'open (:keys)"), Err(TemplateError::Unclosed));
    }
}
