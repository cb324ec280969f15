//! The control store on Postgres: schema `crossfade`.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Postgres, Row, Transaction};

use super::{
    Account, AuditRecord, Changed, EvidenceLog, MigrationId, Registered, Registration, Registry,
    StandingStore, Witness,
};
use crate::connect::Connected;
use crate::error::{Error, Result, is_retryable};
use crate::fence::postgres::standing;
use crate::gate::{Evidence, EvidenceKind};
use crate::manifest::Manifest;
use crate::mirror::functions::postgres::functions;
use crate::phase::{Epoch, Phase, Ramp, Standing};
use crate::plan::Plan;
use crate::url::DatabaseUrl;

/// The first number of the advisory locks that are fences; the second is the migration's number.
/// `crossfade.fence` takes the same ones shared.
pub(crate) const FENCE_CLASS: i32 = 1_668_834_915;

/// How long one try may queue for the fence, and so hold up the writers behind it. Shorter than
/// Postgres' `deadlock_timeout` of one second: where a writer that takes its fence late waits for a
/// transaction that waits behind this change, the try gives way before the deadlock is found and one of
/// the two is killed for it.
const TRY: Duration = Duration::from_millis(200);

/// How long writers have the fence for themselves between two tries: as long as a try, so that a change
/// that cannot get through takes half of the time at most.
const BREATH: Duration = TRY;

/// How long a registration with another mapping queues for the fence: it is made once, before the
/// migration begins, and can be made again.
const REGISTRATION_PATIENCE: Duration = Duration::from_secs(5);

/// After this, the database ends a change whose operator has gone silent while holding the fence:
/// a frozen host or a cut network must not stop every writer. A change needs a few round trips.
const SILENCE_MAX: &str = "5s";

#[async_trait]
impl Registry for Connected<Postgres> {
    async fn install(&self) -> Result<()> {
        super::schema::postgres::install(self).await
    }

