//! The story: what the operator does, from `old_only` to `complete`, while the traffic goes on.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossfade::core::gate::grouped;
use crossfade::{Error, GateReport, Manifest, Moved, Operator, Order, Ramp, Request, Side};
use sqlx::SqlitePool;

use crate::console::Console;
use crate::jobs::{self, Files};
use crate::ledger::Ledger;
use crate::report::Report;
use crate::service::{Release, Service};
use crate::traffic::Traffic;
use crate::{database, inspection};

/// The migration's name, as in its manifest.
pub(crate) const NAME: &str = "subscriptions";

/// Who gives the orders, for the history.
const ACTOR: &str = "operator@example";

/// Instances of the service.
const INSTANCES: usize = 2;

/// The phases are watched for this many shares of the time, in all.
const SHARES: u32 = 20;

/// How long transactions in flight and instances are waited for, and comparisons: far more than a slow machine
/// takes, so that only what hangs is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why the show cannot go on.
pub(crate) type Failure = Box<dyn StdError + Send + Sync>;

/// Everything on stage.
pub(crate) struct Story {
    files: Files,
    pool: SqlitePool,
    operator: Operator,
    ledger: Arc<Ledger>,
    traffic: Traffic,
    console: Console,
    report: Report,
    share: Duration,
}

impl Story {
    /// Fills the old store, registers the migration and opens the service.
    pub(crate) async fn begin(
        files: Files,
        customers: u32,
        seconds: u64,
        seed: u64,
    ) -> Result<Story, Failure> {
        let console = Console::new();
        console.act("A service with customers, and a manifest");
        let (pool, subscriptions) = database::create(&files.database(), customers as usize, seed).await?;
        let count: usize = subscriptions.iter().map(Vec::len).sum();
        let count = grouped(count as u64);
        console.say(&format!("{} customers with {count} subscriptions in arrays", grouped(customers.into())));
        let text = include_str!("migration.toml").replace("env:DATABASE_URL", &files.url());
        let manifest = Manifest::parse(&text, "migration.toml").map_err(Error::from)?;
        let operator = files.operator().await?;
        let check = operator.init(&manifest, ACTOR).await?.check;
        console.say(&format!("manifest proven on {} customers and registered", check.keys));
        let ledger = Arc::new(Ledger::open(subscriptions));
        let mut instances = Vec::new();
        for _ in 0..INSTANCES {
            instances.push(Service::start(pool.clone(), Release::Flawed).await?);
        }
        let traffic = Traffic::start(ledger.clone(), instances, seed.wrapping_add(1));
        let share = Duration::from_secs(seconds) / SHARES;
        let story =
            Story { files, pool, operator, ledger, traffic, console, report: Report::default(), share };
        story.look().await?;
        story.console.say(&format!("{INSTANCES} instances of the service take requests"));
        Ok(story)
    }

    /// Plays it to the end. Gives whether nothing at all was wrong.
    pub(crate) async fn play(mut self) -> Result<bool, Failure> {
        self.watch(1).await?;
        self.double_writes().await?;
        self.backfill().await?;
        self.shadow_reads().await?;
        self.move_reads().await?;
        self.turn_round().await?;
        self.close_old_path().await?;
        self.clean_up().await?;
        self.end().await
    }

    async fn double_writes(&mut self) -> Result<(), Failure> {
        self.console.act("Writes are doubled, for more and more customers");
        self.advance(10.0).await?;
        self.watch(1).await?;
        self.ramp(50.0).await?;
        self.watch(1).await?;
        self.ramp(100.0).await?;
        self.watch(1).await
    }

    async fn backfill(&mut self) -> Result<(), Failure> {
        self.console.act("What was there before is copied; the process that does it is killed on the way");
        let (console, operator, files) = (&self.console, &self.operator, &self.files);
        let killed = jobs::kill_backfill(operator, files, self.ledger.customers(), console).await?;
        console.say(&format!(
            "killed with SIGKILL at {} of {} keys; job {} is {} and knows of {} keys",
            grouped(killed.keys_done),
            grouped(killed.keys),
            killed.job.id,
            killed.job.state,
            grouped(killed.job.done.keys_done)
        ));
        jobs::speed_up(operator, &killed.job).await?;
        let done = jobs::run_backfill(operator, files, None, console).await?;
        console.say(&format!(
            "resumed and done: {} rows copied, {} repaired, {} removed; verification {}",
            grouped(done.copied),
            grouped(done.repaired),
            grouped(done.removed),
            if done.clean { "clean" } else { "with differences" }
        ));
        Ok(())
    }

