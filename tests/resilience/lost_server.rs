//! A Postgres server that is killed in the middle of each command: one error with a hint, and the same command succeeds
//! when the server is back.

use crossfade_test_harness::{Postgres, Running};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::world::{Database, NAME, World, assert_one_error};

/// A command, the phase that it is run in, and the lock that holds it up in the middle.
struct Step {
    arguments: &'static [&'static str],
    phase: &'static str,
    lock: &'static str,
    /// How the command ends when it is run again.
    code: i32,
}

const ROW: &str = "select 1 from customers where id = 500 for update";
const NEW_TABLE: &str = "lock table contacts in access exclusive mode";
const CONTROL: &str = "lock table crossfade.migration in access exclusive mode";
const FENCE: &str = "select crossfade.fence((select id from crossfade.migration), null)";

const STEPS: &[Step] = &[
    Step { arguments: &["status", NAME], phase: "dual_write", lock: CONTROL, code: 0 },
    Step { arguments: &["advance", NAME, "--patience", "100"], phase: "shadow_read", lock: FENCE, code: 0 },
    Step { arguments: &["rollback", NAME, "--patience", "100"], phase: "shadow_read", lock: FENCE, code: 0 },
    Step {
        arguments: &["snapshot", NAME, "--out", "snapshot"],
        phase: "dual_write",
        lock: NEW_TABLE,
        code: 0,
    },
    Step { arguments: &["copy", NAME, "--findings", "findings"], phase: "dual_write", lock: ROW, code: 0 },
    Step { arguments: &["backfill", NAME], phase: "dual_write", lock: ROW, code: 0 },
    Step { arguments: &["verify", NAME], phase: "dual_write", lock: ROW, code: 4 },
    Step { arguments: &["cleanup", NAME], phase: "new_only", lock: ROW, code: 0 },
];

struct Lost {
    step: &'static Step,
    world: World,
    running: Running,
    _lock: PgConnection,
    standing: serde_json::Value,
}

#[tokio::test]
async fn each_command_goes_on_when_the_server_is_back() {
    let mut server = Postgres::start();
    let mut lost = Vec::new();
    for step in STEPS {
        lost.push(begin(&server, step).await);
    }
    server.kill();
    let mut again = Vec::new();
    for Lost { step, world, running, standing, .. } in lost {
        let finished = running.wait();
        assert_eq!(finished.code(), Some(1), "{:?}: {finished}", step.arguments);
        assert_one_error(&finished, "", "again");
        again.push((step, world, standing));
    }
    server.restart();
    for (step, world, standing) in again {
        assert_eq!(world.standing(), standing, "{:?}", step.arguments);
        world.run(step.arguments, step.code);
        match step.arguments[0] {
            "advance" => assert_eq!(world.json(["status", NAME])["phase"], "read_new"),
            "rollback" => assert_eq!(world.json(["status", NAME])["phase"], "dual_write"),
            "copy" | "backfill" => assert_eq!(world.contacts().await, world.projected().await),
            "snapshot" => {
                world.run(["scan", NAME, "--snapshot", "snapshot", "--out", "scanned"], 4);
            }
            "cleanup" => assert_eq!(world.projected().await, ""),
            _ => {}
        }
    }
}

/// Starts a command and returns when it stands before its lock.
async fn begin(server: &Postgres, step: &'static Step) -> Lost {
    let world = World::of(Database::Postgres(server.database().await)).await;
    world.fill(600).await;
    world.advance_to(step.phase);
    if step.arguments[0] == "copy" {
        world.succeed(["snapshot", NAME, "--out", "before"]);
        world.run(["scan", NAME, "--snapshot", "before", "--out", "findings"], 4);
    }
    let standing = world.standing();
    let mut lock = PgConnection::connect(world.database.url()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(format!("begin; {}", step.lock))).execute(&mut lock).await.unwrap();
    let running = world.crossfade(step.arguments).spawn();
    world.database.wait_until_held_up().await;
    Lost { step, world, running, _lock: lock, standing }
}
