//! Reads: one call that picks the store by phase and key and, while shadowing, runs the experiment.

use std::collections::VecDeque;
use std::fmt::Display;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crossfade_experiment::{
    Builder, Experiment, Observation, PublishFn, Publisher, RecheckPolicy, Sampling, Start, Verdict,
};
use serde::Serialize;

use crate::comparisons::{Mismatch, Tally};
use crate::connect::Engine;
use crate::error::Error;
use crate::key::Key;
use crate::migration::{Migration, Source};
use crate::phase::{Epoch, Phase, Side, Standing};

/// How many mismatches wait for the control store at most. They are written every half second; what
/// does not fit is counted, not listed.
const WAITING_MAX: usize = 256;

/// One read of the application, on both stores.
///
/// The old store answers until `read_new`; while shadowing, the sampled keys are read from the new
/// store as well, off the caller's path, and compared. The caller is never hurt by that (I5).
#[derive(Debug)]
pub struct Reader<DB: Engine, V: Send + 'static, E: 'static> {
    migration: Migration<DB>,
    experiment: Experiment<V, E>,
    _source: Arc<ReaderSource<V, E>>,
}

impl<DB: Engine> Migration<DB> {
    /// A reader whose experiment has crossfade's defaults: sampled by the migration's own ramp,
    /// mismatches read again before they count, differences by field with their values redacted.
    ///
    /// `name` stands in metrics, reports and the gate's evidence, for example `subscriptions.list`.
    ///
    /// # Errors
    /// When the experiment's settings contradict each other.
    pub fn reader<V, E>(&self, name: &str) -> Result<Reader<DB, V, E>, crossfade_experiment::Error>
    where
        V: Clone + PartialEq + Serialize + Send + Sync + 'static,
        E: Display + Send + 'static,
    {
        self.reader_with(name, |experiment| experiment)
    }

    /// As [`Migration::reader`], with the experiment adjusted: own comparison, ignores, limits, a
    /// publisher of your own, or values revealed.
    ///
    /// # Errors
    /// When the experiment's settings contradict each other.
    pub fn reader_with<V, E>(
        &self,
        name: &str,
        adjust: impl FnOnce(Builder<V, E>) -> Builder<V, E>,
    ) -> Result<Reader<DB, V, E>, crossfade_experiment::Error>
    where
        V: Clone + PartialEq + Serialize + Send + Sync + 'static,
        E: Display + Send + 'static,
    {
        let standing = self.standing();
        let waiting = Arc::new(Mutex::new(VecDeque::new()));
        let experiment = Experiment::<V, E>::builder(name)
            .seed(self.name())
            .sampling(sampling(standing))
            .epoch(standing.epoch.0.unsigned_abs())
            .candidate_name("new")
            .start(Start::AfterControl)
            .recheck(RecheckPolicy::default())
            .diff_serialized()
            .show_keys(Key::spell)
            .publisher(MismatchList { waiting: waiting.clone() })
            .publisher(count_verdicts(self.name(), name));
        let experiment = adjust(experiment).build()?;
        let source = Arc::new(ReaderSource { experiment: experiment.clone(), waiting });
        let weak: Weak<ReaderSource<V, E>> = Arc::downgrade(&source);
        self.attach(weak);
        // The standing may have moved between reading it above and attaching.
        source.adopt(self.standing());
        Ok(Reader { migration: self.clone(), experiment, _source: source })
    }
}

impl<DB: Engine, V, E> Reader<DB, V, E>
where
    V: Clone + PartialEq + Send + Sync + 'static,
    E: Display + From<Error> + Send + 'static,
{
    /// Reads a key: from the old store, the new one, or both, as the phase says. The closures are
    /// called again when a difference is read again, so they own what they need.
    ///
    /// In `new_only` a key that is read is also noted for retirement, if the manifest says how.
    ///
    /// # Errors
    /// What the answering store's closure returns; [`Error::LeaseLost`] when the control store has
    /// been out of reach for so long that the phase is not known any more.
    pub async fn read<Old, New, OldFuture, NewFuture>(
        &self,
        key: impl Into<Key>,
        old: Old,
        new: New,
    ) -> Result<V, E>
    where
        Old: Fn() -> OldFuture + Send + Sync + 'static,
        New: Fn() -> NewFuture + Send + Sync + 'static,
        OldFuture: Future<Output = Result<V, E>> + Send + 'static,
        NewFuture: Future<Output = Result<V, E>> + Send + 'static,
    {
        let migration = &self.migration;
        let key = migration.key(key)?;
        // Held until the answer is there: no phase passes two steps ahead of a read under way.
        let reading = migration.begin_read().await?;
        let standing = reading.standing;
        // Sampling is the experiment's: it draws by the same hash as the ramp.
        if standing.shadows(true) {
            return self.experiment.run_rechecked(key.to_bytes(), old, new).await;
        }
        match standing.reads(migration.is_in_ramp(&key, standing)) {
            Side::Old => old().await,
            Side::New => {
                let answer = new().await;
                if standing.phase == Phase::NewOnly && answer.is_ok() {
                    migration.inner.retirement.note(key);
                }
                answer
            }
        }
    }

    /// The experiment, for its counts.
    pub fn experiment(&self) -> &Experiment<V, E> {
        &self.experiment
    }
}

