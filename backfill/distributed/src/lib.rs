//! Scans on a cluster, and SQL projections over foreign dumps.
//!
//! A scan of snapshots that one machine would take too long over is given to a cluster of [Apache DataFusion
//! Ballista](https://datafusion.apache.org/ballista): a stock scheduler and stock executors, which see the same files under
//! the same paths. There is no join in the plan, and no function of our own: the rows of both sides are put together,
//! grouped by key, and the groups that are not one row on each side with the same hash are written as Parquet by the
//! executors. What they write becomes findings here, the same, byte by byte, as those of the local engine.
//!
//! ```no_run
//! use crossfade_backfill::Cancel;
//! use crossfade_backfill::scan::ScanOptions;
//! use crossfade_backfill::snapshot::SnapshotPair;
//! use crossfade_distributed::{Cluster, scan};
//!
//! # async fn run() -> crossfade_distributed::Result<()> {
//! let cluster: Cluster = "df://scheduler:50050".parse()?;
//! let pair = SnapshotPair::open("snapshots/monday")?;
//! let summary =
//!     scan(&cluster, &pair, "findings/monday".as_ref(), &ScanOptions::default(), &Cancel::new()).await?;
//! println!("{} missing", summary.missing);
//! # Ok(())
//! # }
//! ```
//!
//! Dumps that other tools wrote scan too, without a hash: [`scan_dumps`] compares all columns. Where the old shape must be
//! turned into the new one first, [`project`](projection::project) does so with a query, on this machine.

mod answer;
mod cluster;
mod dump;
mod error;
mod plan;
pub mod projection;
mod scan;
mod side;

pub use cluster::Cluster;
pub use error::{Error, Result};
pub use scan::{scan, scan_dumps};
