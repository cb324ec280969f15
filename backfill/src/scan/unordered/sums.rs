//! Two sums over the hashes of a row's columns.

/// Two sums per row. The second weighs each column's hash by a number of the column's own, and is even.
pub(super) struct Sums {
    sums: Vec<[u64; 2]>,
}

impl Sums {
    pub(super) fn new(columns: usize, rows: usize) -> Self {
        let mut sums = Self { sums: Vec::new() };
        sums.clear(columns, rows);
        sums
    }

    /// Begins again with so many rows, over the same memory.
    pub(super) fn clear(&mut self, columns: usize, rows: usize) {
        self.sums.clear();
        self.sums.resize(if columns == 0 { 0 } else { rows }, [0; 2]);
    }

    /// Takes in a column's hashes, from this row on.
    pub(super) fn add(&mut self, column: usize, start: usize, hashes: &[u64]) {
        let weight = weight(column);
        for (sums, hash) in self.sums[start..].iter_mut().zip(hashes) {
            sums[0] = sums[0].wrapping_add(*hash);
            sums[1] = sums[1].wrapping_add(hash.wrapping_mul(weight));
        }
    }

    /// Those of all rows; nothing where there are no columns.
    pub(super) fn all(&self) -> &[[u64; 2]] {
        &self.sums
    }

    pub(super) fn of(&self, row: usize) -> [u64; 2] {
        self.sums.get(row).copied().unwrap_or_default()
    }
}

/// The column that alone makes two rows' sums differ so; nothing where there are more. Hashes have 64 bits, and that more
/// columns look like one is as likely as that two values have one hash.
pub(super) fn only_column(differences: &[u64], columns: usize) -> Option<usize> {
    let [plain, weighted] = differences else { return None };
    let mut found = (0..columns).filter(|column| plain.wrapping_mul(weight(*column)) == *weighted);
    found.next().filter(|_| *plain != 0 && found.next().is_none())
}

fn weight(column: usize) -> u64 {
    // Twice an odd number, so that multiplying loses one bit and no more, and far apart.
    ((column as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_mul(2) | 1).wrapping_mul(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differences(old: &[u64], new: &[u64]) -> [u64; 2] {
        let of = |hashes: &[u64]| {
            let mut sums = Sums::new(hashes.len(), 1);
            hashes.iter().enumerate().for_each(|(column, hash)| sums.add(column, 0, &[*hash]));
            sums.of(0)
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
            let second = (first + 7) % 40;
            new[second] = hash(101);
            assert_eq!(only_column(&differences(&old, &new), 40), None);
        }
    }
}
