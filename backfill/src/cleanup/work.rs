//! What is done to the keys of a chunk of a cleanup.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use crossfade_migration_core::connect::Store;
use crossfade_migration_core::key::Key;
use crossfade_migration_core::mirror::Subject;
use crossfade_migration_core::phase::Epoch;

use super::key_hashes::projected;
use super::plan::{Candidate, WorkPlan};
use crate::error::Result;
use crate::migration::Migration;
use crate::queue::Checkpoint;
use crate::workers::ChunkWork;

/// Retires keys whose old data is what was vouched for.
pub(super) struct RetireWork {
    store: Arc<dyn Store>,
    subject: Arc<Subject>,
    epoch: Epoch,
    folder: PathBuf,
    plan: WorkPlan,
}

impl RetireWork {
    pub(super) fn new(migration: &Migration, epoch: Epoch, folder: PathBuf, plan: WorkPlan) -> Self {
        RetireWork { store: migration.store.clone(), subject: migration.subject.clone(), epoch, folder, plan }
    }
}

#[async_trait]
impl ChunkWork for RetireWork {
    type Item = Candidate;

    const ACTION: &'static str = "retire";

    fn load(&self, number: u32) -> Result<Vec<Candidate>> {
        self.plan.load(&self.folder, number as usize)
    }

    fn run(&self, items: &[Candidate]) -> usize {
        items.len()
    }

    fn key(&self, item: &Candidate) -> String {
        item.key.to_string()
    }

    async fn batch(&self, items: &[Candidate]) -> Result<Checkpoint> {
        let keys: Vec<Key> = items.iter().map(|candidate| candidate.key.clone()).collect();
        let judge = |rows: &RecordBatch| match projected(&self.subject.plan, rows) {
            Ok(hashes) => judged(items, &hashes),
            // Rows that cannot be compared are left.
            Err(error) => {
                tracing::warn!(%error, "rows of the old store cannot be compared, and are left");
                Vec::new()
            }
        };
        let done = self.store.retire(&self.subject, self.epoch, &keys, &judge).await?;
        Ok(Checkpoint {
            retired: done.retired.len() as u64,
            kept: done.left.len() as u64,
            ..Checkpoint::default()
        })
    }
}

/// The keys that may be retired, given what the projection gives for them under lock. A key without rows is retired
/// already, and counts as such: that is what a batch looks like whose outcome was never heard of.
fn judged(candidates: &[Candidate], hashes: &HashMap<Key, u64>) -> Vec<Key> {
    candidates
        .iter()
        .filter(|candidate| hashes.get(&candidate.key).is_none_or(|hash| candidate.permits(*hash)))
        .map(|candidate| candidate.key.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_behind_our_back_is_left() {
        let candidate = |key: i64| Candidate { key: Key::from(key), baseline: Some(10), new: Some(20) };
        let candidates = [candidate(1), candidate(2), candidate(3), candidate(4)];
        let hashes = HashMap::from([(Key::from(1), 10), (Key::from(2), 20), (Key::from(3), 30)]);
        let retired = judged(&candidates, &hashes);
        assert_eq!(retired, [Key::from(1), Key::from(2), Key::from(4)]);
    }
}
