//! Exports that take over what has not changed since an earlier snapshot: whatever was written in between, and however, the
//! snapshot is the one that a full export takes.

use std::fs;

use arrow::array::RecordBatch;
use crossfade_backfill::export::{ExportOptions, Exported, Reuse, export_with};
use crossfade_backfill::progress::Silent;
use crossfade_backfill::snapshot::{MANIFEST_FILE, Side, SnapshotPair};
use crossfade_backfill::{Cancel, Error, Result};
use crossfade_test_harness::Postgres as Server;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Postgres, Sqlite};

use crate::world::{TestEngine, World, open};

const CUSTOMERS: u32 = 20_000;

/// Of these a few hundred customers each.
pub(crate) const RANGES: usize = 8;

/// All rows of the new store made as the projection gives them.
const FILLED: &str = "insert into subscriptions
    select id, 'a', plan_a from customers where plan_a is not null
    union all select id, 'b', plan_b from customers where plan_b is not null";

/// Exports into the folder of this name, in eight ranges a side or in those of an earlier one.
async fn take<E: TestEngine>(world: &World<E>, name: &str, since: Option<&str>) -> Result<Exported> {
    let mut options = ExportOptions::default();
    options.ranges = RANGES.try_into().ok();
    options.since = since.map(|since| world.path(since));
    export_with(&world.migration, &world.path(name), &options, &Silent, &Cancel::new()).await
}

pub(crate) fn rows(pair: &SnapshotPair, side: Side) -> RecordBatch {
    let snapshot = pair.side(side);
    snapshot.verify_checksums().unwrap();
    let batches: Vec<RecordBatch> = snapshot.batches().collect::<Result<_>>().unwrap();
    arrow::compute::concat_batches(&snapshot.stored_schema(), &batches).unwrap()
}

/// Exports since an earlier snapshot and in full, and compares; gives how many ranges of each side were taken over.
async fn since<E: TestEngine>(world: &World<E>, name: &str, earlier: &str) -> (Reuse, Reuse) {
    let taken = take(world, name, Some(earlier)).await.unwrap();
    let full = take(world, &format!("{name}-full"), None).await.unwrap();
    for side in [Side::Old, Side::New] {
        assert_eq!(rows(&taken.pair, side), rows(&full.pair, side), "{name}, {side}");
        let (taken, full) = (taken.pair.side(side).manifest(), full.pair.side(side).manifest());
        assert_eq!(
            (taken.rows, taken.duplicate_keys, taken.epoch),
            (full.rows, full.duplicate_keys, full.epoch)
        );
    }
    assert!(taken.pair.is_simultaneous());
    (taken.reuse_old, taken.reuse_new)
}

fn counts((old, new): &(Reuse, Reuse)) -> (usize, usize) {
    assert_eq!((&old.full_because, &new.full_because), (&None, &None));
    assert_eq!((old.ranges, new.ranges), (RANGES, RANGES));
    (old.taken_over, new.taken_over)
}

/// A server to itself: what runs elsewhere on a server may have begun before anything that is written here.
pub(crate) async fn world() -> (Server, World<Postgres>) {
    let server = Server::start();
    let world = world_on(&server).await;
    (server, world)
}

async fn world_on(server: &Server) -> World<Postgres> {
    let world = World::<Postgres>::on(server.database().await, CUSTOMERS).await;
    world
        .run("alter table customers add column changed_at timestamptz not null default clock_timestamp()")
        .await;
    world.run(FILLED).await;
    world.run("vacuum analyze").await;
    take(&world, "0", None).await.unwrap();
    world
}

async fn session(world: &World<Postgres>) -> PgConnection {
    PgConnection::connect(&world.url).await.unwrap()
}

async fn run(session: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(session).await.unwrap();
}

