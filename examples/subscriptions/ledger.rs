//! The ledger: what was acknowledged, when, and therefore what any answer may be.
//!
//! Of each subscription it keeps every state that it was ever put in, with the moment at which the
//! write began and the one at which it was acknowledged. A state may be seen from the moment its write
//! began until the moment the next one was acknowledged; in between nobody can tell which of the two
//! comes first. An answer that took from *a* to *b* is right if there is one moment between *a* and *b*
//! at which all that it says may be seen at once. Writes to different subscriptions of one customer may
//! overlap; those to the same one may not.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use fastrand::Rng;

use crate::database;
use crate::subscription::Subscription;

/// All customers.
pub(crate) struct Ledger {
    customers: Vec<Mutex<Customer>>,
    start: Instant,
    acknowledged: AtomicU64,
}

/// Nanoseconds since the ledger was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

/// A write that is about to be made.
pub(crate) struct Intent {
    pub(crate) customer: i64,
    pub(crate) id: i64,
    pub(crate) change: Change,
}

/// What a write does to a subscription.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Create(Subscription),
    Price(i64),
    Cancel,
    Delete,
}

/// What is wrong with an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A write was acknowledged, and the subscription is as it was before.
    Lost(String),
    /// A subscription was deleted, and is there.
    Resurrected(String),
    /// A state that was never written, or states that never were together.
    Unfounded(String),
}

struct Customer {
    id_next: i64,
    subscriptions: BTreeMap<i64, Vec<Version>>,
}

/// A state of a subscription; `None` is that it is deleted.
struct Version {
    state: Option<Subscription>,
    began: Moment,
    acknowledged: Option<Moment>,
}

/// Before the ledger was opened: the customers' first subscriptions.
const BEGINNING: Moment = Moment(0);

impl Ledger {
    /// A ledger of customers as they are, the one with key 1 first.
    pub(crate) fn open(customers: Vec<Vec<Subscription>>) -> Ledger {
        let customer = |subscriptions: Vec<Subscription>| {
            let version = |subscription: Subscription| {
                let id = subscription.id;
                let version =
                    Version { state: Some(subscription), began: BEGINNING, acknowledged: Some(BEGINNING) };
                (id, vec![version])
            };
            let id_next = subscriptions.len() as i64 + 1;
            Mutex::new(Customer { id_next, subscriptions: subscriptions.into_iter().map(version).collect() })
        };
        Ledger {
            customers: customers.into_iter().map(customer).collect(),
            start: Instant::now(),
            acknowledged: AtomicU64::new(0),
        }
    }

    /// How many customers there are: their keys are 1 to this.
    pub(crate) fn customers(&self) -> i64 {
        self.customers.len() as i64
    }

    /// How many writes have been acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Now.
    pub(crate) fn now(&self) -> Moment {
        Moment(self.start.elapsed().as_nanos() as u64)
    }

    /// Picks a change to make to a customer and notes that it begins.
    pub(crate) fn begin(&self, key: i64, rng: &mut Rng) -> Intent {
        let mut customer = self.customer(key);
        let (id, change) = customer.pick(rng);
        let before = customer.subscriptions.get(&id).and_then(|versions| versions.last()?.state.clone());
        let version = Version { state: change.apply(before), began: self.now(), acknowledged: None };
        customer.subscriptions.entry(id).or_default().push(version);
        Intent { customer: key, id, change }
    }

