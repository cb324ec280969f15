//! `crossfade status`: where a migration stands.

use std::process::ExitCode;

use clap::Args;
use crossfade::backfill::queue::{self, Job};
use crossfade::core::gate::{counted, grouped, spell};
use crossfade::{Operator, Overview};

use super::connection::Connection;
use super::failure::Failure;
use super::output::Output;
use super::{jobs, plan};

/// Show where a migration stands: phase, ramp, gate, instances, jobs. Without a name, all migrations.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  crossfade status\n  crossfade status subscriptions --json | jq .gate.missing"
)]
pub(crate) struct Status {
    /// The migration; all of them where it is left out.
    name: Option<String>,
}

impl Status {
    pub(crate) async fn run(self, connection: &Connection, output: Output) -> Result<ExitCode, Failure> {
        let operator = connection.operator().await?;
        let Some(name) = self.name else {
            let (mut all, mut text) = (Vec::new(), String::new());
            for name in operator.database().control.names().await? {
                let registered = operator.database().control.migration(&name).await?;
                all.push(serde_json::json!({
                    "migration": name,
                    "phase": registered.standing.phase,
                    "ramp_percent": registered.standing.ramp.percent(),
                    "epoch": registered.standing.epoch,
                }));
                text.push_str(&format!("{name}: {}\n", registered.standing));
            }
            output.result(&all, |all| match all.as_slice() {
                [] => "no migration is registered; crossfade init MANIFEST registers one".to_owned(),
                _ => text,
            });
            return Ok(ExitCode::SUCCESS);
        };
        let seen = Seen::now(&operator, name).await?;
        output.result(&seen.document(), |_| seen.text());
        Ok(ExitCode::SUCCESS)
    }
}

/// A migration as it stands.
pub(super) struct Seen {
    pub(super) name: String,
    pub(super) overview: Overview,
    pub(super) jobs: Vec<Job>,
}

impl Seen {
    pub(super) async fn now(operator: &Operator, name: String) -> Result<Seen, Failure> {
        let overview = operator.overview(&name).await?;
        let jobs = queue::queue(&operator.database().pool).jobs(overview.registered.id).await?;
        Ok(Seen { name, overview, jobs })
    }

    pub(super) fn document(&self) -> serde_json::Value {
        let Seen { name, overview, jobs } = self;
        let standing = overview.registered.standing;
        serde_json::json!({
            "migration": name,
            "phase": standing.phase,
            "ramp_percent": standing.ramp.percent(),
            "epoch": standing.epoch,
            "stood_seconds": overview.registered.stood.as_secs_f64(),
            "reads": standing.reads(true),
            "writes": standing.phase.primary(),
            "gate": overview.gate.as_ref().map(plan::document),
            "comparisons": overview.comparisons,
            "evidence": overview.evidence,
            "instances": overview.instances,
            "jobs": jobs,
        })
    }

    fn text(&self) -> String {
        let Seen { name, overview, jobs } = self;
        let standing = overview.registered.standing;
        let live = overview.instances.iter().filter(|instance| instance.is_live).count() as u64;
        let mut text = format!(
            "{name}: {standing}, for {}\n{}\n",
            spell(overview.registered.stood),
            counted(live, "live instance")
        );
        if overview.comparisons.compared + overview.comparisons.dropped > 0 {
            text.push_str(&format!(
                "comparisons {}, mismatches {}, dropped {}\n",
                grouped(overview.comparisons.compared),
                grouped(overview.comparisons.mismatched),
                grouped(overview.comparisons.dropped)
            ));
        }
        for job in jobs.iter().filter(|job| !job.state.is_finished()) {
            text.push_str(&jobs::line(job));
        }
        match &overview.gate {
            Some(report) => text.push_str(&plan::text(name, report)),
            None => text.push_str("complete; nothing is left to do\n"),
        }
        text
    }
}
