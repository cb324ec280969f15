//! The last scan: whether the projection still gives any rows, and of which keys.

use std::time::Instant;

use crossfade_migration_core::gate::EvidenceKind;
use crossfade_migration_core::key::Key;
use crossfade_migration_core::phase::Side;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::export::read_side;
use crate::migration::Migration;
use crate::progress::{Meter, Progress, Stage};
use crate::queue::Job;
use crate::scope_keys::scope_keys;
use crate::verify::record;

/// Keys that a report names: enough to see what they have in common, few enough to read.
const KEYS_NAMED_MAX: usize = 100;

/// What is left in the old store.
#[derive(Debug, Default)]
pub(super) struct Left {
    pub(super) rows: u64,
    pub(super) keys: u64,
    pub(super) first: Vec<String>,
    last: Option<Key>,
    failed: Option<Error>,
}

impl Left {
    /// Takes in keys of rows, which come in key order.
    fn take(&mut self, keys: Vec<Key>) {
        self.rows += keys.len() as u64;
        for key in keys {
            if self.last.as_ref() != Some(&key) {
                self.keys += 1;
                if self.first.len() < KEYS_NAMED_MAX {
                    self.first.push(key.to_string());
                }
                self.last = Some(key);
            }
        }
    }
}

/// Reads what the projection gives, writes nothing down but the evidence.
pub(super) async fn last_scan(
    migration: &Migration,
    job: Option<&Job>,
    baseline: &str,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Left> {
    let began = Instant::now();
    let read = migration.store.read_both(&migration.subject).await?;
    let standing = read.moment().standing;
    let began_at = read.moment().began_at.clone();
    let meter = Meter::new(progress, Stage::LastScan, 0, None);
    let mut left = Left::default();
    let plan = &migration.subject.plan;
    read_side(read.as_ref(), Side::Old, &meter, cancel, |batch| {
        match scope_keys(plan, &batch) {
            Ok(keys) => left.take(keys),
            Err(error) => left.failed = left.failed.take().or(Some(error)),
        }
        futures::future::ready(Ok(()))
    })
    .await?;
    drop(read);
    meter.finish();
    if let Some(error) = left.failed.take() {
        return Err(error);
    }
    let details = serde_json::json!({
        "rows_left": left.rows,
        "keys_left": left.keys,
        "left": left.first,
        "retired": job.map_or(0, |job| job.done.retired),
        "kept": job.map_or(0, |job| job.done.kept),
        "baseline": baseline,
        "began_at": began_at,
    });
    record(migration, EvidenceKind::Cleanup, standing, left.rows, began.elapsed(), details).await?;
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_counted_once_and_named_up_to_a_limit() {
        let mut left = Left::default();
        left.take([1, 1, 2].map(Key::from).to_vec());
        left.take([2, 3].map(Key::from).to_vec());
        assert_eq!((left.rows, left.keys), (5, 3));
        assert_eq!(left.first, ["1", "2", "3"]);
        left.take((10..1_000).map(Key::from).collect());
        assert_eq!(left.first.len(), KEYS_NAMED_MAX);
        assert_eq!(left.keys, 993);
    }
}
