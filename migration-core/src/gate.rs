//! Gates: what must be true before a phase may be entered, judged from evidence.
//!
//! [`evaluate`] is a pure function: the caller gathers a [`Situation`] from the control store, and
//! gets back every condition with the number that was seen, the number that is asked for, and what
//! would fix it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::phase::{Epoch, Phase, Ramp, Standing};

/// What the gates ask for; the manifest's `[gates]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Thresholds {
    /// Comparisons needed at this epoch before reads may move.
    pub comparisons_min: u64,
    /// The largest mismatch rate that the upper confidence bound may reach.
    pub mismatch_rate_max: f64,
    /// The confidence of that bound.
    pub confidence: f64,
    /// How many times slower than the control's p99 the candidate's p99 may be.
    pub latency_ratio_max: f64,
    /// How old a verification may be.
    pub evidence_age_max: Duration,
    /// How long a phase must have stood still before the next is entered.
    pub soak_min: Duration,
    /// How long the old path must have been unused before it is closed.
    pub old_path_quiet_min: Duration,
    /// How many keys a check samples.
    pub sample_keys: u32,
}

impl Default for Thresholds {
    /// Defaults for production: a bound of one in a thousand needs several thousand clean comparisons,
    /// so ten thousand; a day for the evidence, so that a verification may run overnight; ten minutes
    /// to notice in the graphs what a change of phase has done.
    fn default() -> Self {
        Thresholds {
            comparisons_min: 10_000,
            mismatch_rate_max: 1e-3,
            confidence: 0.95,
            latency_ratio_max: 2.0,
            evidence_age_max: Duration::from_secs(24 * 3600),
            soak_min: Duration::from_secs(10 * 60),
            old_path_quiet_min: Duration::from_secs(3600),
            sample_keys: 200,
        }
    }
}

/// What kind of measurement an evidence record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvidenceKind {
    /// The manifest was proven on sample rows.
    Check,
    /// Fresh snapshots of both stores were compared.
    Verification,
    /// The reverse path was proven on sample rows.
    Reversal,
    /// A scan looked for data that cleanup has left.
    Cleanup,
    /// Both stores were exported as of the moment in which the old one was closed.
    Closing,
}

impl EvidenceKind {
    /// The kind's name in control records and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            EvidenceKind::Check => "check",
            EvidenceKind::Verification => "verification",
            EvidenceKind::Reversal => "reversal",
            EvidenceKind::Cleanup => "cleanup",
            EvidenceKind::Closing => "closing",
        }
    }

    /// Reads a name that [`Self::as_str`] wrote.
    pub fn parse(text: &str) -> Option<EvidenceKind> {
        use EvidenceKind::{Check, Cleanup, Closing, Reversal, Verification};
        [Check, Verification, Reversal, Cleanup, Closing].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// A recorded measurement. Immutable once written.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evidence {
    /// What was measured.
    pub kind: EvidenceKind,
    /// The epoch at which the measurement began.
    pub epoch: Epoch,
    /// The phase at which it began.
    pub phase: Phase,
    /// How many faults it found; 0 is clean.
    pub faults: u64,
    /// How long ago it began, by the database's clock.
    #[serde(skip)]
    pub age: Duration,
    /// The measurement itself, for people and for `--json`.
    pub details: serde_json::Value,
}

/// What shadow reads have seen at the present epoch, over all instances.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Comparisons {
    /// Reads whose two answers were compared.
    pub compared: u64,
    /// Of these, how many differed, and still did when both were read again.
    pub mismatched: u64,
    /// Calls that were chosen and did not end in a comparison: shed, timed out, failed or incomparable.
    pub dropped: u64,
    /// The upper confidence bound on the mismatch rate.
    pub mismatch_rate_bound: f64,
    /// The candidate's p99 over the control's, where both were measured.
    pub latency_ratio: Option<f64>,
}

/// Everything that a gate looks at.
#[derive(Debug, Clone)]
pub struct Situation<'a> {
    /// The migration's name, for hints.
    pub migration: &'a str,
    /// Where the migration stands.
    pub standing: Standing,
    /// How long it has stood there, by the database's clock.
    pub stood: Duration,
    /// What the manifest asks for.
    pub thresholds: &'a Thresholds,
    /// The latest evidence of each kind.
    pub evidence: &'a [Evidence],
    /// What shadow reads have seen at this epoch.
    pub comparisons: Comparisons,
    /// Names of live instances that have not adopted the present epoch.
    pub behind: &'a [String],
    /// How long ago the old path was last used, where it ever was.
    pub old_path_idle: Option<Duration>,
    /// Whether the manifest has a reverse mapping.
    pub is_reversible: bool,
    /// Whether the manifest has a retire mapping.
    pub is_retirable: bool,
}

