//! What an operator does with a migration: register, look, move it on, move it back.
//!
//! Each method gathers what the pure decisions need ([`crate::transition`], [`crate::gate`]), asks
//! them, and carries the answer out through the control store.

use std::time::{Duration, Instant};

use crossfade_experiment::judge;
use serde::Serialize;

use crate::check::{CheckFault, CheckReport};
use crate::connect::AnyDatabase;
use crate::control::{Account, AuditRecord, Registered, Registration, Unseen, Witness};
use crate::error::{Error, Result};
use crate::fleet::{self, Instance};
use crate::gate::{self, Comparisons, Evidence, EvidenceKind, GateReport, Situation};
use crate::manifest::Manifest;
use crate::mirror::Subject;
use crate::phase::{Epoch, Phase, Standing};
use crate::plan::Plan;
use crate::transition::{self, Request};

/// How often live instances are asked whether they have adopted an epoch.
const ADOPTION_POLL: Duration = Duration::from_millis(50);

/// The operator's view of a control store.
#[derive(Clone)]
pub struct Operator {
    database: AnyDatabase,
}

/// How a change is to be made.
#[derive(Debug, Clone)]
pub struct Order {
    /// What is asked for.
    pub request: Request,
    /// The epoch that the operator decided at. Where the migration has moved on since, nothing is done: what was
    /// confirmed was another step.
    pub decided_at: Option<Epoch>,
    /// Who asks.
    pub actor: String,
    /// Why.
    pub reason: Option<String>,
    /// Pass a shut gate. It and the reason are in the audit for ever.
    pub force: bool,
    /// Decide, and change nothing.
    pub dry_run: bool,
    /// How long to wait for transactions in flight, and then for instances to adopt the new epoch.
    pub patience: Duration,
}

/// What came of an order.
#[derive(Debug, Clone, Serialize)]
pub struct Moved {
    /// The migration.
    pub migration: String,
    /// Where it stood.
    pub from: Standing,
    /// Where it stands now, or would stand.
    pub to: Standing,
    /// Whether nothing was changed because only a rehearsal was asked for.
    pub dry_run: bool,
    /// The gate's verdict, for a step forward.
    pub gate: Option<GateReport>,
    /// Whether a shut gate was passed by force.
    pub forced: bool,
    /// Milliseconds that writers can have been held up.
    pub pause_ms: f64,
    /// Milliseconds until every live instance had adopted the new epoch.
    pub adopted_ms: f64,
}

/// Everything that is known of a migration.
#[derive(Debug, Clone)]
pub struct Overview {
    /// The migration as registered.
    pub registered: Registered,
    /// The gate ahead, judged on what is recorded.
    pub gate: Option<GateReport>,
    /// The latest evidence.
    pub evidence: Vec<Evidence>,
    /// What shadow reads have seen at this epoch.
    pub comparisons: Comparisons,
    /// The instances.
    pub instances: Vec<Instance>,
}

/// What registering a manifest did.
#[derive(Debug, Clone, Serialize)]
pub struct Initialised {
    /// The migration.
    pub migration: String,
    /// Whether it was created, replaced or left as it was.
    pub registration: Registration,
    /// The check that went before.
    pub check: CheckReport,
}

impl Operator {
    /// An operator on this control store.
    pub fn new(database: AnyDatabase) -> Operator {
        Operator { database }
    }

    /// The database.
    pub fn database(&self) -> &AnyDatabase {
        &self.database
    }

    /// Proves a manifest on sample rows, in a read-only transaction and before anything exists.
    ///
    /// # Errors
    /// When the manifest does not fit the tables. What the sample shows is in the report.
    pub async fn check(&self, manifest: &Manifest) -> Result<CheckReport> {
        let store = &self.database.store;
        let plan = Plan::read(manifest, store.as_ref()).await?;
        // The statements that prove a projection need no registered migration, only a plan.
        let subject = Subject { id: crate::control::MigrationId(0), plan };
        let keys = store.sample_keys(&subject, manifest.thresholds().sample_keys).await?;
        store.check_projection(&subject, &keys).await
    }

