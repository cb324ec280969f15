//! A candidate's thread: held while it runs, given up where it does not come back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many candidates may have a thread at once, and how many threads may be given up for lost meanwhile.
#[derive(Debug)]
pub(crate) struct Threads {
    free: Arc<Semaphore>,
    replaceable: Arc<Semaphore>,
}

/// Leave to use one thread.
pub(crate) type Permit = OwnedSemaphorePermit;

impl Threads {
    pub(crate) fn new(threads: usize, stuck_max: usize) -> Self {
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        Self { free: semaphore(threads), replaceable: semaphore(stuck_max) }
    }

    /// A thread, if one is free.
    pub(crate) fn try_take(&self) -> Option<Permit> {
        self.free.clone().try_acquire_owned().ok()
    }

    /// A thread, when one is free: for what is bounded otherwise, and in nobody's way.
    pub(crate) async fn take(&self) -> Option<Permit> {
        self.free.clone().acquire_owned().await.ok()
    }
}

/// What a candidate holds while it has a thread: leave to use it, and the slot of its call.
#[derive(Debug)]
pub(crate) struct Seat<S> {
    threads: Option<Arc<Threads>>,
    state: Mutex<State<S>>,
}

#[derive(Debug)]
enum State<S> {
    Taken {
        _permit: Option<Permit>,
        slot: Option<S>,
    },
    /// Nobody waits for the candidate any more, another thread has taken its place.
    Stuck {
        _replaced: Permit,
    },
    Left,
}

impl<S> Seat<S> {
    pub(crate) fn new(threads: Option<Arc<Threads>>, permit: Option<Permit>, slot: Option<S>) -> Self {
        Self { threads, state: Mutex::new(State::Taken { _permit: permit, slot }) }
    }

    /// Nobody waits any more for who sits here. Where its thread can be replaced, permit and slot are free for the
    /// next; else they stay with the thread until it is left.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        let Some(threads) = &self.threads else {
            return;
        };
        if matches!(*state, State::Taken { .. })
            && let Ok(replaced) = threads.replaceable.clone().try_acquire_owned()
        {
            *state = State::Stuck { _replaced: replaced };
        }
    }

    /// The thread is free again; gives back the slot, where it was not given up.
    pub(crate) fn leave(&self) -> Option<S> {
        match std::mem::replace(&mut *self.lock(), State::Left) {
            State::Taken { slot, .. } => slot,
            State::Stuck { .. } | State::Left => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread's side of a seat: it is left however the candidate ends, also where it never began.
pub(crate) struct Sitter<S>(pub(crate) Arc<Seat<S>>);

impl<S> Drop for Sitter<S> {
    fn drop(&mut self) {
        drop(self.0.leave());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads() -> Arc<Threads> {
        Arc::new(Threads::new(1, 1))
    }

    #[test]
    fn a_thread_that_comes_back_gives_back_its_slot() {
        let threads = threads();
        let seat = Seat::new(Some(threads.clone()), threads.try_take(), Some("slot"));
        assert!(threads.try_take().is_none());
        assert_eq!(seat.leave(), Some("slot"));
        assert!(threads.try_take().is_some());
        seat.abandon();
        assert_eq!(seat.leave(), None, "too late to be given up, and left once");
    }

    #[test]
    fn a_thread_that_is_given_up_is_replaced_as_long_as_there_are_replacements() {
        let threads = threads();
        let slots = Arc::new(());
        let sit = || Seat::new(Some(threads.clone()), threads.try_take(), Some(slots.clone()));
        let first = sit();
        first.abandon();
        assert_eq!(Arc::strong_count(&slots), 1, "the slot is free");
        let second = sit();
        second.abandon();
        assert_eq!(Arc::strong_count(&slots), 2, "no replacement is left: it keeps what it has");
        assert!(threads.try_take().is_none());
        assert!(first.leave().is_none());
        second.abandon();
        assert!(threads.try_take().is_some(), "the first came back, so the second can be replaced");
        drop(Sitter(Arc::new(second)));
        assert_eq!(threads.replaceable.available_permits(), 1);
    }
}
