//! Interleavings on Postgres, each with its order enforced: a step is taken when the locks show that the one
//! before it has got as far as it can. Where it takes little, the same steps are taken without crossfade's
//! precaution first, to show that the danger is real.

mod fence;
mod jobs;
mod keys;

use std::time::Duration;

use crossfade_migration_core::Result;
use crossfade_migration_core::control::{Changed, StandingStore};
use crossfade_migration_core::fence::Fence;
use crossfade_migration_core::mirror::{Direction, Mirror};
use crossfade_migration_core::phase::{Epoch, Phase, Ramp, Standing};
use sqlx::{AssertSqlSafe, PgConnection, Postgres, Transaction};
use tokio::task::JoinHandle;

use crate::conformance::engine::TestEngine;
use crate::conformance::world::{Model, PATIENCE, World, account};

type Session = Transaction<'static, Postgres>;

const ISOLATIONS: [&str; 3] = ["read committed", "repeatable read", "serializable"];

/// A transaction that the application begins.
async fn begin(world: &World<Postgres>, isolation: &str) -> Session {
    let begin = AssertSqlSafe(format!("begin isolation level {isolation}"));
    world.connected.pool.begin_with(begin).await.unwrap()
}

async fn run(session: &mut PgConnection, sql: &str) {
    Postgres::run(session, sql.to_owned()).await.unwrap();
}

/// Returns when so many sessions of the test's database wait for a lock.
async fn until_waiting(world: &World<Postgres>, count: i64) {
    let look = async {
        loop {
            let waiting: i64 = sqlx::query_scalar(
                "select count(*) from pg_stat_activity
                 where datname = current_database() and wait_event_type = 'Lock'",
            )
            .fetch_one(&world.connected.pool)
            .await
            .unwrap();
            if waiting == count {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(|_| panic!("{count} sessions never waited"));
}

/// A change of phase, under way.
async fn changing(world: &World<Postgres>, phase: Phase) -> JoinHandle<Result<Changed>> {
    let registered = world.registered().await;
    let to = Standing { phase, ramp: Ramp::FULL, epoch: registered.standing.epoch.next() };
    let store = world.connected.clone();
    tokio::spawn(async move { store.change(&registered, to, &account("racing"), PATIENCE).await })
}

/// Fences a session at the present epoch.
async fn fence(world: &World<Postgres>, session: &mut PgConnection) -> Epoch {
    Postgres::fence(session, world.subject.id, "moving", None).await.unwrap().epoch
}

/// Mirrors keys at an epoch.
async fn mirror(
    world: &World<Postgres>,
    session: &mut PgConnection,
    direction: Direction,
    keys: &[i32],
    epoch: Epoch,
) -> Result<()> {
    Postgres::mirror(session, &world.subject, direction, &world.coerce(keys), epoch).await.map(drop)
}

/// Mirrors keys in a task, and commits.
fn mirroring(
    world: &World<Postgres>,
    mut session: Session,
    direction: Direction,
    keys: &[i32],
    epoch: Epoch,
) -> JoinHandle<Result<()>> {
    let (subject, keys) = (world.subject.clone(), world.coerce(keys));
    tokio::spawn(async move {
        Postgres::mirror(&mut session, &subject, direction, &keys, epoch).await?;
        session.commit().await.map_err(crossfade_migration_core::Error::database("committing"))
    })
}

/// Runs statements in a task, and commits.
fn running(mut session: Session, sql: &'static str) -> JoinHandle<()> {
    tokio::spawn(async move {
        run(&mut session, sql).await;
        session.commit().await.unwrap();
    })
}

/// Longer than a try of a change of phase, shorter than a test's patience.
const A_MOMENT: Duration = Duration::from_millis(600);

/// Customers whose subscriptions are rows of a table of their own, which move to another.
fn children() -> Model {
    Model {
        tables: "create table customers (id integer primary key);
                 create table old_plans (
                     customer_id integer not null references customers on delete cascade,
                     slot text not null, plan text not null, primary key (customer_id, slot));
                 create table plans (
                     customer_id integer not null, slot text not null, plan text not null,
                     primary key (customer_id, slot));"
            .to_owned(),
        old: "table = \"customers\"\nkey = [\"id\"]".to_owned(),
        new: "table = \"plans\"\nscope = [\"customer_id\"]\nkey = [\"customer_id\", \"slot\"]".to_owned(),
        mapping:
            "projection = \"select customer_id, slot, plan from old_plans where customer_id in (:keys)\""
                .to_owned(),
    }
}

/// Rows that are created in the new store alone, and reach the archive by one statement.
fn created_in_new() -> Model {
    Model {
        tables: "create table source (id integer primary key, a text, b text);
                 create table target (
                     id integer not null, slot text not null, v text not null, primary key (id, slot));"
            .to_owned(),
        old: "table = \"source\"\nkey = [\"id\"]".to_owned(),
        new: "table = \"target\"\nscope = [\"id\"]\nkey = [\"id\", \"slot\"]".to_owned(),
        mapping: format!(
            "projection = \"\"\"
             select id, 'a' as slot, a as v from source where id in (:keys) and a is not null
             union all select id, 'b', b from source where id in (:keys) and b is not null\"\"\"
             reverse = \"\"\"{}\"\"\"",
            CREATE_IN_OLD.replace("KEYS", ":keys")
        ),
    }
}

/// The reverse of [`created_in_new`], with KEYS for the keys.
const CREATE_IN_OLD: &str = "insert into source (id, a, b)
     select id, max(v) filter (where slot = 'a'), max(v) filter (where slot = 'b')
     from target where id in (KEYS) group by id
     on conflict (id) do update set a = excluded.a, b = excluded.b";
