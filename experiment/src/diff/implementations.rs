//! `Diff` of what values are made of.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt::{Debug, Display},
    hash::{BuildHasher, Hash},
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde_json::Value;

use super::{differences::Differences, fields::DiffKind};

/// Tells in which fields two values differ.
///
/// Derive it; `ignore`, `tolerance`, `unordered`, `rename` and `leaf` say how a field is compared. What is not
/// known is refused when it is compiled:
///
/// ```
/// use crossfade_experiment::{Diff, Differences, Reveal};
///
/// #[derive(Diff)]
/// struct Price {
///     #[diff(tolerance = 0.01)]
///     amount: f64,
///     currency: String,
/// }
///
/// let old = Price { amount: 9.990, currency: "EUR".into() };
/// let new = Price { amount: 9.995, currency: "USD".into() };
/// let mut differences = Differences::new(Reveal::Paths);
/// old.diff(&new, &mut differences);
/// let found = differences.into_found();
/// assert_eq!((found.len(), found[0].path.as_str()), (1, "currency"));
/// ```
///
/// ```compile_fail
/// #[derive(crossfade_experiment::Diff)]
/// struct Price {
///     #[diff(about = 0.01)]
///     amount: f64,
/// }
/// ```
///
/// # Contract
/// Reports nothing if and only if the values count as the same, and does not panic.
pub trait Diff {
    /// Reports how `other`, the candidate's value, differs from this one, control's.
    fn diff(&self, other: &Self, differences: &mut Differences);
}

/// Numbers, and what holds numbers, that may differ by a tolerance: `#[diff(tolerance = …)]`.
pub trait Approximate {
    /// Reports where the two are further apart than `tolerance`. Two that are not numbers are the same.
    fn diff_within(&self, other: &Self, tolerance: f64, differences: &mut Differences);
}

macro_rules! leaves {
    ($($leaf:ty),*) => {$(
        impl Diff for $leaf {
            #[inline]
            fn diff(&self, other: &Self, differences: &mut Differences) {
                if self != other {
                    differences.report(DiffKind::Value, || Value::from(*self), || Value::from(*other));
                }
            }
        }
    )*};
}

leaves!(bool, u8, u16, u32, u64, usize, i8, i16, i32, i64, isize);

macro_rules! shown_by_debug {
    ($($leaf:ty),*) => {$(
        impl Diff for $leaf {
            fn diff(&self, other: &Self, differences: &mut Differences) {
                differences.leaf(self, other);
            }
        }
    )*};
}

shown_by_debug!(char, u128, i128, (), Duration, SystemTime, str);

impl Diff for String {
    #[inline]
    fn diff(&self, other: &Self, differences: &mut Differences) {
        if self != other {
            differences.report(DiffKind::Value, || self.clone().into(), || other.clone().into());
        }
    }
}

macro_rules! floats {
    ($($float:ty),*) => {$(
        impl Diff for $float {
            /// Two that are not numbers are the same: both sides failed to compute in the same way.
            #[inline]
            fn diff(&self, other: &Self, differences: &mut Differences) {
                if self != other && !(self.is_nan() && other.is_nan()) {
                    differences.report(DiffKind::Value, || Value::from(*self), || Value::from(*other));
                }
            }
        }
    )*};
}

floats!(f32, f64);

macro_rules! approximate {
    ($($number:ty),*) => {$(
        impl Approximate for $number {
            fn diff_within(&self, other: &Self, tolerance: f64, differences: &mut Differences) {
                let (old, new) = (*self as f64, *other as f64);
                let same = self == other || (old - new).abs() <= tolerance || (old.is_nan() && new.is_nan());
                if !same {
                    differences.report(DiffKind::Value, || Value::from(*self), || Value::from(*other));
                }
            }
        }
    )*};
}

approximate!(f32, f64, u8, u16, u32, u64, usize, i8, i16, i32, i64, isize);

impl<T: Diff + ?Sized> Diff for &T {
    fn diff(&self, other: &Self, differences: &mut Differences) {
        (**self).diff(&**other, differences);
    }
}

macro_rules! pointers {
    ($($pointer:ident),*) => {$(
        impl<T: Diff + ?Sized> Diff for $pointer<T> {
            fn diff(&self, other: &Self, differences: &mut Differences) {
                (**self).diff(&**other, differences);
            }
        }
    )*};
}

pointers!(Box, Rc, Arc);

impl<T: Diff + ToOwned + ?Sized> Diff for Cow<'_, T> {
    fn diff(&self, other: &Self, differences: &mut Differences) {
        (**self).diff(&**other, differences);
    }
}

impl<T: Diff> Diff for Option<T> {
    fn diff(&self, other: &Self, differences: &mut Differences) {
        match (self, other) {
            (None, None) => {}
            (Some(old), Some(new)) => old.diff(new, differences),
            (Some(_), None) => differences.variants("some", "none"),
            (None, Some(_)) => differences.variants("none", "some"),
        }
    }
}

