//! A migration as the operations of this crate need it.

use std::sync::Arc;

use crossfade_migration_core::connect::{AnyDatabase, AnyPool, Control, Store};
use crossfade_migration_core::mirror::Subject;
use crossfade_migration_core::phase::{Phase, Standing};

use crate::error::{Error, Result};
use crate::queue::{Queue, Tunables, queue};

/// A migration, the stores it moves data between, and where its jobs and evidence are kept.
#[derive(Clone)]
pub struct Migration {
    /// Where evidence is kept.
    pub control: Arc<dyn Control>,
    /// Where its jobs are kept.
    pub queue: Arc<dyn Queue>,
    /// The two tables.
    pub store: Arc<dyn Store>,
    /// The name of the stores, with secrets masked.
    pub store_name: String,
    /// Its identity and its plan.
    pub subject: Arc<Subject>,
    /// How its jobs run where nobody says otherwise.
    pub tunables: Tunables,
}

/// What a finding is worked off with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// The new store follows: what it lacks is copied, what is wrong there is repaired.
    OldToNew,
    /// The old store follows: whatever differs is brought back.
    NewToOld,
}

impl Migration {
    /// A migration whose two tables and control tables are in one database.
    pub fn new(database: &AnyDatabase, subject: Subject) -> Migration {
        let tunables = match database.pool {
            AnyPool::Postgres(_) => Tunables::default(),
            // One writer at a time: a second worker would only wait. A batch shuts everybody else out, and who waits is
            // not queued there, so batches are short and half of the time is left to others.
            AnyPool::Sqlite(_) => {
                Tunables { workers: 1, batch_ms: 20, work_percent: 50, ..Tunables::default() }
            }
        };
        Migration {
            control: database.control.clone(),
            queue: queue(&database.pool),
            store: database.store.clone(),
            store_name: database.url.to_string(),
            subject: Arc::new(subject),
            tunables,
        }
    }

    /// The migration's name.
    pub fn name(&self) -> &str {
        self.subject.plan.name()
    }

    /// Where it stands, read under the fence.
    ///
    /// # Errors
    /// When the control store fails.
    pub async fn standing(&self) -> Result<Standing> {
        Ok(self.store.standing(&self.subject).await?)
    }

    /// Which way differences are mended where the migration stands.
    pub(crate) fn flow(&self, phase: Phase) -> Result<Flow> {
        flow(phase, !self.subject.plan.reverse().is_empty()).map_err(|(why, hint)| Error::WrongPhase {
            migration: self.name().to_owned(),
            phase,
            why,
            hint: hint.text(self.name()),
        })
    }
}

/// Why nothing may be copied, and what to do instead.
type Refusal = (&'static str, Instead);

/// What to do where nothing may be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Instead {
    Advance,
    Nothing,
    CleanUp,
    Done,
}

impl Instead {
    fn text(self, migration: &str) -> String {
        match self {
            Instead::Advance => format!("enter dual_write first: crossfade advance {migration}"),
            Instead::Nothing => {
                "nothing has to be copied any more; the old store is a stale archive".to_owned()
            }
            Instead::CleanUp => format!("crossfade cleanup {migration} removes what was moved"),
            Instead::Done => "nothing is left to be done".to_owned(),
        }
    }
}

fn flow(phase: Phase, is_reversible: bool) -> std::result::Result<Flow, Refusal> {
    match phase {
        Phase::OldOnly => Err((
            "the new store is not written yet, so that whatever is copied now would be stale at once",
            Instead::Advance,
        )),
        Phase::DualWrite | Phase::ShadowRead | Phase::ReadNew => Ok(Flow::OldToNew),
        Phase::NewPrimary if is_reversible => Ok(Flow::NewToOld),
        Phase::NewPrimary => Err((
            "the new store decides, and the manifest has no mapping.reverse to bring the old one up to date with",
            Instead::Nothing,
        )),
        Phase::NewOnly => {
            Err(("the old store is a stale archive, which nothing is copied from or to", Instead::CleanUp))
        }
        Phase::Complete => Err(("the old data has been removed", Instead::Done)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_ever_copied_against_the_direction_of_writes() {
        use crossfade_migration_core::phase::{Epoch, Mirroring, Ramp, Standing};
        for phase in Phase::ALL {
            let standing = Standing { phase, ramp: Ramp::FULL, epoch: Epoch::FIRST };
            let expected = match standing.mirroring(true) {
                Mirroring::Off => None,
                Mirroring::OldToNew => Some(Flow::OldToNew),
                Mirroring::NewToOld => Some(Flow::NewToOld),
            };
            assert_eq!(flow(phase, true).ok(), expected, "{phase}");
        }
    }

    #[test]
    fn an_irreversible_migration_copies_nothing_back() {
        assert!(flow(Phase::NewPrimary, false).is_err());
        assert!(flow(Phase::ReadNew, false).is_ok());
    }
}
