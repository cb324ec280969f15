//! An application's handle on one migration.
//!
//! The handle owns what an instance knows: the plan, the adopted standing, and the task that renews
//! its lease and flushes what its readers have seen. Writing through it is in [`crate::write`],
//! reading in [`crate::read`].

use std::panic::Location;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use sqlx::Pool;
use tokio::sync::{Notify, RwLock};

use crate::adoption::Adoption;
use crate::comparisons::{Mismatch, Tally};
use crate::connect::{AnyDatabase, Engine};
use crate::control::MigrationId;
use crate::error::{Error, Result};
use crate::fleet::{LEASE_TTL, RENEW_EVERY};
use crate::key::Key;
use crate::mirror::Subject;
use crate::phase::{Epoch, Phase, Standing};
use crate::plan::Plan;
use crate::retirement::Retirement;

/// One migration, as an instance of the application sees it. Cloning is cheap; all clones share one
/// lease.
#[derive(Debug)]
pub struct Migration<DB: Engine> {
    pub(crate) inner: Arc<Inner<DB>>,
}

impl<DB: Engine> Clone for Migration<DB> {
    fn clone(&self) -> Self {
        Migration { inner: self.inner.clone() }
    }
}

pub(crate) struct Inner<DB: Engine> {
    pub(crate) pool: Pool<DB>,
    pub(crate) database: AnyDatabase,
    name: String,
    id: MigrationId,
    subject: std::sync::RwLock<Arc<Subject>>,
    pub(crate) adoption: Adoption,
    pub(crate) retirement: Retirement,
    instance: String,
    sources: Mutex<Vec<Weak<dyn Source>>>,
    old_path_used: AtomicBool,
    hurry: Arc<Notify>,
    /// Whether the lease was given back. Renewals hold it shared: one that is under way would otherwise
    /// register the instance again, for nobody to renew, and `advance` would wait for it in vain.
    has_left: RwLock<bool>,
}

impl<DB: Engine> std::fmt::Debug for Inner<DB> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Migration")
            .field("name", &self.name)
            .field("instance", &self.instance)
            .field("standing", &self.adoption.standing())
            .finish_non_exhaustive()
    }
}

/// Something whose observations the handle flushes to the control store.
pub(crate) trait Source: Send + Sync {
    /// Called when another standing has been adopted.
    fn adopt(&self, standing: Standing);
    /// Everything counted since the start, by epoch.
    fn tallies(&self) -> Vec<(Epoch, Tally)>;
    /// The mismatches since the last call.
    fn take_mismatches(&self) -> Vec<Mismatch>;
}

impl<DB: Engine> Migration<DB> {
    /// Joins the migration of this name, whose control tables are in the pool's database.
    ///
    /// The instance is named after host and process, and registered with a lease that a background
    /// task renews for as long as a clone of the handle lives.
    ///
    /// # Errors
    /// When the migration is not registered, or its manifest does not fit the tables any more.
    pub async fn join(pool: Pool<DB>, name: &str) -> Result<Migration<DB>> {
        let database = DB::database(pool.clone());
        let instance = instance_name();
        let (id, plan, standing, asked) = loop {
            let registered = database.control.migration(name).await?;
            let plan = Plan::read(&registered.manifest, database.store.as_ref()).await?;
            let asked = Instant::now();
            let epoch = registered.standing.epoch;
            let standing = database.control.renew(registered.id, &instance, epoch, LEASE_TTL).await?;
            // Plan and standing must be of one registration.
            if standing.epoch == epoch {
                break (registered.id, plan, standing, asked);
            }
        };
        let inner = Arc::new(Inner {
            pool,
            database,
            name: name.to_owned(),
            id,
            subject: std::sync::RwLock::new(Arc::new(Subject { id, plan })),
            adoption: Adoption::new(standing, asked),
            retirement: Retirement::default(),
            instance,
            sources: Mutex::default(),
            old_path_used: AtomicBool::new(false),
            hurry: Arc::default(),
            has_left: RwLock::default(),
        });
        tokio::spawn(attend(Arc::downgrade(&inner), inner.hurry.clone()));
        Ok(Migration { inner })
    }

