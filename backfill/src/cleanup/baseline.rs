//! What old data must look like to be removed.

use std::path::Path;

use crossfade_migration_core::gate::{Evidence, EvidenceKind};

use crate::error::{Error, Result};
use crate::migration::Migration;
use crate::snapshot::{Side, Snapshot, SnapshotManifest, SnapshotPair};

/// The old store as crossfade has vouched for it, where that is at hand.
#[derive(Debug)]
pub(super) struct Baseline {
    /// Both stores as they were when the old one was closed: rows that are equal there are vouched for.
    pub(super) closing: Option<SnapshotPair>,
    /// The old store as a verification saw it, or as the operator chose.
    pub(super) snapshot: Option<Snapshot>,
    /// What old data is compared with, and why, for the report.
    pub(super) explanation: String,
}

/// What is accepted where there is no baseline.
const EQUALITY: &str = "only data that equals the new store's rows is removed";

impl Baseline {
    /// The pair in `chosen`, else those of the closing of the old store and of the verification before it.
    ///
    /// # Errors
    /// Only for a pair that the operator chose: [`Error::Baseline`], or what opening it gives.
    pub(super) async fn find(
        migration: &Migration,
        chosen: Option<&Path>,
        today: &SnapshotPair,
    ) -> Result<Baseline> {
        if let Some(folder) = chosen {
            let snapshot = open(migration, folder, today)?;
            let explanation = format!("old data was compared with the snapshot in {}", folder.display());
            return Ok(Baseline { closing: None, snapshot: Some(snapshot), explanation });
        }
        let evidence = migration.control.evidence(migration.subject.id).await?;
        let closing = closing(&evidence).map(|folder| (folder, open_pair(migration, folder, today)));
        let verified = verified(&evidence).map(|folder| (folder, open(migration, folder, today)));
        let explanation = explained(
            closing.as_ref().map(|(folder, pair)| (*folder, pair.as_ref().err())),
            verified.as_ref().map(|(folder, snapshot)| (*folder, snapshot.as_ref().err())),
        );
        Ok(Baseline {
            closing: closing.and_then(|(_, pair)| pair.ok()),
            snapshot: verified.and_then(|(_, snapshot)| snapshot.ok()),
            explanation,
        })
    }
}

/// Where the record of something is, and why it cannot be used.
type Record<'a> = Option<(&'a Path, Option<&'a Error>)>;

fn explained(closing: Record<'_>, verified: Record<'_>) -> String {
    let unusable = |what: &str, error: &Error| format!("the snapshots of {what} cannot be used ({error})");
    match (closing, verified) {
        (Some((folder, None)), _) => {
            format!("old data was compared with what it was when it was closed, in {}", folder.display())
        }
        (Some((_, Some(error))), Some((folder, None))) => format!(
            "{}; old data was compared with the verification in {}",
            unusable("the closing", error),
            folder.display()
        ),
        (None, Some((folder, None))) => {
            format!("old data was compared with the verification in {}", folder.display())
        }
        (Some((_, Some(error))), None) => {
            format!("{}; {EQUALITY}; --baseline DIR names them elsewhere", unusable("the closing", error))
        }
        (_, Some((_, Some(error)))) => {
            format!(
                "{}; {EQUALITY}; --baseline DIR names them elsewhere",
                unusable("the verification", error)
            )
        }
        (None, None) => format!("there is no record of a verification that left its snapshots; {EQUALITY}"),
    }
}

/// The moment in which the old store was closed: the latest, where it was opened again in between.
pub(crate) fn closing(evidence: &[Evidence]) -> Option<&Path> {
    folder(evidence.iter().find(|evidence| evidence.kind == EvidenceKind::Closing)?)
}

/// The folder with the snapshots of a measurement.
pub(crate) fn folder(evidence: &Evidence) -> Option<&Path> {
    evidence.details.get("snapshot")?.as_str().map(Path::new)
}

/// The newest clean verification before the old path was closed. Old data can have changed since only through the
/// reverse mirror, which keeps it equal to the new store, or behind crossfade's back.
pub(crate) fn verified(evidence: &[Evidence]) -> Option<&Path> {
    evidence
        .iter()
        .find(|evidence| {
            evidence.kind == EvidenceKind::Verification
                && evidence.faults == 0
                && evidence.phase.is_old_path_open()
        })
        .and_then(folder)
}

