//! `crossfade advance`: the next phase, through its gate.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use crossfade::backfill::Migration;
use crossfade::backfill::closing::{self, Closed};
use crossfade::core::transition;
use crossfade::{Epoch, Moved, Order, Phase, Ramp, Request};

use super::confirm::Confirm;
use super::connection::Connection;
use super::failure::Failure;
use super::output::Output;
use super::progress::{self, Shown};
use super::work::WorkFolder;

/// How an order is given.
#[derive(Debug, Args)]
pub(crate) struct Manner {
    /// Why; kept in the history.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Who; by default this login and host.
    #[arg(long = "as", value_name = "WHO")]
    actor: Option<String>,
    /// Decide, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// How long to wait for transactions in flight, and then for instances to adopt the change, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    patience: u64,
    #[command(flatten)]
    pub(crate) confirm: Confirm,
}

impl Manner {
    /// The order for a request, decided where the migration stands now.
    pub(crate) fn order(&self, request: Request, decided_at: Epoch, force: bool) -> Order {
        Order {
            request,
            decided_at: Some(decided_at),
            actor: self.actor.clone().unwrap_or_else(actor),
            reason: self.reason.clone(),
            force,
            dry_run: self.dry_run,
            patience: Duration::from_secs(self.patience),
        }
    }
}

/// Enter the next phase.
///
/// The gate in front of it is judged afresh; where it is shut, the command says what is missing in numbers and exits
/// with 3. Entering new_only can never be undone and is confirmed by the migration's name; with that step both tables are
/// exported as of that moment, so that cleanup knows what the old data was.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  crossfade advance subscriptions --ramp 1\n  crossfade advance subscriptions --dry-run\n  crossfade advance subscriptions --confirm subscriptions"
)]
pub(crate) struct Advance {
    /// The migration.
    name: String,
    /// Begin the phase with this share of keys, in percent.
    #[arg(long, value_name = "PERCENT", value_parser = percent, default_value = "100")]
    ramp: Ramp,
    /// Pass a shut gate; needs --reason. Both are in the history for ever.
    #[arg(long, requires = "reason")]
    force: bool,
    /// Do not export both tables at the step after which nothing writes the old one. Cleanup then leaves keys that were
    /// written between the last verification and that step, and again afterwards.
    #[arg(long)]
    no_snapshot: bool,
    #[command(flatten)]
    folder: WorkFolder,
    #[command(flatten)]
    manner: Manner,
}

impl Advance {
    pub(crate) async fn run(self, connection: &Connection, output: Output) -> Result<ExitCode, Failure> {
        let operator = connection.operator().await?;
        let request = Request::Advance { ramp: self.ramp };
        let registered = operator.database().control.migration(&self.name).await?;
        let from = registered.standing.phase;
        let order = self.manner.order(request, registered.standing.epoch, self.force);
        if let Some(to) = from.next().filter(|_| !self.manner.dry_run) {
            let what = format!("{}: {from} to {to}", self.name);
            // The gate is asked first: nobody should be made to confirm what will be refused.
            operator.carry_out(&self.name, &Order { dry_run: true, ..order.clone() }).await?;
            if transition::is_irreversible(from, request, registered.manifest.is_reversible()) {
                self.manner.confirm.by_name(&what, &self.name, output)?;
            } else {
                self.manner.confirm.step(&what, &self.name, output)?;
            }
        }
        let is_closing = transition::closes_old(from, request, registered.manifest.is_reversible());
        if is_closing && !self.no_snapshot && !order.dry_run {
            let migration = Migration::new(operator.database(), operator.subject(&registered).await?);
            let (progress, cancel) = (Shown::new(output), progress::cancel_on_interrupt(output));
            let closed =
                closing::close(&operator, &migration, &order, &self.folder.root, &progress, &cancel).await?;
            output.result(&closed, closed_text);
            return Ok(ExitCode::SUCCESS);
        }
        let moved = operator.carry_out(&self.name, &order).await?;
        output.result(&moved, text);
        Ok(ExitCode::SUCCESS)
    }
}

/// How the old store was closed, for people.
fn closed_text(closed: &Closed) -> String {
    let kept = match (&closed.snapshot, &closed.unrecorded) {
        (Some(folder), _) => {
            format!("both stores as of this step are in {}; cleanup goes by them\n", folder.display())
        }
        (None, why) => format!(
            "the step is made, but both stores as of it were not kept: {}\ncleanup goes by the verification, and leaves keys \
             that were written between it and this step\n",
            why.as_deref().unwrap_or("nothing was seen")
        ),
    };
    let moved = text(&closed.moved);
    // What to do next stays the last line.
    match moved.find("next: ") {
        Some(at) => format!("{}{kept}{}", &moved[..at], &moved[at..]),
        None => moved + &kept,
    }
}

/// What came of an order, for people.
pub(crate) fn text(moved: &Moved) -> String {
    let Moved { migration, from, to, .. } = moved;
    if moved.dry_run {
        let gate = match &moved.gate {
            Some(report) if !report.open => "; its gate is shut, and --force would pass it",
            _ => "",
        };
        return format!("{migration}: would go from {from} to {to}{gate}");
    }
    let mut text = format!(
        "{migration}: {from} -> {to}\nwriters held up for at most {:.1} ms; adopted by all live instances after {:.0} ms\n",
        moved.pause_ms, moved.adopted_ms
    );
    if moved.forced {
        text.push_str("the gate was shut and has been passed by force\n");
    }
    let next = match to.phase {
        Phase::OldOnly => None,
        phase if phase.is_ramped() && to.ramp != Ramp::FULL => {
            Some(format!("crossfade ramp {migration} 100"))
        }
        Phase::DualWrite => Some(format!("crossfade backfill {migration}")),
        Phase::NewPrimary => Some(format!("crossfade verify {migration}")),
        Phase::NewOnly => Some(format!("crossfade cleanup {migration}")),
        Phase::ShadowRead | Phase::ReadNew => Some(format!("crossfade plan {migration}")),
        Phase::Complete => None,
    };
    if let Some(next) = next {
        text.push_str(&format!("next: {next}\n"));
    }
    text
}

/// A percentage as a ramp.
pub(crate) fn percent(text: &str) -> Result<Ramp, String> {
    let number: f64 = text.trim_end_matches('%').parse().map_err(|_| format!("{text:?} is no percentage"))?;
    Ramp::from_percent(number).map_err(|error| error.to_string())
}

/// Who gives an order, by default: login and host.
pub(crate) fn actor() -> String {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let login = variable("USER").or_else(|| variable("LOGNAME")).unwrap_or_else(|| "unknown".to_owned());
    let host = variable("HOSTNAME").or_else(|| std::fs::read_to_string("/etc/hostname").ok());
    format!("{login}@{}", host.unwrap_or_default().trim())
}
