//! One fenced transaction of a job: the same on every engine.

use arrow::array::RecordBatch;
use async_trait::async_trait;
use serde::Serialize;

use crate::connect::{Connected, Engine};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::mirror::{Direction, Mirrored, Subject};
use crate::phase::{Epoch, Mirroring, Side, Standing};

/// What a job has done to a batch of keys in one transaction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Done {
    /// Rows inserted because they were absent.
    pub copied: u64,
    /// Rows inserted or updated by a repair.
    pub repaired: u64,
    /// Rows removed by a repair.
    pub removed: u64,
}

impl std::ops::AddAssign for Done {
    fn add_assign(&mut self, other: Self) {
        self.copied += other.copied;
        self.repaired += other.repaired;
        self.removed += other.removed;
    }
}

/// What became of a batch of keys whose old data was to be removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retired {
    /// Keys whose old data was removed, or was gone already.
    pub retired: Vec<Key>,
    /// Keys that were left, because their old data is not what was expected.
    pub left: Vec<Key>,
}

/// Decides, from what the projection gives for a batch of keys, which keys may be retired.
pub type Judge<'a> = &'a (dyn Fn(&RecordBatch) -> Vec<Key> + Send + Sync);

/// Does a job's work on a batch of keys, each call in one transaction of its own.
///
/// # Contract
/// Each call is fenced: it fails with [`Error::StaleEpoch`] when the migration does not stand at
/// `epoch` any more, and nothing it did is committed then. Each is idempotent, so that a call whose
/// outcome is unknown may be made again.
#[async_trait]
pub trait Workbench: Send + Sync {
    /// Copies what is absent (see [`crate::mirror::Mirror::copy`]), where the old store is primary; else nothing.
    async fn copy(&self, subject: &Subject, epoch: Epoch, keys: &[Key]) -> Result<Done>;

    /// Makes the secondary store equal to the primary, in the direction of the phase.
    async fn repair(&self, subject: &Subject, epoch: Epoch, keys: &[Key]) -> Result<Done>;

    /// The keys that still differ when both stores are locked for them.
    async fn recheck(&self, subject: &Subject, epoch: Epoch, keys: &[Key]) -> Result<Vec<Key>>;

    /// Retires the keys whose projection still equals their new rows.
    async fn retire_equal(&self, subject: &Subject, epoch: Epoch, keys: &[Key]) -> Result<Retired>;

    /// Retires the keys that `judge` picks from what their projection gives under lock.
    async fn retire(
        &self,
        subject: &Subject,
        epoch: Epoch,
        keys: &[Key],
        judge: Judge<'_>,
    ) -> Result<Retired>;

    /// Where the migration stands, read in a transaction that has the fence.
    async fn standing(&self, subject: &Subject) -> Result<Standing>;
}

#[async_trait]
impl<DB: Engine> Workbench for Connected<DB> {
    async fn copy(&self, subject: &Subject, epoch: Epoch, keys: &[Key]) -> Result<Done> {
        let mut transaction = DB::begin_write(&self.pool).await?;
        let standing = DB::fence(&mut transaction, subject.id, subject.plan.name(), Some(epoch)).await?;
        // Once the new store decides, what it lacks was deleted there: the archive must not bring it back.
        if standing.phase.primary() == Side::New {
            return Ok(Done::default());
        }
        let copied = DB::copy(&mut transaction, subject, keys).await?;
        DB::end_batch(&mut transaction).await?;
        commit(transaction, "committing a copied batch").await?;
        Ok(Done { copied, ..Done::default() })
    }

    async fn repair(&self, subject: &Subject, epoch: Epoch, keys: &[Key]) -> Result<Done> {
        let mut transaction = DB::begin_write(&self.pool).await?;
        let standing = DB::fence(&mut transaction, subject.id, subject.plan.name(), Some(epoch)).await?;
        // A ramp says which *writes* are mirrored; a repair is asked for by key, whatever the ramp.
        let direction = match standing.mirroring(true) {
            Mirroring::OldToNew => Direction::OldToNew,
            Mirroring::NewToOld => Direction::NewToOld,
            Mirroring::Off => return Ok(Done::default()),
        };
        let Mirrored { written, removed } =
            DB::mirror(&mut transaction, subject, direction, keys, epoch).await?;
        DB::end_batch(&mut transaction).await?;
        commit(transaction, "committing a repaired batch").await?;
        Ok(Done { repaired: written, removed, ..Done::default() })
    }

    async fn recheck(&self, subject: &Subject, epoch: Epoch, keys: &[Key]) -> Result<Vec<Key>> {
        let mut transaction = DB::begin_write(&self.pool).await?;
        DB::fence(&mut transaction, subject.id, subject.plan.name(), Some(epoch)).await?;
        let differing = DB::differing(&mut transaction, subject, keys).await?;
        transaction.rollback().await.map_err(Error::database("ending a recheck"))?;
        Ok(differing)
    }

    async fn retire(
        &self,
        subject: &Subject,
        epoch: Epoch,
        keys: &[Key],
        judge: Judge<'_>,
    ) -> Result<Retired> {
        let mut transaction = DB::begin_write(&self.pool).await?;
        DB::fence(&mut transaction, subject.id, subject.plan.name(), Some(epoch)).await?;
        let projected = DB::projected(&mut transaction, subject, keys).await?;
        let retired = judge(&projected);
        DB::retire(&mut transaction, subject, &retired).await?;
        commit(transaction, "committing a retired batch").await?;
        let left = keys.iter().filter(|key| !retired.contains(key)).cloned().collect();
        Ok(Retired { retired, left })
    }

    async fn retire_equal(&self, subject: &Subject, epoch: Epoch, keys: &[Key]) -> Result<Retired> {
        let mut transaction = DB::begin_write(&self.pool).await?;
        DB::fence(&mut transaction, subject.id, subject.plan.name(), Some(epoch)).await?;
        let left = DB::differing(&mut transaction, subject, keys).await?;
        let retired: Vec<_> = keys.iter().filter(|key| !left.contains(key)).cloned().collect();
        DB::retire(&mut transaction, subject, &retired).await?;
        commit(transaction, "committing a retired batch").await?;
        Ok(Retired { retired, left })
    }

    async fn standing(&self, subject: &Subject) -> Result<Standing> {
        let mut transaction = DB::begin_write(&self.pool).await?;
        let standing = DB::fence(&mut transaction, subject.id, subject.plan.name(), None).await?;
        transaction.rollback().await.map_err(Error::database("reading the standing"))?;
        Ok(standing)
    }
}

async fn commit<DB: sqlx::Database>(transaction: sqlx::Transaction<'static, DB>, doing: &str) -> Result<()> {
    transaction.commit().await.map_err(Error::database(doing))
}