    async fn register(&self, manifest: &Manifest, plan: &Plan, account: &Account) -> Result<Registration> {
        let doing = format!("registering migration {}", manifest.name());
        let failed = || control_error(&self.url, &doing);
        let mut transaction =
            self.pool.begin_with("begin isolation level read committed").await.map_err(failed())?;
        // Of two who register the same name at once, the second waits here for the first.
        let created: Option<i32> = sqlx::query_scalar(
            "insert into crossfade.migration (name, manifest, fingerprint, phase, ramp_ppm, epoch)
             values ($1, $2, $3, $4, $5, $6) on conflict (name) do nothing returning id",
        )
        .bind(manifest.name())
        .bind(manifest.text())
        .bind(manifest.fingerprint())
        .bind(Standing::INITIAL.phase.as_str())
        .bind(ppm(Standing::INITIAL))
        .bind(Standing::INITIAL.epoch.0)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(failed())?;
        if let Some(id) = created.map(MigrationId) {
            install_functions(&mut transaction, id, plan).await.map_err(failed())?;
            audit(&mut transaction, id, None, Standing::INITIAL, account, Duration::ZERO)
                .await
                .map_err(failed())?;
            transaction.commit().await.map_err(failed())?;
            return Ok(Registration::Created);
        }

        // Another mapping opens another epoch, and an epoch changes under the fence alone. It is taken
        // before the row, as every transaction does; a registration that changes nothing does without, so
        // that it can be done again at any time.
        let (id, fingerprint): (i32, String) =
            sqlx::query_as("select id, fingerprint from crossfade.migration where name = $1")
                .bind(manifest.name())
                .fetch_one(&mut *transaction)
                .await
                .map_err(failed())?;
        if fingerprint != manifest.fingerprint() {
            take_fence_alone(&mut transaction, MigrationId(id), REGISTRATION_PATIENCE)
                .await
                .map_err(failed())?;
        }
        // Locked, so that the phase cannot change between the decision and the commit. In a statement
        // of its own: its snapshot must be newer than the waits above.
        let row = sqlx::query(
            "select id, manifest, fingerprint, phase, ramp_ppm, epoch from crossfade.migration
             where name = $1 for update",
        )
        .bind(manifest.name())
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed())?;
        let id = MigrationId(row.try_get("id").map_err(failed())?);
        let text: String = row.try_get("manifest").map_err(failed())?;
        let fingerprint: String = row.try_get("fingerprint").map_err(failed())?;
        let standing = standing(&row)?;
        let has_other_mapping = fingerprint != manifest.fingerprint();
        if has_other_mapping && standing.phase != Phase::OldOnly {
            return Err(Error::Registered { name: manifest.name().to_owned(), phase: standing.phase });
        }
        // What was measured with the other mapping says nothing of this one.
        let epoch = if has_other_mapping { standing.epoch.next() } else { standing.epoch };
        let to = Standing { epoch, ..standing };
        // Even where the mapping is the same: the tables' types may have changed, and another version
        // of crossfade may have made the functions.
        install_functions(&mut transaction, id, plan).await.map_err(failed())?;
        let registration = if text == manifest.text() && !has_other_mapping {
            Registration::Unchanged
        } else {
            sqlx::query(
                "update crossfade.migration set manifest = $2, fingerprint = $3, epoch = $4 where id = $1",
            )
            .bind(id.0)
            .bind(manifest.text())
            .bind(manifest.fingerprint())
            .bind(to.epoch.0)
            .execute(&mut *transaction)
            .await
            .map_err(failed())?;
            audit(&mut transaction, id, Some(standing), to, account, Duration::ZERO)
                .await
                .map_err(failed())?;
            Registration::Updated
        };
        transaction.commit().await.map_err(failed())?;
        Ok(registration)
    }

    async fn migration(&self, name: &str) -> Result<Registered> {
        let failed = || control_error(&self.url, &format!("reading migration {name}"));
        let row = sqlx::query(
            "select id, manifest, phase, ramp_ppm, epoch,
                    extract(epoch from clock_timestamp() - changed_at)::float8 as stood
             from crossfade.migration where name = $1",
        )
        .bind(name)
        .fetch_optional(&self.pool)
        .await
        .map_err(failed())?;
        let Some(row) = row else {
            return Err(Error::UnknownMigration { name: name.to_owned(), known: self.names().await? });
        };
        let text: String = row.try_get("manifest").map_err(failed())?;
        let manifest = Manifest::parse(&text, "the registered manifest").map_err(|error| {
            Error::Unreadable { what: format!("a manifest of migration {name} ({error})") }
        })?;
        Ok(Registered {
            id: MigrationId(row.try_get("id").map_err(failed())?),
            manifest,
            standing: standing(&row)?,
            stood: seconds(row.try_get("stood").map_err(failed())?),
        })
    }

    async fn names(&self) -> Result<Vec<String>> {
        sqlx::query_scalar("select name from crossfade.migration order by name collate \"C\"")
            .fetch_all(&self.pool)
            .await
            .map_err(control_error(&self.url, "listing migrations"))
    }
}

#[async_trait]
impl StandingStore for Connected<Postgres> {
    async fn standing(&self, id: MigrationId) -> Result<Standing> {
        let row = sqlx::query("select phase, ramp_ppm, epoch from crossfade.migration where id = $1")
            .bind(id.0)
            .fetch_optional(&self.pool)
            .await
            .map_err(control_error(&self.url, "reading a standing"))?
            .ok_or_else(|| no_migration(id))?;
        standing(&row)
    }

    async fn change_before(
        &self,
        migration: &Registered,
        to: Standing,
        account: &Account,
        patience: Duration,
        witness: &dyn Witness,
    ) -> Result<Changed> {
        let begun = Instant::now();
        loop {
            let left = patience.saturating_sub(begun.elapsed());
            match self.try_change(migration, to, account, left.min(TRY), witness).await {
                Ok(pause) => return Ok(Changed { waited: begun.elapsed(), pause }),
                Err(error) if !is_lock_timeout(&error) => return Err(error),
                Err(_) => {}
            }
            if begun.elapsed() >= patience {
                return Err(Error::FenceTimeout {
                    migration: migration.manifest.name().to_owned(),
                    waited: begun.elapsed(),
                });
            }
            tokio::time::sleep(BREATH.min(patience.saturating_sub(begun.elapsed()))).await;
        }
    }

