//! A runtime of its own for candidates: for those that block their thread or compute, and so would hold up
//! callers on a shared one.

use tokio::runtime::{Builder, Handle, Runtime};

use crate::Error;

/// Threads for candidates alone. Give its [`handle`](Self::handle) to
/// [`Builder::runtime`](crate::Builder::runtime); keep the value as long as candidates are to run.
/// Dropping it stops them without waiting, anywhere, also inside async code.
#[derive(Debug)]
pub struct CandidateRuntime {
    runtime: Option<Runtime>,
}

impl CandidateRuntime {
    /// Starts `threads` threads at the lowest priority that the platform has: where candidates compute, they
    /// take the time that callers leave. As many more may block in
    /// [`run_sync`](crate::Experiment::run_sync).
    ///
    /// # Errors
    /// [`Error::Runtime`] where the threads cannot be started, or `threads` is 0.
    pub fn new(threads: usize) -> Result<Self, Error> {
        if threads == 0 {
            let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "no threads");
            return Err(Error::Runtime { threads, source });
        }
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .max_blocking_threads(threads)
            .thread_name("candidate")
            .on_thread_start(yield_to_callers)
            .enable_all()
            .build()
            .map_err(|source| Error::Runtime { threads, source })?;
        Ok(Self { runtime: Some(runtime) })
    }

    /// Where candidates are to be run.
    #[must_use]
    pub fn handle(&self) -> Handle {
        match &self.runtime {
            Some(runtime) => runtime.handle().clone(),
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

/// On Linux the calling thread alone takes the priority. Best effort: without it candidates still run.
#[cfg(all(target_os = "linux", not(miri)))]
fn yield_to_callers() {
    let _ = rustix::process::setpriority_process(None, 19);
}

#[cfg(not(all(target_os = "linux", not(miri))))]
fn yield_to_callers() {}
