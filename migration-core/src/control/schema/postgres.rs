//! Schema `crossfade`, from the files in `migrations/postgres`.

use std::borrow::Cow;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{Postgres, SqlSafeStr};

use crate::connect::Connected;
use crate::control::postgres::FENCE_CLASS;
use crate::error::{Error, Result};
use crate::url::DatabaseUrl;

/// Every change of crossfade's own tables, in order; each is applied once.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "control", include_str!("../../../migrations/postgres/0001_control.sql")),
    (2, "jobs", include_str!("../../../migrations/postgres/0002_jobs.sql")),
    (3, "batches", include_str!("../../../migrations/postgres/0003_batches.sql")),
];

/// The advisory lock that installers queue for. Migrations, which have the others of this class, are
/// numbered from one.
const INSTALL_LOCK: i32 = 0;

/// Creates the schema with its tables, or brings it up to date; all of it or nothing.
pub(in crate::control) async fn install(store: &Connected<Postgres>) -> Result<()> {
    let failed = || Error::database(format!("creating crossfade's tables in {}", store.url));
    let mut transaction =
        store.pool.begin_with("begin isolation level read committed").await.map_err(failed())?;
    sqlx::query("select pg_advisory_xact_lock($1, $2)")
        .bind(FENCE_CLASS)
        .bind(INSTALL_LOCK)
        .execute(&mut *transaction)
        .await
        .map_err(failed())?;
    // After the lock, by a snapshot that sees what the installer before has committed.
    let (has_schema, is_ours): (bool, bool) = sqlx::query_as(
        "select to_regnamespace('crossfade') is not null, to_regclass('crossfade.schema_version') is not null",
    )
    .fetch_one(&mut *transaction)
    .await
    .map_err(failed())?;
    if has_schema && !is_ours {
        return Err(Error::ControlStore {
            store: store.url.to_string(),
            what: "has a schema named crossfade that crossfade did not make".to_owned(),
            hint: "rename or drop that schema, or keep crossfade's tables in another database: \
                   `control = \"…\"` in the manifest"
                .to_owned(),
        });
    }
    // The migrator's savepoints are inside this transaction, so that a crash leaves no half of it. Its
    // `run` does not take a borrowed connection where the future has to be `Send`; this is what it calls.
    migrator()
        .run_direct(None, &mut *transaction, false)
        .await
        .map_err(|error| migrate_error(error, &store.url))?;
    transaction.commit().await.map_err(failed())
}

fn migrator() -> Migrator {
    let migration = |(version, name, sql): &(i64, &'static str, &'static str)| {
        Migration::new(*version, Cow::Borrowed(*name), MigrationType::Simple, (*sql).into_sql_str(), false)
    };
    let mut migrator = Migrator::with_migrations(MIGRATIONS.iter().map(migration).collect());
    migrator.dangerous_set_table_name("crossfade.schema_version");
    migrator.create_schema("crossfade");
    // The transaction's own lock is held already, and unlike the migrator's it goes away on errors.
    migrator.set_locking(false);
    migrator
}

fn migrate_error(error: MigrateError, url: &DatabaseUrl) -> Error {
    let (what, hint) = match error {
        MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => {
            return Error::Database { doing: format!("creating crossfade's tables in {url}"), source };
        }
        MigrateError::VersionMissing(_) | MigrateError::VersionTooNew(..) => {
            ("was made by a newer version of crossfade".to_owned(), "use that version, or a newer one")
        }
        MigrateError::VersionMismatch(version) => (
            format!("was made by a build of crossfade that differs in migration {version}"),
            "use the build that made it",
        ),
        error => {
            (format!("cannot be brought up to date: {error}"), "see what `crossfade.schema_version` says")
        }
    };
    Error::ControlStore { store: url.to_string(), what, hint: hint.to_owned() }
}