    async fn history(&self, id: MigrationId) -> Result<Vec<AuditRecord>> {
        let failed = || control_error(&self.url, "reading the audit");
        let rows = sqlx::query(
            r#"select to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as at,
                      from_phase, from_ramp_ppm, from_epoch, to_phase, to_ramp_ppm, to_epoch,
                      actor, reason, forced, evidence::text as evidence, pause_us
               from crossfade.audit where migration = $1 order by id"#,
        )
        .bind(id.0)
        .fetch_all(&self.pool)
        .await
        .map_err(failed())?;
        rows.iter().map(|row| audit_record(row, &self.url)).collect()
    }
}

#[async_trait]
impl EvidenceLog for Connected<Postgres> {
    async fn record(&self, id: MigrationId, evidence: &Evidence) -> Result<()> {
        sqlx::query(
            "insert into crossfade.evidence (migration, kind, epoch, phase, faults, began_at, details)
             values ($1, $2, $3, $4, $5, clock_timestamp() - make_interval(secs => $6), $7::jsonb)",
        )
        .bind(id.0)
        .bind(evidence.kind.as_str())
        .bind(evidence.epoch.0)
        .bind(evidence.phase.as_str())
        .bind(i64::try_from(evidence.faults).unwrap_or(i64::MAX))
        .bind(evidence.age.as_secs_f64())
        .bind(json_text(&evidence.details))
        .execute(&self.pool)
        .await
        .map_err(control_error(&self.url, "recording evidence"))?;
        Ok(())
    }

    async fn evidence(&self, id: MigrationId) -> Result<Vec<Evidence>> {
        let failed = || control_error(&self.url, "reading evidence");
        let rows = sqlx::query(
            "select kind, epoch, phase, faults, details::text as details,
                    extract(epoch from clock_timestamp() - began_at)::float8 as age
             from (select distinct on (kind, epoch) * from crossfade.evidence
                   where migration = $1 order by kind, epoch, id desc) as latest
             order by id desc",
        )
        .bind(id.0)
        .fetch_all(&self.pool)
        .await
        .map_err(failed())?;
        rows.iter().map(|row| evidence(row, &self.url)).collect()
    }
}

impl Connected<Postgres> {
    /// One try at a change; gives how long writers can have been held up by it.
    async fn try_change(
        &self,
        migration: &Registered,
        to: Standing,
        account: &Account,
        lock_timeout: Duration,
        witness: &dyn Witness,
    ) -> Result<Duration> {
        let (id, name) = (migration.id, migration.manifest.name());
        let failed = || control_error(&self.url, &format!("changing where migration {name} stands"));
        // Read committed, whatever the role's default is: the row is read after the wait for the fence,
        // by a snapshot that must be newer than that wait.
        let mut transaction =
            self.pool.begin_with("begin isolation level read committed").await.map_err(failed())?;
        let asked = take_fence_alone(&mut transaction, id, lock_timeout).await.map_err(failed())?;
        let row =
            sqlx::query("select phase, ramp_ppm, epoch from crossfade.migration where id = $1 for update")
                .bind(id.0)
                .fetch_optional(&mut *transaction)
                .await
                .map_err(failed())?
                .ok_or_else(|| no_migration(id))?;
        let found = standing(&row)?;
        if found != migration.standing {
            return Err(Error::Conflict {
                migration: name.to_owned(),
                expected: migration.standing.epoch,
                found,
            });
        }
        // Transactions let go of the fence only once others see what they have committed.
        witness.see().await?;
        sqlx::query(
            "update crossfade.migration
             set phase = $2, ramp_ppm = $3, epoch = $4, changed_at = clock_timestamp() where id = $1",
        )
        .bind(id.0)
        .bind(to.phase.as_str())
        .bind(ppm(to))
        .bind(to.epoch.0)
        .execute(&mut *transaction)
        .await
        .map_err(failed())?;
        // The audit lacks the time of the commit itself, which is not known before it.
        audit(&mut transaction, id, Some(found), to, account, asked.elapsed()).await.map_err(failed())?;
        transaction.commit().await.map_err(failed())?;
        Ok(asked.elapsed())
    }
}