    /// The migration's name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// This instance's name in the fleet.
    pub fn instance(&self) -> &str {
        &self.inner.instance
    }

    /// The standing that this instance has adopted, without I/O.
    pub fn standing(&self) -> Standing {
        self.inner.adoption.standing()
    }

    /// Asks the control store where the migration stands, and adopts it.
    ///
    /// # Errors
    /// When the control store cannot be reached.
    pub async fn refresh(&self) -> Result<Standing> {
        self.inner.renew().await?;
        Ok(self.standing())
    }

    /// Guards code that uses the old store directly: from `new_only` on it is an error that names
    /// the migration and the call site. Until then the use is noted, for the gate of `new_only`.
    ///
    /// # Errors
    /// [`Error::OldPathClosed`] from `new_only` on.
    #[track_caller]
    pub fn old_path(&self) -> Result<()> {
        let phase = self.standing().phase;
        if phase.is_old_path_open() {
            if phase == Phase::NewPrimary {
                self.inner.old_path_used.store(true, Ordering::Relaxed);
            }
            return Ok(());
        }
        let at = Location::caller();
        tracing::error!(migration = self.name(), phase = phase.as_str(), %at, "the old path was used after it was closed");
        metrics::counter!("crossfade_old_path_refused_total", "migration" => self.name().to_owned())
            .increment(1);
        Err(Error::OldPathClosed { migration: self.name().to_owned(), phase, at })
    }

    /// Leaves the fleet in good order: flushes what readers have seen and gives the lease back, so
    /// that no `advance` waits for this instance.
    ///
    /// # Errors
    /// When the control store cannot be reached; the lease runs out by itself then.
    pub async fn leave(self) -> Result<()> {
        self.inner.flush().await?;
        let mut has_left = self.inner.has_left.write().await;
        *has_left = true;
        self.inner.database.control.leave(self.inner.id, &self.inner.instance).await
    }

    /// Begins a read: its standing is adopted, and confirmed not too long ago (see [`crate::fleet`]). Until
    /// the guard is dropped, this instance reports no later epoch than the read's.
    pub(crate) async fn begin_read(&self) -> Result<Reading<DB>> {
        let begun = match self.inner.adoption.begin_read() {
            Ok(standing) => Ok(standing),
            Err(_) => {
                // The lease may have run out, and the migration moved on by more than one epoch: ask.
                // Whether that helped shows in how old the standing is then.
                let _ = self.inner.renew().await;
                self.inner.adoption.begin_read()
            }
        };
        match begun {
            Ok(standing) => Ok(Reading { migration: self.clone(), standing }),
            Err(since) => Err(Error::LeaseLost { migration: self.name().to_owned(), since }),
        }
    }

    /// The key in its columns' types.
    pub(crate) fn key(&self, key: impl Into<Key>) -> Result<Key> {
        self.inner.subject().plan.coerce(&key.into())
    }

    /// Whether the key is in the ramp of this standing.
    pub(crate) fn is_in_ramp(&self, key: &Key, standing: Standing) -> bool {
        self.inner.subject().plan.is_in_ramp(key, standing.ramp)
    }

    pub(crate) fn attach(&self, source: Weak<dyn Source>) {
        let mut sources = self.inner.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.retain(|source| source.strong_count() > 0);
        sources.push(source);
    }

    /// Tells the background task that something was learnt that the control store should confirm now.
    pub(crate) fn hurry(&self) {
        self.inner.hurry.notify_one();
    }
}

/// A read under way, under the standing that it began with.
pub(crate) struct Reading<DB: Engine> {
    migration: Migration<DB>,
    /// Where the migration stood when the read began.
    pub(crate) standing: Standing,
}

impl<DB: Engine> Drop for Reading<DB> {
    fn drop(&mut self) {
        if self.migration.inner.adoption.end_read(self.standing.epoch) {
            // `advance` may wait for this very read.
            self.migration.hurry();
        }
    }
}