fn sampling(standing: Standing) -> Sampling {
    if standing.phase == Phase::ShadowRead { Sampling::ByKey(standing.ramp.ppm()) } else { Sampling::Never }
}

struct ReaderSource<V: Send + 'static, E: 'static> {
    experiment: Experiment<V, E>,
    waiting: Arc<Mutex<VecDeque<Mismatch>>>,
}

impl<V: Send + 'static, E: 'static> std::fmt::Debug for ReaderSource<V, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.experiment.fmt(f)
    }
}

impl<V: Send + 'static, E: Send + 'static> Source for ReaderSource<V, E>
where
    Experiment<V, E>: Send + Sync,
{
    fn adopt(&self, standing: Standing) {
        // First the epoch: a call sampled in between counts for the new one, never for the old.
        self.experiment.set_epoch(standing.epoch.0.unsigned_abs());
        self.experiment.set_sampling(sampling(standing));
    }

    fn tallies(&self) -> Vec<(Epoch, Tally)> {
        let tally = |tally: crossfade_experiment::Tally| {
            let epoch = Epoch(tally.epoch.cast_signed());
            let experiment = tally.experiment.clone();
            serde_json::to_value(tally).ok().map(|totals| (epoch, Tally { experiment, totals }))
        };
        self.experiment.tallies().into_iter().filter_map(tally).collect()
    }

    fn take_mismatches(&self) -> Vec<Mismatch> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }
}

/// Keeps the latest mismatches until the control store takes them.
struct MismatchList {
    waiting: Arc<Mutex<VecDeque<Mismatch>>>,
}

impl Publisher for MismatchList {
    fn publish(&self, seen: &Observation) {
        let mismatch = Mismatch {
            at: String::new(),
            epoch: Epoch(seen.epoch.cast_signed()),
            experiment: seen.experiment.to_string(),
            key: seen.key.as_deref().unwrap_or_default().to_owned(),
            differences: serde_json::to_value(&seen.differences).unwrap_or_default(),
        };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() == WAITING_MAX {
            waiting.pop_front();
        }
        waiting.push_back(mismatch);
    }

    fn wants(&self, verdict: &Verdict) -> bool {
        verdict.is_mismatch()
    }
}

fn count_verdicts(migration: &str, experiment: &str) -> impl Publisher + use<> {
    let labels = [("migration", migration.to_owned()), ("experiment", experiment.to_owned())];
    PublishFn(move |seen: &Observation| {
        metrics::counter!("crossfade_comparisons_total", &labels).increment(1);
        if seen.verdict.is_mismatch() {
            metrics::counter!("crossfade_mismatches_total", &labels).increment(1);
            tracing::warn!(
                experiment = %seen.experiment,
                key = seen.key.as_deref().unwrap_or_default(),
                differences = ?seen.differences,
                "the new store answered differently"
            );
        }
    })
}

#[cfg(test)]
mod tests {
    use sqlx::Sqlite;

    use super::*;
    use crate::control::Account;
    use crate::manifest::Manifest;
    use crate::plan::Plan;

    const MANIFEST: &str = r#"
name = "moving"
[old]
url = "sqlite:test.db"
table = "source"
key = ["id"]
[new]
url = "sqlite:test.db"
table = "target"
scope = ["id"]
key = ["id"]
[mapping]
projection = "select id, v from source where id in (:keys)"
"#;

    async fn joined(pool: &sqlx::SqlitePool) -> Migration<Sqlite> {
        sqlx::raw_sql(
            "create table source (id integer primary key, v text);
             create table target (id integer primary key, v text)",
        )
        .execute(pool)
        .await
        .unwrap();
        let database = Sqlite::database(pool.clone());
        let manifest = Manifest::parse(MANIFEST, "test.toml").unwrap();
        let plan = Plan::read(&manifest, database.store.as_ref()).await.unwrap();
        let account = Account {
            actor: "tester".to_owned(),
            reason: None,
            forced: false,
            evidence: serde_json::Value::Null,
        };
        database.control.install().await.unwrap();
        database.control.register(&manifest, &plan, &account).await.unwrap();
        Migration::join(pool.clone(), "moving").await.unwrap()
    }

    #[tokio::test]
    async fn an_instance_that_cannot_renew_stops_serving_reads() {
        let database = crossfade_test_harness::sqlite().await;
        let migration = joined(database.pool()).await;
        let reader = migration.reader::<&str, Error>("get").unwrap();
        let read = || reader.read(1, async || Ok("old"), async || Ok("new"));

        // A lease that ran out is renewed by the read itself, where the control store can be reached.
        migration.inner.adoption.expire();
        assert_eq!(read().await.unwrap(), "old");

        database.pool().close().await;
        assert_eq!(read().await.unwrap(), "old", "the lease has not run out yet");
        migration.inner.adoption.expire();
        match read().await {
            Err(Error::LeaseLost { migration, since }) => {
                assert_eq!(migration, "moving");
                assert!(since >= crate::fleet::SERVE_FOR, "{since:?}");
            }
            other => panic!("{other:?}"),
        }
    }
}