    /// Creates the control tables where they are missing, checks the manifest and registers it.
    /// Doing it again with the same manifest changes nothing.
    ///
    /// # Errors
    /// When the manifest does not fit the tables, or differs from the registered one in a phase where
    /// it may not.
    pub async fn init(&self, manifest: &Manifest, actor: &str) -> Result<Initialised> {
        let check = self.check(manifest).await?;
        if !check.faults.is_empty() {
            let misfits = check.faults.iter().map(|CheckFault { message, hint }| crate::plan::Misfit {
                message: message.clone(),
                hint: hint.clone(),
            });
            return Err(Error::Misfit { migration: manifest.name().to_owned(), misfits: misfits.collect() });
        }
        let (control, store) = (&self.database.control, &self.database.store);
        control.install().await?;
        let plan = Plan::read(manifest, store.as_ref()).await?;
        let account = Account {
            actor: actor.to_owned(),
            reason: None,
            forced: false,
            evidence: serde_json::json!({ "thresholds": manifest.thresholds(), "fingerprint": manifest.fingerprint() }),
        };
        let registration = control.register(manifest, &plan, &account).await?;
        let registered = control.migration(manifest.name()).await?;
        self.record(&registered, EvidenceKind::Check, &check).await?;
        Ok(Initialised { migration: manifest.name().to_owned(), registration, check })
    }

    /// Where a migration stands, and what entering the next phase needs, from what is recorded.
    ///
    /// # Errors
    /// When the migration is not known or the control store fails.
    pub async fn overview(&self, name: &str) -> Result<Overview> {
        let control = &self.database.control;
        let registered = control.migration(name).await?;
        let epoch = registered.standing.epoch;
        let evidence = control.evidence(registered.id).await?;
        let comparisons = self.comparisons(&registered).await?;
        let instances = control.instances(registered.id).await?;
        let old_path_idle = control.old_path_idle(registered.id, epoch).await?;
        let behind = fleet::behind(&instances, epoch);
        let gate = gate::evaluate(&Situation {
            migration: name,
            standing: registered.standing,
            stood: registered.stood,
            thresholds: registered.manifest.thresholds(),
            evidence: &evidence,
            comparisons,
            behind: &behind,
            old_path_idle,
            is_reversible: registered.manifest.is_reversible(),
            is_retirable: !registered.manifest.mapping().retire.is_empty(),
        });
        Ok(Overview { registered, gate, evidence, comparisons, instances })
    }

    /// As [`Operator::overview`], after proving afresh what a gate asks for and can be proven at
    /// once: the manifest before `dual_write`, the reverse path before `new_primary`. Both are
    /// recorded as evidence; neither leaves anything behind in the tables.
    ///
    /// # Errors
    /// When the migration is not known, its manifest does not fit the tables any more, or a database
    /// fails.
    pub async fn prove(&self, name: &str) -> Result<Overview> {
        let registered = self.database.control.migration(name).await?;
        match registered.standing.phase.next() {
            Some(Phase::DualWrite) => {
                let report = self.check(&registered.manifest).await?;
                self.record(&registered, EvidenceKind::Check, &report).await?;
            }
            Some(Phase::NewPrimary) if registered.manifest.is_reversible() => {
                let store = &self.database.store;
                let subject = self.subject(&registered).await?;
                let keys = store.sample_keys(&subject, registered.manifest.thresholds().sample_keys).await?;
                let report = store.check_reverse(&subject, &keys).await?;
                self.record(&registered, EvidenceKind::Reversal, &report).await?;
            }
            _ => {}
        }
        self.overview(name).await
    }

    /// Carries out an order: a step forward through its gate, a ramp, or a step back. Returns when
    /// every live instance has adopted the new epoch.
    ///
    /// # Errors
    /// [`Error::Impossible`], [`Error::Refused`] (nothing was changed), [`Error::Conflict`] when
    /// another operator was faster, [`Error::FenceTimeout`] when transactions in flight held on too long;
    /// [`Error::Unadopted`] when the change *was* made and instances lag behind it.
    pub async fn carry_out(&self, name: &str, order: &Order) -> Result<Moved> {
        self.carry_out_before(name, order, &Unseen).await
    }