    /// Notes that a write was acknowledged. One that failed stays in flight for ever: nobody can tell
    /// whether it was made.
    pub(crate) fn acknowledge(&self, intent: &Intent) {
        let now = self.now();
        let mut customer = self.customer(intent.customer);
        let versions = customer.subscriptions.get_mut(&intent.id);
        if let Some(version) = versions.and_then(|versions| versions.last_mut()) {
            version.acknowledged = Some(now);
        }
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    /// What is wrong with an answer about a customer that was given between two moments.
    pub(crate) fn judge(&self, key: i64, answer: &[Subscription], from: Moment, to: Moment) -> Vec<Fault> {
        self.customer(key).judge(key, answer, from, to)
    }

    /// How many subscriptions there are by the ledger, when nothing is in flight.
    pub(crate) fn subscriptions(&self) -> u64 {
        let exists = |versions: &&Vec<Version>| versions.last().is_some_and(|last| last.state.is_some());
        let count = |key| self.customer(key).subscriptions.values().filter(exists).count() as u64;
        (1..=self.customers()).map(count).sum()
    }

    fn customer(&self, key: i64) -> MutexGuard<'_, Customer> {
        self.customers[(key - 1) as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Change {
    fn apply(&self, before: Option<Subscription>) -> Option<Subscription> {
        match self {
            Change::Create(subscription) => Some(subscription.clone()),
            Change::Price(price_cents) => {
                before.map(|before| Subscription { price_cents: *price_cents, ..before })
            }
            Change::Cancel => before.map(|before| Subscription { cancelled: true, ..before }),
            Change::Delete => None,
        }
    }
}

impl Customer {
    /// A change to a subscription that no other write is changing, or a new subscription. Customers
    /// neither grow for ever nor run dry.
    fn pick(&mut self, rng: &mut Rng) -> (i64, Change) {
        let idle = |(id, versions): (&i64, &Vec<Version>)| {
            let last = versions.last().filter(|last| last.acknowledged.is_some())?;
            Some((*id, last.state.clone()?))
        };
        let idle: Vec<_> = self.subscriptions.iter().filter_map(idle).collect();
        if idle.is_empty() || rng.usize(..8) >= idle.len() {
            let id = self.id_next;
            self.id_next += 1;
            return (id, Change::Create(database::subscription(id, rng)));
        }
        let (id, subscription) = &idle[rng.usize(..idle.len())];
        let change = match rng.u8(..4) {
            0 => Change::Delete,
            1 if !subscription.cancelled => Change::Cancel,
            // Prices only rise, so that no state of a subscription ever comes again.
            _ => Change::Price(subscription.price_cents + rng.i64(1..100)),
        };
        (*id, change)
    }

    fn judge(&self, key: i64, answer: &[Subscription], from: Moment, to: Moment) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut sights = Vec::new();
        for subscription in answer {
            if !self.subscriptions.contains_key(&subscription.id) {
                faults.push(Fault::Unfounded(format!("customer {key}: nobody has created {subscription:?}")));
            }
        }
        for (id, versions) in &self.subscriptions {
            let mut answers = answer.iter().filter(|subscription| subscription.id == *id);
            let seen = answers.next();
            let intervals = intervals(versions, seen);
            if answers.next().is_some() || (seen.is_some() && intervals.is_empty()) {
                faults.push(Fault::Unfounded(format!(
                    "customer {key}: nobody has written {seen:?}, or not twice"
                )));
            } else if !intervals.iter().any(|(begin, end)| *begin <= to && from <= *end) {
                let text = format!("customer {key}, subscription {id}: seen as {seen:?}");
                let is_deleted = versions.iter().any(|version| {
                    version.state.is_none() && version.acknowledged.is_some_and(|at| at <= from)
                });
                faults.push(match seen {
                    Some(_) if is_deleted => Fault::Resurrected(text),
                    _ => Fault::Lost(text),
                });
            }
            sights.push(intervals);
        }
        let begins =
            sights.iter().flatten().map(|(begin, _)| (*begin).max(from)).filter(|begin| *begin <= to);
        let is_together = |moment: Moment| {
            sights.iter().all(|sight| sight.iter().any(|(begin, end)| (*begin..=*end).contains(&moment)))
        };
        // If there is such a moment, the latest beginning before it is one as well.
        if faults.is_empty() && !begins.chain([from]).any(is_together) {
            faults.push(Fault::Unfounded(format!("customer {key}: {answer:?} was never so at one moment")));
        }
        faults
    }
}

/// When a subscription may be seen like this: from the beginning of a write to the acknowledgement of
/// the next. `None` is that it is not there.
fn intervals(versions: &[Version], seen: Option<&Subscription>) -> Vec<(Moment, Moment)> {
    const FOREVER: Moment = Moment(u64::MAX);
    let acknowledged = |index: usize| {
        versions.get(index).map_or(FOREVER, |version: &Version| version.acknowledged.unwrap_or(FOREVER))
    };
    // Before it was created it was not there either.
    let absent = seen.is_none().then(|| (BEGINNING, acknowledged(0))).filter(|(_, end)| *end > BEGINNING);
    let written = versions.iter().enumerate().filter(|(_, version)| version.state.as_ref() == seen);
    absent
        .into_iter()
        .chain(written.map(|(index, version)| (version.began, acknowledged(index + 1))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_price(id: i64, price_cents: i64) -> Subscription {
        Subscription { id, plan: "basic".to_owned(), price_cents, cancelled: false }
    }

    fn version(state: Option<Subscription>, began: u64, acknowledged: Option<u64>) -> Version {
        Version { state, began: Moment(began), acknowledged: acknowledged.map(Moment) }
    }

    /// Two subscriptions at a price of 1. The first costs 2 from a write between 10 and 20 on, and is deleted by one
    /// between 50 and 60; the second costs 2 from a write between 30 and 40 on.
    fn customer() -> Customer {
        let first = vec![
            version(Some(at_price(1, 1)), 0, Some(0)),
            version(Some(at_price(1, 2)), 10, Some(20)),
            version(None, 50, Some(60)),
        ];
        let second =
            vec![version(Some(at_price(2, 1)), 0, Some(0)), version(Some(at_price(2, 2)), 30, Some(40))];
        Customer { id_next: 3, subscriptions: BTreeMap::from([(1, first), (2, second)]) }
    }

    fn judge(answer: &[Subscription], from: u64, to: u64) -> Vec<Fault> {
        customer().judge(7, answer, Moment(from), Moment(to))
    }

    #[test]
    fn a_write_in_flight_may_be_seen_or_not() {
        for price in [1, 2] {
            assert_eq!(judge(&[at_price(1, price), at_price(2, 1)], 12, 14), []);
        }
        assert_eq!(judge(&[at_price(2, 2)], 52, 54), []);
        assert_eq!(judge(&[at_price(1, 2), at_price(2, 2)], 52, 54), []);
    }

    #[test]
    fn an_answer_may_be_of_any_moment_that_it_took() {
        assert_eq!(judge(&[at_price(1, 1), at_price(2, 1)], 5, 100), []);
        assert_eq!(judge(&[at_price(2, 2)], 5, 100), []);
    }

    #[test]
    fn an_acknowledged_write_that_is_not_seen_is_lost() {
        assert!(matches!(judge(&[at_price(1, 1), at_price(2, 1)], 21, 25)[..], [Fault::Lost(_)]));
        assert!(matches!(judge(&[at_price(1, 2)], 21, 25)[..], [Fault::Lost(_)]));
    }

    #[test]
    fn a_deleted_subscription_that_is_seen_is_resurrected() {
        assert!(matches!(judge(&[at_price(1, 2), at_price(2, 2)], 61, 65)[..], [Fault::Resurrected(_)]));
        assert!(matches!(judge(&[at_price(1, 1), at_price(2, 2)], 61, 65)[..], [Fault::Resurrected(_)]));
    }

    #[test]
    fn states_that_were_never_written_are_unfounded() {
        assert!(matches!(judge(&[at_price(1, 3), at_price(2, 1)], 5, 6)[..], [Fault::Unfounded(_)]));
        assert!(matches!(
            judge(&[at_price(1, 1), at_price(2, 1), at_price(3, 1)], 5, 6)[..],
            [Fault::Unfounded(_)]
        ));
        assert!(matches!(
            judge(&[at_price(1, 1), at_price(1, 1), at_price(2, 1)], 5, 6)[..],
            [Fault::Unfounded(_)]
        ));
    }

    #[test]
    fn states_that_never_were_together_are_unfounded() {
        // The first was at its old price until 20, the second at its new one from 30 on.
        assert!(matches!(judge(&[at_price(1, 1), at_price(2, 2)], 5, 100)[..], [Fault::Unfounded(_)]));
    }

    #[test]
    fn a_future_state_is_wrong() {
        assert!(!judge(&[at_price(1, 2), at_price(2, 1)], 2, 5).is_empty());
    }
}
