//! User-supplied code, and the net under it: nothing that panics here reaches the caller.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

use serde_json::Value;

use crate::{ErrorSummary, FieldDiff, Hook, HookFailure, Reveal};

/// How a comparison ends. A `bool` converts into it: `true` is a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// Both sides agree.
    Match,
    /// Both sides differ.
    Mismatch,
    /// These two cannot be compared.
    Incomparable,
}

impl From<bool> for Comparison {
    fn from(equal: bool) -> Self {
        if equal { Self::Match } else { Self::Mismatch }
    }
}

/// One side as comparisons see it.
pub type Seen<'a, O> = Result<&'a O, &'a ErrorSummary>;

/// A hook that looks at one thing.
pub(crate) type Unary<A, R> = Box<dyn Fn(&A) -> R + Send + Sync>;
type Binary<A, R> = Box<dyn Fn(&A, &A) -> R + Send + Sync>;
type IgnoreOutcomes<O> = Box<dyn Fn(Seen<'_, O>, Seen<'_, O>) -> bool + Send + Sync>;
type DiffFields<O> = Box<dyn Fn(&O, &O, Reveal) -> Vec<FieldDiff> + Send + Sync>;

/// Names the cohort of a call by its key and control's value.
pub(crate) type CohortOf<O> = Box<dyn Fn(&[u8], &O) -> String + Send + Sync>;

/// The hooks that look at observed values.
pub(crate) struct Hooks<O> {
    pub(crate) compare: Binary<O, Comparison>,
    pub(crate) compare_errors: Binary<ErrorSummary, bool>,
    pub(crate) ignore: Vec<Binary<O, bool>>,
    pub(crate) ignore_outcomes: Vec<IgnoreOutcomes<O>>,
    pub(crate) clean: Option<Unary<O, Value>>,
    pub(crate) diff: Option<DiffFields<O>>,
    pub(crate) reveal: Reveal,
    pub(crate) cohort: Option<CohortOf<O>>,
    pub(crate) version: Option<Unary<O, u64>>,
}

/// What the hooks make of two ended sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Assessment {
    Agree,
    Ignored,
    Differ,
    Errored,
    Declared,
    HookFailed,
}

/// What a report shows of two ended sides.
#[derive(Debug, Default)]
pub(crate) struct Picture {
    pub(crate) differences: Vec<FieldDiff>,
    pub(crate) old: Option<Value>,
    pub(crate) new: Option<Value>,
}

impl<O> Hooks<O> {
    pub(crate) fn new(compare: Binary<O, Comparison>) -> Self {
        Self {
            compare,
            compare_errors: Box::new(|old, new| old == new),
            ignore: Vec::new(),
            ignore_outcomes: Vec::new(),
            clean: None,
            diff: None,
            reveal: Reveal::Paths,
            cohort: None,
            version: None,
        }
    }

    pub(crate) fn assess(
        &self,
        old: Seen<'_, O>,
        new: Seen<'_, O>,
        failures: &mut Vec<HookFailure>,
    ) -> Assessment {
        let compared = guard(Hook::Compare, failures, || match (old, new) {
            (Ok(old), Ok(new)) => (self.compare)(old, new),
            (Err(old), Err(new)) => (self.compare_errors)(old, new).into(),
            _ => Comparison::Mismatch,
        });
        self.assess_compared(compared, old, new, failures)
    }

    /// As [`assess`](Self::assess), where `compare` was asked already; `None`: it panicked.
    pub(crate) fn assess_compared(
        &self,
        compared: Option<Comparison>,
        old: Seen<'_, O>,
        new: Seen<'_, O>,
        failures: &mut Vec<HookFailure>,
    ) -> Assessment {
        match compared {
            None => return Assessment::HookFailed,
            Some(Comparison::Match) => return Assessment::Agree,
            Some(Comparison::Incomparable) => return Assessment::Declared,
            Some(Comparison::Mismatch) => {}
        }
        // A rule that panics ignores nothing: the difference stands, with the failure beside it.
        let ignored = guard(Hook::Ignore, failures, || self.ignores(old, new)).unwrap_or(false);
        match (ignored, old, new) {
            (true, ..) => Assessment::Ignored,
            (false, Ok(_), Err(_)) => Assessment::Errored,
            (false, ..) => Assessment::Differ,
        }
    }

    pub(crate) fn picture(
        &self,
        old: Seen<'_, O>,
        new: Seen<'_, O>,
        differ: bool,
        failures: &mut Vec<HookFailure>,
    ) -> Picture {
        let mut clean = |side: Seen<'_, O>| {
            let (Some(clean), Ok(value)) = (&self.clean, side) else {
                return None;
            };
            guard(Hook::Clean, failures, || clean(value))
        };
        let (old_value, new_value) = (clean(old), clean(new));
        let differences = match (&self.diff, old, new) {
            (Some(diff), Ok(old), Ok(new)) if differ => {
                guard(Hook::Diff, failures, || diff(old, new, self.reveal)).unwrap_or_default()
            }
            _ => Vec::new(),
        };
        Picture { differences, old: old_value, new: new_value }
    }

    /// Whether there is anything that a report could show.
    pub(crate) fn draws(&self) -> bool {
        self.clean.is_some() || self.diff.is_some()
    }

    /// Whether two sides count as equal.
    pub(crate) fn agrees(&self, a: Seen<'_, O>, b: Seen<'_, O>, failures: &mut Vec<HookFailure>) -> bool {
        matches!(self.assess(a, b, failures), Assessment::Agree | Assessment::Ignored)
    }

    /// Whether control stood still between two reads.
    pub(crate) fn unmoved(
        &self,
        before: Seen<'_, O>,
        after: Seen<'_, O>,
        failures: &mut Vec<HookFailure>,
    ) -> bool {
        let (Some(version), Ok(before), Ok(after)) = (&self.version, before, after) else {
            return self.agrees(before, after, failures);
        };
        guard(Hook::Version, failures, || version(before) == version(after)).unwrap_or(false)
    }

    fn ignores(&self, old: Seen<'_, O>, new: Seen<'_, O>) -> bool {
        let by_value = match (old, new) {
            (Ok(old), Ok(new)) => self.ignore.iter().any(|rule| rule(old, new)),
            _ => false,
        };
        by_value || self.ignore_outcomes.iter().any(|rule| rule(old, new))
    }
}

/// Runs user code; its panic becomes a note, never an unwinding.
#[inline]
pub(crate) fn guard<T>(hook: Hook, failures: &mut Vec<HookFailure>, run: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(value) => Some(value),
        Err(panic) => {
            failures.push(HookFailure { hook, message: panic_message(panic) });
            None
        }
    }
}

/// What a panic said. The payload is user data whose `drop` may panic in its turn, so it is dropped under
/// the same net.
pub(crate) fn panic_message(panic: Box<dyn Any + Send>) -> String {
    let message = match panic.downcast_ref::<&str>() {
        Some(text) => (*text).to_owned(),
        None => panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "(no message)".to_owned()),
    };
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        // Leaked rather than dropped: there is no end to payloads that panic in their drop.
        std::mem::forget(again);
    }
    message
}
