//! How far something is: what bars are drawn from.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossfade_migration_core::gate::grouped;
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
    /// Sending a pair of snapshots to an object store, in bytes.
    Upload,
    /// Fetching a pair of snapshots or a dump from an object store, in bytes.
    Download,
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

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Stage::ExportOld => "export old",
            Stage::ExportNew => "export new",
            Stage::Upload => "upload",
            Stage::Download => "download",
            Stage::Scan => "scan",
            Stage::Copy => "copy",
            Stage::Recheck => "recheck",
            Stage::Baseline => "baseline",
            Stage::Retire => "retire",
            Stage::LastScan => "last scan",
        })
    }
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
    /// How much there is, where it is known.
    pub total: Option<u64>,
    /// Whether that is the database's estimate, as it is while something is exported.
    pub is_estimate: bool,
    /// How much is done per second, since this process began on the stage.
    pub rate: f64,
    /// How long the rest takes at that rate.
    #[serde(skip)]
    pub eta: Option<Duration>,
    /// Why nothing happens, while nothing happens.
    pub waiting: Option<Wait>,
    /// How many ranges of an export were taken over from an earlier one.
    pub ranges_taken_over: usize,
}

impl Update {
    /// Whether the stage is through. What an estimate promised may be reached long before.
    pub fn is_over(&self) -> bool {
        !self.is_estimate && self.total == Some(self.done)
    }

    /// How much is done of how much, with its thousands marked off: `9,412 of about 20,000`.
    pub fn extent(&self) -> String {
        let about = if self.is_estimate { "about " } else { "" };
        let unit = if matches!(self.stage, Stage::Upload | Stage::Download) { " bytes" } else { "" };
        match self.total {
            None => format!("{}{unit}", grouped(self.done)),
            Some(total) => format!("{} of {about}{}{unit}", grouped(self.done), grouped(total)),
        }
    }
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
    is_estimate: bool,
    waiting: Option<Wait>,
    ranges_taken_over: usize,
    told: Option<Instant>,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(progress: &'a dyn Progress, stage: Stage, done: u64, total: Option<u64>) -> Self {
        Self::begin(progress, stage, State::new(done, total))
    }

    /// One of which only the database's estimate is known, until it is over.
    pub(crate) fn estimated(progress: &'a dyn Progress, stage: Stage, estimate: u64) -> Self {
        Self::begin(progress, stage, State { is_estimate: true, ..State::new(0, Some(estimate)) })
    }

    fn begin(progress: &'a dyn Progress, stage: Stage, state: State) -> Self {
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

    /// So many ranges were taken over so far, which is told with what is done.
    pub(crate) fn taken_over(&self, ranges: usize) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).ranges_taken_over = ranges;
    }

    /// So much of it was done in vain.
    pub(crate) fn take_back(&self, less: u64) {
        self.tell(|state| state.done = state.done.saturating_sub(less));
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
            state.is_estimate = false;
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
    let &State { base, done, total, is_estimate, .. } = state;
    let seconds = elapsed.as_secs_f64();
    let rate = if seconds > 0.0 { done.saturating_sub(base) as f64 / seconds } else { 0.0 };
    let left = total.map(|total| total.saturating_sub(done));
    let eta =
        left.filter(|_| rate > 0.0).and_then(|left| Duration::try_from_secs_f64(left as f64 / rate).ok());
    let (waiting, ranges_taken_over) = (state.waiting.clone(), state.ranges_taken_over);
    Update { stage, done, total, is_estimate, rate, eta, waiting, ranges_taken_over }
}

impl State {
    fn new(done: u64, total: Option<u64>) -> State {
        State { base: done, done, total, is_estimate: false, waiting: None, ranges_taken_over: 0, told: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(base: u64, done: u64, total: Option<u64>) -> State {
        State { done, ..State::new(base, total) }
    }

    #[test]
    fn an_estimate_is_one_until_the_stage_is_over() {
        let told = Mutex::new(Vec::new());
        let progress = |update: &Update| {
            told.lock().unwrap().push((update.done, update.total, update.is_estimate, update.is_over()));
        };
        let meter = Meter::estimated(&progress, Stage::ExportOld, 0);
        meter.add(20);
        meter.finish();
        assert_eq!(*told.lock().unwrap(), [(0, Some(0), true, false), (20, Some(20), false, true)]);
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
