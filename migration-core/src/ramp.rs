//! Which keys a ramp takes.

use crossfade_experiment::Bucket;

use crate::key::Key;
use crate::phase::Ramp;

/// Whether `key` is in the ramped share of `migration`.
///
/// The same answer on every instance, in every process and for ever; a key that is in a ramp is in
/// every larger one.
pub fn is_in(migration: &str, key: &Key, ramp: Ramp) -> bool {
    Bucket::of(migration, &key.to_bytes()).is_in(ramp.ppm())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_is_sticky_monotone_and_of_its_size() {
        let ramps = [0, 1_000, 250_000, 500_000, 1_000_000].map(Ramp::from_ppm);
        let mut taken = [0_u32; 5];
        for id in 0..20_000_i64 {
            let key = Key::from(id);
            let inside = ramps.map(|ramp| is_in("subscriptions", &key, ramp));
            assert!(inside.is_sorted(), "key {id} left a ramp that grew");
            for (count, inside) in taken.iter_mut().zip(inside) {
                *count += u32::from(inside);
            }
        }
        assert_eq!((taken[0], taken[4]), (0, 20_000));
        assert!(
            taken[1].abs_diff(20) < 20 && taken[2].abs_diff(5_000) < 250 && taken[3].abs_diff(10_000) < 300,
            "{taken:?}"
        );
    }
}
