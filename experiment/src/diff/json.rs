//! Differences of values that serialise.

use serde::Serialize;
use serde_json::Value;

use super::{
    differences::Differences,
    fields::{DiffKind, FieldDiff, Reveal},
};

/// The fields in which two serialisable values differ, in the order of the fields' names. A value that does
/// not serialise differs as a whole.
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
    let mut differences = Differences::new(reveal);
    compare(old, new, &mut differences);
    differences.into_found()
}

fn compare(old: &Value, new: &Value, differences: &mut Differences) {
    match (old, new) {
        (Value::Object(old_fields), Value::Object(new_fields)) => {
            for (name, old) in old_fields {
                differences.at_key(name, |differences| match new_fields.get(name) {
                    Some(new) => compare(old, new, differences),
                    None => differences.missing(|| old.clone()),
                });
            }
            for (name, new) in new_fields.iter().filter(|(name, _)| !old_fields.contains_key(*name)) {
                differences.at_key(name, |differences| differences.added(|| new.clone()));
            }
        }
        (Value::Array(old_items), Value::Array(new_items)) if old_items.len() == new_items.len() => {
            for (index, (old, new)) in old_items.iter().zip(new_items).enumerate() {
                differences.at_index(index, |differences| compare(old, new, differences));
            }
        }
        (Value::Array(_), Value::Array(_)) => {
            differences.report(DiffKind::Length, || old.clone(), || new.clone());
        }
        _ if old == new => {}
        _ => {
            let same_type = std::mem::discriminant(old) == std::mem::discriminant(new);
            let kind = if same_type { DiffKind::Value } else { DiffKind::Type };
            differences.report(kind, || old.clone(), || new.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::FieldValue;

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
