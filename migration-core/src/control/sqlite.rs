//! The control store on SQLite: tables named `crossfade_…` beside the application's own.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{ConnectOptions, Connection, SqlSafeStr, Sqlite, SqliteConnection};

use super::{
    Account, AuditRecord, Changed, EvidenceLog, MigrationId, Registered, Registration, Registry,
    StandingStore, Witness,
};
use crate::connect::Connected;
use crate::error::{Error, Result};
use crate::fence::Fence;
use crate::gate::{Evidence, EvidenceKind};
use crate::manifest::Manifest;
use crate::phase::{Epoch, Phase, Ramp, Standing};
use crate::plan::Plan;
use crate::url::DatabaseUrl;

/// The migrator's own table. Not sqlx's default one, which may be the application's.
const VERSIONS: &str = "crossfade_schema_version";

/// How long a change of standing sleeps between two tries at the write lock. Writers that wait poll
/// ever more slowly, up to every 100 ms; a change that polls every millisecond gets its turn
/// between two of them, and costs next to nothing.
const FENCE_POLL: Duration = Duration::from_millis(1);

fn migrator() -> Migrator {
    let migration = |version, name: &'static str, sql: &'static str| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    let mut migrator = Migrator::with_migrations(vec![
        migration(1, "control", include_str!("../../migrations/sqlite/0001_control.sql")),
        migration(2, "jobs", include_str!("../../migrations/sqlite/0002_jobs.sql")),
    ]);
    migrator.dangerous_set_table_name(VERSIONS);
    migrator
}

#[async_trait]
impl Registry for Connected<Sqlite> {
    async fn install(&self) -> Result<()> {
        let doing = "creating crossfade's tables";
        // One transaction, and the write lock first: two installers at once do not meet in the middle.
        let mut transaction = Sqlite::begin_write(&self.pool).await?;
        let tables: Vec<String> = sqlx::query_scalar(
            "select name from sqlite_schema where type in ('table', 'view') and name like 'crossfade\\_%' escape '\\' order by name",
        )
        .fetch_all(&mut *transaction)
        .await
        .map_err(Error::database(doing))?;
        if !tables.is_empty() && !tables.iter().any(|name| name == VERSIONS) {
            return Err(Error::ControlStore {
                store: self.url.to_string(),
                what: format!("has tables that crossfade did not make: {}", tables.join(", ")),
                hint: "rename them, or give crossfade a database without them".to_owned(),
            });
        }
        migrator()
            .run_direct(None, &mut *transaction, false)
            .await
            .map_err(|error| self.not_installed(error))?;
        transaction.commit().await.map_err(Error::database(doing))
    }

    async fn register(&self, manifest: &Manifest, plan: &Plan, account: &Account) -> Result<Registration> {
        let name = manifest.name();
        let doing = format!("registering migration {name}");
        let fault = |error| self.fault(&doing, error);
        let mut transaction = Sqlite::begin_write(&self.pool).await?;
        let known: Option<(i32, String, String, String, i64, i64)> = sqlx::query_as(
            "select id, manifest, fingerprint, phase, ramp_ppm, epoch from crossfade_migration where name = ?1",
        )
        .bind(name)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(fault)?;
        let Some((id, text, fingerprint, phase, ramp, epoch)) = known else {
            let to = Standing::INITIAL;
            let id: i32 = sqlx::query_scalar(
                "insert into crossfade_migration (name, manifest, fingerprint, phase, ramp_ppm, epoch, changed_at_ms)
                 values (?1, ?2, ?3, ?4, ?5, ?6, cast(unixepoch('subsec') * 1000 as integer))
                 returning id",
            )
            .bind(name)
            .bind(manifest.text())
            .bind(plan.fingerprint())
            .bind(to.phase.as_str())
            .bind(to.ramp.ppm())
            .bind(to.epoch.0)
            .fetch_one(&mut *transaction)
            .await
            .map_err(fault)?;
            audit(&mut transaction, MigrationId(id), None, to, account, Duration::ZERO)
                .await
                .map_err(fault)?;
            transaction.commit().await.map_err(fault)?;
            return Ok(Registration::Created);
        };
        if text == manifest.text() && fingerprint == plan.fingerprint() {
            return Ok(Registration::Unchanged);
        }
        let from = standing_of(&phase, ramp, epoch)?;
        let mut to = from;
        if fingerprint != plan.fingerprint() {
            if from.phase != Phase::OldOnly {
                return Err(Error::Registered { name: name.to_owned(), phase: from.phase });
            }
            // What was measured with the other mapping says nothing of this one.
            to.epoch = from.epoch.next();
        }
        sqlx::query(
            "update crossfade_migration set manifest = ?2, fingerprint = ?3, epoch = ?4 where id = ?1",
        )
        .bind(id)
        .bind(manifest.text())
        .bind(plan.fingerprint())
        .bind(to.epoch.0)
        .execute(&mut *transaction)
        .await
        .map_err(fault)?;
        audit(&mut transaction, MigrationId(id), Some(from), to, account, Duration::ZERO)
            .await
            .map_err(fault)?;
        transaction.commit().await.map_err(fault)?;
        Ok(Registration::Updated)
    }

