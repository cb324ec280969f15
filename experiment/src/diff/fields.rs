//! The words of a difference.

use serde::Serialize;
use serde_json::Value;

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FieldDiff {
    /// Where: `address.lines[2].text`; empty for the value as a whole.
    pub path: String,
    /// In what way.
    pub kind: DiffKind,
    /// Control's side.
    pub old: FieldValue,
    /// The candidate's side.
    pub new: FieldValue,
}

impl FieldDiff {
    /// A field that differs in value, redacted.
    pub fn redacted(path: impl Into<String>, kind: DiffKind) -> Self {
        Self { path: path.into(), kind, old: FieldValue::Redacted, new: FieldValue::Redacted }
    }

    /// A field that differs, with both values.
    pub fn shown(path: impl Into<String>, kind: DiffKind, old: FieldValue, new: FieldValue) -> Self {
        Self { path: path.into(), kind, old, new }
    }
}

/// In what way a field differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DiffKind {
    /// Both sides have it, with different values of one type.
    Value,
    /// Both sides have it, with values of different types (or null on one side).
    Type,
    /// Only control has it.
    Missing,
    /// Only the candidate has it.
    Added,
    /// Both sides have a sequence, of different lengths.
    Length,
}

/// A field's value in a difference.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldValue {
    /// This side has no such field.
    Absent,
    /// There is a value, and it is not shown.
    Redacted,
    /// The value, because the experiment shows values.
    Shown(Value),
}

/// Whether differences carry the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reveal {
    /// Paths and kinds only.
    #[default]
    Paths,
    /// The values too.
    Values,
}
