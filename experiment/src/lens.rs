//! What an experiment looks at: the whole value, or a part that is made from it.

use std::{fmt, sync::Arc};

/// How an experiment sees a value of type `V`.
pub trait View<V>: Clone + Send + Sync + 'static {
    /// What is compared, told apart and published.
    type Observed: Send + 'static;

    /// Shows the value to `look`.
    fn show<R>(&self, value: &V, look: impl FnOnce(&Self::Observed) -> R) -> R;
}

/// A view that can keep what it has seen after the value has gone to the caller. Off the caller's path the
/// candidate ends later than control, so nothing less will do there.
pub trait Capture<V>: View<V> {
    /// Keeps what is compared.
    fn capture(&self, value: &V) -> Self::Observed;
}

/// The value itself. In line it is borrowed; off the caller's path it is cloned, for sampled calls alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Whole;

impl<V: Send + 'static> View<V> for Whole {
    type Observed = V;

    fn show<R>(&self, value: &V, look: impl FnOnce(&V) -> R) -> R {
        look(value)
    }
}

impl<V: Clone + Send + 'static> Capture<V> for Whole {
    fn capture(&self, value: &V) -> V {
        value.clone()
    }
}

/// A part of the value, or something computed from it: for values that are not `Clone`, or large.
pub struct Part<V, O>(pub(crate) Arc<dyn Fn(&V) -> O + Send + Sync>);

impl<V, O> Clone for Part<V, O> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<V, O> fmt::Debug for Part<V, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Part")
    }
}

impl<V: 'static, O: Send + 'static> View<V> for Part<V, O> {
    type Observed = O;

    fn show<R>(&self, value: &V, look: impl FnOnce(&O) -> R) -> R {
        look(&(self.0)(value))
    }
}

impl<V: 'static, O: Send + 'static> Capture<V> for Part<V, O> {
    fn capture(&self, value: &V) -> O {
        (self.0)(value)
    }
}
