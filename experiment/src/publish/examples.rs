//! Bounded examples of mismatches: a reservoir for each field path and kind of difference.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::Publisher;
use crate::{DiffKind, Observation, Verdict};

/// Keeps a few mismatches of every sort, whatever their number: each field path and kind of difference has a
/// reservoir, in which every mismatch seen had the same chance to stay. So one field that always differs
/// does not crowd out another that seldom does. Memory is bounded by the two limits and the size of an
/// observation.
///
/// Keep a clone of an `Arc` of it to read it.
#[derive(Debug)]
pub struct Examples {
    per_group: usize,
    groups_max: usize,
    groups: Mutex<BTreeMap<(String, DiffKind), Reservoir>>,
    overflowed: AtomicU64,
    busy: AtomicU64,
}

/// The mismatches of one field path and kind of difference.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Group {
    /// The path, without the indices of sequences: `lines[].count`. Empty where the value differs as a whole, or
    /// the experiment does not know the fields.
    pub path: String,
    /// The kind.
    pub kind: DiffKind,
    /// Mismatches seen.
    pub seen: u64,
    /// Those of them that were kept.
    pub examples: Vec<Observation>,
}

#[derive(Debug, Default)]
struct Reservoir {
    seen: u64,
    kept: Vec<Observation>,
}

impl Examples {
    /// Keeps up to `per_group` examples for each of up to `groups_max` groups.
    #[must_use]
    pub fn new(per_group: usize, groups_max: usize) -> Self {
        Self {
            per_group,
            groups_max,
            groups: Mutex::default(),
            overflowed: AtomicU64::new(0),
            busy: AtomicU64::new(0),
        }
    }

    /// All groups, in the order of their paths.
    #[must_use]
    pub fn groups(&self) -> Vec<Group> {
        let group = |((path, kind), reservoir): (&(String, DiffKind), &Reservoir)| Group {
            path: path.clone(),
            kind: *kind,
            seen: reservoir.seen,
            examples: reservoir.kept.clone(),
        };
        self.lock().iter().map(group).collect()
    }

    /// Takes all groups out, and begins anew.
    #[must_use]
    pub fn drain(&self) -> Vec<Group> {
        let groups = std::mem::take(&mut *self.lock());
        let group = |((path, kind), reservoir): ((String, DiffKind), Reservoir)| Group {
            path,
            kind,
            seen: reservoir.seen,
            examples: reservoir.kept,
        };
        groups.into_iter().map(group).collect()
    }

    /// Differences that found no group, as there were too many already, and mismatches that were passed over
    /// because another thread was writing.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed) + self.busy.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, DiffKind), Reservoir>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Publisher for Examples {
    fn publish(&self, observation: &Observation) {
        // Publishing never waits, not even for a reader.
        let mut groups = match self.groups.try_lock() {
            Ok(groups) => groups,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                self.busy.fetch_add(1, Ordering::Relaxed);
                return;
            }
        };
        let mut names: Vec<_> =
            observation.differences.iter().map(|diff| (without_indices(&diff.path), diff.kind)).collect();
        if names.is_empty() {
            names.push((String::new(), DiffKind::Value));
        }
        // A hundred differing items of one sequence are one example of one sort.
        names.sort();
        names.dedup();
        for name in names {
            if groups.len() >= self.groups_max && !groups.contains_key(&name) {
                self.overflowed.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            groups.entry(name).or_default().offer(observation, self.per_group);
        }
    }

    fn wants(&self, verdict: &Verdict) -> bool {
        verdict.is_mismatch()
    }
}

impl Reservoir {
    /// Vitter's algorithm R: the n-th comer takes a random place with chance size / n.
    fn offer(&mut self, observation: &Observation, size: usize) {
        self.seen += 1;
        if self.kept.len() < size {
            self.kept.push(observation.clone());
        } else if let Some(place) = self.kept.get_mut(fastrand::u64(..self.seen) as usize) {
            *place = observation.clone();
        }
    }
}

/// `lines[3].count` becomes `lines[].count`.
fn without_indices(path: &str) -> String {
    let mut inside = false;
    path.chars()
        .filter(|&character| {
            inside = (inside || character == '[') && character != ']';
            !inside || character == '['
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_left_out_of_groups() {
        assert_eq!(without_indices("a.lines[12].tags[0]"), "a.lines[].tags[]");
        assert_eq!(without_indices("plain"), "plain");
    }
}
