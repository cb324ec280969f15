//! The closing tables.

use std::fmt::Write;
use std::time::Duration;

use crossfade::Moved;
use crossfade::core::gate::grouped;

use crate::console::label;
use crate::inspection::Inspection;
use crate::ledger::Fault;
use crate::traffic::Seen;

/// What the show has come to.
#[derive(Default)]
pub(crate) struct Report {
    changes: Vec<(Moved, Duration)>,
    faults: Vec<Fault>,
    pub(crate) seen: Seen,
    pub(crate) examples: Vec<String>,
    /// Subscriptions that there are by the ledger, and in the new store.
    pub(crate) subscriptions: (u64, u64),
    /// Customers whose array in the old store is not empty at the end.
    pub(crate) arrays_left: u64,
}

impl Report {
    /// Notes a change of phase and the slowest write while it was made.
    pub(crate) fn changed(&mut self, moved: Moved, write_slowest: Duration) {
        self.changes.push((moved, write_slowest));
    }

    /// Notes what an inspection has found.
    pub(crate) fn inspected(&mut self, inspection: Inspection) {
        self.faults.extend(inspection.faults);
    }

    /// Whether nothing at all is wrong.
    pub(crate) fn is_clean(&self) -> bool {
        let Seen { reads_wrong, requests_failed, .. } = self.seen;
        let (expected, found) = self.subscriptions;
        self.faults.is_empty() && reads_wrong + requests_failed + self.arrays_left == 0 && expected == found
    }

    /// The tables.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).map(|()| text).unwrap_or_default()
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "\n{:<40} {:>12} {:>14} {:>16}", "change", "pause", "adopted after", "slowest write")?;
        for (moved, slowest) in &self.changes {
            writeln!(
                text,
                "{:<40} {:>9.1} ms {:>11.0} ms {:>13.1} ms",
                format!("{} -> {}", label(moved.from), label(moved.to)),
                moved.pause_ms,
                moved.adopted_ms,
                slowest.as_secs_f64() * 1e3
            )?;
        }
        let lost = self.faults.iter().filter(|fault| matches!(fault, Fault::Lost(_))).count();
        let resurrected = self.faults.iter().filter(|fault| matches!(fault, Fault::Resurrected(_))).count();
        let (expected, found) = self.subscriptions;
        writeln!(text)?;
        for (what, count) in [
            ("acknowledged writes", self.seen.writes),
            ("writes lost", lost as u64),
            ("resurrected", resurrected as u64),
            ("states that nobody wrote", (self.faults.len() - lost - resurrected) as u64),
            ("reads", self.seen.reads),
            ("reads wrong", self.seen.reads_wrong),
            ("requests failed", self.seen.requests_failed),
            ("subscriptions by the ledger", expected),
            ("subscriptions in the new store", found),
            ("arrays left in the old store", self.arrays_left),
        ] {
            writeln!(text, "{what:<40} {:>12}", grouped(count))?;
        }
        for fault in self.faults.iter().take(10) {
            writeln!(text, "  {fault:?}")?;
        }
        for example in &self.examples {
            writeln!(text, "  {example}")?;
        }
        Ok(())
    }
}
