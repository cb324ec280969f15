//! Where callers leave candidates for the threads that run them, without waking one.
//!
//! Waking a thread is a system call, and on a virtual machine an exit from it: several microseconds of a call that may take
//! twenty. So while calls come, the desk is looked at by the clock, and a caller only writes down what there is to do. Once
//! nothing has come for a while nobody looks any more, an idle process costs nothing, and the next caller rings.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
    time::Duration,
};

use tokio::{runtime::Handle, sync::Notify};

use crate::contain::drop_contained;

/// What there is to do: starts a candidate's task on the runtime of the candidates.
pub(crate) type Job = Box<dyn FnOnce(&Handle) + Send>;

/// How often the desk is looked at. The runtime's timers are no finer; a candidate that compares what it reads with what
/// control has read starts this much later, and one that is read again was late by a hundred times as much.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// After so many looks at an empty desk nobody looks any more: a caller rings five times a second at most, and a process
/// in which nothing is sampled wakes nobody.
const LOOKS_IN_VAIN_MAX: u32 = 200;

#[derive(Debug)]
pub(crate) struct Desk {
    state: Mutex<State>,
    bell: Notify,
}

struct State {
    /// At most one for each thread that candidates have: its room is there from the start.
    jobs: Vec<Job>,
    attended: Attended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attended {
    /// Somebody looks by the clock.
    ByTheClock,
    /// Somebody comes when it rings.
    WhenRung,
    /// Nobody any more.
    Never,
}

/// What became of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Posted {
    /// It is seen within [`LOOK_EVERY`] or so.
    Seen,
    /// It is seen when somebody rings.
    Unseen,
    /// It was dropped: the threads are gone, or another caller was at the desk. Nobody waits.
    Refused,
}

impl Desk {
    pub(crate) fn new(jobs_max: usize) -> Self {
        // A bound against absurd numbers of threads: beyond it the desk grows as it is used.
        let jobs = Vec::with_capacity(jobs_max.min(1_024));
        Self { state: Mutex::new(State { jobs, attended: Attended::WhenRung }), bell: Notify::new() }
    }

    /// Leaves a job. It never waits: who looks at the desk has the lowest priority, and may be interrupted there.
    pub(crate) fn post(&self, job: Job) -> Posted {
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                drop_contained(job);
                return Posted::Refused;
            }
        };
        let posted = match state.attended {
            Attended::ByTheClock => Posted::Seen,
            Attended::WhenRung => Posted::Unseen,
            Attended::Never => {
                drop(state);
                drop_contained(job);
                return Posted::Refused;
            }
        };
        state.jobs.push(job);
        posted
    }

    /// Somebody comes at once.
    pub(crate) fn ring(&self) {
        self.bell.notify_one();
    }

    /// Looks after the desk for as long as the runtime lives.
    pub(crate) async fn attend(self: Arc<Self>) {
        let desk = Closing(self);
        let runtime = Handle::current();
        let mut jobs = Vec::with_capacity(desk.0.lock().jobs.capacity());
        // Nobody has come yet.
        let mut in_vain = LOOKS_IN_VAIN_MAX;
        loop {
            {
                let mut state = desk.0.lock();
                state.attended = Attended::ByTheClock;
                mem::swap(&mut state.jobs, &mut jobs);
            }
            in_vain = if jobs.is_empty() { in_vain.saturating_add(1) } else { 0 };
            for job in jobs.drain(..) {
                job(&runtime);
            }
            if in_vain < LOOKS_IN_VAIN_MAX {
                tokio::select! {
                    () = desk.0.bell.notified() => {}
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
            } else if desk.0.leave() {
                desk.0.bell.notified().await;
                in_vain = 0;
            }
        }
    }

    /// Goes away until it rings, unless somebody has just come.
    fn leave(&self) -> bool {
        let mut state = self.lock();
        if state.jobs.is_empty() {
            state.attended = Attended::WhenRung;
        }
        state.jobs.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rings when it is dropped: however the task ends that was to ring, also where it never began.
pub(crate) struct Ring(pub(crate) Arc<Desk>);

impl Drop for Ring {
    fn drop(&mut self) {
        self.0.ring();
    }
}

/// Closes the desk when the runtime ends: what lies there is dropped, and so accounted for.
struct Closing(Arc<Desk>);

impl Drop for Closing {
    fn drop(&mut self) {
        let jobs = {
            let mut state = self.0.lock();
            state.attended = Attended::Never;
            mem::take(&mut state.jobs)
        };
        jobs.into_iter().for_each(drop_contained);
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("jobs", &self.jobs.len()).field("attended", &self.attended).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn job(done: &Arc<AtomicU32>) -> Job {
        let done = done.clone();
        Box::new(move |_| {
            done.fetch_add(1, Ordering::Relaxed);
        })
    }

    async fn settle(done: &Arc<AtomicU32>, wanted: u32) {
        while done.load(Ordering::Relaxed) < wanted {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rings_are_for_an_unattended_desk_alone() {
        let (desk, done) = (Arc::new(Desk::new(2)), Arc::new(AtomicU32::new(0)));
        tokio::spawn(desk.clone().attend());
        assert_eq!(desk.post(job(&done)), Posted::Unseen);
        drop(Ring(desk.clone()));
        settle(&done, 1).await;
        assert_eq!(desk.post(job(&done)), Posted::Seen);
        settle(&done, 2).await;
        tokio::time::sleep(LOOK_EVERY * (LOOKS_IN_VAIN_MAX + 10)).await;
        assert_eq!(desk.post(job(&done)), Posted::Unseen);
        tokio::time::sleep(LOOK_EVERY * 10).await;
        assert_eq!(done.load(Ordering::Relaxed), 2, "nobody looks");
        drop(Ring(desk.clone()));
        settle(&done, 3).await;
        assert_eq!(desk.post(job(&done)), Posted::Seen);
        settle(&done, 4).await;
    }

    #[tokio::test]
    async fn nobody_waits_at_a_desk_that_is_busy_or_closed() {
        let (desk, done) = (Arc::new(Desk::new(1)), Arc::new(AtomicU32::new(0)));
        let busy = desk.lock();
        assert_eq!(desk.post(job(&done)), Posted::Refused);
        drop(busy);
        let attended = tokio::spawn(desk.clone().attend());
        tokio::task::yield_now().await;
        attended.abort();
        assert!(attended.await.is_err());
        assert_eq!(desk.post(job(&done)), Posted::Refused);
        assert_eq!((done.load(Ordering::Relaxed), Arc::strong_count(&done)), (0, 1));
    }
}
