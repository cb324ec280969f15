//! Rows put together by where their keys lie.

use crate::scan::columns::BLOCK_ROWS;

/// Rows of a row group, or of a part of it, by the region that their numbers are in. What is looked up for them then lies close
/// together, where rows in no order would each have a page of memory found for them.
#[derive(Default)]
pub(super) struct Regions {
    shift: u32,
    /// Where the next row of each region goes.
    places: Vec<u32>,
    rows: Vec<Row>,
}

/// A number, and the sums of its row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) number: u64,
    pub(super) sums: [u64; 2],
}

/// So many that a region of tens of millions of rows has as many pages of memory as a processor knows by heart, and not so many that
/// putting rows there costs as much as looking them up would have.
const REGION_BITS: u32 = 10;

/// Rows that are put together: as many as usual row groups have, in whole blocks.
pub(super) const TURN_ROWS: usize = 256 * BLOCK_ROWS;

impl Regions {
    /// Makes room for these numbers, which are below `end`, which is not 0.
    pub(super) fn begin(&mut self, numbers: &[u64], end: u64) {
        self.shift = (u64::BITS - (end - 1).leading_zeros()).saturating_sub(REGION_BITS);
        self.places.clear();
        self.places.resize((1 << REGION_BITS) + 1, 0);
        for number in numbers {
            self.places[(number >> self.shift) as usize + 1] += 1;
        }
        let mut before = 0;
        for place in &mut self.places {
            before += *place;
            *place = before;
        }
        self.rows.resize(numbers.len(), Row::default());
    }

    /// Takes in rows with some of these numbers.
    pub(super) fn put(&mut self, numbers: &[u64], sums: &[[u64; 2]]) {
        for (number, sums) in numbers.iter().zip(sums) {
            let place = &mut self.places[(number >> self.shift) as usize];
            self.rows[*place as usize] = Row { number: *number, sums: *sums };
            *place += 1;
        }
    }

    /// All of them, region by region.
    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_rows_come_out_by_region() {
        let mut random = fastrand::Rng::with_seed(5);
        let mut regions = Regions::default();
        for end in [1, 2, 1000, 1 << 20, 12_345_678, u64::MAX] {
            let numbers: Vec<u64> = (0..5000).map(|_| random.u64(..end)).chain([end - 1, 0]).collect();
            let sums: Vec<[u64; 2]> = numbers.iter().map(|number| [number ^ 1, number ^ 2]).collect();
            regions.begin(&numbers, end);
            for (numbers, sums) in numbers.chunks(512).zip(sums.chunks(512)) {
                regions.put(numbers, sums);
            }
            let rows = regions.rows();
            assert!(rows.iter().all(|row| row.sums == [row.number ^ 1, row.number ^ 2]));
            assert!(rows.is_sorted_by_key(|row| row.number >> regions.shift), "below {end}");
            assert!(regions.shift == 0 || (end - 1) >> regions.shift >= 1 << (REGION_BITS - 1));
            let mut found: Vec<u64> = rows.iter().map(|row| row.number).collect();
            let mut expected = numbers.clone();
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected);
        }
    }
}
