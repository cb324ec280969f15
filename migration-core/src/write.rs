//! Dual writes: the application's own transaction, fenced and mirrored.
//!
//! Three ways, from the most to the least done for you:
//! - [`Migration::write`]: a closure in a transaction that crossfade begins, fences *early*, commits,
//!   and runs again where it lost a race;
//! - [`Migration::dual_write`]: the same with one closure per store, where a mirror cannot say what
//!   the other store should hold;
//! - [`Migration::pin`] and [`Write::mirror`]: inside a transaction that the application has begun,
//!   with the fence riding *late* on the mirror, at no round trip of its own.

use std::error::Error as StdError;
use std::time::Duration;

use sqlx::Transaction;

use crate::connect::Engine;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::migration::Migration;
use crate::mirror::{Direction, Mirrored};
use crate::phase::{Mirroring, Phase, Side, Standing};

/// How often a closure is run again before its error is handed to the caller. A change of phase costs
/// one try; the others are for deadlocks and serialization failures.
const TRIES: u32 = 10;

/// A write under one standing: which store is primary, and what follows it.
///
/// Take it *before* the first statement of the transaction and write the store that
/// [`Write::primary`] names; [`Write::mirror`] fails with a retryable error if the migration has
/// moved on in between.
#[derive(Debug)]
pub struct Write<DB: Engine> {
    migration: Migration<DB>,
    standing: Standing,
    is_fenced: bool,
}

impl<DB: Engine> Migration<DB> {
    /// Begins a write under the standing that this instance has adopted, without I/O. The fence comes
    /// late, with [`Write::mirror`], which is therefore not optional: in every phase.
    pub fn pin(&self) -> Write<DB> {
        Write { migration: self.clone(), standing: self.standing(), is_fenced: false }
    }

    /// Takes the fence now, in the application's transaction: from here to its end the migration
    /// cannot move. One round trip.
    ///
    /// # Errors
    /// When the database fails; above read committed, when the migration has moved since the
    /// transaction's snapshot (retryable); and when it has just left `old_only`, where the mapping may have
    /// been replaced, and this instance has not heard of it yet ([`Error::StaleEpoch`], retryable).
    pub async fn fence(&self, connection: &mut DB::Connection) -> Result<Write<DB>> {
        let adopted = self.standing();
        let subject = self.inner.subject();
        let standing = DB::fence(connection, subject.id, subject.plan.name(), None).await?;
        if standing.epoch != adopted.epoch {
            self.hurry();
            if adopted.phase == Phase::OldOnly {
                // The mapping may have been replaced with the epoch, and this instance does not know it yet.
                let (expected, found) = (adopted.epoch, standing.epoch);
                return Err(Error::StaleEpoch { migration: self.name().to_owned(), expected, found });
            }
        }
        Ok(Write { migration: self.clone(), standing, is_fenced: true })
    }

    /// Runs `work` in a fenced transaction and commits it; runs it again where the transaction lost
    /// a race (a deadlock, a serialization failure).
    ///
    /// `work` writes the store that [`WriteTransaction::primary`] names and calls
    /// [`WriteTransaction::mirror`] for each key that it has touched. It may run more than once, so
    /// it should change nothing outside the transaction. A race that its own statements lose is seen if its
    /// error has the driver's among its sources; `#[error(transparent)]` hides it. Let it own what it captures (`async move`, with
    /// values and no references): then the write can be part of a task that is spawned.
    ///
    /// # Errors
    /// What `work` returns, and crossfade's own errors turned into it.
    pub async fn write<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: AsyncFn(&mut WriteTransaction<DB>) -> Result<T, E>,
        E: From<Error> + StdError + 'static,
    {
        let mut tries = 1;
        loop {
            let (outcome, has_lost_race) = self.write_once(&work).await;
            match outcome {
                Err(error) if tries < TRIES && (has_lost_race || is_retryable(&error)) => {
                    tracing::debug!(migration = self.name(), tries, %error, "running a write again");
                    metrics::counter!("crossfade_writes_retried_total", "migration" => self.name().to_owned())
                        .increment(1);
                    tokio::time::sleep(backoff(tries)).await;
                    if self.standing().phase == Phase::OldOnly {
                        // Only here can a fence be refused because the plan may be another: ask at once.
                        self.refresh().await?;
                    }
                    tries += 1;
                }
                outcome => return outcome,
            }
        }
    }