    /// As [`Operator::carry_out`]; the change itself is made before a witness.
    ///
    /// # Errors
    /// Those of [`Operator::carry_out`], and the witness's own: nothing has changed then.
    pub async fn carry_out_before(&self, name: &str, order: &Order, witness: &dyn Witness) -> Result<Moved> {
        let control = &self.database.control;
        let registered = control.migration(name).await?;
        if let Some(expected) = order.decided_at.filter(|epoch| *epoch != registered.standing.epoch) {
            let found = registered.standing;
            return Err(Error::Conflict { migration: name.to_owned(), expected, found });
        }
        let to = transition::next_standing(
            registered.standing,
            order.request,
            registered.manifest.is_reversible(),
        )
        .map_err(|source| Error::Impossible { migration: name.to_owned(), source })?;
        // At most two adjacent epochs may be live (I3): nobody moves on while somebody is one behind.
        let gate = match order.request {
            Request::Advance { .. } => self.prove(name).await?.gate,
            Request::Ramp(_) | Request::Rollback => {
                self.await_adoption(&registered, registered.standing, order.patience).await?;
                None
            }
        };
        let is_shut = gate.as_ref().is_some_and(|report| !report.open);
        if let Some(report) = gate.as_ref().filter(|report| !report.open && !order.force) {
            return Err(Error::Refused { migration: name.to_owned(), report: report.clone() });
        }
        let mut moved = Moved {
            migration: name.to_owned(),
            from: registered.standing,
            to,
            dry_run: order.dry_run,
            gate,
            forced: is_shut && order.force,
            pause_ms: 0.0,
            adopted_ms: 0.0,
        };
        if order.dry_run {
            return Ok(moved);
        }
        let account = Account {
            actor: order.actor.clone(),
            reason: order.reason.clone(),
            forced: moved.forced,
            evidence: serde_json::to_value(&moved.gate).unwrap_or_default(),
        };
        let changed = control.change_before(&registered, to, &account, order.patience, witness).await?;
        moved.pause_ms = changed.pause.as_secs_f64() * 1e3;
        let begun = Instant::now();
        self.await_adoption(&registered, to, order.patience).await?;
        moved.adopted_ms = begun.elapsed().as_secs_f64() * 1e3;
        Ok(moved)
    }

    /// The audit, oldest first.
    ///
    /// # Errors
    /// When the migration is not known or the control store fails.
    pub async fn history(&self, name: &str) -> Result<Vec<AuditRecord>> {
        let registered = self.database.control.migration(name).await?;
        self.database.control.history(registered.id).await
    }

    /// The migration as jobs need it, read afresh from manifest and tables.
    ///
    /// # Errors
    /// When the manifest does not fit the tables any more.
    pub async fn subject(&self, registered: &Registered) -> Result<Subject> {
        let plan = Plan::read(&registered.manifest, self.database.store.as_ref()).await?;
        Ok(Subject { id: registered.id, plan })
    }

    async fn record(&self, registered: &Registered, kind: EvidenceKind, report: &CheckReport) -> Result<()> {
        let evidence = Evidence {
            kind,
            epoch: registered.standing.epoch,
            phase: registered.standing.phase,
            faults: report.faults.len() as u64,
            age: Duration::ZERO,
            details: serde_json::to_value(report).unwrap_or_default(),
        };
        self.database.control.record(registered.id, &evidence).await
    }

    async fn comparisons(&self, registered: &Registered) -> Result<Comparisons> {
        let Standing { epoch, .. } = registered.standing;
        let stored = self.database.control.tallies(registered.id, epoch).await?;
        let unreadable = |_| Error::Unreadable { what: format!("a tally of epoch {epoch}") };
        let mut merged: Option<crossfade_experiment::Tally> = None;
        for tally in stored {
            let tally: crossfade_experiment::Tally =
                serde_json::from_value(tally.totals).map_err(unreadable)?;
            match &mut merged {
                None => merged = Some(tally),
                Some(sum) => sum.merge(&tally),
            }
        }
        let Some(sum) = merged else {
            return Ok(Comparisons { mismatch_rate_bound: 1.0, ..Comparisons::default() });
        };
        let (mismatched, compared) = (sum.totals.mismatched, sum.totals.compared());
        let alpha = 1.0 - registered.manifest.thresholds().confidence;
        let p99 = |sketch: &crossfade_experiment::LatencySketch| {
            sketch.quantile(0.99).map(|time| time.as_secs_f64())
        };
        let ratio =
            p99(&sum.candidate_latency).zip(p99(&sum.control_latency)).filter(|(_, control)| *control > 0.0);
        Ok(Comparisons {
            compared,
            mismatched,
            dropped: sum.totals.dropped(),
            mismatch_rate_bound: judge::mismatch_rate_upper_bound(mismatched, compared, alpha),
            latency_ratio: ratio.map(|(candidate, control)| candidate / control),
        })
    }

    async fn await_adoption(
        &self,
        registered: &Registered,
        standing: Standing,
        patience: Duration,
    ) -> Result<()> {
        let begun = Instant::now();
        loop {
            let behind =
                fleet::behind(&self.database.control.instances(registered.id).await?, standing.epoch);
            if behind.is_empty() {
                return Ok(());
            }
            if begun.elapsed() >= patience {
                let migration = registered.manifest.name().to_owned();
                return Err(Error::Unadopted { migration, standing, instances: behind });
            }
            tokio::time::sleep(ADOPTION_POLL).await;
        }
    }
}
