//! How an export runs, how fast, and how long it may hold its moment.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossfade_migration_core::connect::AnyDatabase;

/// Connections that read at the same time where nobody says otherwise: two keep both the server and the exporter busy,
/// and leave a server of any size most of its cores.
pub const CONNECTIONS: NonZeroUsize = NonZeroUsize::new(2).expect("not zero");

/// How long an export may hold its moment where nobody says otherwise. While it is held, a database cannot remove row
/// versions that have died since; a day of that is what most tables take without harm, and far longer than most exports.
pub const SNAPSHOT_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a replica is waited for where nobody says otherwise. One that is in step is a second behind; one that is a
/// minute behind has work of its own to do, and should not get more.
pub const REPLICA_PATIENCE: Duration = Duration::from_secs(60);

/// Rows per range: a dozen seconds of reading, which is what a lost connection costs, in a file of about a hundred MiB.
const RANGE_ROWS: u64 = 1 << 20;

/// Below this a range is not worth a connection: a row group of a snapshot.
const RANGE_ROWS_MIN: u64 = 1 << 17;

/// Ranges per connection at least, so that the last ones end at about the same time.
const RANGES_PER_CONNECTION_MIN: u64 = 4;

/// Ranges at most. Each is a row of the plan that is made of a sample, which grows with them.
const RANGES_MAX: u64 = 4_096;

/// How an export runs.
#[derive(Clone)]
#[non_exhaustive]
pub struct ExportOptions {
    /// Connections that read at the same time, beside the one that holds the moment.
    pub connections: NonZeroUsize,
    /// Into how many ranges each side is cut, where they should not follow from its size. Finer ones are worth it for exports since
    /// a snapshot: a range in which one row has changed is read as a whole.
    pub ranges: Option<NonZeroUsize>,
    /// The folder of an earlier pair of snapshots: ranges that surely have not changed since are taken over from it.
    pub since: Option<PathBuf>,
    /// Nothing is taken over from an interrupted export into the same folder.
    pub fresh: bool,
    /// Bytes per second that are read at most, by all connections together, as they lie in memory.
    pub bytes_per_second_max: Option<NonZeroU64>,
    /// How long the moment is held at most.
    pub age_max: Duration,
    /// A replica of the migration's database to read from. It is used once it has replayed everything that was written
    /// when the export began.
    pub replica: Option<AnyDatabase>,
    /// How long the replica is waited for.
    pub replica_patience: Duration,
}

impl Default for ExportOptions {
    /// Two connections, as fast as they go, for a day at most.
    fn default() -> Self {
        Self {
            connections: CONNECTIONS,
            ranges: None,
            since: None,
            fresh: false,
            bytes_per_second_max: None,
            age_max: SNAPSHOT_AGE_MAX,
            replica: None,
            replica_patience: REPLICA_PATIENCE,
        }
    }
}

impl ExportOptions {
    /// Into how many ranges so many rows are cut.
    pub(super) fn range_count(&self, rows: u64) -> NonZeroUsize {
        if let Some(ranges) = self.ranges {
            return ranges;
        }
        let connections = self.connections.get() as u64;
        let wanted = (rows / RANGE_ROWS).max(connections * RANGES_PER_CONNECTION_MIN);
        let count = wanted.min(rows / RANGE_ROWS_MIN).min(RANGES_MAX);
        // Every connection has as many as the others.
        let even = if count > connections { count.next_multiple_of(connections) } else { count };
        NonZeroUsize::new(even as usize).unwrap_or(NonZeroUsize::MIN)
    }

    pub(super) fn limits(&self, opened: Instant) -> Limits {
        let pace = self.bytes_per_second_max.map(|rate| Arc::new(Pace::new(rate, opened)));
        Limits { opened, age_max: self.age_max, pace }
    }
}

/// The limits of one export, under way.
pub(super) struct Limits {
    /// When the moment was opened.
    pub(super) opened: Instant,
    pub(super) age_max: Duration,
    pub(super) pace: Option<Arc<Pace>>,
}

/// Holds all connections together to a rate.
pub(super) struct Pace {
    bytes_per_second: NonZeroU64,
    /// When the next bytes may go.
    due: Mutex<Instant>,
}

impl Pace {
    fn new(bytes_per_second: NonZeroU64, now: Instant) -> Self {
        Self { bytes_per_second, due: Mutex::new(now) }
    }

    /// Counts bytes that are there now; gives when to go on.
    pub(super) fn take(&self, bytes: u64, now: Instant) -> Instant {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        // Time in which nothing was read is not saved up: the limit holds for every second.
        *due = (*due).max(now) + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second.get() as f64);
        *due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(connections: usize) -> ExportOptions {
        ExportOptions { connections: NonZeroUsize::new(connections).unwrap(), ..Default::default() }
    }

    #[test]
    fn small_tables_are_not_cut_and_large_ones_evenly() {
        let counts = |connections, rows| options(connections).range_count(rows).get();
        assert_eq!(counts(2, 0), 1);
        assert_eq!(counts(2, 200_000), 1);
        assert_eq!(counts(2, 400_000), 4);
        assert_eq!(counts(2, 4_000_000), 8);
        assert_eq!(counts(2, 20_000_000), 20);
        assert_eq!(counts(3, 20_000_000), 21);
        assert_eq!(counts(2, u64::MAX), 4_096);
    }

    #[test]
    fn a_pace_counts_all_and_saves_nothing_up() {
        let begun = Instant::now();
        let pace = Pace::new(NonZeroU64::new(1_000).unwrap(), begun);
        let second = Duration::from_secs(1);
        assert_eq!(pace.take(1_000, begun), begun + second);
        assert_eq!(pace.take(500, begun), begun + second + second / 2);
        assert_eq!(pace.take(1_000, begun + 10 * second), begun + 11 * second);
    }
}