/// One condition of a gate, with what was seen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Condition {
    /// What is asked, in a few words.
    pub name: &'static str,
    /// Whether it is met.
    pub met: bool,
    /// What was seen and what is asked for, in numbers.
    pub seen: String,
    /// What was seen, as a number, where it is one: a count, a share from 0 to 1, a ratio, or seconds.
    pub value: Option<f64>,
    /// What that number is held against.
    pub limit: Option<f64>,
    /// What would fix it.
    pub hint: String,
    /// Whether [`crate::operate::Operator::prove`] may meet it at once.
    #[serde(skip)]
    pub is_provable: bool,
}

impl Condition {
    fn new(name: &'static str, met: bool, seen: impl Into<String>, hint: impl Into<String>) -> Condition {
        Condition {
            name,
            met,
            seen: seen.into(),
            value: None,
            limit: None,
            hint: hint.into(),
            is_provable: false,
        }
    }

    fn provable(self, kind: EvidenceKind) -> Condition {
        let is_provable = matches!(kind, EvidenceKind::Check | EvidenceKind::Reversal);
        Condition { is_provable, ..self }
    }

    fn numbers(self, value: f64, limit: f64) -> Condition {
        Condition { value: Some(value), limit: Some(limit), ..self }
    }
}

/// A gate's verdict.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GateReport {
    /// The phase behind the gate.
    pub to: Phase,
    /// Whether it may be entered now.
    pub open: bool,
    /// Every condition, met or not.
    pub conditions: Vec<Condition>,
}

impl GateReport {
    /// The conditions that are not met.
    pub fn missing(&self) -> impl Iterator<Item = &Condition> {
        self.conditions.iter().filter(|condition| !condition.met)
    }
}

/// Judges whether the phase after the present one may be entered.
///
/// There is no gate behind `complete`.
pub fn evaluate(situation: &Situation<'_>) -> Option<GateReport> {
    let to = situation.standing.phase.next()?;
    let mut conditions = vec![everyone_has_adopted(situation)];
    match to {
        Phase::OldOnly => {}
        Phase::DualWrite => conditions.push(clean(situation, EvidenceKind::Check)),
        Phase::ShadowRead => {
            conditions.extend([soaked(situation), at_full_ramp(situation), clean(situation, EvidenceKind::Verification)]);
        }
        Phase::ReadNew => {
            conditions.push(soaked(situation));
            conditions.extend(compared(situation));
        }
        Phase::NewPrimary => {
            conditions.extend([soaked(situation), at_full_ramp(situation)]);
            if situation.is_reversible {
                conditions.push(clean(situation, EvidenceKind::Reversal));
            }
        }
        Phase::NewOnly => {
            conditions.push(soaked(situation));
            if situation.is_reversible {
                conditions.push(clean(situation, EvidenceKind::Verification));
            }
            conditions.push(old_path_is_quiet(situation));
        }
        Phase::Complete => conditions.push(if situation.is_retirable {
            clean(situation, EvidenceKind::Cleanup)
        } else {
            Condition::new(
                "old data removed",
                false,
                "the manifest has no mapping.retire, so nothing can be removed",
                "write the statements that take the moved data out of the old store as mapping.retire, then `crossfade init` again",
            )
        }),
    }
    Some(GateReport { to, open: conditions.iter().all(|condition| condition.met), conditions })
}

fn everyone_has_adopted(situation: &Situation<'_>) -> Condition {
    let behind = situation.behind;
    let epoch = situation.standing.epoch;
    let seen = match behind {
        [] => format!("every live instance has adopted epoch {epoch}"),
        [one] => format!("1 has not adopted epoch {epoch}: {one}"),
        several => format!("{} have not adopted epoch {epoch}: {}", several.len(), several.join(", ")),
    };
    let hint = "wait for them, or stop them: a stopped instance is forgotten when its lease runs out";
    Condition::new("instances adopted", behind.is_empty(), seen, hint).numbers(behind.len() as f64, 0.0)
}

