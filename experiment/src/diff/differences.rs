//! Collects differences on a walk over two values.

use std::fmt::{Debug, Write};

use serde_json::Value;

use super::{
    fields::{DiffKind, FieldDiff, FieldValue, Reveal},
    implementations::Diff,
};

/// What a [`Diff`] reports to: it knows where the walk is, and what may be shown. Nothing is allocated for
/// what is equal.
#[derive(Debug)]
pub struct Differences {
    purpose: Purpose,
    path: Vec<Step>,
    /// The keys on the path, one after the other.
    keys: String,
    found: Vec<FieldDiff>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Collect(Reveal),
    /// Only whether there is a difference.
    Ask {
        differs: bool,
    },
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Field(&'static str),
    Index(usize),
    /// Where among the keys it begins and ends.
    Key(usize, usize),
}

impl Differences {
    /// Collects all differences.
    #[must_use]
    pub fn new(reveal: Reveal) -> Self {
        Self { purpose: Purpose::Collect(reveal), path: Vec::new(), keys: String::new(), found: Vec::new() }
    }

    /// Whether two values are the same as their [`Diff`] sees it: within tolerances, in any order, without
    /// what is ignored.
    pub fn same<T: Diff + ?Sized>(old: &T, new: &T) -> bool {
        let mut asked = Self::ask();
        old.diff(new, &mut asked);
        asked.purpose == Purpose::Ask { differs: false }
    }

    /// What was found, in the order in which it was met.
    #[must_use]
    pub fn into_found(self) -> Vec<FieldDiff> {
        self.found
    }

    /// Visits a field.
    pub fn at_field(&mut self, name: &'static str, visit: impl FnOnce(&mut Self)) {
        self.at(Step::Field(name), visit);
    }

    /// Visits an item of a sequence.
    pub fn at_index(&mut self, index: usize, visit: impl FnOnce(&mut Self)) {
        self.at(Step::Index(index), visit);
    }

    /// Visits an entry of a map.
    pub fn at_key(&mut self, key: &str, visit: impl FnOnce(&mut Self)) {
        let from = self.keys.len();
        self.keys.push_str(key);
        self.at(Step::Key(from, self.keys.len()), visit);
        self.keys.truncate(from);
    }

    /// Reports that the place where the walk is differs; the values are made only if they are shown.
    pub fn report(&mut self, kind: DiffKind, old: impl FnOnce() -> Value, new: impl FnOnce() -> Value) {
        self.add(kind, Some(|| FieldValue::Shown(old())), Some(|| FieldValue::Shown(new())));
    }

    /// Reports that only control has what is here.
    pub fn missing(&mut self, old: impl FnOnce() -> Value) {
        self.add(DiffKind::Missing, Some(|| FieldValue::Shown(old())), None::<fn() -> FieldValue>);
    }

    /// Reports that only the candidate has what is here.
    pub fn added(&mut self, new: impl FnOnce() -> Value) {
        self.add(DiffKind::Added, None::<fn() -> FieldValue>, Some(|| FieldValue::Shown(new())));
    }

    /// As [`missing`](Self::missing), of something that there is no way to show.
    pub(super) fn missing_unseen(&mut self) {
        self.add(DiffKind::Missing, Some(hidden), None::<fn() -> FieldValue>);
    }

    /// As [`added`](Self::added), of something that there is no way to show.
    pub(super) fn added_unseen(&mut self) {
        self.add(DiffKind::Added, None::<fn() -> FieldValue>, Some(hidden));
    }

    /// Compares two values as a whole, by `==`; they are shown by `Debug`.
    pub fn leaf<T: PartialEq + Debug + ?Sized>(&mut self, old: &T, new: &T) {
        if old != new {
            self.report(DiffKind::Value, || format!("{old:?}").into(), || format!("{new:?}").into());
        }
    }

    /// Reports two variants of an enumeration.
    pub fn variants(&mut self, old: &'static str, new: &'static str) {
        self.report(DiffKind::Type, || old.into(), || new.into());
    }

    /// Compares two sequences as bags: each item needs a partner that is the same, wherever it stands. Takes
    /// time in proportion to the product of the lengths where the order differs throughout.
    pub fn unordered<T: Diff>(&mut self, old: &[T], new: &[T]) {
        let mut free: Vec<usize> = (0..new.len()).collect();
        for (index, item) in old.iter().enumerate() {
            match free.iter().position(|&at| Self::same(item, &new[at])) {
                // Kept in order, so that equal sequences find each partner first.
                Some(found) => drop(free.remove(found)),
                None => self.at_index(index, Self::missing_unseen),
            }
        }
        for index in free {
            self.at_index(index, Self::added_unseen);
        }
    }

    fn ask() -> Self {
        Self { purpose: Purpose::Ask { differs: false }, ..Self::new(Reveal::Paths) }
    }

    fn at(&mut self, step: Step, visit: impl FnOnce(&mut Self)) {
        match self.purpose {
            // The answer is known: the rest of the walk is left out.
            Purpose::Ask { differs: true } => {}
            Purpose::Ask { differs: false } => visit(self),
            Purpose::Collect(_) => {
                self.path.push(step);
                visit(self);
                self.path.pop();
            }
        }
    }

    fn add(
        &mut self,
        kind: DiffKind,
        old: Option<impl FnOnce() -> FieldValue>,
        new: Option<impl FnOnce() -> FieldValue>,
    ) {
        let Purpose::Collect(reveal) = self.purpose else {
            self.purpose = Purpose::Ask { differs: true };
            return;
        };
        let found =
            FieldDiff { path: self.path_text(), kind, old: side(old, reveal), new: side(new, reveal) };
        self.found.push(found);
    }

    fn path_text(&self) -> String {
        let mut text = String::new();
        for &step in &self.path {
            let dot = if text.is_empty() { "" } else { "." };
            // Writing to a string does not fail.
            let _ = match step {
                Step::Field(name) => write!(text, "{dot}{name}"),
                Step::Key(from, to) => write!(text, "{dot}{}", &self.keys[from..to]),
                Step::Index(index) => write!(text, "[{index}]"),
            };
        }
        text
    }
}

fn hidden() -> FieldValue {
    FieldValue::Redacted
}

fn side(value: Option<impl FnOnce() -> FieldValue>, reveal: Reveal) -> FieldValue {
    match (value, reveal) {
        (None, _) => FieldValue::Absent,
        (Some(_), Reveal::Paths) => FieldValue::Redacted,
        (Some(value), Reveal::Values) => value(),
    }
}
