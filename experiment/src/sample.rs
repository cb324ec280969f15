//! Which calls take part: sticky buckets by key, and a switch that can be turned while calls run.
//!
//! A bucket is a pure function of a seed and a key and never changes between releases: ramps, shadow
//! reads and the offline scanner must agree on it, on every instance, for ever. Raising the share only
//! ever adds keys.

use std::sync::atomic::{AtomicU32, Ordering};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::Error;

/// The whole of a population, in parts per million.
pub const PPM_ALL: u32 = 1_000_000;

/// A key's place in `0..1_000_000`, fixed for ever by a seed and the key's bytes.
///
/// ```
/// use crossfade_experiment::Bucket;
///
/// let bucket = Bucket::of("subscriptions", b"customer-17");
/// assert!(bucket.is_in(1_000_000) && !bucket.is_in(0));
/// // Monotone: a key that is in at some share is in at every larger one.
/// assert!((0..1_000_000).step_by(997).all(|ppm| !bucket.is_in(ppm) || bucket.is_in(ppm + 1)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(u32);

impl Bucket {
    /// The bucket of `key` under `seed`: the name of a migration or of an experiment.
    ///
    /// Where many keys share a seed, [`Seed::bucket`] hashes the seed only once.
    #[must_use]
    pub fn of(seed: &str, key: &[u8]) -> Self {
        Seed::new(seed).bucket(key)
    }

    /// Whether a share of `ppm` parts per million takes this key in. Everything is in at
    /// [`PPM_ALL`], nothing at 0.
    #[inline]
    #[must_use]
    pub fn is_in(self, ppm: u32) -> bool {
        self.0 < ppm
    }

    /// The place itself, in `0..1_000_000`.
    #[must_use]
    pub fn ppm(self) -> u32 {
        self.0
    }
}

/// A seed, hashed once, for bucketing many keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seed(u64);

impl Seed {
    /// Hashes a seed: the name of a migration or of an experiment.
    #[must_use]
    pub fn new(seed: &str) -> Self {
        Self(xxh3_64(seed.as_bytes()))
    }

    /// The bucket of `key`: XXH3-64 of the key, seeded with XXH3-64 of the seed, scaled to a million by
    /// taking the high half of the product.
    #[inline]
    #[must_use]
    pub fn bucket(self, key: &[u8]) -> Bucket {
        let scaled = u128::from(xxh3_64_with_seed(key, self.0)) * u128::from(PPM_ALL);
        Bucket((scaled >> 64) as u32)
    }
}

/// The share of calls that an experiment looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sampling {
    /// None: each call is the bare control.
    #[default]
    Never,
    /// All.
    Always,
    /// The keys whose [`Bucket`] is in this share, in parts per million: sticky and monotone.
    ByKey(u32),
    /// Calls drawn at random with this chance, in parts per million.
    Random(u32),
}

impl Sampling {
    /// A share by key, in percent: what a ramp is usually given in.
    ///
    /// # Errors
    /// [`Error::Share`] where `percent` is not within 0 and 100.
    pub fn by_key_percent(percent: f64) -> Result<Self, Error> {
        if !(0.0..=100.0).contains(&percent) {
            return Err(Error::Share { given: percent.to_string() });
        }
        Ok(Self::ByKey((percent * 10_000.0).round() as u32))
    }
}

/// What the switch says about one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Draw {
    /// Control alone, and nothing of the experiment.
    Bare,
    /// Control and candidate.
    Sampled,
    /// The candidate alone, by force; the first, where there are several.
    ForcedCandidate,
    /// One candidate alone, by force: the one whose name the experiment knows.
    ForcedName,
}

/// A [`Sampling`] that can be changed while calls read it: one word, read relaxed.
#[derive(Debug)]
pub(crate) struct Switch(AtomicU32);

/// The share takes the lowest bits: a million fits in 20.
const SHARE_MASK: u32 = (1 << 20) - 1;
const ALWAYS: u32 = 1 << 20;
const BY_KEY: u32 = 2 << 20;
const RANDOM: u32 = 3 << 20;
const FORCED_CANDIDATE: u32 = 4 << 20;
const FORCED_NAME: u32 = 5 << 20;
const KIND_MASK: u32 = 7 << 20;

impl Switch {
    pub(crate) fn new(sampling: Sampling) -> Self {
        Self(AtomicU32::new(word(sampling)))
    }

