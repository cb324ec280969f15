//! What one instance knows of the standing, and for how long it may act on it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::fleet;
use crate::phase::{Epoch, Standing};

/// The standing that an instance has adopted, and when its lease was last renewed.
#[derive(Debug)]
pub(crate) struct Adoption {
    state: RwLock<State>,
    /// How many reads are under way by the epoch that they began at.
    reading: Mutex<BTreeMap<Epoch, usize>>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    standing: Standing,
    renewed: Instant,
}

impl Adoption {
    /// An adoption that was read from the control store by a request that began at `asked`.
    pub(crate) fn new(standing: Standing, asked: Instant) -> Adoption {
        Adoption { state: RwLock::new(State { standing, renewed: asked }), reading: Mutex::default() }
    }

    /// The standing, whether or not it may still be served: writers learn at the fence.
    pub(crate) fn standing(&self) -> Standing {
        self.read().standing
    }

    /// Begins a read under the standing, or says how long ago it was last confirmed where that is too long.
    /// Each read that was begun must be ended.
    pub(crate) fn begin_read(&self) -> Result<Standing, Duration> {
        // Held while the standing is read: whoever asks for the served epoch afterwards finds this read.
        let mut reading = self.reading();
        let State { standing, renewed } = self.read();
        let since = renewed.elapsed();
        if !fleet::may_serve(since) {
            return Err(since);
        }
        *reading.entry(standing.epoch).or_default() += 1;
        Ok(standing)
    }

    /// Ends a read that began at this epoch; says whether it was the last of an epoch that has passed.
    pub(crate) fn end_read(&self, epoch: Epoch) -> bool {
        let mut reading = self.reading();
        let is_last = reading.get_mut(&epoch).is_none_or(|count| {
            *count -= 1;
            *count == 0
        });
        if is_last {
            reading.remove(&epoch);
        }
        is_last && epoch < self.read().standing.epoch
    }

    /// The oldest epoch that this instance still acts on. A read that is slow, or was suspended, holds it
    /// back: its store might be stale two epochs on.
    pub(crate) fn served(&self) -> Epoch {
        let reading = self.reading();
        let present = self.read().standing.epoch;
        reading.first_key_value().map_or(present, |(oldest, _)| present.min(*oldest))
    }

    /// Takes over what the control store said to a request that began at `asked`. Answers that
    /// overtook each other on the way change nothing: an epoch never goes back.
    pub(crate) fn renew(&self, standing: Standing, asked: Instant) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if standing.epoch >= state.standing.epoch {
            state.standing = standing;
            state.renewed = state.renewed.max(asked);
        }
    }

    /// Makes the last renewal so old that the standing may not be served any more.
    #[cfg(test)]
    pub(crate) fn expire(&self) {
        let long_ago = Instant::now().checked_sub(fleet::SERVE_FOR);
        self.state.write().unwrap().renewed = long_ago.expect("the machine has run for some seconds");
    }

    fn read(&self) -> State {
        *self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn reading(&self) -> std::sync::MutexGuard<'_, BTreeMap<Epoch, usize>> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_was_overtaken_changes_nothing() {
        let now = Instant::now();
        let newer = Standing { epoch: Epoch(3), ..Standing::INITIAL };
        let adoption = Adoption::new(newer, now);
        adoption.renew(Standing::INITIAL, now + Duration::from_secs(1));
        assert_eq!(adoption.standing(), newer);
    }

    #[test]
    fn a_standing_that_was_not_renewed_is_not_served() {
        let Some(long_ago) = Instant::now().checked_sub(fleet::SERVE_FOR) else { return };
        let adoption = Adoption::new(Standing::INITIAL, long_ago);
        assert!(adoption.begin_read().is_err());
        adoption.renew(Standing::INITIAL, Instant::now());
        assert_eq!(adoption.begin_read(), Ok(Standing::INITIAL));
    }

    #[test]
    fn a_read_under_way_holds_back_the_epoch_that_is_served() {
        let adoption = Adoption::new(Standing::INITIAL, Instant::now());
        let began = adoption.begin_read().unwrap();
        let next = Standing { epoch: Epoch(2), ..Standing::INITIAL };
        adoption.renew(next, Instant::now());
        assert_eq!(adoption.served(), Epoch(1));
        let second = adoption.begin_read().unwrap();
        assert!(!adoption.end_read(second.epoch), "its epoch has not passed");
        assert!(adoption.end_read(began.epoch));
        assert_eq!(adoption.served(), Epoch(2));
    }
}
