//! What is done to the keys of a chunk of findings.

use std::sync::Arc;

use async_trait::async_trait;
use crossfade_migration_core::connect::Store;
use crossfade_migration_core::key::Key;
use crossfade_migration_core::mirror::Subject;
use crossfade_migration_core::phase::Epoch;

use crate::error::Result;
use crate::findings::{Findings, Need};
use crate::migration::{Flow, Migration};
use crate::queue::Checkpoint;
use crate::scope_keys::scope_keys;
use crate::workers::ChunkWork;

/// Copies and repairs the keys of findings.
pub(super) struct CopyWork {
    store: Arc<dyn Store>,
    subject: Arc<Subject>,
    flow: Flow,
    epoch: Epoch,
    findings: Findings,
}

impl CopyWork {
    pub(super) fn new(migration: &Migration, flow: Flow, epoch: Epoch, findings: Findings) -> Self {
        CopyWork { store: migration.store.clone(), subject: migration.subject.clone(), flow, epoch, findings }
    }
}

#[async_trait]
impl ChunkWork for CopyWork {
    type Item = (Key, Need);

    const ACTION: &'static str = "copy";

    fn load(&self, number: u32) -> Result<Vec<(Key, Need)>> {
        let chunk = self.findings.chunk(number as usize)?;
        let keys = scope_keys(&self.subject.plan, chunk.keys())?;
        Ok(in_order(keys.into_iter().zip(chunk.needs().iter().copied()).collect(), self.flow))
    }

    fn run(&self, items: &[(Key, Need)]) -> usize {
        run(items)
    }

    fn key(&self, item: &(Key, Need)) -> String {
        item.0.to_string()
    }

    async fn batch(&self, items: &[(Key, Need)]) -> Result<Checkpoint> {
        let keys: Vec<Key> = items.iter().map(|(key, _)| key.clone()).collect();
        let done = match items.first().map(|(_, need)| need) {
            None => return Ok(Checkpoint::default()),
            Some(Need::Copy) => self.store.copy(&self.subject, self.epoch, &keys).await?,
            Some(Need::Repair) => self.store.repair(&self.subject, self.epoch, &keys).await?,
        };
        Ok(Checkpoint {
            copied: done.copied,
            repaired: done.repaired,
            removed: done.removed,
            ..Checkpoint::default()
        })
    }
}

/// Keys that only lack rows first, then those to be repaired, each in key order: so that batches are of one kind, and
/// locks are taken in key order.
fn in_order(mut items: Vec<(Key, Need)>, flow: Flow) -> Vec<(Key, Need)> {
    if flow == Flow::NewToOld {
        // What the old store has and the new one lacks was deleted: copying it would bring it back.
        for (_, need) in &mut items {
            *need = Need::Repair;
        }
    }
    items.sort_by_key(|(_, need)| *need == Need::Repair);
    items
}

fn run(items: &[(Key, Need)]) -> usize {
    let Some((_, first)) = items.first() else { return 0 };
    items.iter().take_while(|(_, need)| need == first).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(needs: &[Need]) -> Vec<(Key, Need)> {
        needs.iter().enumerate().map(|(index, need)| (Key::from(index as i64), *need)).collect()
    }

    fn keys(items: &[(Key, Need)]) -> Vec<String> {
        items.iter().map(|(key, _)| key.to_string()).collect()
    }

    #[test]
    fn batches_are_of_one_kind_and_in_key_order() {
        let items = in_order(items(&[Need::Repair, Need::Copy, Need::Repair, Need::Copy]), Flow::OldToNew);
        assert_eq!(keys(&items), ["1", "3", "0", "2"]);
        assert_eq!(run(&items), 2);
        assert_eq!(run(&items[1..]), 1);
        assert_eq!(run(&items[2..]), 2);
    }

    #[test]
    fn nothing_is_copied_once_the_new_store_decides() {
        // A row that only the old store has was deleted from the new one: it must not come back.
        let items = in_order(items(&[Need::Copy, Need::Repair]), Flow::NewToOld);
        assert!(items.iter().all(|(_, need)| *need == Need::Repair));
        assert_eq!(keys(&items), ["0", "1"]);
    }
}