    /// Writes a key to both stores by one closure each, in one transaction: the primary first. The
    /// result is the primary's.
    ///
    /// Before either runs, a key that the secondary does not have yet, or has otherwise, is brought
    /// up to date, so that a partial update finds the row that it changes. As with [`Migration::write`],
    /// closures that own what they capture can be part of a spawned task.
    ///
    /// # Errors
    /// What the closures return (either of them: the transaction is rolled back then), and
    /// crossfade's own errors turned into it.
    pub async fn dual_write<T, E, Old, New>(&self, key: impl Into<Key>, old: Old, new: New) -> Result<T, E>
    where
        Old: AsyncFn(&mut DB::Connection) -> Result<T, E>,
        New: AsyncFn(&mut DB::Connection) -> Result<T, E>,
        E: From<Error> + StdError + 'static,
    {
        let key = self.key(key)?;
        // The closure owns all that it uses: with references its future would not be `Send` in the
        // eyes of the compiler, and no task that dual-writes could be spawned.
        let migration = self.clone();
        self.write(async move |transaction: &mut WriteTransaction<DB>| {
            let standing = transaction.standing();
            let mirroring = standing.mirroring(migration.is_in_ramp(&key, standing));
            let can_reverse = !migration.inner.subject().plan.reverse().is_empty();
            match (standing.phase.primary(), mirroring) {
                (Side::Old, Mirroring::OldToNew) => {
                    transaction.mirror(&key).await?;
                    let answer = old(transaction).await?;
                    new(transaction).await?;
                    Ok(answer)
                }
                (Side::New, Mirroring::NewToOld) if can_reverse => {
                    transaction.mirror(&key).await?;
                    let answer = new(transaction).await?;
                    old(transaction).await?;
                    Ok(answer)
                }
                (Side::Old, _) => old(transaction).await,
                (Side::New, _) => new(transaction).await,
            }
        })
        .await
    }

    /// The outcome, and whether crossfade itself has seen the transaction lose a race: the error that
    /// `work` makes of that may not show it.
    async fn write_once<T, E, F>(&self, work: &F) -> (Result<T, E>, bool)
    where
        F: AsyncFn(&mut WriteTransaction<DB>) -> Result<T, E>,
        E: From<Error>,
    {
        let began = async {
            let mut transaction = DB::begin_write(&self.inner.pool).await?;
            let write = self.fence(&mut transaction).await?;
            Ok::<_, Error>(WriteTransaction { transaction, write, has_lost_race: false })
        };
        let mut transaction = match began.await {
            Ok(transaction) => transaction,
            Err(error) => return lost(error),
        };
        let answer = match work(&mut transaction).await {
            Ok(answer) => answer,
            Err(error) => return (Err(error), transaction.has_lost_race),
        };
        match transaction.transaction.commit().await {
            Ok(()) => (Ok(answer), false),
            Err(error) => lost(Error::database("committing a fenced write")(error)),
        }
    }
}

impl<DB: Engine> Write<DB> {
    /// Where the migration stands for this write.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// The store that this write goes to.
    pub fn primary(&self) -> Side {
        self.standing.phase.primary()
    }

    /// Makes the secondary store follow for one key, in the same transaction, and fences it.
    ///
    /// Call it after the last statement that touches the key, in every phase: where nothing is to
    /// be mirrored it still fences.
    ///
    /// # Errors
    /// [`Error::StaleEpoch`] (retryable) when the migration has moved on since the write began; the
    /// transaction must be rolled back then. A database error when the projection fails for the key.
    pub async fn mirror(&self, connection: &mut DB::Connection, key: impl Into<Key>) -> Result<Mirrored> {
        self.mirror_many(connection, [key]).await
    }

