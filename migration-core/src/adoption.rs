//! What one instance knows of the standing, and for how long it may act on it.

use std::sync::RwLock;
use std::time::{Duration, Instant};

use crate::fleet;
use crate::phase::Standing;

/// The standing that an instance has adopted, and when its lease was last renewed.
#[derive(Debug)]
pub(crate) struct Adoption {
    state: RwLock<State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    standing: Standing,
    renewed: Instant,
}

impl Adoption {
    /// An adoption that was read from the control store by a request that began at `asked`.
    pub(crate) fn new(standing: Standing, asked: Instant) -> Adoption {
        Adoption { state: RwLock::new(State { standing, renewed: asked }) }
    }

    /// The standing, whether or not it may still be served: writers learn at the fence.
    pub(crate) fn standing(&self) -> Standing {
        self.read().standing
    }

    /// The standing, or how long ago it was last confirmed where that is too long for readers.
    pub(crate) fn servable(&self) -> Result<Standing, Duration> {
        let State { standing, renewed } = self.read();
        let since = renewed.elapsed();
        if fleet::may_serve(since) { Ok(standing) } else { Err(since) }
    }

    /// Takes over what the control store said to a request that began at `asked`. Answers that
    /// overtook each other on the way change nothing: an epoch never goes back.
    pub(crate) fn renew(&self, standing: Standing, asked: Instant) {
        let mut state = self.state.write().unwrap_or_else(std::sync::PoisonError::into_inner);
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
        *self.state.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phase::Epoch;

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
        assert!(adoption.servable().is_err());
        adoption.renew(Standing::INITIAL, Instant::now());
        assert_eq!(adoption.servable(), Ok(Standing::INITIAL));
    }
}
