//! The manifest: the TOML file that defines a migration.
//!
//! [`Manifest::parse`] owns everything that can be known from the text alone; whether the tables
//! are there and the projection fits them is [`crate::plan`]'s business.

mod document;

use std::ops::Range;

use toml::Spanned;

use crate::gate::Thresholds;
use crate::template::{Template, TemplateError};
use crate::url::{DatabaseUrl, StoreUrl};
use document::Document;

/// A migration's definition, checked as far as its text allows.
#[derive(Debug, Clone)]
pub struct Manifest {
    text: String,
    name: String,
    control: Option<StoreUrl>,
    old: OldTable,
    new: NewTable,
    mapping: Mapping,
    thresholds: Thresholds,
}

/// Where the data comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldTable {
    /// The database.
    pub url: StoreUrl,
    /// The table that holds one row per key.
    pub table: TableName,
    /// The columns of the primary key: the unit of consistency.
    pub key: Vec<String>,
}

/// Where the data goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTable {
    /// The database.
    pub url: StoreUrl,
    /// The table.
    pub table: TableName,
    /// The columns that hold the old key; all rows with the same values belong to that key.
    pub scope: Vec<String>,
    /// The columns of the table's primary key, or of a unique index without NULLs.
    pub key: Vec<String>,
}

/// How old rows become new ones, and back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// The query over the old store that gives the rows the new one should hold for a set of keys.
    pub projection: Template,
    /// Statements that bring the old store up to date with the new one; empty when there are none.
    pub reverse: Vec<Template>,
    /// Statements that take the moved data out of the old store; empty when there are none.
    pub retire: Vec<Template>,
}

/// A table's name, with its schema where one was given.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TableName {
    /// The schema, where one was given.
    pub schema: Option<String>,
    /// The table.
    pub table: String,
}

/// A fault in a manifest, and the line it is on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct ManifestError {
    /// The file as it was named by the caller.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What would mend it.
    pub hint: Option<String>,
}

impl Manifest {
    /// Reads a manifest; `file` is only used to say where a fault is.
    ///
    /// # Errors
    /// With the line of the first fault: TOML syntax, an unknown or missing key, a value out of
    /// range, or columns that cannot fit together.
    pub fn parse(text: &str, file: &str) -> Result<Manifest, ManifestError> {
        let fault = |span: Option<Range<usize>>, message: String, hint: Option<String>| {
            let (line, column) = position(text, span.map_or(0, |span| span.start));
            ManifestError { file: file.to_owned(), line, column, message, hint }
        };
        let document: Document = toml::from_str(text).map_err(|error| {
            let message = error.message().trim().replace('\n', " ");
            fault(error.span(), message, Some(KEYS_HINT.to_owned()))
        })?;
        Checked { document }.into_manifest(text).map_err(|error| {
            fault(Some(error.span), error.message, error.hint.or(Some(KEYS_HINT.to_owned())))
        })
    }

    /// The migration's name: lower-case letters, digits and underscores.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where crossfade keeps its own tables; by default the new store.
    pub fn control(&self) -> &StoreUrl {
        self.control.as_ref().unwrap_or(&self.new.url)
    }

    /// The one database that holds both tables and crossfade's own.
    ///
    /// # Errors
    /// When a URL's variable is not set, or the three are not the same database.
    pub fn database(&self) -> crate::Result<DatabaseUrl> {
        let (old, new, control) = (&self.old.url, &self.new.url, self.control());
        let urls = [("old.url", old), ("new.url", new), ("control", control)];
        let resolved = new.resolve()?;
        for (what, url) in urls {
            if url.resolve()? != resolved {
                let what =
                    format!("{what} is {url}, and new.url is {new}: two databases are not supported yet");
                return Err(crate::Error::SeveralDatabases { migration: self.name.clone(), what });
            }
        }
        Ok(resolved)
    }

    /// Where the data comes from.
    pub fn old(&self) -> &OldTable {
        &self.old
    }

    /// Where the data goes.
    pub fn new_table(&self) -> &NewTable {
        &self.new
    }