    async fn migration(&self, name: &str) -> Result<Registered> {
        let row: Option<(i32, String, String, i64, i64, i64)> = sqlx::query_as(
            "select id, manifest, phase, ramp_ppm, epoch,
                    max(0, cast(unixepoch('subsec') * 1000 as integer) - changed_at_ms)
             from crossfade_migration where name = ?1",
        )
        .bind(name)
        .fetch_optional(&self.pool)
        .await
        .map_err(|error| self.fault(&format!("reading migration {name}"), error))?;
        let Some((id, text, phase, ramp, epoch, stood)) = row else {
            return Err(Error::UnknownMigration { name: name.to_owned(), known: self.names().await? });
        };
        Ok(Registered {
            id: MigrationId(id),
            manifest: Manifest::parse(&text, &format!("{name} (registered)"))?,
            standing: standing_of(&phase, ramp, epoch)?,
            stood: milliseconds(stood),
        })
    }

    async fn names(&self) -> Result<Vec<String>> {
        sqlx::query_scalar("select name from crossfade_migration order by name")
            .fetch_all(&self.pool)
            .await
            .map_err(|error| self.fault("listing migrations", error))
    }
}

#[async_trait]
impl StandingStore for Connected<Sqlite> {
    async fn standing(&self, id: MigrationId) -> Result<Standing> {
        let row = sqlx::query_as("select phase, ramp_ppm, epoch from crossfade_migration where id = ?1")
            .bind(id.0)
            .fetch_optional(&self.pool)
            .await
            .map_err(|error| self.fault("reading the standing", error))?;
        let (phase, ramp, epoch): (String, i64, i64) = row.ok_or_else(|| unknown(id))?;
        standing_of(&phase, ramp, epoch)
    }

    async fn change_before(
        &self,
        migration: &Registered,
        to: Standing,
        account: &Account,
        patience: Duration,
        witness: &dyn Witness,
    ) -> Result<Changed> {
        let doing = format!("changing migration {} to {to}", migration.manifest.name());
        let fault = |error| self.fault(&doing, error);
        // A connection of its own: closing it undoes whatever has not been committed, and its short
        // patience is nobody else's.
        let options = self.pool.connect_options();
        let mut connection = options.connect().await.map_err(fault)?;
        sqlx::query("pragma busy_timeout = 0").execute(&mut connection).await.map_err(fault)?;
        let changed = change_on(&mut connection, migration, to, account, patience, witness, fault).await;
        // Before anybody is told: whoever comes next finds the lock free.
        let _ = connection.close().await;
        changed
    }

    async fn history(&self, id: MigrationId) -> Result<Vec<AuditRecord>> {
        let rows: Vec<AuditRow> = sqlx::query_as(
            "select strftime('%Y-%m-%dT%H:%M:%fZ', at_ms / 1000.0, 'unixepoch') as at,
                    from_phase, from_ramp_ppm, from_epoch, to_phase, to_ramp_ppm, to_epoch,
                    actor, reason, forced, evidence, pause_us
             from crossfade_audit where migration = ?1 order by id",
        )
        .bind(id.0)
        .fetch_all(&self.pool)
        .await
        .map_err(|error| self.fault("reading the history", error))?;
        rows.into_iter().map(audit_record).collect()
    }
}

