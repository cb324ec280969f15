//! Snapshots, offline scans and parallel, resumable copies for online data migrations.
//!
//! A scan says which rows of the new store are missing, mismatched, orphaned or duplicated, without touching either
//! store: it compares two snapshots, folders of Parquet files in key order.
//!
//! ```
//! use std::ops::ControlFlow;
//! use std::sync::Arc;
//!
//! use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
//! use crossfade_backfill::findings::{Findings, Need};
//! use crossfade_backfill::scan::{ScanOptions, scan};
//! use crossfade_backfill::snapshot::{Side, SnapshotHeader, SnapshotPair, SnapshotWriter};
//!
//! # fn main() -> crossfade_backfill::Result<()> {
//! # let temporary = tempfile::tempdir().unwrap();
//! # let folder = temporary.path();
//! // An exporter brings the rows of each side, as Arrow batches in key order.
//! for (side, ids) in [(Side::Old, vec![1, 2, 3]), (Side::New, vec![1, 3])] {
//!     let plans: ArrayRef = Arc::new(StringArray::from(vec!["basic"; ids.len()]));
//!     let ids: ArrayRef = Arc::new(Int64Array::from(ids));
//!     let batch = RecordBatch::try_from_iter([("customer_id", ids), ("plan", plans)]).unwrap();
//!     let header = SnapshotHeader {
//!         migration: "subscriptions".into(),
//!         manifest_hash: "5eed".into(),
//!         side,
//!         store: "postgres://app:***@db/app".into(),
//!         consistent_point: "00000003-0000001B-1".into(),
//!         epoch: 1,
//!         phase: "dual_write".into(),
//!         started_at: "2026-01-01T00:00:00Z".into(),
//!         schema: batch.schema(),
//!         key: vec!["customer_id".into()],
//!         scope_columns: 1,
//!     };
//!     let mut writer = SnapshotWriter::create(side.folder(folder), header)?;
//!     writer.write(&batch)?;
//!     writer.finish()?;
//! }
//!
//! let pair = SnapshotPair::open(folder)?;
//! let summary = scan(&pair, folder.join("findings"), &ScanOptions::default(), &|_| ControlFlow::Continue(()))?;
//! assert_eq!(summary.missing, 1);
//!
//! // A copier works the findings off, chunk by chunk.
//! let findings = Findings::open(folder.join("findings"))?;
//! let chunk = findings.chunk(0)?;
//! assert_eq!(chunk.needs(), [Need::Copy]);
//! # Ok(())
//! # }
//! ```
//!
//! The online half works on live databases, through what [`Migration`] holds:
//!
//! - [`export`] reads both stores as of one moment into a pair of snapshots;
//! - [`queue`] keeps jobs, cut into chunks that workers in any number of processes lease;
//! - [`copy`] brings over what a scan has found, [`cleanup`] takes moved data out of the old store;
//! - [`verify`] compares fresh snapshots, looks again under lock and records the evidence;
//! - [`rounds`] does all of it until nothing is found, in a [`workspace`];
//! - [`progress`] says how far things are, and why they wait; [`Cancel`] stops them at a safe place.

mod cancel;
pub mod cleanup;
pub mod copy;
mod durable;
mod error;
pub mod export;
pub mod findings;
mod foreign;
pub mod import;
pub mod inspect;
mod keys;
mod migration;
pub mod progress;
pub mod queue;
pub mod rounds;
pub mod row_hash;
pub mod scan;
mod scope_keys;
pub mod snapshot;
#[cfg(test)]
mod testing;
mod text;
pub mod verify;
mod workers;
pub mod workspace;

pub use cancel::Cancel;
pub use error::{Error, Result};
pub use migration::Migration;
pub use row_hash::KeyHash;