/// Takes the migration's fence alone until the transaction ends; gives when it was asked for.
async fn take_fence_alone(
    connection: &mut PgConnection,
    id: MigrationId,
    lock_timeout: Duration,
) -> sqlx::Result<Instant> {
    // 0 would mean no limit at all.
    let milliseconds = lock_timeout.as_millis().max(1);
    sqlx::query(
        "select set_config('lock_timeout', $1, true), set_config('idle_in_transaction_session_timeout', $2, true)",
    )
    .bind(format!("{milliseconds}ms"))
    .bind(SILENCE_MAX)
    .execute(&mut *connection)
    .await?;
    let asked = Instant::now();
    sqlx::query("select pg_advisory_xact_lock($1, $2)")
        .bind(FENCE_CLASS)
        .bind(id.0)
        .execute(&mut *connection)
        .await?;
    Ok(asked)
}

/// An error of a statement on crossfade's own tables: without them, it says how to make them.
pub(crate) fn control_error(url: &DatabaseUrl, doing: &str) -> impl FnOnce(sqlx::Error) -> Error + use<> {
    let (store, doing) = (url.to_string(), doing.to_owned());
    move |source| if lacks_object(&source) { no_tables(store) } else { Error::Database { doing, source } }
}

/// Whether a table, schema or function is not there.
pub(crate) fn lacks_object(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    matches!(code.as_deref(), Some("42P01" | "3F000" | "42883"))
}

/// Crossfade's own tables are not there.
pub(crate) fn no_tables(store: String) -> Error {
    Error::ControlStore {
        store,
        what: "has no tables of crossfade's".to_owned(),
        hint: "crossfade init MANIFEST creates them".to_owned(),
    }
}

/// The control store has no migration of this number.
pub(crate) fn no_migration(id: MigrationId) -> Error {
    Error::UnknownMigration { name: format!("number {}", id.0), known: Vec::new() }
}

