//! What the show prints while it runs: one line after the other, with the time and the phase.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the show is printed, and this is the file that does so"
)]

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossfade::backfill::progress::{Progress, Stage, Update};
use crossfade::core::gate::grouped;
use crossfade::{Phase, Standing};

/// Lines on how far a job is come at most this often.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// The one who prints.
pub(crate) struct Console {
    start: Instant,
    standing: Mutex<String>,
    told: Mutex<Option<(Stage, u64, Instant)>>,
}

impl Console {
    pub(crate) fn new() -> Console {
        Console { start: Instant::now(), standing: Mutex::default(), told: Mutex::default() }
    }

    /// Where the migration stands, in front of the lines to come.
    pub(crate) fn set_standing(&self, standing: Standing) {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = label(standing);
    }

    /// A new act.
    pub(crate) fn act(&self, title: &str) {
        println!("\n{title}");
    }

    /// Something has happened.
    pub(crate) fn say(&self, what: &str) {
        let standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        println!("{:6.1} s  {standing:<17}  {what}", self.start.elapsed().as_secs_f64());
    }

    /// More about what has just happened.
    pub(crate) fn detail(&self, what: &str) {
        println!("{:29}{what}", "");
    }

    /// The show cannot go on.
    pub(crate) fn fail(&self, error: &(dyn std::error::Error + 'static)) {
        eprintln!("error: {error}");
        let core = error.downcast_ref().and_then(crossfade::Error::hint);
        let job = error.downcast_ref().and_then(crossfade::backfill::Error::hint);
        if let Some(hint) = core.or(job) {
            eprintln!("hint: {hint}");
        }
    }

    /// Plain text.
    pub(crate) fn print(&self, text: &str) {
        println!("{text}");
    }
}

impl Progress for Console {
    fn update(&self, update: &Update) {
        let Update { stage, done, rate, .. } = update;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = match *told {
            None => true,
            // The end of a stage is told once, however soon it comes.
            Some((last, before, _)) if update.is_over() => (last, before) != (*stage, *done),
            Some((_, _, at)) => at.elapsed() >= PROGRESS_EVERY,
        };
        if is_due && *done > 0 {
            *told = Some((*stage, *done, Instant::now()));
            self.say(&format!("{stage:<10} {:>22} {:>9} /s", update.extent(), grouped(*rate as u64)));
        }
    }
}

/// A standing in a few characters.
pub(crate) fn label(standing: Standing) -> String {
    match standing.phase {
        Phase::DualWrite | Phase::ShadowRead | Phase::ReadNew => {
            format!("{} {} %", standing.phase, standing.ramp.percent())
        }
        phase => phase.to_string(),
    }
}
