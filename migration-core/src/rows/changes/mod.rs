//! Which rows have surely not changed between two moments.

pub(super) mod postgres;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::ScopeRange;
use crate::error::Result;
use crate::phase::Side;

/// How many transactions may have begun between two moments at most. Rows keep but half of the identifier of the
/// transaction that wrote them, so that after four billion more it stands for another one; a quarter of that leaves room for
/// those that begin while ranges are looked at.
const TRANSACTIONS_MAX: u64 = 1 << 30;

/// What a later moment is held against: how far the transactions of a store had come at one, and what must still be as it was
/// for their identifiers to mean the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Horizon {
    /// Every transaction with a smaller identifier had ended.
    pub ended_below: u64,
    /// No transaction with this or a greater identifier had begun.
    pub begun_below: u64,
    /// Which server, since when.
    pub server: String,
    /// Which table, in which file.
    pub table: String,
    /// The table's columns and their types, and when they were last altered.
    pub columns: String,
}

impl Horizon {
    /// Why nothing can be said of what has changed since an earlier horizon, if so.
    pub fn obstacle(&self, earlier: &Horizon) -> Option<&'static str> {
        if self.server != earlier.server {
            return Some("the server was restarted since, or is another one");
        }
        if self.table != earlier.table {
            return Some("the table was truncated, rewritten or made anew since");
        }
        if self.columns != earlier.columns {
            return Some("the table's columns were altered since");
        }
        let distance = self.begun_below.checked_sub(earlier.ended_below);
        if self.ended_below < earlier.ended_below
            || distance.is_none_or(|distance| distance > TRANSACTIONS_MAX)
        {
            return Some("more than a thousand million transactions lie between the two");
        }
        None
    }
}

/// Looks at what has changed between an earlier moment and the present one.
///
/// # Contract
/// What it calls unchanged is so, whatever was written and by whom; whatever cannot be proven is an obstacle, or changed.
#[async_trait]
pub trait Changes: Send + Sync {
    /// The present moment's horizon, for this side's rows; the inner error says in words why there is none.
    async fn horizon(&self, side: Side) -> Result<std::result::Result<Horizon, String>>;

    /// Whether a range, which had so many rows at an earlier horizon that the present one has no obstacle to, still has the same
    /// ones.
    async fn is_unchanged(&self, side: Side, range: &ScopeRange, since: &Horizon, rows: u64) -> Result<bool>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn horizon(ended_below: u64, begun_below: u64) -> Horizon {
        let named = |name: &str| name.to_owned();
        Horizon { ended_below, begun_below, server: named("s"), table: named("t"), columns: named("c") }
    }

    #[test]
    fn what_must_stay_the_same_is_an_obstacle_when_it_does_not() {
        let earlier = horizon(1_000, 1_010);
        assert_eq!(horizon(1_000, 1_010).obstacle(&earlier), None);
        assert_eq!(horizon(2_000, 2_000).obstacle(&earlier), None);
        for change in [
            |horizon: &mut Horizon| horizon.server.push('2'),
            |horizon: &mut Horizon| horizon.table.push('2'),
            |horizon: &mut Horizon| horizon.columns.push('2'),
        ] {
            let mut later = horizon(2_000, 2_000);
            change(&mut later);
            assert!(later.obstacle(&earlier).is_some());
        }
    }

    #[test]
    fn identifiers_that_went_back_or_round_are_an_obstacle() {
        let earlier = horizon(1_000, 1_010);
        assert!(horizon(999, 1_020).obstacle(&earlier).is_some());
        assert!(horizon(0, 10).obstacle(&earlier).is_some());
        let around = 1_000 + TRANSACTIONS_MAX;
        assert_eq!(horizon(around, around).obstacle(&earlier), None);
        assert!(horizon(around, around + 1).obstacle(&earlier).is_some());
    }
}
