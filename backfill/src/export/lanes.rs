//! What threads that read ranges hand on to each other.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crossfade_migration_core::rows::Kept;
use tokio::runtime::{Builder, Runtime};

use crate::error::{Error, Result};

/// A runtime, and the connection that was opened on it.
///
/// A runtime of its own for each thread that reads: what another one's threads would do to hand each other pieces of a few
/// kilobytes costs as much as all that is done with them.
pub(super) struct Lane {
    pub(super) runtime: Runtime,
    pub(super) kept: Kept,
}

/// The lanes that nobody is on just now.
#[derive(Default)]
pub(super) struct Lanes {
    free: Mutex<Vec<Lane>>,
}

impl Lane {
    fn new() -> Result<Lane> {
        let starting = Error::io("start", "a thread that reads");
        let runtime = Builder::new_current_thread().enable_all().build().map_err(starting)?;
        Ok(Lane { runtime, kept: Kept::default() })
    }

    /// Takes leave of the server. Blocks.
    pub(super) fn close(self) {
        let Lane { runtime, kept } = self;
        if let Err(error) = runtime.block_on(kept.close()) {
            // All rows that it was opened for are here.
            tracing::debug!(%error, "a connection was lost when it was closed");
        }
    }
}

impl Lanes {
    /// A lane that is free, or a new one.
    pub(super) fn take(&self) -> Result<Lane> {
        let free = self.free().pop();
        free.map_or_else(Lane::new, Ok)
    }

    /// Gives a lane back for the next range.
    pub(super) fn give_back(&self, lane: Lane) {
        self.free().push(lane);
    }

    /// Takes leave of the server on all lanes that are free. Blocks.
    pub(super) fn close(&self) {
        self.take_all().into_iter().for_each(Lane::close);
    }

    fn take_all(&self) -> Vec<Lane> {
        std::mem::take(&mut *self.free())
    }

    fn free(&self) -> MutexGuard<'_, Vec<Lane>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lanes {
    /// A runtime may not be waited for on a thread of another one, which an export that is dropped midway is on.
    fn drop(&mut self) {
        for Lane { runtime, kept } in self.take_all() {
            drop(kept);
            runtime.shutdown_background();
        }
    }
}
