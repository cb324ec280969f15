//! Which standing may follow which: the phased state machine as pure functions.
//!
//! Gates are not asked here: a transition says what *can* follow, a gate whether it *may* now.

use crate::phase::{Phase, Ramp, Standing};

/// What an operator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Enter the next phase at this ramp.
    Advance {
        /// The share of keys to begin with.
        ramp: Ramp,
    },
    /// Stay in the phase and change its ramp.
    Ramp(Ramp),
    /// Go back to the phase before.
    Rollback,
}

/// Why a request makes no sense where the migration stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Impossible {
    /// There is no phase after `complete`.
    #[error("the migration is complete; there is no phase after it")]
    NothingAhead,
    /// There is no phase before `old_only`.
    #[error("the migration is in old_only; there is no phase before it")]
    NothingBehind,
    /// The phase has no ramp.
    #[error("{0} has no ramp; dual_write, shadow_read and read_new have one")]
    NotRamped(Phase),
    /// The ramp is already there.
    #[error("{phase} is already at {ramp}")]
    AlreadyThere {
        /// The phase.
        phase: Phase,
        /// Its ramp.
        ramp: Ramp,
    },
    /// Past the point of no return.
    #[error("{0} cannot be rolled back: the old store has not been written since it was entered")]
    Irreversible(Phase),
    /// `new_primary` was entered without a reverse mapping.
    #[error(
        "new_primary cannot be rolled back: the manifest has no `mapping.reverse`, so the old store is stale"
    )]
    NoReverse,
}

/// The standing that follows `from` when `request` is granted.
///
/// `reversible` says whether the manifest has a reverse mapping, which keeps the old store fresh
/// in `new_primary`.
///
/// # Errors
/// When the request makes no sense where the migration stands.
pub fn next_standing(from: Standing, request: Request, reversible: bool) -> Result<Standing, Impossible> {
    let (phase, ramp) = match request {
        Request::Advance { ramp } => {
            let phase = from.phase.next().ok_or(Impossible::NothingAhead)?;
            if ramp != Ramp::FULL && !phase.is_ramped() {
                return Err(Impossible::NotRamped(phase));
            }
            (phase, ramp)
        }
        Request::Ramp(ramp) => {
            if !from.phase.is_ramped() {
                return Err(Impossible::NotRamped(from.phase));
            }
            if ramp == from.ramp {
                return Err(Impossible::AlreadyThere { phase: from.phase, ramp });
            }
            (from.phase, ramp)
        }
        Request::Rollback => match from.phase {
            Phase::OldOnly => return Err(Impossible::NothingBehind),
            Phase::NewOnly | Phase::Complete => return Err(Impossible::Irreversible(from.phase)),
            Phase::NewPrimary if !reversible => return Err(Impossible::NoReverse),
            // Every phase short of new_only was entered with the mirror at 100 %, so stepping back
            // to it at 100 % loses nothing; from dual_write the new store is simply left behind.
            Phase::DualWrite | Phase::ShadowRead | Phase::ReadNew | Phase::NewPrimary => {
                (from.phase.previous().ok_or(Impossible::NothingBehind)?, Ramp::FULL)
            }
        },
    };
    Ok(Standing { phase, ramp, epoch: from.epoch.next() })
}

/// Whether granting `request` can never be undone, so that the operator must type the name.
pub fn is_irreversible(from: Phase, request: Request, reversible: bool) -> bool {
    let Request::Advance { .. } = request else { return false };
    match from.next() {
        Some(Phase::NewPrimary) => !reversible,
        Some(Phase::NewOnly) => true,
        _ => false,
    }
}

/// Whether granting `request` ends the writing of the old store: what it holds from then on is an archive.
pub fn closes_old(from: Phase, request: Request, reversible: bool) -> bool {
    let Request::Advance { .. } = request else { return false };
    match from {
        Phase::ReadNew => !reversible,
        Phase::NewPrimary => reversible,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phase::Epoch;

    fn at(phase: Phase) -> Standing {
        Standing { phase, ramp: Ramp::FULL, epoch: Epoch(7) }
    }

    #[test]
    fn every_change_opens_a_new_epoch() {
        for phase in Phase::ALL {
            for request in
                [Request::Advance { ramp: Ramp::FULL }, Request::Ramp(Ramp::NONE), Request::Rollback]
            {
                if let Ok(next) = next_standing(at(phase), request, true) {
                    assert_eq!(next.epoch, Epoch(8));
                }
            }
        }
    }

    #[test]
    fn a_step_back_undoes_a_step_forward_until_new_only() {
        for phase in Phase::ALL {
            let Ok(forward) = next_standing(at(phase), Request::Advance { ramp: Ramp::FULL }, true) else {
                continue;
            };
            let back = next_standing(forward, Request::Rollback, true);
            if forward.phase < Phase::NewOnly {
                assert_eq!(back.unwrap().phase, phase);
            } else {
                assert_eq!(back, Err(Impossible::Irreversible(forward.phase)));
            }
        }
    }

    #[test]
    fn new_primary_without_a_reverse_mapping_is_a_one_way_door() {
        assert_eq!(
            next_standing(at(Phase::NewPrimary), Request::Rollback, false),
            Err(Impossible::NoReverse)
        );
        assert!(is_irreversible(Phase::ReadNew, Request::Advance { ramp: Ramp::FULL }, false));
        assert!(!is_irreversible(Phase::ReadNew, Request::Advance { ramp: Ramp::FULL }, true));
    }

    #[test]
    fn the_old_store_is_closed_by_the_step_after_which_nothing_writes_it() {
        use crate::phase::Mirroring;
        let is_written = |phase: Phase, reversible: bool| match at(phase).mirroring(true) {
            Mirroring::OldToNew => true,
            Mirroring::NewToOld => reversible,
            Mirroring::Off => phase.primary() == crate::phase::Side::Old,
        };
        let advance = Request::Advance { ramp: Ramp::FULL };
        for reversible in [true, false] {
            for phase in Phase::ALL {
                let Some(next) = phase.next() else { continue };
                let closes = is_written(phase, reversible) && !is_written(next, reversible);
                assert_eq!(
                    closes_old(phase, advance, reversible),
                    closes,
                    "{phase}, reversible {reversible}"
                );
            }
        }
        assert!(!closes_old(Phase::NewPrimary, Request::Rollback, true));
    }

    #[test]
    fn only_ramped_phases_take_a_ramp() {
        let half = Ramp::from_ppm(500_000);
        for phase in Phase::ALL {
            assert_eq!(
                next_standing(at(phase), Request::Ramp(half), true).is_ok(),
                phase.is_ramped(),
                "{phase}"
            );
        }
        assert_eq!(
            next_standing(at(Phase::ReadNew), Request::Advance { ramp: half }, true),
            Err(Impossible::NotRamped(Phase::NewPrimary))
        );
    }

    #[test]
    fn a_ramp_that_changes_nothing_is_refused() {
        let full = Request::Ramp(Ramp::FULL);
        assert!(matches!(
            next_standing(at(Phase::DualWrite), full, true),
            Err(Impossible::AlreadyThere { .. })
        ));
    }
}
