//! The fence on SQLite: the database's one write lock.
//!
//! SQLite has one writer at a time, so a transaction that holds the write lock holds the fence, and a
//! change of phase, which needs the lock as well, waits for it. [`Fence::begin_write`] takes it with
//! the first statement. A transaction that the application has begun without it (`begin`, deferred)
//! takes it in [`Fence::fence`]:
//!
//! - if it has read nothing yet, it waits for the lock, and then sees the newest state;
//! - if it has written already, it has the lock;
//! - if it has only read, and anybody has committed since, its snapshot is too old to write on, and
//!   SQLite refuses the lock (`SQLITE_BUSY_SNAPSHOT`). That covers a change of phase, and is a
//!   retryable error.

use futures::FutureExt;
use futures::future::BoxFuture;
use sqlx::{Pool, Sqlite, Transaction};

use super::Fence;
use crate::control::MigrationId;
use crate::control::sqlite::{control_error, standing_of};
use crate::error::{Error, Result};
use crate::phase::{Epoch, Standing};

/// Takes the write lock without writing: a statement that could write takes it before it looks for
/// rows, and this one finds none, so that no page becomes dirty.
pub(crate) const TAKE_WRITE_LOCK: &str = "delete from crossfade_migration where false";

/// [`TAKE_WRITE_LOCK`] and the standing in one round trip to the connection's thread. The second
/// statement begins after the first has the lock, so what it reads is the newest.
const FENCE: &str = "delete from crossfade_migration where false;
    select phase, ramp_ppm, epoch from crossfade_migration where id = ?1";

impl Fence for Sqlite {
    fn begin_write(pool: &Pool<Self>) -> BoxFuture<'_, Result<Transaction<'static, Self>>> {
        async move {
            pool.begin_with("begin immediate").await.map_err(Error::database("beginning a write transaction"))
        }
        .boxed()
    }

    fn fence<'c>(
        connection: &'c mut Self::Connection,
        migration: MigrationId,
        name: &'c str,
        expected: Option<Epoch>,
    ) -> BoxFuture<'c, Result<Standing>> {
        async move {
            let row: Option<(String, i64, i64)> = sqlx::query_as(FENCE)
                .bind(migration.0)
                .fetch_optional(connection)
                .await
                .map_err(|error| control_error(None, &format!("fencing migration {name}"), error))?;
            let (phase, ramp, epoch) =
                row.ok_or_else(|| Error::UnknownMigration { name: name.to_owned(), known: Vec::new() })?;
            let standing = standing_of(&phase, ramp, epoch)?;
            match expected {
                Some(expected) if expected != standing.epoch => {
                    Err(Error::StaleEpoch { migration: name.to_owned(), expected, found: standing.epoch })
                }
                _ => Ok(standing),
            }
        }
        .boxed()
    }
}
