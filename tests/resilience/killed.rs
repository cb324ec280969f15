//! `kill -9` at chosen moments: the same command goes on, and ends where an undisturbed run ends.

use std::fs;

use sqlx::{Connection, PgConnection};

use crate::world::{Database, NAME, World, on_both_engines};

on_both_engines!(
    a_killed_backfill_goes_on,
    a_killed_copy_goes_on,
    a_killed_cleanup_goes_on,
    a_killed_snapshot_is_none_and_is_taken_again,
    a_killed_advance_has_not_advanced,
);

/// Two chunks and a bit, so that two workers have something to share.
const CUSTOMERS: u32 = 21_000;

/// Where commands are held up and killed: before the first row is copied, within the second chunk, and when all but
/// the last rows are there.
const MOMENTS: [u32; 3] = [1, 12_001, 20_999];

async fn a_killed_backfill_goes_on(world: World) {
    world.fill(CUSTOMERS).await;
    world.init();
    world.succeed(["advance", NAME]);
    // Within its first export, and within its first scan or soon after.
    for line in ["export old:", "scan:"] {
        let backfill = world.crossfade(["backfill", NAME]).spawn();
        backfill.stderr_line(line);
        backfill.kill();
    }
    for customer in MOMENTS {
        killed_at(&world, customer, &["backfill", NAME, "--workers", "2"]).await;
    }
    // When everything is there, and nothing is recorded yet.
    let backfill = world.crossfade(["backfill", NAME]).spawn();
    backfill.stderr_line("scan:");
    backfill.kill();
    assert_eq!(world.json(["status", NAME])["gate"]["missing"][0]["name"], "verification");

    let backfilled = world.json(["backfill", NAME]);
    assert_eq!(backfilled["clean"], true, "{backfilled}");
    assert_eq!(world.contacts().await, world.projected().await);
    world.succeed(["advance", NAME]);
    let left = fs::read_dir(world.path("crossfade-work/contacts")).unwrap().count();
    assert_eq!(left, 2, "the round that is evidence and the lock; those of killed runs are gone");
}

async fn a_killed_copy_goes_on(world: World) {
    world.fill(CUSTOMERS).await;
    world.init();
    world.succeed(["advance", NAME]);
    world.succeed(["snapshot", NAME, "--out", "snapshot"]);
    world.run(["scan", NAME, "--snapshot", "snapshot", "--out", "findings"], 4);
    for customer in MOMENTS {
        killed_at(&world, customer, &["copy", NAME, "--findings", "findings", "--workers", "2"]).await;
    }
    let copied = world.json(["copy", NAME, "--findings", "findings", "--workers", "2"]);
    assert_eq!(copied["keys"], keys_with_contacts(), "{copied}");
    assert_eq!(world.contacts().await, world.projected().await);
    let jobs = world.json(["jobs", NAME]);
    assert_eq!(jobs.as_array().unwrap().len(), 1, "all of them were one job: {jobs}");
    assert_eq!(jobs[0]["state"], "done");
    assert_eq!(world.json(["verify", NAME])["missing"], 0);
}

/// Every 15th customer has neither contact.
fn keys_with_contacts() -> u64 {
    u64::from(CUSTOMERS - CUSTOMERS / 15)
}

async fn a_killed_cleanup_goes_on(world: World) {
    world.fill(CUSTOMERS).await;
    world.advance_to("new_only");
    let contacts = world.contacts().await;
    for customer in MOMENTS {
        killed_at(&world, customer, &["cleanup", NAME, "--workers", "2"]).await;
    }
    let cleaned = world.json(["cleanup", NAME]);
    assert_eq!((&cleaned["clean"], &cleaned["kept"]), (&true.into(), &0.into()), "{cleaned}");
    assert_eq!(world.projected().await, "");
    assert_eq!(world.contacts().await, contacts);
    world.succeed(["advance", NAME]);
}

/// Runs a command that is killed while it stands before a customer.
async fn killed_at(world: &World, customer: u32, arguments: &[&str]) {
    let held = world.database.hold(customer).await;
    let running = world.crossfade(arguments).spawn();
    world.database.wait_until_held_up().await;
    let killed = running.kill();
    assert_eq!(killed.code(), None, "it was killed, and had not ended: {killed}");
    world.database.release(held).await;
}

async fn a_killed_snapshot_is_none_and_is_taken_again(world: World) {
    world.fill(CUSTOMERS).await;
    world.init();
    world.succeed(["advance", NAME]);
    let snapshot = ["snapshot", NAME, "--out", "snapshot"];
    let running = world.crossfade(snapshot).spawn();
    running.stderr_line("export old: 0");
    running.kill();
    let scan = ["scan", NAME, "--snapshot", "snapshot", "--out", "findings"];
    world.fail(scan, 1, "no snapshot in", "crossfade snapshot");
    world.succeed(snapshot);
    world.run(scan, 4);
}

async fn a_killed_advance_has_not_advanced(world: World) {
    world.fill(20).await;
    world.advance_to("shadow_read");
    let before = world.standing();
    let write = Write::begin(&world).await;
    let advance = world.crossfade(["advance", NAME, "--patience", "100"]).spawn();
    write.wait_until_waited_for(&world, advance.id()).await;
    let killed = advance.kill();
    assert_eq!(killed.code(), None, "it was killed, and had not ended: {killed}");
    assert_eq!(world.standing(), before);
    write.end().await;
    assert_eq!(world.standing(), before, "nothing was left that could still go through");
    assert_eq!(world.json(["advance", NAME])["to"]["phase"], "read_new");
}

/// A write transaction of the application, which a change of phase waits for.
enum Write {
    Postgres(PgConnection),
    Sqlite(sqlx::SqliteConnection),
}

impl Write {
    async fn begin(world: &World) -> Write {
        let url = world.database.url();
        match world.database {
            Database::Postgres(_) => {
                let mut connection = PgConnection::connect(url).await.unwrap();
                sqlx::raw_sql("begin; select crossfade.fence((select id from crossfade.migration), null)")
                    .execute(&mut connection)
                    .await
                    .unwrap();
                Write::Postgres(connection)
            }
            Database::Sqlite(_) => {
                let mut connection = sqlx::SqliteConnection::connect(url).await.unwrap();
                sqlx::raw_sql("begin immediate").execute(&mut connection).await.unwrap();
                Write::Sqlite(connection)
            }
        }
    }

    async fn wait_until_waited_for(&self, world: &World, process: u32) {
        match self {
            Write::Postgres(_) => world.database.wait_until_held_up().await,
            // Nobody shows who waits for SQLite's lock. The process has the database open by now, and whatever it is
            // about, it cannot write.
            Write::Sqlite(_) => loop {
                let open = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
                let mut files = open.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
                if files.any(|file| file.ends_with("test.db")) {
                    return;
                }
                tokio::task::yield_now().await;
            },
        }
    }

    async fn end(self) {
        match self {
            Write::Postgres(connection) => connection.close().await.unwrap(),
            Write::Sqlite(connection) => connection.close().await.unwrap(),
        }
    }
}