/// Changes a standing in one transaction, on a connection whose closing undoes what was not committed.
async fn change_on(
    connection: &mut SqliteConnection,
    migration: &Registered,
    to: Standing,
    account: &Account,
    patience: Duration,
    witness: &dyn Witness,
    fault: impl Fn(sqlx::Error) -> Error + Send + Sync + Copy,
) -> Result<Changed> {
    let name = migration.manifest.name();
    let began = Instant::now();
    // Waiting for SQLite's write lock holds up nobody else, so only the time after it is a pause.
    let held = loop {
        match sqlx::query("begin immediate").execute(&mut *connection).await {
            Ok(_) => break Instant::now(),
            Err(error) if crate::error::is_retryable(&error) => {
                let waited = began.elapsed();
                if waited >= patience {
                    return Err(Error::FenceTimeout { migration: name.to_owned(), waited });
                }
                tokio::time::sleep(FENCE_POLL).await;
            }
            Err(error) => return Err(fault(error)),
        }
    };
    let row = sqlx::query_as("select phase, ramp_ppm, epoch from crossfade_migration where id = ?1")
        .bind(migration.id.0)
        .fetch_optional(&mut *connection)
        .await
        .map_err(fault)?;
    let (phase, ramp, epoch): (String, i64, i64) = row.ok_or_else(|| unknown(migration.id))?;
    let found = standing_of(&phase, ramp, epoch)?;
    let from = migration.standing;
    if found != from {
        return Err(Error::Conflict { migration: name.to_owned(), expected: from.epoch, found });
    }
    witness.see().await?;
    sqlx::query(
        "update crossfade_migration
         set phase = ?2, ramp_ppm = ?3, epoch = ?4, changed_at_ms = cast(unixepoch('subsec') * 1000 as integer)
         where id = ?1",
    )
    .bind(migration.id.0)
    .bind(to.phase.as_str())
    .bind(to.ramp.ppm())
    .bind(to.epoch.0)
    .execute(&mut *connection)
    .await
    .map_err(fault)?;
    audit(connection, migration.id, Some(from), to, account, held.elapsed()).await.map_err(fault)?;
    // Without the write-ahead log, a commit has to wait for readers too; it stays open meanwhile.
    loop {
        match sqlx::query("commit").execute(&mut *connection).await {
            Ok(_) => break,
            Err(error) if !crate::error::is_retryable(&error) => return Err(fault(error)),
            Err(_) if began.elapsed() >= patience => {
                return Err(Error::FenceTimeout { migration: name.to_owned(), waited: began.elapsed() });
            }
            Err(_) => tokio::time::sleep(FENCE_POLL).await,
        }
    }
    Ok(Changed { waited: began.elapsed(), pause: held.elapsed() })
}

#[async_trait]
impl EvidenceLog for Connected<Sqlite> {
    async fn record(&self, id: MigrationId, evidence: &Evidence) -> Result<()> {
        sqlx::query(
            "insert into crossfade_evidence (migration, kind, epoch, phase, faults, began_at_ms, details)
             values (?1, ?2, ?3, ?4, ?5, cast(unixepoch('subsec') * 1000 as integer) - ?6, ?7)",
        )
        .bind(id.0)
        .bind(evidence.kind.as_str())
        .bind(evidence.epoch.0)
        .bind(evidence.phase.as_str())
        .bind(i64::try_from(evidence.faults).unwrap_or(i64::MAX))
        .bind(i64::try_from(evidence.age.as_millis()).unwrap_or(i64::MAX))
        .bind(evidence.details.to_string())
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(|error| self.fault("recording evidence", error))
    }

    async fn evidence(&self, id: MigrationId) -> Result<Vec<Evidence>> {
        let rows: Vec<(String, i64, String, i64, i64, String)> = sqlx::query_as(
            "select kind, epoch, phase, faults,
                    max(0, cast(unixepoch('subsec') * 1000 as integer) - began_at_ms), details
             from crossfade_evidence
             where id in (select max(id) from crossfade_evidence where migration = ?1 group by kind, epoch)
             order by id desc",
        )
        .bind(id.0)
        .fetch_all(&self.pool)
        .await
        .map_err(|error| self.fault("reading evidence", error))?;
        rows.into_iter()
            .map(|(kind, epoch, phase, faults, age, details)| {
                Ok(Evidence {
                    kind: EvidenceKind::parse(&kind)
                        .ok_or_else(|| Error::Unreadable { what: format!("evidence of kind {kind:?}") })?,
                    epoch: Epoch(epoch),
                    phase: phase_of(&phase)?,
                    faults: faults.unsigned_abs(),
                    age: milliseconds(age),
                    details: json(&details)?,
                })
            })
            .collect()
    }
}

impl Connected<Sqlite> {
    /// What went wrong in the control store.
    pub(crate) fn fault(&self, doing: &str, error: sqlx::Error) -> Error {
        control_error(Some(&self.url), doing, error)
    }

