//! The service, as it stands while the migration goes on: what you would copy.
//!
//! Each read and each write of a customer's subscriptions goes through the [`Migration`] handle, which
//! knows where the migration stands. The three ways to write are shown on one method each; a service
//! needs only the one that suits it.

use crossfade::core::write::is_retryable;
use crossfade::{Migration, Reader, Side};
use sqlx::{Sqlite, SqlitePool};

use crate::subscription::{Error, Result, Subscription};
use crate::{new, old};

/// One instance of the service.
pub(crate) struct Service {
    pool: SqlitePool,
    migration: Migration<Sqlite>,
    reader: Reader<Sqlite, Vec<Subscription>, Error>,
    release: Release,
}

/// What is deployed: the two releases differ in how they read the new store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    /// Its new read path has a bug: it forgets the subscriptions that were cancelled.
    Flawed,
    /// The bug is mended.
    Mended,
}

impl Service {
    pub(crate) async fn start(pool: SqlitePool, release: Release) -> Result<Service> {
        let migration = Migration::join(pool.clone(), "subscriptions").await?;
        let reader = migration.reader("subscriptions.list")?;
        Ok(Service { pool, migration, reader, release })
    }

    /// A read: one function for each store. Which of them answers, and whether the other is tried and
    /// compared, is up to the migration.
    pub(crate) async fn list(&self, customer: i64) -> Result<Vec<Subscription>> {
        let (old, new, release) = (self.pool.clone(), self.pool.clone(), self.release);
        self.reader
            .read(
                customer,
                move || old::list(old.clone(), customer),
                move || new::list(new.clone(), customer, release),
            )
            .await
    }

    /// A write in a transaction that crossfade begins, commits, and runs again where it lost a race.
    pub(crate) async fn create(&self, customer: i64, subscription: Subscription) -> Result<()> {
        self.migration
            .write(async move |transaction| {
                match transaction.primary() {
                    Side::Old => old::insert(transaction, customer, &subscription).await?,
                    Side::New => new::insert(transaction, customer, &subscription).await?,
                }
                transaction.mirror(customer).await?;
                Ok(())
            })
            .await
    }

    /// The same in a transaction of the service's own, which runs it again itself where the migration has
    /// moved on in between.
    pub(crate) async fn delete(&self, customer: i64, id: i64) -> Result<()> {
        while let Err(error) = self.try_delete(customer, id).await {
            if !is_retryable(&error) {
                return Err(error);
            }
            self.migration.refresh().await?;
        }
        Ok(())
    }

    async fn try_delete(&self, customer: i64, id: i64) -> Result<()> {
        let write = self.migration.pin();
        let mut transaction = self.pool.begin_with("begin immediate").await?;
        match write.primary() {
            Side::Old => old::delete(&mut transaction, customer, id).await?,
            Side::New => new::delete(&mut transaction, customer, id).await?,
        }
        write.mirror(&mut transaction, customer).await?;
        Ok(transaction.commit().await?)
    }

    /// A write given for each store: both run, and nothing is derived.
    pub(crate) async fn change_price(&self, customer: i64, id: i64, cents: i64) -> Result<()> {
        self.migration
            .dual_write(
                customer,
                async move |connection| old::change_price(connection, customer, id, cents).await,
                async move |connection| new::change_price(connection, customer, id, cents).await,
            )
            .await
    }

    /// Like [`Service::change_price`].
    pub(crate) async fn cancel(&self, customer: i64, id: i64) -> Result<()> {
        self.migration
            .dual_write(
                customer,
                async move |connection| old::cancel(connection, customer, id).await,
                async move |connection| new::cancel(connection, customer, id).await,
            )
            .await
    }

    /// A report that nobody has thought of: it reads the old column itself. The guard lets it, until
    /// the old path is closed.
    pub(crate) async fn forgotten_report(&self, customer: i64) -> Result<Vec<Subscription>> {
        self.migration.old_path()?;
        old::list(self.pool.clone(), customer).await
    }

    /// Gives the lease back, so that no change of phase waits for this instance.
    pub(crate) async fn stop(self) -> Result<()> {
        drop(self.reader);
        Ok(self.migration.leave().await?)
    }
}
