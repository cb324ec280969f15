//! Differences of values that serialise.

use serde::Serialize;
use serde_json::Value;

use super::{
    differences::Differences,
    fields::{DiffKind, FieldDiff, Reveal},
    tape::{Place, Seen, Tape},
};

/// The fields in which two serialisable values differ, in the order of the fields' names: what
/// [`diff_json`] says of what `serde_json` makes of them, without making it. A value that does not serialise
/// differs as a whole.
#[must_use]
pub fn diff_serialized<T: Serialize + ?Sized>(old: &T, new: &T, reveal: Reveal) -> Vec<FieldDiff> {
    if let (Some(old), Some(new)) = (Tape::of(old), Tape::of(new)) {
        let mut differences = Differences::new(reveal);
        compare_places(old.root(), new.root(), &mut differences);
        return differences.into_found();
    }
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

/// As [`compare`], on tapes.
fn compare_places(old: Place<'_>, new: Place<'_>, differences: &mut Differences) {
    match (old.seen(), new.seen()) {
        (Seen::Map(old_fields), Seen::Map(new_fields)) => {
            // Both in the order of their names: each side is gone through once for what old has, and once
            // for what new has added.
            let mut candidates = new_fields.clone().peekable();
            for (name, old) in old_fields.clone() {
                while candidates.next_if(|(candidate, _)| *candidate < name).is_some() {}
                let new = candidates.next_if(|(candidate, _)| *candidate == name);
                differences.at_key(name, |differences| match new {
                    Some((_, new)) => compare_places(old, new, differences),
                    None => differences.missing(|| old.to_value()),
                });
            }
            let mut known = old_fields.peekable();
            for (name, new) in new_fields {
                while known.next_if(|(known, _)| *known < name).is_some() {}
                if known.next_if(|(known, _)| *known == name).is_none() {
                    differences.at_key(name, |differences| differences.added(|| new.to_value()));
                }
            }
        }
        (Seen::Items(old_items), Seen::Items(new_items)) if old_items.len() == new_items.len() => {
            for (index, (old, new)) in old_items.zip(new_items).enumerate() {
                differences.at_index(index, |differences| compare_places(old, new, differences));
            }
        }
        (Seen::Items(_), Seen::Items(_)) => {
            differences.report(DiffKind::Length, || old.to_value(), || new.to_value());
        }
        _ if old.is_same_scalar(new) => {}
        _ => {
            let kind = if old.is_same_type(new) { DiffKind::Value } else { DiffKind::Type };
            differences.report(kind, || old.to_value(), || new.to_value());
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