    fn not_installed(&self, error: MigrateError) -> Error {
        match error {
            MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => {
                self.fault("creating crossfade's tables", source)
            }
            MigrateError::VersionMissing(version) | MigrateError::VersionMismatch(version) => {
                Error::Unreadable { what: format!("version {version} of its tables") }
            }
            error => Error::ControlStore {
                store: self.url.to_string(),
                what: format!("cannot be brought up to date: {error}"),
                hint: format!("look at table {VERSIONS}"),
            },
        }
    }
}

/// What went wrong in the control store: a missing table means that nothing has been installed.
pub(crate) fn control_error(url: Option<&DatabaseUrl>, doing: &str, error: sqlx::Error) -> Error {
    let is_absent = error
        .as_database_error()
        .is_some_and(|error| error.message().starts_with("no such table: crossfade_"));
    if !is_absent {
        return Error::Database { doing: doing.to_owned(), source: error };
    }
    Error::ControlStore {
        store: url.map_or_else(|| "behind this connection".to_owned(), ToString::to_string),
        what: "has no tables of crossfade's".to_owned(),
        hint: "crossfade init MANIFEST creates them".to_owned(),
    }
}

/// A standing as the control store writes it.
pub(crate) fn standing_of(phase: &str, ramp: i64, epoch: i64) -> Result<Standing> {
    Ok(Standing { phase: phase_of(phase)?, ramp: ramp_of(ramp)?, epoch: Epoch(epoch) })
}

fn phase_of(text: &str) -> Result<Phase> {
    text.parse().map_err(|_| Error::Unreadable { what: format!("the phase {text:?}") })
}

fn ramp_of(ppm: i64) -> Result<Ramp> {
    u32::try_from(ppm)
        .map(Ramp::from_ppm)
        .map_err(|_| Error::Unreadable { what: format!("a ramp of {ppm} ppm") })
}

/// JSON as the control store writes it.
pub(crate) fn json(text: &str) -> Result<serde_json::Value> {
    serde_json::from_str(text).map_err(|error| Error::Unreadable { what: format!("broken JSON ({error})") })
}

/// A span of time from the database, which may be negative where its clock was put back.
pub(crate) fn milliseconds(span: i64) -> Duration {
    Duration::from_millis(u64::try_from(span).unwrap_or_default())
}

pub(crate) fn unknown(id: MigrationId) -> Error {
    Error::UnknownMigration { name: format!("number {}", id.0), known: Vec::new() }
}

async fn audit(
    connection: &mut SqliteConnection,
    id: MigrationId,
    from: Option<Standing>,
    to: Standing,
    account: &Account,
    pause: Duration,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into crossfade_audit (migration, at_ms, from_phase, from_ramp_ppm, from_epoch,
             to_phase, to_ramp_ppm, to_epoch, actor, reason, forced, evidence, pause_us)
         values (?1, cast(unixepoch('subsec') * 1000 as integer), ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )
    .bind(id.0)
    .bind(from.map(|from| from.phase.as_str()))
    .bind(from.map(|from| from.ramp.ppm()))
    .bind(from.map(|from| from.epoch.0))
    .bind(to.phase.as_str())
    .bind(to.ramp.ppm())
    .bind(to.epoch.0)
    .bind(&account.actor)
    .bind(&account.reason)
    .bind(account.forced)
    .bind(account.evidence.to_string())
    .bind(i64::try_from(pause.as_micros()).unwrap_or(i64::MAX))
    .execute(connection)
    .await
    .map(drop)
}

type AuditRow = (
    String,
    Option<String>,
    Option<i64>,
    Option<i64>,
    String,
    i64,
    i64,
    String,
    Option<String>,
    bool,
    String,
    i64,
);

fn audit_record(row: AuditRow) -> Result<AuditRecord> {
    let (at, from_phase, from_ramp, from_epoch, phase, ramp, epoch, actor, reason, forced, evidence, pause) =
        row;
    let from = match (from_phase, from_ramp, from_epoch) {
        (Some(phase), Some(ramp), Some(epoch)) => Some(standing_of(&phase, ramp, epoch)?),
        _ => None,
    };
    Ok(AuditRecord {
        at,
        from,
        to: standing_of(&phase, ramp, epoch)?,
        account: Account { actor, reason, forced, evidence: json(&evidence)? },
        pause_ms: Duration::from_micros(pause.unsigned_abs()),
    })
}
