//! The fence on Postgres: a shared advisory lock, taken and checked by `crossfade.fence`.

use futures::FutureExt;
use futures::future::BoxFuture;
use sqlx::postgres::{PgDatabaseError, PgRow};
use sqlx::{Pool, Postgres, Row, Transaction};

use super::Fence;
use crate::control::MigrationId;
use crate::control::postgres::{lacks_object, no_tables};
use crate::error::{Error, Result};
use crate::phase::{Epoch, Ramp, Standing};

/// What `crossfade.fence` raises when the migration has moved on.
const STALE_EPOCH: &str = "CF001";

/// What it raises when there is no such migration.
pub(crate) const NO_MIGRATION: &str = "CF002";

impl Fence for Postgres {
    fn begin_write(pool: &Pool<Self>) -> BoxFuture<'_, Result<Transaction<'static, Self>>> {
        async move { pool.begin().await.map_err(Error::database("beginning a write transaction")) }.boxed()
    }

    fn fence<'c>(
        connection: &'c mut Self::Connection,
        migration: MigrationId,
        name: &'c str,
        expected: Option<Epoch>,
    ) -> BoxFuture<'c, Result<Standing>> {
        async move {
            // The function is volatile, so its reads are newer than the lock that it waits for.
            let row = sqlx::query("select phase, ramp_ppm, epoch from crossfade.fence($1, $2)")
                .bind(migration.0)
                .bind(expected.map(|epoch| epoch.0))
                .fetch_one(connection)
                .await
                .map_err(|error| fence_error(error, name, expected))?;
            standing(&row)
        }
        .boxed()
    }
}

/// A row of phase, ramp and epoch as a standing.
pub(crate) fn standing(row: &PgRow) -> Result<Standing> {
    let unreadable = |source| Error::Database { doing: "reading a standing".to_owned(), source };
    let phase: String = row.try_get("phase").map_err(unreadable)?;
    let ramp: i32 = row.try_get("ramp_ppm").map_err(unreadable)?;
    let epoch: i64 = row.try_get("epoch").map_err(unreadable)?;
    Ok(Standing {
        phase: phase.parse().map_err(|_| Error::Unreadable { what: format!("the phase {phase:?}") })?,
        ramp: Ramp::from_ppm(u32::try_from(ramp).unwrap_or(0)),
        epoch: Epoch(epoch),
    })
}

/// What an error of a statement that fences means.
pub(crate) fn fence_error(error: sqlx::Error, name: &str, expected: Option<Epoch>) -> Error {
    let raised = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    match (raised.map(PgDatabaseError::code), expected) {
        (Some(STALE_EPOCH), Some(expected)) => {
            let found = raised.and_then(PgDatabaseError::detail).and_then(|detail| detail.parse().ok());
            Error::StaleEpoch {
                migration: name.to_owned(),
                expected,
                found: found.map_or(expected.next(), Epoch),
            }
        }
        (Some(NO_MIGRATION), _) => Error::UnknownMigration { name: name.to_owned(), known: Vec::new() },
        // The statements of a manifest run in here too, and may miss tables of the application's.
        _ if lacks_object(&error) && raised.is_some_and(|raised| raised.message().contains("crossfade")) => {
            no_tables("the database".to_owned())
        }
        _ => Error::Database { doing: format!("fencing a write of migration {name}"), source: error },
    }
}