    async fn shadow_reads(&mut self) -> Result<(), Failure> {
        self.console
            .act("Reads are tried on the new store as well, and compared: this release has a bug in them");
        self.advance(100.0).await?;
        self.compare(Until::Counted).await?;
        let refused = self.carry_out(Request::Advance { ramp: Ramp::FULL }).await;
        let Err(Error::Refused { report, .. }) = refused else {
            return Err("the gate let a flawed read path through".into());
        };
        self.console.say("refused:");
        for condition in report.missing() {
            self.console.detail(&format!("{}: {}", condition.name, condition.seen));
            self.console.detail(&format!("hint: {}", condition.hint.replace("NAME", NAME)));
        }
        self.show_mismatch().await?;

        self.console
            .act("The bug is mended and deployed; a new epoch begins, in which the old evidence is nothing");
        self.traffic.deploy(&self.pool, Release::Mended).await?;
        self.console.say("deployed to all instances");
        self.ramp(50.0).await?;
        self.watch(1).await?;
        self.ramp(100.0).await?;
        self.compare(Until::Open).await
    }

    async fn move_reads(&mut self) -> Result<(), Failure> {
        self.console.act("The new store answers, for more and more customers");
        self.advance(10.0).await?;
        self.watch(2).await?;
        self.ramp(50.0).await?;
        self.watch(1).await?;
        self.ramp(100.0).await?;
        self.watch(2).await
    }

    async fn turn_round(&mut self) -> Result<(), Failure> {
        self.console.act("The new store leads; then one step back, and forward again");
        self.advance(100.0).await?;
        self.watch(2).await?;
        self.carry_out(Request::Rollback).await?;
        self.watch(2).await?;
        self.advance(100.0).await?;
        self.watch(2).await?;
        self.inspect(Side::Old).await?;
        self.inspect(Side::New).await
    }

    async fn close_old_path(&mut self) -> Result<(), Failure> {
        self.console.act("The old path is closed, which cannot be undone");
        let verified = jobs::run_verify(&self.operator, &self.files, &self.console).await?;
        let found = verified.differences.found();
        self.console.say(&format!("verified in reverse: {found} differences, {} healed", verified.healed));
        self.close().await?;
        match self.traffic.forgotten_report().await {
            Err(error) => self.console.say(&format!("a report that nobody thought of is refused: {error}")),
            Ok(()) => return Err("the old path still answers".into()),
        }
        self.watch(2).await
    }

    async fn clean_up(&mut self) -> Result<(), Failure> {
        self.console.act("The old data is removed");
        let (operator, files, console) = (&self.operator, &self.files, &self.console);
        let cleaned = jobs::run_cleanup(operator, files, console).await?;
        console.say(&format!(
            "{} customers retired, {} left alone",
            grouped(cleaned.retired),
            grouped(cleaned.keys_left)
        ));
        if !cleaned.clean {
            return Err(format!("written past crossfade: customers {}", cleaned.left.join(", ")).into());
        }
        self.advance(100.0).await?;
        self.watch(2).await
    }

    async fn end(mut self) -> Result<bool, Failure> {
        self.console.act("The last request is answered, and everything is counted");
        self.traffic.stop().await?;
        self.inspect(Side::New).await?;
        self.report.arrays_left = inspection::arrays_left(&self.pool).await?;
        self.report.seen = self.traffic.seen();
        self.report.examples = self.traffic.examples();
        self.report.subscriptions.0 = self.ledger.subscriptions();
        let is_clean = self.report.is_clean();
        self.console.print(&self.report.text());
        Ok(is_clean)
    }

    /// `crossfade advance --ramp`.
    async fn advance(&mut self, percent: f64) -> Result<(), Failure> {
        Ok(self.carry_out(Request::Advance { ramp: Ramp::from_percent(percent)? }).await?)
    }

    /// `crossfade ramp`.
    async fn ramp(&mut self, percent: f64) -> Result<(), Failure> {
        Ok(self.carry_out(Request::Ramp(Ramp::from_percent(percent)?)).await?)
    }

    /// `crossfade advance --confirm`, by which nothing writes the old store any more.
    async fn close(&mut self) -> Result<(), Failure> {
        let order = order(Request::Advance { ramp: Ramp::FULL });
        self.traffic.take_slowest_write();
        let closed = jobs::close(&self.operator, &self.files, &order, &self.console).await?;
        self.entered(closed.moved, "entered");
        match closed.unrecorded {
            None => Ok(()),
            Some(why) => Err(format!("what the stores were at that moment is not known: {why}").into()),
        }
    }

