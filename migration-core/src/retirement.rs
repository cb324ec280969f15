//! Lazy retirement: in `new_only`, a key that was read has its old data removed, where that still says
//! the same as the new store.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::connect::Store;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::mirror::Subject;
use crate::phase::{Phase, Standing};

/// How many keys wait at most; the cleanup job finds those that do not fit.
const WAITING_MAX: usize = 1_000;

/// How many keys are retired in one transaction, which keeps it to a few milliseconds.
const BATCH: usize = 100;

/// The keys that wait for retirement.
#[derive(Debug, Default)]
pub(crate) struct Retirement {
    waiting: Mutex<BTreeSet<Key>>,
}

impl Retirement {
    /// Notes a key that was read. Never blocks on I/O, and forgets the key where too many wait.
    pub(crate) fn note(&self, key: Key) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < WAITING_MAX {
            waiting.insert(key);
        }
    }

    /// Retires the keys that wait, in batches.
    pub(crate) async fn run(&self, subject: &Subject, standing: Standing, store: &dyn Store) -> Result<()> {
        let keys: Vec<Key> = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *waiting).into_iter().collect()
        };
        if keys.is_empty() || standing.phase != Phase::NewOnly || subject.plan.retire().is_empty() {
            return Ok(());
        }
        for batch in keys.chunks(BATCH) {
            match store.retire_equal(subject, standing.epoch, batch).await {
                Ok(retired) => {
                    let count = retired.retired.len() as u64;
                    metrics::counter!("crossfade_keys_retired_total", "migration" => subject.plan.name().to_owned())
                        .increment(count);
                }
                // The migration has moved on to `complete`: nothing is left to retire.
                Err(Error::StaleEpoch { .. }) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
