//! What old data must look like to be removed.

use std::path::Path;

use crossfade_migration_core::gate::{Evidence, EvidenceKind};

use crate::error::{Error, Result};
use crate::migration::Migration;
use crate::snapshot::{Side, Snapshot, SnapshotManifest, SnapshotPair};

/// The old store as a verification saw it, where that is at hand.
#[derive(Debug)]
pub(super) struct Baseline {
    pub(super) snapshot: Option<Snapshot>,
    /// What old data is compared with, and why, for the report.
    pub(super) explanation: String,
}

/// What is accepted where there is no baseline.
const EQUALITY: &str = "only data that equals the new store's rows is removed";

impl Baseline {
    /// The pair in `chosen`, else that of the verification that opened `new_only`.
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
            return Ok(Baseline { snapshot: Some(snapshot), explanation });
        }
        let evidence = migration.control.evidence(migration.subject.id).await?;
        let Some(folder) = verified(&evidence) else {
            let explanation =
                format!("there is no record of a verification that left its snapshots; {EQUALITY}");
            return Ok(Baseline { snapshot: None, explanation });
        };
        Ok(match open(migration, folder, today) {
            Ok(snapshot) => Baseline {
                explanation: format!("old data was compared with the verification in {}", folder.display()),
                snapshot: Some(snapshot),
            },
            Err(error) => {
                let explanation = format!(
                    "the snapshots of the verification cannot be used ({error}); {EQUALITY}; --baseline DIR names them elsewhere"
                );
                Baseline { snapshot: None, explanation }
            }
        })
    }
}

/// The newest clean verification before the old path was closed. Old data can have changed since only through the
/// reverse mirror, which keeps it equal to the new store, or behind crossfade's back.
fn verified(evidence: &[Evidence]) -> Option<&Path> {
    evidence
        .iter()
        .find(|evidence| {
            evidence.kind == EvidenceKind::Verification
                && evidence.faults == 0
                && evidence.phase.is_old_path_open()
        })
        .and_then(|evidence| evidence.details.get("snapshot")?.as_str().map(Path::new))
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
