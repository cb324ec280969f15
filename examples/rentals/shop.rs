//! The service, as it stands while the migration goes on: what you would copy.

use crossfade::core::write::is_retryable;
use crossfade::{Migration, Reader, Side};
use serde::Serialize;
use sqlx::{PgPool, Postgres};

use crate::{new, old};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("customer {0} or the rental is not there")]
    Missing(i32),
    #[error("the migration: {0}")]
    Migration(#[from] crossfade::Error),
    #[error("the experiment: {0}")]
    Experiment(#[from] crossfade::experiment::Error),
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// A rental as callers see it; times in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Rental {
    pub(crate) rental_id: i32,
    pub(crate) rental_date: i64,
    pub(crate) inventory_id: i32,
    pub(crate) return_date: Option<i64>,
}

pub(crate) type Row = (i32, i64, i32, Option<i64>);

impl From<Row> for Rental {
    fn from((rental_id, rental_date, inventory_id, return_date): Row) -> Rental {
        Rental { rental_id, rental_date, inventory_id, return_date }
    }
}

/// What a request changes about one customer.
pub(crate) enum Change {
    Join,
    Leave,
    Rent(Rental),
    Return { rental_id: i32, at: i64 },
}

/// The service.
pub(crate) struct Shop {
    pub(crate) pool: PgPool,
    pub(crate) migration: Migration<Postgres>,
    reader: Reader<Postgres, Vec<Rental>, Error>,
    bug: bool,
}

impl Shop {
    pub(crate) async fn open(bug: bool) -> Result<Shop> {
        let url = std::env::var("DATABASE_URL").unwrap_or_else(|_| "postgres:///sakila".to_owned());
        let pool = PgPool::connect(&url).await?;
        let migration = Migration::join(pool.clone(), "rentals").await?;
        let reader = migration.reader("rentals.list")?;
        Ok(Shop { pool, migration, reader, bug })
    }

    /// A read gives one function for each store; the migration knows which of them answers.
    pub(crate) async fn list(&self, customer: i32) -> Result<Vec<Rental>> {
        let (old, new, bug) = (self.pool.clone(), self.pool.clone(), self.bug);
        self.reader
            .read(
                customer,
                move || old::list(old.clone(), customer),
                move || new::list(new.clone(), customer, bug),
            )
            .await
    }

    /// A write runs again where it lost a race: against another write, or against a change of phase.
    pub(crate) async fn write(&self, customer: i32, change: &Change) -> Result<()> {
        while let Err(error) = self.try_write(customer, change).await {
            if !is_retryable(&error) {
                return Err(error);
            }
            self.migration.refresh().await?;
        }
        Ok(())
    }

    /// The shop's own transaction, on the store that decides; the mirror makes the other one follow.
    async fn try_write(&self, customer: i32, change: &Change) -> Result<()> {
        let write = self.migration.pin();
        let mut transaction = self.pool.begin().await?;
        let changed = match write.primary() {
            Side::Old => old::apply(&mut transaction, customer, change).await?,
            Side::New => new::apply(&mut transaction, customer, change).await?,
        };
        if changed == 0 {
            return Err(Error::Missing(customer));
        }
        write.mirror(&mut transaction, customer).await?;
        Ok(transaction.commit().await?)
    }
}
