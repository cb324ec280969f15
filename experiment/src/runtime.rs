//! A runtime of its own for candidates: for those that block their thread or compute, and so would hold up
//! callers on a shared one.

use std::sync::Arc;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::{Error, desk::Desk, seat::Threads};

/// Threads for candidates alone. Give its [`handle`](Self::handle) to
/// [`Builder::runtime`](crate::Builder::runtime); keep the value as long as candidates are to run.
/// Dropping it stops them without waiting, anywhere, also inside async code.
///
/// Each candidate has a thread to itself while it runs; where none is free the call is shed. Callers wake nobody: while
/// calls come, a thread looks every millisecond for candidates that are to start, at the lowest priority; a fifth of a
/// second after the last it goes to sleep.
///
/// A candidate that blocks its thread beyond its timeout is timed out like any other: it is counted, its slot is given back,
/// and another thread takes the place of the one that it holds. Up to 16 threads are replaced so; beyond that its slot and
/// its place stay taken until it lets go, and in the end all calls are shed.
#[derive(Debug)]
pub struct CandidateRuntime {
    runtime: Option<Runtime>,
    threads: Arc<Threads>,
    desk: Arc<Desk>,
}

/// Each of them may compute for ever, at the lowest priority: sixteen take a quarter of what one caller that
/// computes takes, on Linux.
const STUCK_MAX: usize = 16;

impl CandidateRuntime {
    /// Starts `threads` threads, when they are needed, at the lowest priority that the platform has: where
    /// candidates compute, they take the time that callers leave. One more waits with them and compares.
    ///
    /// # Errors
    /// [`Error::Runtime`] where the threads cannot be started, or `threads` is 0.
    pub fn new(threads: usize) -> Result<Self, Error> {
        if threads == 0 {
            let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "no threads");
            return Err(Error::Runtime { threads, source });
        }
        // The worker sees to timeouts and comparisons: it never runs a candidate, which could keep it.
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(threads.saturating_add(STUCK_MAX))
            .thread_name("candidate")
            .on_thread_start(yield_to_callers)
            .enable_all()
            .build()
            .map_err(|source| Error::Runtime { threads, source })?;
        let desk = Arc::new(Desk::new(threads));
        runtime.spawn(desk.clone().attend());
        Ok(Self { runtime: Some(runtime), threads: Arc::new(Threads::new(threads, STUCK_MAX)), desk })
    }

    /// Where candidates are to be run.
    #[must_use]
    pub fn handle(&self) -> CandidateHandle {
        match &self.runtime {
            Some(runtime) => CandidateHandle {
                runtime: runtime.handle().clone(),
                threads: self.threads.clone(),
                desk: self.desk.clone(),
            },
            None => unreachable!("taken only when dropped"),
        }
    }
}

impl Drop for CandidateRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A [`CandidateRuntime`]'s threads, for any number of experiments to share.
#[derive(Debug, Clone)]
pub struct CandidateHandle {
    pub(crate) runtime: Handle,
    pub(crate) threads: Arc<Threads>,
    pub(crate) desk: Arc<Desk>,
}

/// Where candidates off the caller's path run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Place {
    /// On a runtime that they share with others: the caller's, or one of the application's.
    Shared(Handle),
    /// On threads of their own.
    Own(CandidateHandle),
}

impl From<Handle> for Place {
    fn from(runtime: Handle) -> Self {
        Self::Shared(runtime)
    }
}

impl From<CandidateHandle> for Place {
    fn from(handle: CandidateHandle) -> Self {
        Self::Own(handle)
    }
}

/// On Linux the calling thread alone takes the priority. Best effort: without it candidates still run.
#[cfg(all(target_os = "linux", not(miri)))]
fn yield_to_callers() {
    let _ = rustix::process::setpriority_process(None, 19);
}

#[cfg(not(all(target_os = "linux", not(miri))))]
fn yield_to_callers() {}