    /// How old rows become new ones.
    pub fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// What the gates ask for.
    pub fn thresholds(&self) -> &Thresholds {
        &self.thresholds
    }

    /// The text that it was read from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the old store can be kept fresh once the new one decides.
    pub fn is_reversible(&self) -> bool {
        !self.mapping.reverse.is_empty()
    }

    /// A hash of what snapshots, findings and evidence belong to: everything but the thresholds and the retire
    /// statements, which say nothing of what the new store should hold and may be written at the very end.
    pub fn fingerprint(&self) -> String {
        let mut parts = vec![self.name.clone(), self.old.table.to_string(), self.new.table.to_string()];
        parts.extend([&self.old.key, &self.new.scope, &self.new.key].map(|columns| columns.join("\u{1f}")));
        parts.push(self.mapping.projection.to_string());
        parts.push(self.mapping.reverse.iter().map(Template::to_string).collect::<Vec<_>>().join("\u{1f}"));
        format!("{:016x}", xxhash_rust::xxh3::xxh3_64(parts.join("\u{1e}").as_bytes()))
    }
}

impl TableName {
    /// Reads `table` or `schema.table`.
    pub fn parse(text: &str) -> Option<TableName> {
        let mut parts = text.split('.');
        let (first, second) = (parts.next()?, parts.next());
        if parts.next().is_some() || first.is_empty() || second.is_some_and(str::is_empty) {
            return None;
        }
        Some(match second {
            None => TableName { schema: None, table: first.to_owned() },
            Some(table) => TableName { schema: Some(first.to_owned()), table: table.to_owned() },
        })
    }
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}.")?;
        }
        f.write_str(&self.table)
    }
}

/// Where a manifest is described.
const KEYS_HINT: &str = "the keys of a manifest are listed in the README under \"The manifest\"";

/// A fault found after TOML and serde were content.
struct Fault {
    span: Range<usize>,
    message: String,
    hint: Option<String>,
}

impl Fault {
    fn at<T>(value: &Spanned<T>, message: impl Into<String>, hint: impl Into<Option<&'static str>>) -> Fault {
        Fault { span: value.span(), message: message.into(), hint: hint.into().map(str::to_owned) }
    }
}

struct Checked {
    document: Document,
}

impl Checked {
    fn into_manifest(self, text: &str) -> Result<Manifest, Fault> {
        let Document { name, control, old, new, mapping, gates } = self.document;
        check_name(&name)?;
        check_columns(&old.key, "old.key")?;
        check_columns(&new.scope, "new.scope")?;
        check_columns(&new.key, "new.key")?;
        if new.scope.get_ref().len() != old.key.get_ref().len() {
            let message = format!(
                "new.scope has {} columns and old.key {}; the scope holds the old key, column by column",
                new.scope.get_ref().len(),
                old.key.get_ref().len()
            );
            return Err(Fault::at(
                &new.scope,
                message,
                "name one column of the new table for each column of old.key, in the same order",
            ));
        }
        Ok(Manifest {
            control: control.as_ref().map(store_url).transpose()?,
            old: OldTable { url: store_url(&old.url)?, table: table(&old.table)?, key: old.key.into_inner() },
            new: NewTable {
                url: store_url(&new.url)?,
                table: table(&new.table)?,
                scope: new.scope.into_inner(),
                key: new.key.into_inner(),
            },
            mapping: Mapping {
                projection: template(&mapping.projection, "mapping.projection")?,
                reverse: templates(mapping.reverse, "mapping.reverse")?,
                retire: templates(mapping.retire, "mapping.retire")?,
            },
            thresholds: thresholds(gates)?,
            name: name.into_inner(),
            text: text.to_owned(),
        })
    }
}

/// Names become parts of function names in the database, whose identifiers end at 63 bytes.
const NAME_BYTES_MAX: usize = 40;

fn check_name(name: &Spanned<String>) -> Result<(), Fault> {
    let text = name.get_ref();
    let fits = text.len() <= NAME_BYTES_MAX
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if fits {
        return Ok(());
    }
    let message = format!("{text:?} is no name for a migration");
    Err(Fault::at(
        name,
        message,
        "use a lower-case letter, then letters, digits and underscores, at most 40 in all",
    ))
}

