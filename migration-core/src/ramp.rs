//! Which keys a ramp takes.

use crate::key::Key;
use crate::phase::Ramp;

/// Whether `key` is in the ramped share of `migration`.
///
/// The same answer on every instance, in every process and for ever; a key that is in a ramp is in
/// every larger one.
pub fn is_in(migration: &str, key: &Key, ramp: Ramp) -> bool {
    ramp == Ramp::FULL || bucket(migration, &key.to_bytes()) < ramp.ppm()
}

fn bucket(seed: &str, key: &[u8]) -> u32 {
    let seed = xxhash_rust::xxh3::xxh3_64(seed.as_bytes());
    ((u128::from(xxhash_rust::xxh3::xxh3_64_with_seed(key, seed)) * 1_000_000) >> 64) as u32
}
