//! The rows of one scope key as one number.

use xxhash_rust::xxh3::xxh3_64;

/// Combines the hashes of all rows of one scope key, in any order, into one.
///
/// Cleanup compares what the old store holds for a key today with what a verification saw: the rows come from
/// different queries then, so their order must not matter, while their number must.
///
/// Defined, for ever, as `xxh3(0, u64(sum) ‖ u64(rows))`, where `sum` adds `xxh3(0, u64(row hash))` over the rows modulo
/// 2⁶⁴ and integers are little-endian.
///
/// ```
/// use crossfade_backfill::KeyHash;
///
/// let mut seen = KeyHash::default();
/// seen.add(1);
/// seen.add(2);
/// let mut today = KeyHash::default();
/// today.add(2);
/// today.add(1);
/// assert_eq!(seen.finish(), today.finish());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyHash {
    sum: u64,
    rows: u64,
}

impl KeyHash {
    /// Takes in one row. The row's hash is mixed first: plain sums of sums would not see two rows trade a value.
    pub fn add(&mut self, row_hash: u64) {
        self.sum = self.sum.wrapping_add(xxh3_64(&row_hash.to_le_bytes()));
        self.rows += 1;
    }

    /// How many rows it has taken in.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The key's hash.
    pub fn finish(&self) -> u64 {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.sum.to_le_bytes());
        bytes[8..].copy_from_slice(&self.rows.to_le_bytes());
        xxh3_64(&bytes)
    }
}

impl Extend<u64> for KeyHash {
    fn extend<T: IntoIterator<Item = u64>>(&mut self, hashes: T) {
        for hash in hashes {
            self.add(hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(hashes: &[u64]) -> u64 {
        let mut key = KeyHash::default();
        key.extend(hashes.iter().copied());
        key.finish()
    }

    #[test]
    fn order_does_not_matter_and_number_does() {
        assert_eq!(of(&[1, 2, 3]), of(&[3, 1, 2]));
        assert_ne!(of(&[1]), of(&[1, 1]));
        assert_ne!(of(&[]), of(&[0]));
    }

    #[test]
    fn rows_that_trade_a_value_are_seen() {
        assert_ne!(of(&[1, 4]), of(&[2, 3]));
    }

    #[test]
    fn it_is_stable_for_ever() {
        assert_eq!(of(&[1, 2, 3]), GOLDEN_OF_1_2_3);
    }

    const GOLDEN_OF_1_2_3: u64 = 4_508_605_864_220_096_988;
}