fn check_columns(columns: &Spanned<Vec<String>>, what: &str) -> Result<(), Fault> {
    let list = columns.get_ref();
    if list.is_empty() {
        return Err(Fault::at(columns, format!("{what} names no column"), None));
    }
    let twice = list.iter().enumerate().find(|(index, column)| list[..*index].contains(column));
    match twice {
        Some((_, column)) => Err(Fault::at(columns, format!("{what} names {column:?} twice"), None)),
        None => Ok(()),
    }
}

fn store_url(url: &Spanned<String>) -> Result<StoreUrl, Fault> {
    StoreUrl::parse(url.get_ref())
        .map_err(|error| Fault::at(url, error.to_string(), "write env:NAME, postgres://…, or sqlite:PATH"))
}

fn table(name: &Spanned<String>) -> Result<TableName, Fault> {
    TableName::parse(name.get_ref()).ok_or_else(|| {
        Fault::at(name, format!("{:?} is no table name", name.get_ref()), "write table, or schema.table")
    })
}

fn template(sql: &Spanned<String>, what: &str) -> Result<Template, Fault> {
    Template::parse(sql.get_ref()).map_err(|error| {
        let hint = match &error {
            TemplateError::NoKeys => "filter by the old key, as in `where c.id in (:keys)`",
            TemplateError::SeveralStatements => {
                "reverse and retire may be lists of statements: [\"…\", \"…\"]"
            }
            TemplateError::Empty | TemplateError::Unclosed => "see the README under \"The manifest\"",
        };
        Fault::at(sql, format!("{what}: {error}"), hint)
    })
}

/// The statements of a value that is a string or a list of strings; none where there is no value.
fn templates(value: Option<Spanned<toml::Value>>, what: &str) -> Result<Vec<Template>, Fault> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let span = value.span();
    let statements = match value.get_ref() {
        toml::Value::String(statement) => vec![statement.as_str()],
        toml::Value::Array(list) => list.iter().filter_map(toml::Value::as_str).collect(),
        _ => Vec::new(),
    };
    let is_partial = value.get_ref().as_array().is_some_and(|list| list.len() != statements.len());
    if statements.is_empty() || is_partial {
        return Err(Fault::at(&value, format!("{what} is a statement, or a list of statements"), None));
    }
    statements.into_iter().map(|sql| template(&Spanned::new(span.clone(), sql.to_owned()), what)).collect()
}

fn thresholds(gates: document::Gates) -> Result<Thresholds, Fault> {
    let defaults = Thresholds::default();
    let share = |value: Option<Spanned<f64>>, default: f64, name: &str| match value {
        Some(value) if !(0.0..=1.0).contains(value.get_ref()) => Err(Fault::at(
            &value,
            format!("gates.{name} is a share from 0 to 1, not {}", value.get_ref()),
            None,
        )),
        value => Ok(value.map_or(default, Spanned::into_inner)),
    };
    if let Some(ratio) =
        gates.latency_ratio_max.as_ref().filter(|ratio| ratio.get_ref().is_nan() || *ratio.get_ref() <= 0.0)
    {
        return Err(Fault::at(ratio, "gates.latency_ratio_max is a ratio above 0", None));
    }
    Ok(Thresholds {
        comparisons_min: gates.comparisons_min.map_or(defaults.comparisons_min, Spanned::into_inner),
        mismatch_rate_max: share(gates.mismatch_rate_max, defaults.mismatch_rate_max, "mismatch_rate_max")?,
        confidence: share(gates.confidence, defaults.confidence, "confidence")?,
        latency_ratio_max: gates.latency_ratio_max.map_or(defaults.latency_ratio_max, Spanned::into_inner),
        evidence_age_max: gates.evidence_age_max.unwrap_or(defaults.evidence_age_max),
        soak_min: gates.soak_min.unwrap_or(defaults.soak_min),
        old_path_quiet_min: gates.old_path_quiet_min.unwrap_or(defaults.old_path_quiet_min),
        sample_keys: gates.sample_keys.map_or(defaults.sample_keys, Spanned::into_inner),
    })
}

fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(offset)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests;
