//! How far something is: what bars are drawn from.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::queue::Waiting;

/// What is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Reading what the projection gives into a snapshot, in rows.
    ExportOld,
    /// Reading the new table into a snapshot, in rows.
    ExportNew,
    /// Comparing two snapshots, in rows of both.
    Scan,
    /// Bringing findings over, in keys.
    Copy,
    /// Looking again at findings under lock, in keys.
    Recheck,
    /// Looking what the projection of each key was when it was verified, in rows.
    Baseline,
    /// Removing old data, in keys.
    Retire,
    /// Looking for what is left in the old store, in rows.
    LastScan,
}

/// Why nothing happens at the moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// The queue has no chunk.
    Queue(Waiting),
    /// A transaction lost a race and is tried again.
    Retry {
        /// The database's words.
        error: String,
    },
}

/// How far a stage is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Update {
    /// What is under way.
    pub stage: Stage,
    /// How much is done, in the stage's unit.
    pub done: u64,
    /// How much there is, where it is known; for an export it is the database's estimate.
    pub total: Option<u64>,
    /// How much is done per second, since this process began on the stage.
    pub rate: f64,
    /// How long the rest takes at that rate.
    #[serde(skip)]
    pub eta: Option<Duration>,
    /// Why nothing happens, while nothing happens.
    pub waiting: Option<Wait>,
}

/// Hears how far things are.
///
/// # Contract
/// Called from any thread, up to a few times per second and worker, and must return at once.
pub trait Progress: Send + Sync {
    /// A stage is this far.
    fn update(&self, update: &Update);
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn update(&self, _update: &Update) {}
}

impl<F: Fn(&Update) + Send + Sync> Progress for F {
    fn update(&self, update: &Update) {
        self(update);
    }
}

/// How often a stage tells how far it is: often enough for a smooth bar, too seldom to cost anything.
const UPDATE_EVERY: Duration = Duration::from_millis(100);

/// One stage's measure of itself.
pub(crate) struct Meter<'a> {
    progress: &'a dyn Progress,
    stage: Stage,
    started: Instant,
    state: Mutex<State>,
}

#[derive(Clone)]
struct State {
    /// What was done before this process began: it says nothing of the rate.
    base: u64,
    done: u64,
    total: Option<u64>,
    waiting: Option<Wait>,
    told: Option<Instant>,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(progress: &'a dyn Progress, stage: Stage, done: u64, total: Option<u64>) -> Self {
        let state = State { base: done, done, total, waiting: None, told: None };
        let meter = Meter { progress, stage, started: Instant::now(), state: Mutex::new(state) };
        meter.tell(|_| {});
        meter
    }

    /// `done` is done now in all, and nothing waits.
    pub(crate) fn at(&self, done: u64) {
        self.tell(|state| {
            state.done = done;
            state.waiting = None;
        });
    }

    /// `more` was done, and nothing waits.
    pub(crate) fn add(&self, more: u64) {
        self.tell(|state| {
            state.done += more;
            state.waiting = None;
        });
    }

    /// Others have done so much that `done` is done in all: it only ever grows.
    pub(crate) fn at_least(&self, done: u64) {
        self.tell(|state| state.done = state.done.max(done));
    }

    pub(crate) fn wait(&self, why: Wait) {
        self.tell(|state| {
            if state.waiting.as_ref() != Some(&why) {
                // A new reason is told at once.
                state.told = None;
                state.waiting = Some(why);
            }
        });
    }

    /// The stage is over: what was done is all there was.
    pub(crate) fn finish(&self) {
        self.tell(|state| {
            state.total = Some(state.done);
            state.waiting = None;
            state.told = None;
        });
    }

    fn tell(&self, change: impl FnOnce(&mut State)) {
        let now = Instant::now();
        let state = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut state);
            if state.told.is_some_and(|told| now.duration_since(told) < UPDATE_EVERY) {
                return;
            }
            state.told = Some(now);
            state.clone()
        };
        self.progress.update(&measured(self.stage, &state, now.duration_since(self.started)));
    }
}

fn measured(stage: Stage, state: &State, elapsed: Duration) -> Update {
    let &State { base, done, total, .. } = state;
    let seconds = elapsed.as_secs_f64();
    let rate = if seconds > 0.0 { done.saturating_sub(base) as f64 / seconds } else { 0.0 };
    let left = total.map(|total| total.saturating_sub(done));
    let eta =
        left.filter(|_| rate > 0.0).and_then(|left| Duration::try_from_secs_f64(left as f64 / rate).ok());
    Update { stage, done, total, rate, eta, waiting: state.waiting.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(base: u64, done: u64, total: Option<u64>) -> State {
        State { base, done, total, waiting: None, told: None }
    }

    #[test]
    fn what_was_done_before_says_nothing_of_the_rate() {
        let update = measured(Stage::Copy, &state(500, 600, Some(1_000)), Duration::from_secs(10));
        assert_eq!(update.rate, 10.0);
        assert_eq!(update.eta, Some(Duration::from_secs(40)));
    }

    #[test]
    fn nothing_done_promises_nothing() {
        let update = measured(Stage::Copy, &state(0, 0, Some(10)), Duration::ZERO);
        assert_eq!((update.rate, update.eta), (0.0, None));
        let more = measured(Stage::ExportOld, &state(0, 20, Some(10)), Duration::from_secs(1));
        assert_eq!(more.eta, Some(Duration::ZERO), "an estimate may be too small");
    }

    #[test]
    fn a_reason_to_wait_is_told_at_once_and_taken_back() {
        let told = Mutex::new(Vec::new());
        let progress = |update: &Update| told.lock().unwrap().push(update.waiting.clone());
        let meter = Meter::new(&progress, Stage::Copy, 0, Some(2));
        meter.wait(Wait::Queue(Waiting::Paused));
        meter.wait(Wait::Queue(Waiting::Paused));
        meter.add(2);
        meter.finish();
        assert_eq!(*told.lock().unwrap(), [None, Some(Wait::Queue(Waiting::Paused)), None]);
    }
}