fn soaked(situation: &Situation<'_>) -> Condition {
    let (stood, asked) = (situation.stood, situation.thresholds.soak_min);
    Condition::new(
        "soak",
        stood >= asked,
        format!("{} of {} in {}", spell(stood), spell(asked), situation.standing),
        format!("wait {}; gates.soak_min sets it", spell(asked.saturating_sub(stood))),
    )
    .numbers(stood.as_secs_f64(), asked.as_secs_f64())
}

fn at_full_ramp(situation: &Situation<'_>) -> Condition {
    let Standing { phase, ramp, .. } = situation.standing;
    Condition::new(
        "ramp",
        ramp == Ramp::FULL,
        format!("{phase} at {ramp} of 100 %"),
        format!("crossfade ramp {} 100", situation.migration),
    )
    .numbers(ramp.percent() / 100.0, 1.0)
}

fn clean(situation: &Situation<'_>, kind: EvidenceKind) -> Condition {
    let epoch = situation.standing.epoch;
    let migration = situation.migration;
    let fresh = situation.evidence.iter().find(|evidence| evidence.kind == kind && evidence.epoch == epoch);
    let is_faulty = fresh.is_some_and(|evidence| evidence.faults > 0);
    let prove = format!("crossfade plan {migration} proves it afresh");
    let (name, hint) = match kind {
        EvidenceKind::Check if is_faulty => {
            ("manifest checked", "mend the manifest, then crossfade init MANIFEST".to_owned())
        }
        EvidenceKind::Check => ("manifest checked", prove),
        EvidenceKind::Verification => ("verification", format!("crossfade backfill {migration}")),
        EvidenceKind::Reversal if is_faulty => {
            ("reverse path", "mend mapping.reverse, then crossfade init MANIFEST".to_owned())
        }
        EvidenceKind::Reversal => ("reverse path", prove),
        EvidenceKind::Cleanup => ("old data removed", format!("crossfade cleanup {migration}")),
        // No gate asks for it: without it, cleanup has the verification to go by.
        EvidenceKind::Closing => ("closing", String::new()),
    };
    let Some(fresh) = fresh else {
        let seen = match situation.evidence.iter().find(|evidence| evidence.kind == kind) {
            None => format!("none at epoch {epoch}"),
            Some(stale) => format!("the last one belongs to epoch {}, not {epoch}", stale.epoch),
        };
        return Condition::new(name, false, seen, hint).provable(kind);
    };
    let limit = situation.thresholds.evidence_age_max;
    if fresh.age > limit {
        let seen = format!("{} old; the limit is {}", spell(fresh.age), spell(limit));
        return Condition::new(name, false, seen, hint)
            .numbers(fresh.age.as_secs_f64(), limit.as_secs_f64())
            .provable(kind);
    }
    let seen = format!("{}, {} ago", counted(fresh.faults, "fault"), spell(fresh.age));
    Condition::new(name, fresh.faults == 0, seen, hint).numbers(fresh.faults as f64, 0.0).provable(kind)
}

fn compared(situation: &Situation<'_>) -> Vec<Condition> {
    let Thresholds { comparisons_min, mismatch_rate_max, latency_ratio_max, .. } = *situation.thresholds;
    let Comparisons { compared, mismatched, dropped, mismatch_rate_bound: bound, latency_ratio } =
        situation.comparisons;
    let migration = situation.migration;
    let mut conditions = vec![
        Condition::new(
            "comparisons",
            compared >= comparisons_min,
            format!("{} of {}", grouped(compared), grouped(comparisons_min)),
            format!("let the shadow reads run on, or raise the sample with `crossfade ramp {migration} 100`"),
        )
        .numbers(compared as f64, comparisons_min as f64),
    ];
    if compared == 0 && comparisons_min == 0 {
        // The operator has put on record that this migration is judged without shadow reads.
        return conditions;
    }
    conditions.push(
        Condition::new(
            "mismatches",
            bound <= mismatch_rate_max,
            format!(
                "{} seen; they may be up to {} of all reads, limit {}",
                grouped(mismatched),
                percent(bound),
                percent(mismatch_rate_max)
            ),
            if mismatched == 0 {
                "more comparisons lower the bound".to_owned()
            } else {
                format!("crossfade report {migration} shows which fields differ")
            },
        )
        .numbers(bound, mismatch_rate_max),
    );
    // Dropped calls are the ones that might have differed: the rest is judged only if they are as
    // rare as the mismatches may be.
    let chosen = compared + dropped;
    let share = if chosen == 0 { 0.0 } else { dropped as f64 / chosen as f64 };
    conditions.push(
        Condition::new(
            "dropped comparisons",
            share <= mismatch_rate_max,
            format!(
                "{} of {} ({}), limit {}",
                grouped(dropped),
                grouped(chosen),
                percent(share),
                percent(mismatch_rate_max)
            ),
            "raise the experiment's limits (in flight, timeout) or lower the sample, then let it run at a new epoch",
        )
        .numbers(share, mismatch_rate_max),
    );
    if let Some(ratio) = latency_ratio {
        conditions.push(
            Condition::new(
                "latency",
                ratio <= latency_ratio_max,
                format!(
                    "the new path's p99 is {ratio:.2} times the old path's; limit {latency_ratio_max:.2}"
                ),
                "look for a missing index in the new read path",
            )
            .numbers(ratio, latency_ratio_max),
        );
    }
    conditions
}

