//! Where to cut a side into ranges that are read at the same time.

pub(super) mod postgres;

use std::num::NonZeroUsize;

/// How many ranges are worth it, of at most `count`. Each range may have a part of its cost that does not shrink with it,
/// such as a whole scan of a table without a fitting index; all these together should not cost more than one read of
/// everything does.
fn worthwhile(whole_cost: f64, range_cost: f64, count: NonZeroUsize) -> usize {
    let fixed = (range_cost - whole_cost / count.get() as f64) / whole_cost;
    if fixed.is_nan() || fixed <= 0.0 {
        return count.get();
    }
    // A float that is too large becomes the largest integer.
    ((1.0 / fixed) as usize).clamp(1, count.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIXTEEN: NonZeroUsize = NonZeroUsize::new(16).expect("not zero");

    #[test]
    fn ranges_that_cost_their_share_are_all_worth_it() {
        assert_eq!(worthwhile(1_600.0, 100.0, SIXTEEN), 16);
        assert_eq!(worthwhile(1_600.0, 90.0, SIXTEEN), 16);
        assert_eq!(worthwhile(0.0, 0.0, SIXTEEN), 16);
    }

    #[test]
    fn ranges_that_each_read_everything_are_not() {
        assert_eq!(worthwhile(1_600.0, 1_600.0, SIXTEEN), 1);
        assert_eq!(worthwhile(1_600.0, 500.0, SIXTEEN), 4);
        assert_eq!(worthwhile(1_600.0, 9_999.0, SIXTEEN), 1);
    }
}