    pub(crate) fn set(&self, sampling: Sampling) {
        self.0.store(word(sampling), Ordering::Relaxed);
    }

    pub(crate) fn force_candidate(&self) {
        self.0.store(FORCED_CANDIDATE, Ordering::Relaxed);
    }

    pub(crate) fn force_name(&self) {
        self.0.store(FORCED_NAME, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Sampling {
        let word = self.0.load(Ordering::Relaxed);
        match word & KIND_MASK {
            ALWAYS => Sampling::Always,
            BY_KEY => Sampling::ByKey(word & SHARE_MASK),
            RANDOM => Sampling::Random(word & SHARE_MASK),
            _ => Sampling::Never,
        }
    }

    /// The zero word is "never", so that the commonest answer is a single comparison.
    #[inline]
    pub(crate) fn draw(&self, seed: Seed, key: &[u8]) -> Draw {
        let word = self.0.load(Ordering::Relaxed);
        if word == 0 {
            return Draw::Bare;
        }
        let (kind, share) = (word & KIND_MASK, word & SHARE_MASK);
        // One comparison after the other: a jump through a table costs more than they do.
        let sampled = if kind == BY_KEY {
            seed.bucket(key).is_in(share)
        } else if kind == RANDOM {
            fastrand::u32(..PPM_ALL) < share
        } else {
            return Self::draw_unconditional(kind);
        };
        if sampled { Draw::Sampled } else { Draw::Bare }
    }

    #[inline(never)]
    fn draw_unconditional(kind: u32) -> Draw {
        match kind {
            FORCED_CANDIDATE => Draw::ForcedCandidate,
            FORCED_NAME => Draw::ForcedName,
            _ => Draw::Sampled,
        }
    }
}

/// Shares beyond the whole mean the whole; an empty share is the zero word.
fn word(sampling: Sampling) -> u32 {
    match sampling {
        Sampling::Never | Sampling::ByKey(0) | Sampling::Random(0) => 0,
        Sampling::Always => ALWAYS,
        Sampling::ByKey(ppm) => BY_KEY | ppm.min(PPM_ALL),
        Sampling::Random(ppm) => RANDOM | ppm.min(PPM_ALL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_never_change_between_releases() {
        let golden = [
            ("subscriptions", &b"1"[..]),
            ("subscriptions", b"customer-17"),
            ("", b""),
            ("orders", &[0xff; 300]),
        ]
        .map(|(seed, key)| Bucket::of(seed, key).ppm());
        assert_eq!(golden, [991_589, 489_024, 254_624, 452_075]);
    }

    #[test]
    fn shares_are_kept_within_a_tenth_of_a_percent() {
        let seed = Seed::new("share");
        let inside = (0..200_000u32).filter(|n| seed.bucket(&n.to_le_bytes()).is_in(250_000)).count();
        assert!((49_000..51_000).contains(&inside), "{inside} of 200,000 at a quarter");
    }

    #[test]
    fn seeds_are_independent() {
        let (a, b) = (Seed::new("a"), Seed::new("b"));
        let both = (0..100_000u32)
            .map(u32::to_le_bytes)
            .filter(|key| a.bucket(key).is_in(500_000) && b.bucket(key).is_in(500_000))
            .count();
        assert!((24_000..26_000).contains(&both), "{both} of 100,000 in two independent halves");
    }

    #[test]
    fn random_shares_are_kept_and_draw_each_call_anew() {
        let switch = Switch::new(Sampling::Random(250_000));
        let draw = |_: &u32| switch.draw(Seed::new("random"), b"one key") == Draw::Sampled;
        let sampled = (0..200_000).filter(draw).count();
        // Five standard deviations.
        assert!((49_000..51_000).contains(&sampled), "{sampled} of 200,000 at a quarter");
    }

    #[test]
    fn the_switch_gives_back_what_was_set() {
        let switch = Switch::new(Sampling::Never);
        for sampling in [
            Sampling::Always,
            Sampling::ByKey(1),
            Sampling::ByKey(PPM_ALL),
            Sampling::Random(500_000),
            Sampling::Never,
        ] {
            switch.set(sampling);
            assert_eq!(switch.get(), sampling);
        }
    }

    #[test]
    fn percentages_are_checked() {
        assert_eq!(Sampling::by_key_percent(12.5).unwrap(), Sampling::ByKey(125_000));
        assert!(Sampling::by_key_percent(100.1).is_err());
        assert!(Sampling::by_key_percent(f64::NAN).is_err());
    }
}