fn old_path_is_quiet(situation: &Situation<'_>) -> Condition {
    let asked = situation.thresholds.old_path_quiet_min;
    let hint = "find the callers that still use the old path; their spans and log lines name the migration";
    match situation.old_path_idle {
        None => {
            Condition::new("old path quiet", true, "the old path was not used at this epoch".to_owned(), hint)
        }
        Some(idle) => Condition::new(
            "old path quiet",
            idle >= asked,
            format!("last used {} ago, asked for {}", spell(idle), spell(asked)),
            hint,
        )
        .numbers(idle.as_secs_f64(), asked.as_secs_f64()),
    }
}

/// A share from 0 to 1 as people say it, to two digits: `0.96 %`. Rounded up, so that nothing reads better than it is.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent.is_nan() || percent <= 0.0 {
        return "0 %".to_owned();
    }
    // Two digits of any number; beyond a dozen places there is nothing to tell.
    let places = (1.0 - percent.log10().floor()).clamp(0.0, 12.0) as usize;
    let unit = 10_f64.powi(places as i32);
    // What is a round number but for the way in which floating point numbers are kept stays one.
    let rounded = (percent * unit - 1e-6).ceil() / unit;
    let text = format!("{rounded:.places$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} %")
}

/// A duration to two units, as people say it: `1h 5m`, `12s`, `340ms`.
pub fn spell(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 if duration.is_zero() => "0s".to_owned(),
        0 => format!("{}ms", duration.as_millis()),
        1..=59 => format!("{seconds}s"),
        60..=3599 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..=86_399 => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A count with its thousands marked off: `9,412`.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things, the thing given in the singular: `1 row`, `9,412 rows`.
pub fn counted(count: u64, thing: &str) -> String {
    format!("{} {thing}{}", grouped(count), if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(kind: EvidenceKind, epoch: i64, faults: u64) -> Evidence {
        Evidence {
            kind,
            epoch: Epoch(epoch),
            phase: Phase::DualWrite,
            faults,
            age: Duration::from_secs(60),
            details: serde_json::Value::Null,
        }
    }

    fn situation<'a>(phase: Phase, thresholds: &'a Thresholds, evidence: &'a [Evidence]) -> Situation<'a> {
        Situation {
            migration: "subscriptions",
            standing: Standing { phase, ramp: Ramp::FULL, epoch: Epoch(5) },
            stood: Duration::from_secs(3600),
            thresholds,
            evidence,
            comparisons: Comparisons::default(),
            behind: &[],
            old_path_idle: None,
            is_reversible: true,
            is_retirable: true,
        }
    }

    fn missing(situation: &Situation<'_>) -> Vec<&'static str> {
        evaluate(situation).unwrap().missing().map(|condition| condition.name).collect()
    }

    #[test]
    fn evidence_of_an_earlier_epoch_is_nothing() {
        let thresholds = Thresholds::default();
        let stale = [evidence(EvidenceKind::Verification, 4, 0)];
        assert_eq!(missing(&situation(Phase::DualWrite, &thresholds, &stale)), ["verification"]);
        let fresh = [evidence(EvidenceKind::Verification, 5, 0)];
        assert!(missing(&situation(Phase::DualWrite, &thresholds, &fresh)).is_empty());
    }

    #[test]
    fn old_evidence_is_nothing() {
        let thresholds = Thresholds { evidence_age_max: Duration::from_secs(59), ..Thresholds::default() };
        let evidence = [evidence(EvidenceKind::Verification, 5, 0)];
        assert_eq!(missing(&situation(Phase::DualWrite, &thresholds, &evidence)), ["verification"]);
    }

    #[test]
    fn a_verification_with_faults_keeps_the_gate_shut() {
        let thresholds = Thresholds::default();
        let found = [evidence(EvidenceKind::Verification, 5, 1)];
        assert_eq!(missing(&situation(Phase::NewPrimary, &thresholds, &found)), ["verification"]);
    }

    #[test]
    fn a_partial_ramp_keeps_the_gate_shut() {
        let thresholds = Thresholds::default();
        let evidence = [evidence(EvidenceKind::Verification, 5, 0)];
        let mut situation = situation(Phase::DualWrite, &thresholds, &evidence);
        situation.standing.ramp = Ramp::from_ppm(999_999);
        assert_eq!(missing(&situation), ["ramp"]);
    }

    #[test]
    fn drops_keep_the_gate_shut_whatever_the_rest_says() {
        let thresholds = Thresholds::default();
        let mut situation = situation(Phase::ShadowRead, &thresholds, &[]);
        situation.comparisons =
            Comparisons { compared: 20_000, mismatch_rate_bound: 2e-4, ..Comparisons::default() };
        assert!(missing(&situation).is_empty());
        situation.comparisons.dropped = 500;
        assert_eq!(missing(&situation), ["dropped comparisons"]);
    }

    #[test]
    fn a_gate_without_shadow_reads_must_be_on_record() {
        let thresholds = Thresholds::default();
        let shut = situation(Phase::ShadowRead, &thresholds, &[]);
        assert!(missing(&shut).contains(&"comparisons"));
        let lowered = Thresholds { comparisons_min: 0, ..Thresholds::default() };
        assert!(missing(&situation(Phase::ShadowRead, &lowered, &[])).is_empty());
    }

    #[test]
    fn an_instance_left_behind_keeps_every_gate_shut() {
        let thresholds = Thresholds::default();
        let behind = ["app-1".to_owned()];
        for phase in Phase::ALL.into_iter().filter(|phase| phase.next().is_some()) {
            let mut situation = situation(phase, &thresholds, &[]);
            situation.behind = &behind;
            assert!(missing(&situation).contains(&"instances adopted"), "{phase}");
        }
    }

    #[test]
    fn nothing_lies_behind_complete() {
        assert_eq!(evaluate(&situation(Phase::Complete, &Thresholds::default(), &[])), None);
    }

    #[test]
    fn shares_are_said_in_percent() {
        let said = [0.0, 1.0, 0.5, 0.001, 0.009_6, 0.961, 0.000_320_1, 3.2e-7, f64::NAN].map(percent);
        assert_eq!(said, ["0 %", "100 %", "50 %", "0.1 %", "0.96 %", "97 %", "0.033 %", "0.000032 %", "0 %"]);
    }

    #[test]
    fn conditions_have_their_numbers_beside_the_words() {
        let thresholds = Thresholds::default();
        let mut situation = situation(Phase::ShadowRead, &thresholds, &[]);
        situation.comparisons =
            Comparisons { compared: 9_412, mismatch_rate_bound: 3.2e-3, ..Comparisons::default() };
        let report = evaluate(&situation).unwrap();
        let json = serde_json::to_value(report.missing().collect::<Vec<_>>()).unwrap();
        assert_eq!((json[0]["value"].as_f64(), json[0]["limit"].as_f64()), (Some(9_412.0), Some(10_000.0)));
        assert_eq!((json[1]["value"].as_f64(), json[1]["limit"].as_f64()), (Some(3.2e-3), Some(1e-3)));
        assert_eq!(json[1]["seen"], "0 seen; they may be up to 0.32 % of all reads, limit 0.1 %");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(9_412), "9,412");
        assert_eq!(grouped(1_000_000), "1,000,000");
        assert_eq!(counted(1, "row"), "1 row");
        assert_eq!(counted(1_200, "row"), "1,200 rows");
        assert_eq!(spell(Duration::from_millis(340)), "340ms");
        assert_eq!(spell(Duration::from_secs(3_900)), "1h 5m");
    }
}