    /// As [`Write::mirror`], for several keys at once.
    ///
    /// # Errors
    /// As [`Write::mirror`].
    pub async fn mirror_many<K: Into<Key>>(
        &self,
        connection: &mut DB::Connection,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Mirrored> {
        let migration = &self.migration;
        let mut keys = keys.into_iter().map(|key| migration.key(key)).collect::<Result<Vec<_>>>()?;
        if self.standing.phase == Phase::DualWrite {
            keys.retain(|key| migration.is_in_ramp(key, self.standing));
        }
        keys.sort_unstable();
        keys.dedup();
        let subject = migration.inner.subject();
        let direction = match self.standing.mirroring(true) {
            Mirroring::OldToNew if !keys.is_empty() => Some(Direction::OldToNew),
            Mirroring::NewToOld if !keys.is_empty() && !subject.plan.reverse().is_empty() => {
                Some(Direction::NewToOld)
            }
            _ => None,
        };
        let epoch = self.standing.epoch;
        let outcome = match direction {
            Some(direction) => DB::mirror(connection, &subject, direction, &keys, epoch).await,
            None if self.is_fenced => Ok(Mirrored::default()),
            None => DB::fence(connection, subject.id, subject.plan.name(), Some(epoch))
                .await
                .map(|_| Mirrored::default()),
        };
        if let Err(Error::StaleEpoch { .. }) = &outcome {
            migration.hurry();
        }
        outcome
    }
}

/// A transaction that crossfade has begun and fenced; use it as a connection.
#[derive(Debug)]
pub struct WriteTransaction<DB: Engine> {
    transaction: Transaction<'static, DB>,
    write: Write<DB>,
    has_lost_race: bool,
}

impl<DB: Engine> WriteTransaction<DB> {
    /// Where the migration stands; it cannot move until this transaction ends.
    pub fn standing(&self) -> Standing {
        self.write.standing
    }

    /// The store that this write goes to.
    pub fn primary(&self) -> Side {
        self.write.primary()
    }

    /// Makes the secondary store follow for one key: see [`Write::mirror`].
    ///
    /// # Errors
    /// A database error when the projection fails for the key.
    pub async fn mirror(&mut self, key: impl Into<Key>) -> Result<Mirrored> {
        self.mirror_many([key]).await
    }

    /// Makes the secondary store follow for several keys.
    ///
    /// # Errors
    /// As [`WriteTransaction::mirror`].
    pub async fn mirror_many<K: Into<Key>>(&mut self, keys: impl IntoIterator<Item = K>) -> Result<Mirrored> {
        let mirrored = self.write.mirror_many(&mut self.transaction, keys).await;
        self.has_lost_race |= mirrored.as_ref().is_err_and(Error::is_retryable);
        mirrored
    }
}

impl<DB: Engine> std::ops::Deref for WriteTransaction<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &Self::Target {
        &self.transaction
    }
}

impl<DB: Engine> std::ops::DerefMut for WriteTransaction<DB> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.transaction
    }
}

/// An error of crossfade's as the caller's own, and whether it says that the transaction lost a race.
fn lost<T, E: From<Error>>(error: Error) -> (Result<T, E>, bool) {
    let has_lost_race = error.is_retryable();
    (Err(error.into()), has_lost_race)
}

/// Whether an error, or one that it was caused by, says that the transaction lost a race and may be
/// run again.
pub fn is_retryable(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<Error>() {
            return error.is_retryable();
        }
        if let Some(error) = error.downcast_ref::<sqlx::Error>() {
            return crate::error::is_retryable(error);
        }
        next = error.source();
    }
    false
}

/// How long to wait before the next try: twice as long each time, by a random share of it, so that
/// two transactions that ran into each other do not do so again.
fn backoff(tries: u32) -> Duration {
    let longest = Duration::from_millis(2) * 2_u32.pow(tries.min(8));
    longest.mul_f64(0.5 + f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 512.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_spawnable<T: Future + Send + 'static>(_: T) {}

    /// Compiles, which is the test: web frameworks spawn the tasks that writes are part of.
    #[expect(dead_code, reason = "there is nothing to run")]
    fn writes_can_be_spawned<DB: Engine>(migration: Migration<DB>, name: String) {
        let (one, other) = (migration.clone(), migration);
        let (old, new) = (name.clone(), name.clone());
        assert_spawnable(async move {
            one.write(async move |transaction| {
                transaction.mirror(name.len() as i64).await?;
                Ok::<_, Error>(())
            })
            .await
        });
        assert_spawnable(async move {
            let old = async move |_: &mut DB::Connection| Ok::<_, Error>(old.len());
            other.dual_write(1, old, async move |_: &mut DB::Connection| Ok(new.len())).await
        });
    }
}