/// JSON that a jsonb column takes: it has no NUL character, which is replaced.
pub(crate) fn json_text(value: &serde_json::Value) -> String {
    fn without_nul(value: &serde_json::Value) -> serde_json::Value {
        use serde_json::Value;
        match value {
            Value::String(text) => Value::String(text.replace('\0', "\u{fffd}")),
            Value::Array(list) => list.iter().map(without_nul).collect(),
            Value::Object(map) => map
                .iter()
                .map(|(name, value)| (name.replace('\0', "\u{fffd}"), without_nul(value)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }
    let text = value.to_string();
    if text.contains("\\u0000") { without_nul(value).to_string() } else { text }
}

fn is_lock_timeout(error: &Error) -> bool {
    matches!(error, Error::Database { source, .. } if is_retryable(source))
}

fn ppm(standing: Standing) -> i32 {
    i32::try_from(standing.ramp.ppm()).unwrap_or(i32::MAX)
}

fn seconds(seconds: f64) -> Duration {
    // Negative where the database's clock was set back.
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

async fn install_functions(connection: &mut PgConnection, id: MigrationId, plan: &Plan) -> sqlx::Result<()> {
    let functions = functions(id, plan);
    // A function is replaced only by one with the same parameters and result. A mapping with other key columns, or another
    // version of crossfade, had others of the same names.
    let outdated: Vec<String> = sqlx::query_scalar(
        "select p.oid::regprocedure::text
         from pg_catalog.pg_proc p
         join unnest($1::text[], $2::text[], $3::text[]) as f (name, parameters, result) on p.proname = f.name
         where p.pronamespace = to_regnamespace('crossfade')
           and (pg_get_function_identity_arguments(p.oid), pg_get_function_result(p.oid))
               is distinct from (f.parameters, f.result)",
    )
    .bind(functions.iter().map(|function| function.name.clone()).collect::<Vec<_>>())
    .bind(functions.iter().map(|function| function.parameters.clone()).collect::<Vec<_>>())
    .bind(functions.iter().map(|function| function.result).collect::<Vec<_>>())
    .fetch_all(&mut *connection)
    .await?;
    let drops = outdated.into_iter().map(|function| format!("drop function {function}"));
    for statement in drops.chain(functions.into_iter().map(|function| function.statement)) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut *connection).await?;
    }
    Ok(())
}

async fn audit(
    transaction: &mut Transaction<'static, Postgres>,
    id: MigrationId,
    from: Option<Standing>,
    to: Standing,
    account: &Account,
    pause: Duration,
) -> sqlx::Result<()> {
    sqlx::query(
        "insert into crossfade.audit (migration, from_phase, from_ramp_ppm, from_epoch,
             to_phase, to_ramp_ppm, to_epoch, actor, reason, forced, evidence, pause_us)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::jsonb, $12)",
    )
    .bind(id.0)
    .bind(from.map(|from| from.phase.as_str()))
    .bind(from.map(ppm))
    .bind(from.map(|from| from.epoch.0))
    .bind(to.phase.as_str())
    .bind(ppm(to))
    .bind(to.epoch.0)
    .bind(&account.actor)
    .bind(&account.reason)
    .bind(account.forced)
    .bind(json_text(&account.evidence))
    .bind(i64::try_from(pause.as_micros()).unwrap_or(i64::MAX))
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

fn audit_record(row: &PgRow, url: &DatabaseUrl) -> Result<AuditRecord> {
    let failed = || control_error(url, "reading the audit");
    let phase: Option<String> = row.try_get("from_phase").map_err(failed())?;
    let from = match phase {
        None => None,
        Some(phase) => Some(stand(
            &phase,
            row.try_get("from_ramp_ppm").map_err(failed())?,
            row.try_get("from_epoch").map_err(failed())?,
        )?),
    };
    let to_phase: String = row.try_get("to_phase").map_err(failed())?;
    let pause: i64 = row.try_get("pause_us").map_err(failed())?;
    Ok(AuditRecord {
        at: row.try_get("at").map_err(failed())?,
        from,
        to: stand(
            &to_phase,
            row.try_get("to_ramp_ppm").map_err(failed())?,
            row.try_get("to_epoch").map_err(failed())?,
        )?,
        account: Account {
            actor: row.try_get("actor").map_err(failed())?,
            reason: row.try_get("reason").map_err(failed())?,
            forced: row.try_get("forced").map_err(failed())?,
            evidence: json(row.try_get("evidence").map_err(failed())?)?,
        },
        pause_ms: Duration::from_micros(pause.unsigned_abs()),
    })
}

fn evidence(row: &PgRow, url: &DatabaseUrl) -> Result<Evidence> {
    let failed = || control_error(url, "reading evidence");
    let kind: String = row.try_get("kind").map_err(failed())?;
    let phase: String = row.try_get("phase").map_err(failed())?;
    let faults: i64 = row.try_get("faults").map_err(failed())?;
    Ok(Evidence {
        kind: EvidenceKind::parse(&kind)
            .ok_or_else(|| Error::Unreadable { what: format!("evidence of kind {kind:?}") })?,
        epoch: Epoch(row.try_get("epoch").map_err(failed())?),
        phase: parse_phase(&phase)?,
        faults: faults.unsigned_abs(),
        age: seconds(row.try_get("age").map_err(failed())?),
        details: json(row.try_get("details").map_err(failed())?)?,
    })
}

fn stand(phase: &str, ramp: i32, epoch: i64) -> Result<Standing> {
    let ramp = Ramp::from_ppm(u32::try_from(ramp).unwrap_or(0));
    Ok(Standing { phase: parse_phase(phase)?, ramp, epoch: Epoch(epoch) })
}

fn parse_phase(phase: &str) -> Result<Phase> {
    phase.parse().map_err(|_| Error::Unreadable { what: format!("the phase {phase:?}") })
}

/// JSON that a jsonb column gave as text.
pub(crate) fn json(text: String) -> Result<serde_json::Value> {
    serde_json::from_str(&text).map_err(|error| Error::Unreadable { what: format!("JSON ({error})") })
}