/// Each change is in the next snapshot, and costs the ranges that it touched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_is_seen_and_nothing_else_is_read_again() {
    let (_server, world) = world().await;
    let steps: &[(&str, (usize, usize))] = &[
        ("select 1", (RANGES, RANGES)),
        ("insert into customers values (30000, 'new', 'new')", (RANGES - 1, RANGES)),
        ("update customers set plan_a = 'other' where id = 7", (RANGES - 1, RANGES)),
        ("delete from customers where id = 10000", (RANGES - 1, RANGES)),
        ("delete from subscriptions where customer_id = 2", (RANGES, RANGES - 1)),
        // Beside each other, so that the count stays.
        (
            "delete from subscriptions where customer_id = 7; insert into subscriptions values (3, 'c', 'x')",
            (RANGES, RANGES - 1),
        ),
        ("update customers set id = 40000 where id = 5", (RANGES - 2, RANGES)),
        // The same key and the same values again.
        (
            "delete from customers where id = 11; insert into customers values (11, 'basic', null)",
            (RANGES - 1, RANGES),
        ),
        ("update customers set plan_a = plan_a where id = 11", (RANGES - 1, RANGES)),
        // What the projection leaves out may come and go; a version of it that was read is gone with its rows alone.
        (
            "begin; update customers set plan_a = 'lost'; delete from subscriptions; rollback",
            (RANGES, RANGES),
        ),
        ("vacuum (freeze) customers; vacuum (freeze) subscriptions", (RANGES, RANGES)),
        ("update subscriptions set plan = plan || '!'", (RANGES, 0)),
    ];
    for (number, (change, expected)) in steps.iter().enumerate() {
        for statement in
            if change.starts_with("vacuum") { change.split("; ").collect() } else { vec![*change] }
        {
            world.run(statement).await;
        }
        let found = since(&world, &format!("{}", number + 1), &format!("{number}")).await;
        assert_eq!(counts(&found), *expected, "{change}");
    }
}

/// The files of what has not changed are those of the earlier snapshot, on the disk once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_taken_over_as_they_are_and_only_if_they_are_whole() {
    use std::os::unix::fs::MetadataExt;
    let (_server, world) = world().await;
    world.run("update customers set plan_a = 'other' where id = 7").await;
    since(&world, "1", "0").await;
    let read = |name: &str| SnapshotPair::open(world.path(name)).unwrap();
    let (earlier, later) = (read("0"), read("1"));
    let mut same = 0;
    for (one, other) in earlier.old().manifest().files.iter().zip(&later.old().manifest().files) {
        let inode =
            |pair: &SnapshotPair, name: &str| fs::metadata(pair.old().folder().join(name)).unwrap().ino();
        assert_eq!(one == other, inode(&earlier, &one.name) == inode(&later, &other.name));
        same += usize::from(one == other);
    }
    assert_eq!(same, RANGES - 1);
    assert_ne!(earlier.old().manifest().consistent_point, later.old().manifest().consistent_point);

    // One byte in the middle of a file, where its footer tells nothing of it.
    let damaged = later.new_side().folder().join(&later.new_side().manifest().files[3].name);
    let mut bytes = fs::read(&damaged).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    let error = take(&world, "2", Some("1")).await.unwrap_err();
    assert!(matches!(&error, Error::FileCorrupt { path, .. } if *path == damaged), "{error:?}");
    assert!(!Side::New.folder(&world.path("2")).join(MANIFEST_FILE).exists());
}

/// A transaction that began and wrote before the earlier snapshot, and committed after it: its row is older than others that the
/// snapshot has, so that neither the number of rows nor the latest change says anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_committer_is_seen() {
    let (_server, world) = world().await;
    let mut late = session(&world).await;
    run(
        &mut late,
        "begin; update customers set plan_a = 'late', changed_at = clock_timestamp() where id = 7",
    )
    .await;
    world.run("update customers set plan_a = 'prompt', changed_at = clock_timestamp() where id = 8").await;
    take(&world, "1", None).await.unwrap();
    let naive = "select count(*) || ' ' || max(changed_at) from customers";
    let watermark = world.lines(naive).await;
    run(&mut late, "commit").await;
    assert_eq!(world.lines(naive).await, watermark);
    let found = since(&world, "2", "1").await;
    assert_eq!(counts(&found).0, RANGES - 1);
}

/// A savepoint has an identifier of its own, which a snapshot of Postgres does not list among those that are running.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_committers_savepoint_is_seen() {
    let (_server, world) = world().await;
    let mut late = session(&world).await;
    run(
        &mut late,
        "begin; create temporary table t (); savepoint s; update customers set plan_a = 'late' where id = 7; release s",
    )
    .await;
    world.run("update customers set plan_a = 'prompt' where id = 8").await;
    let earlier = take(&world, "1", None).await.unwrap();
    run(&mut late, "commit").await;
    // Which is why this cannot be asked of a snapshot.
    let point = &earlier.pair.old().manifest().consistent_point;
    let snapshot = point.strip_prefix("snapshot ").unwrap();
    let seen = format!(
        "select pg_visible_in_snapshot(xmin::text::xid8, '{snapshot}')::text from customers where id = 7"
    );
    assert_eq!(world.lines(seen).await, ["true"]);
    let found = since(&world, "2", "1").await;
    assert_eq!(counts(&found).0, RANGES - 1);
}