impl<T: Approximate> Approximate for Option<T> {
    fn diff_within(&self, other: &Self, tolerance: f64, differences: &mut Differences) {
        match (self, other) {
            (None, None) => {}
            (Some(old), Some(new)) => old.diff_within(new, tolerance, differences),
            (Some(_), None) => differences.variants("some", "none"),
            (None, Some(_)) => differences.variants("none", "some"),
        }
    }
}

impl<T: Diff, E: Diff> Diff for Result<T, E> {
    fn diff(&self, other: &Self, differences: &mut Differences) {
        match (self, other) {
            (Ok(old), Ok(new)) => old.diff(new, differences),
            (Err(old), Err(new)) => old.diff(new, differences),
            (Ok(_), Err(_)) => differences.variants("ok", "err"),
            (Err(_), Ok(_)) => differences.variants("err", "ok"),
        }
    }
}

impl<T: Diff> Diff for [T] {
    fn diff(&self, other: &Self, differences: &mut Differences) {
        items(self, other, differences, T::diff);
    }
}

impl<T: Diff> Diff for Vec<T> {
    fn diff(&self, other: &Self, differences: &mut Differences) {
        self.as_slice().diff(other.as_slice(), differences);
    }
}

impl<T: Diff, const N: usize> Diff for [T; N] {
    fn diff(&self, other: &Self, differences: &mut Differences) {
        self.as_slice().diff(other.as_slice(), differences);
    }
}

impl<T: Approximate> Approximate for Vec<T> {
    fn diff_within(&self, other: &Self, tolerance: f64, differences: &mut Differences) {
        items(self, other, differences, |old, new, differences| old.diff_within(new, tolerance, differences));
    }
}

/// Item by item; sequences of different lengths differ in their length, and are not aligned by guesswork.
fn items<T>(old: &[T], new: &[T], differences: &mut Differences, visit: impl Fn(&T, &T, &mut Differences)) {
    if old.len() != new.len() {
        differences.report(DiffKind::Length, || old.len().into(), || new.len().into());
        return;
    }
    for (index, (old, new)) in old.iter().zip(new).enumerate() {
        differences.at_index(index, |differences| visit(old, new, differences));
    }
}

impl<K: Ord + Display, T: Diff> Diff for BTreeMap<K, T> {
    fn diff(&self, other: &Self, differences: &mut Differences) {
        entries(self.iter(), |key| other.get(key), differences);
        let added = other.keys().filter(|key| !self.contains_key(*key));
        added.for_each(|key| {
            differences.at_key(&key.to_string(), Differences::added_unseen);
        });
    }
}

impl<K: Hash + Ord + Display, T: Diff, S: BuildHasher> Diff for HashMap<K, T, S> {
    fn diff(&self, other: &Self, differences: &mut Differences) {
        // In the order of keys: reports of the same difference read the same.
        let mut sorted: Vec<_> = self.iter().collect();
        sorted.sort_unstable_by_key(|(key, _)| *key);
        entries(sorted.into_iter(), |key| other.get(key), differences);
        let mut added: Vec<_> = other.keys().filter(|key| !self.contains_key(*key)).collect();
        added.sort_unstable();
        for key in added {
            differences.at_key(&key.to_string(), Differences::added_unseen);
        }
    }
}

fn entries<'a, K: Display + 'a, T: Diff + 'a>(
    old: impl Iterator<Item = (&'a K, &'a T)>,
    new: impl Fn(&K) -> Option<&'a T>,
    differences: &mut Differences,
) {
    for (key, old) in old {
        differences.at_key(&key.to_string(), |differences| match new(key) {
            Some(new) => old.diff(new, differences),
            None => differences.missing_unseen(),
        });
    }
}

impl<T: Ord + Debug> Diff for BTreeSet<T> {
    fn diff(&self, other: &Self, differences: &mut Differences) {
        differences.leaf(self, other);
    }
}

impl<T: Hash + Eq + Debug, S: BuildHasher> Diff for HashSet<T, S> {
    fn diff(&self, other: &Self, differences: &mut Differences) {
        differences.leaf(self, other);
    }
}

macro_rules! tuples {
    ($($name:ident $at:tt $text:literal),+) => {
        impl<$($name: Diff),+> Diff for ($($name,)+) {
            fn diff(&self, other: &Self, differences: &mut Differences) {
                $(differences.at_field($text, |differences| self.$at.diff(&other.$at, differences));)+
            }
        }
    };
}

tuples!(A 0 "0");
tuples!(A 0 "0", B 1 "1");
tuples!(A 0 "0", B 1 "1", C 2 "2");
tuples!(A 0 "0", B 1 "1", C 2 "2", D 3 "3");
tuples!(A 0 "0", B 1 "1", C 2 "2", D 3 "3", F 4 "4");
tuples!(A 0 "0", B 1 "1", C 2 "2", D 3 "3", F 4 "4", G 5 "5");
tuples!(A 0 "0", B 1 "1", C 2 "2", D 3 "3", F 4 "4", G 5 "5", H 6 "6");
tuples!(A 0 "0", B 1 "1", C 2 "2", D 3 "3", F 4 "4", G 5 "5", H 6 "6", I 7 "7");
