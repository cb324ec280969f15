//! Where a migration stands: its phase, its ramp and its epoch.
//!
//! Everything here is a value; who may move from one standing to the next is decided in
//! [`crate::transition`], and what must be true before in [`crate::gate`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The seven phases of a migration, in the order in which they are entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Reads and writes go to the old store; the new one is not touched.
    OldOnly,
    /// Writes go to the old store and are mirrored to the new one, for the ramped share of keys.
    DualWrite,
    /// As `DualWrite` for every key; a sample of reads is compared with the new store.
    ShadowRead,
    /// Reads of the ramped share of keys are answered by the new store.
    ReadNew,
    /// The new store decides; writes are mirrored back to the old one, which is an archive now.
    NewPrimary,
    /// The new store alone; any use of the old path is an error.
    NewOnly,
    /// The old data has been removed.
    Complete,
}

/// One of the two stores of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The store that data moves out of.
    Old,
    /// The store that data moves into.
    New,
}

/// What has to happen in the secondary store when a key is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mirroring {
    /// Nothing: only one store is written.
    Off,
    /// The new store follows the old one.
    OldToNew,
    /// The old store follows the new one.
    NewToOld,
}

impl Phase {
    /// All phases, in order.
    pub const ALL: [Phase; 7] = [
        Phase::OldOnly,
        Phase::DualWrite,
        Phase::ShadowRead,
        Phase::ReadNew,
        Phase::NewPrimary,
        Phase::NewOnly,
        Phase::Complete,
    ];

    /// The phase that follows, if there is one.
    pub fn next(self) -> Option<Phase> {
        Self::ALL.get(self as usize + 1).copied()
    }

    /// The phase before, if there is one.
    pub fn previous(self) -> Option<Phase> {
        (self as usize).checked_sub(1).map(|index| Self::ALL[index])
    }

    /// The store whose write decides in this phase.
    pub fn primary(self) -> Side {
        if self < Phase::NewPrimary { Side::Old } else { Side::New }
    }

    /// Whether the ramp means something in this phase; elsewhere it is always 100 %.
    pub fn is_ramped(self) -> bool {
        matches!(self, Phase::DualWrite | Phase::ShadowRead | Phase::ReadNew)
    }

    /// Whether the old path still answers. From `NewOnly` on it raises.
    pub fn is_old_path_open(self) -> bool {
        self < Phase::NewOnly
    }

    /// The phase's name as it is written in manifests, control records and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::OldOnly => "old_only",
            Phase::DualWrite => "dual_write",
            Phase::ShadowRead => "shadow_read",
            Phase::ReadNew => "read_new",
            Phase::NewPrimary => "new_primary",
            Phase::NewOnly => "new_only",
            Phase::Complete => "complete",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Side::Old => "old",
            Side::New => "new",
        })
    }
}

/// A phase name that is none of the seven.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no phase; the phases are old_only, dual_write, shadow_read, read_new, new_primary, new_only, complete"
)]
pub struct UnknownPhase(pub String);

impl FromStr for Phase {
    type Err = UnknownPhase;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|phase| phase.as_str() == text)
            .ok_or_else(|| UnknownPhase(text.to_owned()))
    }
}

/// The share of keys that a phase applies to, in parts per million.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ramp(u32);

/// A ramp outside 0 to 100 %.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("a ramp is a percentage from 0 to 100, not {0}")]
pub struct RampOutOfRange(pub f64);

impl Ramp {
    /// No key at all.
    pub const NONE: Ramp = Ramp(0);
    /// Every key.
    pub const FULL: Ramp = Ramp(1_000_000);

    /// A ramp of `percent` of all keys, to a ten-thousandth of a percent.
    ///
    /// # Errors
    /// When `percent` is not a number from 0 to 100.
    pub fn from_percent(percent: f64) -> Result<Ramp, RampOutOfRange> {
        if (0.0..=100.0).contains(&percent) {
            Ok(Ramp((percent * 10_000.0).round() as u32))
        } else {
            Err(RampOutOfRange(percent))
        }
    }

    /// A ramp of `ppm` keys in a million; more than a million means all of them.
    pub fn from_ppm(ppm: u32) -> Ramp {
        Ramp(ppm.min(Self::FULL.0))
    }