/// A transaction that was prepared before the earlier snapshot, and committed after it, belongs to no session meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prepared_transaction_is_seen() {
    let mut server = Server::start();
    let settings = server.database().await;
    sqlx::raw_sql("alter system set max_prepared_transactions = 2").execute(settings.pool()).await.unwrap();
    server.restart();
    let world = world_on(&server).await;
    let mut late = session(&world).await;
    for (name, id) in [("kept", 7), ("lost", 19_000)] {
        run(&mut late, &format!("begin; update customers set plan_a = '{name}' where id = {id}")).await;
        run(&mut late, &format!("delete from subscriptions where customer_id = {id}")).await;
        run(&mut late, &format!("prepare transaction '{name}'")).await;
    }
    late.close().await.unwrap();
    world.run("update customers set plan_a = 'prompt' where id = 8").await;
    let earlier = take(&world, "1", None).await.unwrap();
    let of_7 = "select plan_a from customers where id = 7";
    assert_eq!(world.lines(of_7).await, ["basic"]);
    world.run("commit prepared 'kept'").await;
    world.run("rollback prepared 'lost'").await;
    assert_eq!(world.lines(of_7).await, ["kept"]);
    // Row for row what a full export takes, which cannot have missed it.
    let found = since(&world, "2", "1").await;
    assert_eq!(counts(&found), (RANGES - 1, RANGES - 1));
    let later = SnapshotPair::open(world.path("2")).unwrap();
    assert_eq!(later.old().rows(), earlier.pair.old().rows());
    assert_ne!(rows(&later, Side::Old), rows(&earlier.pair, Side::Old));
    assert_eq!(later.new_side().rows() + 1, earlier.pair.new_side().rows());
}

/// Rows of other columns cannot stand beside those of before: the refusal names the column, and an export in full has them all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_other_columns_is_refused_and_named() {
    let (_server, mut world) = world().await;
    let earlier = SnapshotPair::open(world.path("0")).unwrap();
    world
        .run(
            "alter table subscriptions drop constraint subscriptions_plan_check;
             alter table subscriptions alter column plan type bytea using plan::bytea",
        )
        .await;
    world.migration = open(&world.url).await;
    let error = take(&world, "1", Some("0")).await.unwrap_err();
    let Error::OtherColumns { path, detail } = &error else { panic!("{error:?}") };
    assert_eq!(*path, Side::Old.folder(&world.path("0")));
    assert_eq!(detail, "plan Utf8 where plan Binary is expected");
    assert!(error.hint().is_some());
    assert!(!world.path("1").exists(), "nothing is left of what was refused");

    let full = take(&world, "1", None).await.unwrap();
    for side in [Side::Old, Side::New] {
        assert_eq!(full.pair.side(side).rows(), earlier.side(side).rows(), "{side}");
    }
    // What is taken over from that one: of the old side nothing, whose rows now depend on how text is cast.
    world.run("update subscriptions set plan = 'other' where customer_id = 7").await;
    let (old, new) = since(&world, "2", "1").await;
    assert!(old.full_because.unwrap().contains("column plan is made by a cast"));
    assert_eq!((new.full_because, new.taken_over), (None, RANGES - 1));
}

/// What was written while another transaction ran may be taken for changed; never is anything taken for unchanged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_transaction_only_costs_time() {
    let (_server, world) = world().await;
    let mut long = session(&world).await;
    run(&mut long, "begin; create temporary table t ()").await;
    world.run("update customers set plan_a = 'other' where id = 7").await;
    take(&world, "1", None).await.unwrap();
    assert_eq!(counts(&since(&world, "2", "1").await), (RANGES - 1, RANGES));
    run(&mut long, "rollback").await;
    take(&world, "3", None).await.unwrap();
    assert_eq!(counts(&since(&world, "4", "3").await), (RANGES, RANGES));
}

