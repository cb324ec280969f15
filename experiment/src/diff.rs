//! Which fields differ: of values that serialise, and redacted unless the experiment shows values.

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

/// The fields in which two serialisable values differ, in the order of the fields. A value that does not
/// serialise differs as a whole.
#[must_use]
pub fn diff_serialized<T: Serialize + ?Sized>(old: &T, new: &T, reveal: Reveal) -> Vec<FieldDiff> {
    match (serde_json::to_value(old), serde_json::to_value(new)) {
        (Ok(old), Ok(new)) => diff_json(&old, &new, reveal),
        _ => vec![FieldDiff::redacted("", DiffKind::Value)],
    }
}

/// The fields in which two JSON values differ.
#[must_use]
pub fn diff_json(old: &Value, new: &Value, reveal: Reveal) -> Vec<FieldDiff> {
    let mut walk = Walk { reveal, path: String::new(), found: Vec::new() };
    walk.compare(old, new);
    walk.found
}

struct Walk {
    reveal: Reveal,
    path: String,
    found: Vec<FieldDiff>,
}

impl Walk {
    fn compare(&mut self, old: &Value, new: &Value) {
        match (old, new) {
            (Value::Object(old_fields), Value::Object(new_fields)) => {
                for (name, old) in old_fields {
                    self.at_field(name, |walk| match new_fields.get(name) {
                        Some(new) => walk.compare(old, new),
                        None => walk.report(DiffKind::Missing, Some(old), None),
                    });
                }
                for (name, new) in new_fields.iter().filter(|(name, _)| !old_fields.contains_key(*name)) {
                    self.at_field(name, |walk| walk.report(DiffKind::Added, None, Some(new)));
                }
            }
            (Value::Array(old_items), Value::Array(new_items)) => {
                if old_items.len() != new_items.len() {
                    self.report(DiffKind::Length, Some(old), Some(new));
                    return;
                }
                for (index, (old, new)) in old_items.iter().zip(new_items).enumerate() {
                    self.at_index(index, |walk| walk.compare(old, new));
                }
            }
            _ if old == new => {}
            _ if std::mem::discriminant(old) == std::mem::discriminant(new) => {
                self.report(DiffKind::Value, Some(old), Some(new));
            }
            _ => self.report(DiffKind::Type, Some(old), Some(new)),
        }
    }

    fn at_field(&mut self, name: &str, visit: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        visit(self);
        self.path.truncate(length);
    }

    fn at_index(&mut self, index: usize, visit: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path.push_str(&format!("[{index}]"));
        visit(self);
        self.path.truncate(length);
    }

    fn report(&mut self, kind: DiffKind, old: Option<&Value>, new: Option<&Value>) {
        let side = |value: Option<&Value>| match (value, self.reveal) {
            (None, _) => FieldValue::Absent,
            (Some(_), Reveal::Paths) => FieldValue::Redacted,
            (Some(value), Reveal::Values) => FieldValue::Shown(value.clone()),
        };
        let found = FieldDiff { path: self.path.clone(), kind, old: side(old), new: side(new) };
        self.found.push(found);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_each_differing_field_and_how() {
        let old = json!({"id": 1, "plan": "gold", "lines": [{"n": 1}, {"n": 2}], "gone": true, "tags": [1]});
        let new = json!({"id": "1", "plan": "tin", "lines": [{"n": 1}, {"n": 3}], "come": 0, "tags": []});
        let found: Vec<_> =
            diff_json(&old, &new, Reveal::Paths).into_iter().map(|diff| (diff.path, diff.kind)).collect();
        assert_eq!(
            found,
            [
                ("gone".into(), DiffKind::Missing),
                ("id".into(), DiffKind::Type),
                ("lines[1].n".into(), DiffKind::Value),
                ("plan".into(), DiffKind::Value),
                ("tags".into(), DiffKind::Length),
                ("come".into(), DiffKind::Added),
            ]
        );
    }

    #[test]
    fn values_are_redacted_unless_asked_for() {
        let (old, new) = (json!({"secret": "a"}), json!({"secret": "b"}));
        assert_eq!(diff_json(&old, &new, Reveal::Paths), [FieldDiff::redacted("secret", DiffKind::Value)]);
        assert_eq!(
            diff_json(&old, &new, Reveal::Values),
            [FieldDiff::shown(
                "secret",
                DiffKind::Value,
                FieldValue::Shown(json!("a")),
                FieldValue::Shown(json!("b"))
            )]
        );
    }
}