impl<DB: Engine> Inner<DB> {
    /// Renews the lease, and at once again where that brought a new epoch: `advance` waits for the
    /// adoption, not for the next turn.
    async fn renew(&self) -> Result<()> {
        let has_left = self.has_left.read().await;
        if *has_left {
            return Ok(());
        }
        loop {
            let adopted = self.adoption.standing();
            let served = self.adoption.served();
            let asked = Instant::now();
            let standing = self.database.control.renew(self.id, &self.instance, served, LEASE_TTL).await?;
            if standing.epoch > adopted.epoch && adopted.phase == Phase::OldOnly {
                // The mapping may have been replaced, which only old_only allows. First the plan, then
                // the standing: nobody writes at the new epoch by the old plan.
                self.reload().await?;
            }
            self.adoption.renew(standing, asked);
            if standing.epoch <= adopted.epoch {
                return Ok(());
            }
            tracing::info!(migration = self.name, %standing, "adopted");
            for source in self.sources() {
                source.adopt(standing);
            }
        }
    }

    /// Brings what readers have seen to the control store.
    async fn flush(&self) -> Result<()> {
        let control = &self.database.control;
        for source in self.sources() {
            let mut tallies = source.tallies();
            tallies.sort_by_key(|(epoch, _)| *epoch);
            for group in tallies.chunk_by(|(a, _), (b, _)| a == b) {
                let Some((epoch, _)) = group.first() else { continue };
                let group: Vec<_> = group.iter().map(|(_, tally)| tally.clone()).collect();
                control.tally(self.id, &self.instance, *epoch, &group).await?;
            }
            let mismatches = source.take_mismatches();
            if !mismatches.is_empty() {
                control.mismatch(self.id, &mismatches).await?;
            }
        }
        if self.old_path_used.swap(false, Ordering::Relaxed) {
            control.touch_old_path(self.id, self.adoption.standing().epoch).await?;
        }
        self.retirement.run(&self.subject(), self.adoption.standing(), self.database.store.as_ref()).await
    }

    /// What statements are derived from.
    pub(crate) fn subject(&self) -> Arc<Subject> {
        self.subject.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the plan again where the manifest has been replaced.
    async fn reload(&self) -> Result<()> {
        let registered = self.database.control.migration(&self.name).await?;
        if registered.manifest.fingerprint() == self.subject().plan.fingerprint() {
            return Ok(());
        }
        let plan = Plan::read(&registered.manifest, self.database.store.as_ref()).await?;
        tracing::info!(
            migration = self.name,
            fingerprint = plan.fingerprint(),
            "the mapping has been replaced"
        );
        *self.subject.write().unwrap_or_else(PoisonError::into_inner) =
            Arc::new(Subject { id: self.id, plan });
        Ok(())
    }

    fn sources(&self) -> Vec<Arc<dyn Source>> {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.iter().filter_map(Weak::upgrade).collect()
    }
}

/// Renews and flushes until the last handle is dropped.
async fn attend<DB: Engine>(inner: Weak<Inner<DB>>, hurry: Arc<Notify>) {
    loop {
        let Some(inner) = inner.upgrade() else { return };
        // The lease and the observations are two things: one that fails must not hold up the other.
        let (renewed, flushed) = (inner.renew().await, inner.flush().await);
        for error in [renewed, flushed].into_iter().filter_map(Result::err) {
            tracing::warn!(migration = inner.name, %error, "the control store did not take an update");
        }
        drop(inner);
        // A hint may come at any rate; the control store is asked at most twenty times a second.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let _ = tokio::time::timeout(RENEW_EVERY, hurry.notified()).await;
    }
}

fn instance_name() -> String {
    let host = std::env::var("HOSTNAME").ok().filter(|host| !host.is_empty());
    let host = host.or_else(|| std::fs::read_to_string("/etc/hostname").ok()).unwrap_or_default();
    let nonce = uuid::Uuid::new_v4().simple().to_string();
    format!("{}:{}:{}", host.trim(), std::process::id(), &nonce[..8])
}
