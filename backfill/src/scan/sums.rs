//! Two sums over the hashes of a row's columns.

use super::columns::BLOCK_ROWS;

/// Two sums for each row of a block: of the hashes of its columns, and of what that sum was after each column. So the second
/// weighs each column's hash by the number of columns from it on, and costs an addition and no more.
#[derive(Debug)]
pub(super) struct BlockSums {
    plain: [u64; BLOCK_ROWS],
    weighted: [u64; BLOCK_ROWS],
    all: [[u64; 2]; BLOCK_ROWS],
}

impl Default for BlockSums {
    fn default() -> Self {
        Self { plain: [0; BLOCK_ROWS], weighted: [0; BLOCK_ROWS], all: [[0; 2]; BLOCK_ROWS] }
    }
}

impl BlockSums {
    /// Begins again.
    pub(super) fn clear(&mut self) {
        self.plain.fill(0);
        self.weighted.fill(0);
    }

    /// Takes in the next column's hashes, one for each row.
    pub(super) fn add(&mut self, hashes: &[u64]) {
        for ((plain, weighted), hash) in self.plain.iter_mut().zip(&mut self.weighted).zip(hashes) {
            *plain = plain.wrapping_add(*hash);
            *weighted = weighted.wrapping_add(*plain);
        }
    }

    /// Both sums of each row. The second is even.
    pub(super) fn all(&mut self) -> &[[u64; 2]] {
        for ((all, plain), weighted) in self.all.iter_mut().zip(&self.plain).zip(&self.weighted) {
            *all = [*plain, *weighted << 1];
        }
        &self.all
    }
}

/// The column that alone makes two rows' sums differ so; nothing where there are more. Hashes have 64 bits, and that more
/// columns look like one is about as likely as that two values have one hash.
pub(super) fn only_column(differences: &[u64], columns: usize) -> Option<usize> {
    let [plain, weighted] = differences else { return None };
    let weight = |column: usize| 2 * (columns - column) as u64;
    let mut found = (0..columns).filter(|column| plain.wrapping_mul(weight(*column)) == *weighted);
    found.next().filter(|_| *plain != 0 && found.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differences(old: &[u64], new: &[u64]) -> [u64; 2] {
        let of = |hashes: &[u64]| {
            let mut sums = BlockSums::default();
            hashes.iter().for_each(|hash| sums.add(&[*hash]));
            sums.all()[0]
        };
        let (old, new) = (of(old), of(new));
        [old[0].wrapping_sub(new[0]), old[1].wrapping_sub(new[1])]
    }

    #[test]
    fn one_column_is_named_and_two_are_not() {
        let hash = |n: u64| xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes());
        let old: Vec<u64> = (0..40).map(hash).collect();
        for first in 0..40 {
            let mut new = old.clone();
            new[first] = hash(100);
            assert_eq!(only_column(&differences(&old, &new), 40), Some(first));
            for second in (0..40).filter(|second| *second != first) {
                let mut both = new.clone();
                both[second] = hash(101);
                assert_eq!(only_column(&differences(&old, &both), 40), None);
            }
        }
    }

    /// Two values that change places leave the first sum as it was where their hashes do not depend on the column.
    #[test]
    fn hashes_that_change_places_differ() {
        for (first, second) in (0..40).flat_map(|first| (0..first).map(move |second| (first, second))) {
            let old: Vec<u64> = (0..40).collect();
            let mut new = old.clone();
            new.swap(first, second);
            let differences = differences(&old, &new);
            assert_eq!((differences[0], differences[1] != 0), (0, true));
            assert_eq!(only_column(&differences, 40), None);
        }
    }
}