/// After these nothing can be proven, and everything is read again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_proves_nothing_is_exported_in_full() {
    let (mut server, world) = world().await;
    let steps = [
        ("vacuum full subscriptions", "rewritten"),
        ("alter table subscriptions alter column plan type varchar", "altered"),
        ("truncate subscriptions", "truncated"),
        (
            "alter table subscriptions rename to s; create table subscriptions (like s including all)",
            "made anew",
        ),
        ("create table part () inherits (subscriptions)", "parts of its own"),
        ("alter table part no inherit subscriptions", "does not say"),
    ];
    let mut last = "0".to_owned();
    for (number, (change, reason)) in steps.iter().enumerate() {
        world.run(*change).await;
        let name = format!("{}", number + 1);
        let (old, new) = since(&world, &name, &last).await;
        assert_eq!((old.full_because, old.taken_over), (None, RANGES), "{change}");
        let why = new.full_because.unwrap_or_default();
        assert!(why.contains(reason), "{change}: {why}");
        last = name;
    }
    let taken = take(&world, "before", Some(&last)).await.unwrap();
    assert_eq!(taken.reuse_old.full_because, None);
    server.restart();
    let (old, new) = since(&world, "after", "before").await;
    for reuse in [old, new] {
        assert!(reuse.full_because.unwrap().contains("restarted"));
    }
}

/// A server that comes up again after a crash may give the identifiers of what it lost to others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_within_the_server_is_noticed() {
    let (_server, world) = world().await;
    assert_eq!(counts(&since(&world, "1", "0").await), (RANGES, RANGES));
    let mut victim = session(&world).await;
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut victim).await.unwrap();
    let killed = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    assert!(killed.success());
    // Refused until the server has recovered, and again by connections of before.
    let mut failures = 0;
    let found = loop {
        failures += 1;
        let name = format!("again-{failures}");
        match take(&world, &name, Some("1")).await {
            Ok(exported) => break exported,
            Err(error) => assert!(failures < 10_000, "{error}"),
        }
        tokio::task::yield_now().await;
    };
    assert!(found.reuse_old.full_because.unwrap().contains("restarted"));
}

/// A snapshot of something else is refused, and the refusal says what to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_something_else_is_refused() {
    let (_server, world) = world().await;
    let spoilt = |name: &str, from: &str, to: &str| {
        let folder = world.path(name);
        for side in ["old", "new"] {
            fs::create_dir_all(folder.join(side)).unwrap();
            for entry in fs::read_dir(world.path("0").join(side)).unwrap() {
                let path = entry.unwrap().path();
                fs::copy(&path, folder.join(side).join(path.file_name().unwrap())).unwrap();
            }
            let manifest = folder.join(side).join(MANIFEST_FILE);
            let text = fs::read_to_string(&manifest).unwrap();
            assert!(text.contains(from), "{text}");
            fs::write(manifest, text.replacen(from, to, 1)).unwrap();
        }
    };
    let fingerprint = world.migration.subject.plan.fingerprint().to_owned();
    let store = world.migration.store_name.clone();
    spoilt("migration", "\"migration\": \"moving\"", "\"migration\": \"staying\"");
    spoilt("manifest", &fingerprint, "another");
    spoilt("store", &store, "postgres:///elsewhere");
    for name in ["migration", "manifest", "store"] {
        let error = take(&world, "out", Some(name)).await.unwrap_err();
        let is_right = match name {
            "migration" => matches!(error, Error::OtherMigration { .. }),
            "manifest" => matches!(error, Error::OtherManifest { .. }),
            _ => matches!(error, Error::OtherStore { .. }),
        };
        assert!(is_right && error.hint().is_some(), "{error:?}");
    }
    assert!(matches!(take(&world, "out", Some("nowhere")).await.unwrap_err(), Error::SnapshotAbsent { .. }));
    // One that an earlier version took, which recorded neither ranges nor a horizon.
    for side in ["old", "new"] {
        let manifest = world.path("0").join(side).join(MANIFEST_FILE);
        let mut document: serde_json::Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
        document.as_object_mut().unwrap().retain(|field, _| field != "ranges" && field != "horizon");
        fs::write(manifest, document.to_string()).unwrap();
    }
    let (old, _) = since(&world, "out", "0").await;
    assert!(old.full_because.unwrap().contains("does not say"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_exports_in_full_and_says_so() {
    let world = World::<Sqlite>::new(100).await;
    world.run(FILLED).await;
    take(&world, "0", None).await.unwrap();
    world.run("update customers set plan_a = 'other' where id = 7").await;
    for reuse in <[Reuse; 2]>::from(since(&world, "1", "0").await) {
        assert!(reuse.full_because.unwrap().contains("Postgres"));
    }
}
