//! The rows of each key as one number, key by key.

use std::collections::HashMap;

use arrow::array::RecordBatch;
use arrow::array::cast::AsArray;
use arrow::array::types::UInt64Type;
use crossfade_migration_core::key::Key;
use crossfade_migration_core::plan::Plan;

use crate::error::{Error, Result};
use crate::row_hash::{KeyHash, row_hashes};
use crate::scope_keys::scope_keys;
use crate::snapshot::{ROW_HASH_COLUMN, Snapshot};

/// The keys of a snapshot in its order, each with the hash of its rows.
pub(super) struct KeyHashes<'a> {
    plan: &'a Plan,
    batches: Box<dyn Iterator<Item = Result<RecordBatch>> + 'a>,
    rows: std::vec::IntoIter<(Key, u64)>,
    /// The key that is being read; more of its rows may come with the next batch.
    present: Option<(Key, KeyHash)>,
}

impl<'a> KeyHashes<'a> {
    pub(super) fn new(plan: &'a Plan, snapshot: &'a Snapshot) -> Self {
        KeyHashes { plan, batches: Box::new(snapshot.batches()), rows: Vec::new().into_iter(), present: None }
    }

    /// The hash of a key, where the snapshot has rows of it; keys are asked for in ascending order.
    pub(super) fn seek(&mut self, pending: &mut Option<(Key, u64)>, key: &Key) -> Result<Option<u64>> {
        loop {
            match pending {
                None => match self.next().transpose()? {
                    None => return Ok(None),
                    next => *pending = next,
                },
                Some((found, _)) if &*found < key => *pending = None,
                Some((found, hash)) => return Ok((found == key).then_some(*hash)),
            }
        }
    }

    fn row(&mut self) -> Result<Option<(Key, u64)>> {
        loop {
            if let Some(row) = self.rows.next() {
                return Ok(Some(row));
            }
            let Some(batch) = self.batches.next() else { return Ok(None) };
            self.rows = rows(self.plan, &batch?)?.into_iter();
        }
    }
}

impl Iterator for KeyHashes<'_> {
    type Item = Result<(Key, u64)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let row = match self.row() {
                Ok(row) => row,
                Err(error) => return Some(Err(error)),
            };
            let Some((key, hash)) = row else {
                return self.present.take().map(|(key, rows)| Ok((key, rows.finish())));
            };
            if let Some((present, rows)) = &mut self.present
                && *present == key
            {
                rows.add(hash);
                continue;
            }
            let mut rows = KeyHash::default();
            rows.add(hash);
            if let Some((done, hashes)) = self.present.replace((key, rows)) {
                return Some(Ok((done, hashes.finish())));
            }
        }
    }
}

/// What a projection gives now, key by key.
pub(super) fn projected(plan: &Plan, rows: &RecordBatch) -> Result<HashMap<Key, u64>> {
    let mut keys: HashMap<Key, KeyHash> = HashMap::new();
    for (key, hash) in scope_keys(plan, rows)?.into_iter().zip(row_hashes(rows)?) {
        keys.entry(key).or_default().add(hash);
    }
    Ok(keys.into_iter().map(|(key, rows)| (key, rows.finish())).collect())
}

fn rows(plan: &Plan, batch: &RecordBatch) -> Result<Vec<(Key, u64)>> {
    let keys = scope_keys(plan, batch)?;
    let hashes =
        batch.column_by_name(ROW_HASH_COLUMN).and_then(|column| column.as_primitive_opt::<UInt64Type>());
    let hashes = hashes.ok_or_else(|| Error::ColumnType {
        column: ROW_HASH_COLUMN.to_owned(),
        data_type: "not there".to_owned(),
    })?;
    Ok(keys.into_iter().zip(hashes.values().iter().copied()).collect())
}
