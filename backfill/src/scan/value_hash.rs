//! Hashes of values that live no longer than a scan: as fast as can be, where a row hash has to be the same for ever.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::foreign::ValueHasher;

/// Odd, with as many ones as zeros: what a number is multiplied by.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// All that is no number is one value.
const NAN: u64 = f64::NAN.to_bits();

/// Hashes the values of one column. NULL is not for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ValueHash {
    seed: u64,
    numbers: Numbers,
}

/// What is equal although its bytes are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    /// Nothing.
    Bytes,
    /// Both zeros, and all that is no number.
    Float32,
    /// The same in eight bytes.
    Float64,
}

impl ValueHash {
    /// For the column at `position`, so that a value hashes otherwise in another column.
    pub(super) fn new(position: usize, numbers: Numbers) -> Self {
        Self { seed: (position as u64 + 1).wrapping_mul(FACTOR), numbers }
    }
}

impl ValueHasher for ValueHash {
    /// The two halves of a product of 128 bits, one over the other: each bit of the number reaches all of the hash.
    #[inline]
    fn word(&self, word: u64) -> u64 {
        let word = match self.numbers {
            Numbers::Bytes => word,
            Numbers::Float32 => canonical(f64::from(f32::from_bits(word as u32))),
            Numbers::Float64 => canonical(f64::from_bits(word)),
        };
        let product = u128::from(word ^ self.seed) * u128::from(FACTOR);
        product as u64 ^ (product >> 64) as u64
    }

    #[inline]
    fn bytes(&self, bytes: &[u8]) -> u64 {
        xxh3_64_with_seed(bytes, self.seed)
    }
}

/// Equal numbers have equal bits.
fn canonical(number: f64) -> u64 {
    // Adding 0.0 turns −0.0 into 0.0, and changes nothing else.
    if number.is_nan() { NAN } else { (number + 0.0).to_bits() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_numbers_hash_alike_and_others_do_not() {
        let wide = ValueHash::new(3, Numbers::Float64);
        assert_eq!(wide.word(0.0_f64.to_bits()), wide.word((-0.0_f64).to_bits()));
        assert_eq!(wide.word(f64::NAN.to_bits()), wide.word(f64::NAN.to_bits() | 1));
        assert_ne!(wide.word(1.0_f64.to_bits()), wide.word((-1.0_f64).to_bits()));
        let narrow = ValueHash::new(3, Numbers::Float32);
        assert_eq!(narrow.word(0), narrow.word(u64::from((-0.0_f32).to_bits())));
        let bytes = ValueHash::new(3, Numbers::Bytes);
        assert_ne!(bytes.word(0), bytes.word(1 << 63));
    }

    /// Numbers that lie close together, and that differ in one bit, are what columns are full of.
    #[test]
    fn close_numbers_do_not_collide() {
        let hash = ValueHash::new(0, Numbers::Bytes);
        let mut seen = std::collections::HashSet::new();
        let near = (0..200_000_u64).chain((0..200_000).map(|n| u64::MAX - n));
        let bits = (0..64).flat_map(|low| (0..low).map(move |high| 1_u64 << low | 1 << high));
        let numbers: std::collections::HashSet<u64> = near.chain(bits).collect();
        assert!(numbers.iter().all(|number| seen.insert(hash.word(*number))));
    }
}