    async fn carry_out(&mut self, request: Request) -> Result<(), Error> {
        self.traffic.take_slowest_write();
        let moved = self.operator.carry_out(NAME, &order(request)).await?;
        self.entered(moved, if matches!(request, Request::Rollback) { "rolled back" } else { "entered" });
        Ok(())
    }

    fn entered(&mut self, moved: Moved, verb: &str) {
        let slowest = self.traffic.take_slowest_write();
        self.console.set_standing(moved.to);
        self.console.say(&format!(
            "{verb} (epoch {}); writers held up for {:.1} ms, all instances there after {:.0} ms",
            moved.to.epoch, moved.pause_ms, moved.adopted_ms
        ));
        self.report.changed(moved, slowest);
    }

    /// Lets the traffic run for some shares of the time, and says what it has done.
    async fn watch(&mut self, shares: u32) -> Result<(), Failure> {
        let before = self.traffic.seen();
        tokio::time::sleep(self.share * shares).await;
        let seen = self.traffic.seen();
        self.console.say(&format!(
            "{:>7} writes, {:>7} reads, {} wrong, {} failed",
            grouped(seen.writes - before.writes),
            grouped(seen.reads - before.reads),
            seen.reads_wrong - before.reads_wrong,
            seen.requests_failed - before.requests_failed
        ));
        Ok(())
    }

    /// Waits for comparisons, and says how many there are.
    async fn compare(&self, until: Until) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut told = None;
        loop {
            let overview = self.operator.overview(NAME).await?;
            let asked = overview.registered.manifest.thresholds().comparisons_min;
            let compared = overview.comparisons.compared;
            let is_open = overview.gate.as_ref().is_some_and(|gate| gate.open);
            let is_done = match until {
                Until::Counted => compared >= asked,
                Until::Open => is_open,
            };
            if is_done || told.is_none_or(|told: Instant| told.elapsed() >= Duration::from_secs(1)) {
                told = Some(Instant::now());
                self.console.say(&format!(
                    "{} of {} comparisons, {} mismatches, {} dropped",
                    grouped(compared),
                    grouped(asked),
                    grouped(overview.comparisons.mismatched),
                    grouped(overview.comparisons.dropped)
                ));
            }
            if is_done {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                let missing = overview.gate.as_ref().map(missing).unwrap_or_default();
                return Err(format!("the gate does not open: {missing}").into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// `crossfade report --limit 1`.
    async fn show_mismatch(&self) -> Result<(), Failure> {
        let control = &self.operator.database().control;
        let registered = control.migration(NAME).await?;
        for mismatch in control.mismatches(registered.id, 1).await? {
            let differences = mismatch.differences.as_array().map_or(&[][..], Vec::as_slice);
            for difference in differences {
                let text = |field: &str| difference[field].as_str().unwrap_or_default().to_owned();
                let (kind, path) = (text("kind"), text("path"));
                let place = if path.is_empty() { "the list" } else { &path };
                self.console
                    .detail(&format!("for example customer {}: {kind} of {place} differs", mismatch.key));
            }
        }
        Ok(())
    }

    async fn inspect(&mut self, side: Side) -> Result<(), Failure> {
        let inspection = inspection::inspect(&self.pool, &self.ledger, side).await?;
        self.console.say(&format!(
            "{side} store against the ledger: {} subscriptions, {} differences",
            grouped(inspection.subscriptions),
            inspection.faults.len()
        ));
        if side == Side::New {
            self.report.subscriptions.1 = inspection.subscriptions;
        }
        self.report.inspected(inspection);
        Ok(())
    }

    async fn look(&self) -> Result<(), Failure> {
        self.console.set_standing(self.operator.overview(NAME).await?.registered.standing);
        Ok(())
    }
}

fn order(request: Request) -> Order {
    Order {
        decided_at: None,
        request,
        actor: ACTOR.to_owned(),
        reason: None,
        force: false,
        dry_run: false,
        patience: PATIENCE,
    }
}

/// When there are enough comparisons.
#[derive(Clone, Copy)]
enum Until {
    /// As many as the gate asks for, whatever they say.
    Counted,
    /// As many as it takes for the gate to open.
    Open,
}

fn missing(report: &GateReport) -> String {
    report
        .missing()
        .map(|condition| format!("{}: {}", condition.name, condition.seen))
        .collect::<Vec<_>>()
        .join("; ")
}
