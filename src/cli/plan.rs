//! `crossfade plan`: what the next phase needs.

use std::process::ExitCode;

use clap::Args;
use crossfade::GateReport;

use super::connection::Connection;
use super::failure::Failure;
use super::output::Output;

/// Say what entering the next phase needs, proving afresh what can be proven at once.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  crossfade plan subscriptions")]
pub(crate) struct Plan {
    /// The migration.
    name: String,
}

impl Plan {
    pub(crate) async fn run(self, connection: &Connection, output: Output) -> Result<ExitCode, Failure> {
        let overview = connection.operator().await?.prove(&self.name).await?;
        let document = serde_json::json!({
            "migration": self.name,
            "phase": overview.registered.standing.phase,
            "gate": overview.gate.as_ref().map(document),
        });
        output.result(&document, |_| match &overview.gate {
            Some(report) => {
                format!("{}: {}\n{}", self.name, overview.registered.standing, text(&self.name, report))
            }
            None => format!("{}: complete; nothing is left to do", self.name),
        });
        Ok(ExitCode::SUCCESS)
    }
}

/// A gate for scripts: where to, whether it is open, what is missing, and every condition.
pub(crate) fn document(report: &GateReport) -> serde_json::Value {
    serde_json::json!({
        "to": report.to,
        "open": report.open,
        "missing": report.missing().collect::<Vec<_>>(),
        "conditions": report.conditions,
    })
}

/// A gate for people.
pub(crate) fn text(name: &str, report: &GateReport) -> String {
    let mut text = format!("gate to {}: {}\n", report.to, if report.open { "open" } else { "shut" });
    for condition in &report.conditions {
        let mark = if condition.met { "ok     " } else { "missing" };
        text.push_str(&format!("  {mark}  {}: {}\n", condition.name, condition.seen));
        if !condition.met {
            text.push_str(&format!("           hint: {}\n", condition.hint));
        }
    }
    if report.open {
        text.push_str(&format!("next: crossfade advance {name}\n"));
    }
    text
}