    /// Keys in a million.
    pub fn ppm(self) -> u32 {
        self.0
    }

    /// The percentage of keys, 0 to 100.
    pub fn percent(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }
}

impl fmt::Display for Ramp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.percent())
    }
}

/// A number that grows by one with every change of phase or ramp.
///
/// Evidence is stamped with it, and counts only while it is still the current one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub i64);

impl Epoch {
    /// The epoch of a migration that has just been registered.
    pub const FIRST: Epoch = Epoch(1);

    /// The epoch after this one.
    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a migration stands at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The phase.
    pub phase: Phase,
    /// The share of keys that the phase applies to.
    pub ramp: Ramp,
    /// The number of this standing.
    pub epoch: Epoch,
}

impl Standing {
    /// The standing of a migration that has just been registered.
    pub const INITIAL: Standing = Standing { phase: Phase::OldOnly, ramp: Ramp::FULL, epoch: Epoch::FIRST };

    /// What a write to a key means for the secondary store.
    ///
    /// `in_ramp` says whether the key is in the ramped share; it only matters in `dual_write`,
    /// because the ramps of later phases choose reads.
    pub fn mirroring(self, in_ramp: bool) -> Mirroring {
        match self.phase {
            Phase::OldOnly => Mirroring::Off,
            Phase::DualWrite if !in_ramp => Mirroring::Off,
            Phase::DualWrite | Phase::ShadowRead | Phase::ReadNew => Mirroring::OldToNew,
            Phase::NewPrimary => Mirroring::NewToOld,
            Phase::NewOnly | Phase::Complete => Mirroring::Off,
        }
    }

    /// The store that answers reads of a key.
    pub fn reads(self, in_ramp: bool) -> Side {
        match self.phase {
            Phase::OldOnly | Phase::DualWrite | Phase::ShadowRead => Side::Old,
            Phase::ReadNew if !in_ramp => Side::Old,
            Phase::ReadNew | Phase::NewPrimary | Phase::NewOnly | Phase::Complete => Side::New,
        }
    }

    /// Whether a read of a key is also tried on the new store and compared.
    pub fn shadows(self, in_sample: bool) -> bool {
        self.phase == Phase::ShadowRead && in_sample
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.phase.is_ramped() {
            write!(f, "{} at {} (epoch {})", self.phase, self.ramp, self.epoch)
        } else {
            write!(f, "{} (epoch {})", self.phase, self.epoch)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_chain_in_both_directions() {
        for pair in Phase::ALL.windows(2) {
            assert_eq!(pair[0].next(), Some(pair[1]));
            assert_eq!(pair[1].previous(), Some(pair[0]));
        }
        assert_eq!(Phase::OldOnly.previous(), None);
        assert_eq!(Phase::Complete.next(), None);
    }

    #[test]
    fn names_survive_a_round_trip() {
        for phase in Phase::ALL {
            assert_eq!(phase.as_str().parse(), Ok(phase));
        }
        assert!("dual-write".parse::<Phase>().is_err());
    }

    #[test]
    fn adjacent_phases_never_disagree_on_an_unmirrored_write() {
        // A writer one phase behind or ahead must not write a store that the other's readers trust
        // without the mirror: wherever reads may come from the new store, writes reach it.
        for phase in Phase::ALL {
            let standing = Standing { phase, ramp: Ramp::FULL, epoch: Epoch::FIRST };
            if standing.reads(true) == Side::New && standing.phase.primary() == Side::Old {
                assert_eq!(standing.mirroring(true), Mirroring::OldToNew, "{phase}");
                assert_eq!(standing.mirroring(false), Mirroring::OldToNew, "{phase}");
            }
        }
    }

    #[test]
    fn ramps_are_percentages() {
        assert_eq!(Ramp::from_percent(12.5).unwrap().ppm(), 125_000);
        assert_eq!(Ramp::from_percent(100.0).unwrap(), Ramp::FULL);
        assert!(Ramp::from_percent(100.1).is_err());
        assert!(Ramp::from_percent(f64::NAN).is_err());
        assert_eq!(Ramp::from_ppm(u32::MAX), Ramp::FULL);
    }
}
