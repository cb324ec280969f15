//! The instances of the application: which epoch each has adopted, and for how long it may serve it.
//!
//! Writers are fenced, so no lease is needed for them. Readers are not: an instance that cannot renew
//! its lease stops trusting its standing *before* the lease runs out, by its own monotonic clock, so
//! that at most two adjacent epochs are ever served (I3).

mod postgres;
mod sqlite;

use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;

use crate::control::MigrationId;
use crate::error::Result;
use crate::phase::{Epoch, Standing};

/// How long a lease lasts. Long enough to survive a slow control store, short enough that `advance`
/// does not wait long for an instance that was killed.
pub const LEASE_TTL: Duration = Duration::from_secs(10);

/// How often an instance renews: several tries fit into a lease, and a change of phase is adopted
/// within half a second.
pub const RENEW_EVERY: Duration = Duration::from_millis(500);

/// How long after a successful renewal an instance may serve its standing without another: the lease
/// less a fifth, for clocks that run at different speeds.
pub const SERVE_FOR: Duration = Duration::from_secs(8);

/// An instance, as the control store has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Instance {
    /// Its name: host, process and a number that tells restarts apart.
    pub name: String,
    /// The epoch that it has adopted.
    pub adopted: Epoch,
    /// Whether its lease has not run out, by the database's clock.
    pub is_live: bool,
}

/// The names of the live instances that have not adopted `epoch` yet.
pub fn behind(instances: &[Instance], epoch: Epoch) -> Vec<String> {
    instances
        .iter()
        .filter(|instance| instance.is_live && instance.adopted < epoch)
        .map(|instance| instance.name.clone())
        .collect()
}

/// Whether a standing that was renewed `since` ago may still be served.
pub fn may_serve(since: Duration) -> bool {
    since < SERVE_FOR
}

/// Keeps leases.
///
/// # Contract
/// Leases are measured by the database's clock alone.
#[async_trait]
pub trait Fleet: Send + Sync {
    /// Renews an instance's lease, records what it has adopted, and reads the standing in the same transaction.
    async fn renew(&self, id: MigrationId, instance: &str, adopted: Epoch, ttl: Duration)
    -> Result<Standing>;

    /// Forgets an instance that stops in good order.
    async fn leave(&self, id: MigrationId, instance: &str) -> Result<()>;

    /// All instances; those whose lease ran out long ago may be forgotten.
    async fn instances(&self, id: MigrationId) -> Result<Vec<Instance>>;

    /// Records that the old path was used at this epoch, now.
    async fn touch_old_path(&self, id: MigrationId, epoch: Epoch) -> Result<()>;

    /// How long ago the old path was last used at this epoch, if it was.
    async fn old_path_idle(&self, id: MigrationId, epoch: Epoch) -> Result<Option<Duration>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(name: &str, adopted: i64, is_live: bool) -> Instance {
        Instance { name: name.to_owned(), adopted: Epoch(adopted), is_live }
    }

    #[test]
    fn only_live_instances_hold_up_an_epoch() {
        let fleet = [instance("a", 3, true), instance("b", 2, true), instance("c", 1, false)];
        assert_eq!(behind(&fleet, Epoch(3)), ["b"]);
        assert!(behind(&fleet, Epoch(2)).is_empty());
    }

    #[test]
    fn an_instance_stops_serving_before_its_lease_runs_out() {
        assert!(may_serve(Duration::ZERO));
        assert!(!may_serve(SERVE_FOR));
        assert!(SERVE_FOR + RENEW_EVERY < LEASE_TTL);
    }
}
