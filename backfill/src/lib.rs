//! Snapshots, offline scans and parallel, resumable copies for online data migrations.
mod durable;
mod error;
pub mod findings;
mod keys;
pub mod row_hash;
pub mod scan;
pub mod snapshot;
#[cfg(test)]
mod testing;

pub use error::{Error, Result};
pub use row_hash::KeyHash;
