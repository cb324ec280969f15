//! Progress of long commands: bars on a terminal, lines in a log; and what an interrupt does.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossfade::backfill::Cancel;
use crossfade::backfill::progress::{Progress, Stage, Update, Wait};
use crossfade::backfill::queue::Waiting;
use crossfade::core::gate::{counted, grouped, spell};
use indicatif::{ProgressBar, ProgressStyle};

use super::output::Output;

/// How often a line is written where there is no terminal: a log of an hour stays readable.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows how far each stage of a command is.
pub(crate) struct Shown {
    output: Output,
    stages: Mutex<HashMap<Stage, Line>>,
}

struct Line {
    bar: Option<ProgressBar>,
    told: Option<Instant>,
    waiting: Option<Wait>,
    done: u64,
    /// When it last got on.
    moved: Instant,
    is_over: bool,
}

impl Shown {
    pub(crate) fn new(output: Output) -> Shown {
        Shown { output, stages: Mutex::default() }
    }
}

impl Progress for Shown {
    fn update(&self, update: &Update) {
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        let line = stages.entry(update.stage).or_insert_with(|| Line {
            bar: self.output.is_interactive().then(|| bar(update.stage)),
            told: None,
            waiting: None,
            done: update.done,
            moved: Instant::now(),
            is_over: false,
        });
        if line.done != update.done {
            line.done = update.done;
            line.moved = Instant::now();
        }
        let is_over = update.is_over();
        let rest = rest(update, line.moved.elapsed());
        match &line.bar {
            Some(bar) => {
                bar.set_length(update.total.unwrap_or(update.done).max(update.done));
                bar.set_position(update.done);
                bar.set_message(format!("{}  {rest}", update.extent()));
                if is_over {
                    bar.finish();
                } else if bar.is_finished() {
                    // The stage comes again, in another round.
                    bar.reset();
                }
            }
            None => {
                // Told once, however often it is heard until the stage comes again in another round.
                let is_repeated = is_over && line.is_over;
                line.is_over = is_over;
                if is_repeated {
                    return;
                }
                // A worker without a chunk while others work is no news.
                let is_news = !matches!(update.waiting, None | Some(Wait::Queue(Waiting::Others)));
                let is_new = is_news && update.waiting != line.waiting;
                line.waiting.clone_from(&update.waiting);
                if is_over || is_new || line.told.is_none_or(|told| told.elapsed() >= LINE_EVERY) {
                    line.told = Some(Instant::now());
                    self.output.note(&format!("{}: {}  {rest}", update.stage, update.extent()));
                }
            }
        }
    }
}

fn bar(stage: Stage) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:>12} {bar:30} {msg}");
    let bar = ProgressBar::new(0).with_prefix(stage.to_string());
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// What follows how far a stage is: why nothing happens, or how fast it goes.
fn rest(update: &Update, still: Duration) -> String {
    // One worker of several finds nothing to take at the end of a job: that is worth a word only while all of them wait.
    let is_told = |waiting: &&Wait| {
        **waiting != Wait::Queue(Waiting::Others) || (still >= LINE_EVERY && !update.is_over())
    };
    if let Some(waiting) = update.waiting.as_ref().filter(is_told) {
        return match waiting {
            Wait::Queue(Waiting::Paused) => "waiting: the job is paused".to_owned(),
            Wait::Queue(Waiting::Others) => "waiting: other workers hold all that is left".to_owned(),
            Wait::Queue(Waiting::Backoff) => "waiting: what is left has failed and is tried again".to_owned(),
            Wait::Retry { error } => format!("trying again: {error}"),
        };
    }
    let eta = update.eta.filter(|eta| !eta.is_zero()).map(|eta| format!(", {} left", spell(eta)));
    let taken_over = match update.ranges_taken_over {
        0 => String::new(),
        ranges => format!(", {} taken over", counted(ranges as u64, "range")),
    };
    format!("{}/s{}{taken_over}", grouped(update.rate as u64), eta.unwrap_or_default())
}

/// A request to stop that the first interrupt makes; the second ends the process, which loses nothing either.
pub(crate) fn cancel_on_interrupt(output: Output) -> Cancel {
    let cancel = Cancel::new();
    let request = cancel.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            output.note("stopping after the batch in hand; interrupt again to stop at once");
            request.cancel();
        }
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(130);
        }
    });
    cancel
}