/// Both sides must fit today's: rows are compared by their hashes across all of them.
fn open_pair(migration: &Migration, folder: &Path, today: &SnapshotPair) -> Result<SnapshotPair> {
    open(migration, folder, today)?;
    SnapshotPair::open(folder)
}

fn open(migration: &Migration, folder: &Path, today: &SnapshotPair) -> Result<Snapshot> {
    let snapshot = Snapshot::open(Side::Old.folder(folder))?;
    match difference(snapshot.manifest(), today.old().manifest()) {
        None => Ok(snapshot),
        Some(why) => {
            Err(Error::Baseline { path: folder.to_owned(), migration: migration.name().to_owned(), why })
        }
    }
}

/// Why rows of the two cannot be compared by their hashes. The manifest may have got its retire statements since, so
/// that its hash may differ; what the projection gives may not.
fn difference(baseline: &SnapshotManifest, today: &SnapshotManifest) -> Option<String> {
    let differ = |what: &str, then: &dyn std::fmt::Debug, now: &dyn std::fmt::Debug| {
        Some(format!("its {what} is {then:?}, and today it is {now:?}"))
    };
    if baseline.migration != today.migration {
        return differ("migration", &baseline.migration, &today.migration);
    }
    if baseline.side != today.side {
        return differ("side", &baseline.side, &today.side);
    }
    if baseline.row_hash_version != today.row_hash_version {
        return differ("row hash version", &baseline.row_hash_version, &today.row_hash_version);
    }
    if baseline.scope != today.scope {
        return differ("scope", &baseline.scope, &today.scope);
    }
    let names = |manifest: &SnapshotManifest| -> Vec<String> {
        manifest.columns.iter().map(|column| format!("{} {}", column.name, column.data_type)).collect()
    };
    if names(baseline) != names(today) {
        return differ("list of columns", &names(baseline), &names(today));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossfade_migration_core::phase::{Epoch, Phase};
    use std::time::Duration;

    fn evidence(phase: Phase, faults: u64, snapshot: &str) -> Evidence {
        Evidence {
            kind: EvidenceKind::Verification,
            epoch: Epoch(1),
            phase,
            faults,
            age: Duration::ZERO,
            details: serde_json::json!({ "snapshot": snapshot }),
        }
    }

    #[test]
    fn the_newest_closing_counts_whatever_was_verified_since() {
        let closed =
            |folder: &str| Evidence { kind: EvidenceKind::Closing, ..evidence(Phase::NewPrimary, 0, folder) };
        let all = [evidence(Phase::NewPrimary, 0, "verified"), closed("again"), closed("before")];
        assert_eq!(closing(&all), Some(Path::new("again")));
        assert_eq!(verified(&all), Some(Path::new("verified")), "a closing is no verification");
        assert_eq!(closing(&all[..1]), None);
    }

    #[test]
    fn the_report_says_what_old_data_was_compared_with_and_why() {
        let lost = Error::SnapshotAbsent { path: "lost".into() };
        let (here, gone) = (Some((Path::new("here"), None)), Some((Path::new("lost"), Some(&lost))));
        assert!(explained(here, gone).contains("when it was closed, in here"));
        let fallback = explained(gone, here);
        assert!(fallback.contains("closing cannot be used") && fallback.contains("verification in here"));
        for records in [(None, None), (gone, None), (gone, gone), (None, gone)] {
            assert!(explained(records.0, records.1).contains(EQUALITY), "{records:?}");
        }
    }

    #[test]
    fn the_newest_clean_verification_counts() {
        let all = [
            evidence(Phase::NewOnly, 0, "after"),
            evidence(Phase::NewPrimary, 3, "with faults"),
            evidence(Phase::NewPrimary, 0, "the one"),
            evidence(Phase::ReadNew, 0, "before"),
        ];
        assert_eq!(verified(&all), Some(Path::new("the one")));
        assert_eq!(verified(&all[..2]), None);
    }
}
