//! A file that cannot grow any more: half a snapshot is none, and the same command succeeds when there is room.
//!
//! A full volume would need rights to mount one. A limit on the size of files is there for everybody, and fails the same
//! call at the same place.

use crossfade_test_harness::{Finished, Program};

use crate::world::{NAME, World, assert_one_error};

/// Enough rows that each side's file is larger than the limit.
const CUSTOMERS: u32 = 20_000;

/// Runs a command that may write files of so many blocks of the shell's, which have 512 bytes or 1024.
fn limited(world: &World, blocks: u32, arguments: &[&str]) -> Finished {
    // Ignored, the signal becomes an error of the call that writes.
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    Program::at("/bin/sh")
        .args(["-c", &script, env!("CARGO_BIN_EXE_crossfade")])
        .args(arguments)
        .env("DATABASE_URL", world.database.url())
        .current_dir(world.folder())
        .run()
}

#[tokio::test]
async fn half_a_snapshot_is_none() {
    let world = World::postgres().await;
    world.fill(CUSTOMERS).await;
    world.init();
    world.succeed(["advance", NAME]);
    let before = world.standing();

    let snapshot = ["snapshot", NAME, "--out", "snapshot"];
    let full = limited(&world, 16, &snapshot);
    assert_eq!(full.code(), Some(1), "{full}");
    assert_one_error(&full, "no space is left for", "free some space or choose another folder");
    let scan = ["scan", NAME, "--snapshot", "snapshot", "--out", "findings"];
    world.fail(scan, 1, "no snapshot in", "crossfade snapshot");
    world.succeed(snapshot);

    let full = limited(&world, 16, &scan);
    assert_eq!(full.code(), Some(1), "{full}");
    assert_one_error(&full, "no space is left for", "free some space or choose another folder");
    world.fail(["copy", NAME, "--findings", "findings"], 1, "no findings in", "crossfade scan");
    world.run(scan, 4);
    assert_eq!(world.standing(), before);
}

#[tokio::test]
async fn a_backfill_without_room_changes_nothing_and_goes_on_when_there_is() {
    let world = World::postgres().await;
    world.fill(CUSTOMERS).await;
    world.init();
    world.succeed(["advance", NAME]);
    for command in ["backfill", "verify"] {
        let full = limited(&world, 16, &[command, NAME]);
        assert_eq!(full.code(), Some(1), "{full}");
        assert_one_error(&full, "no space is left for", "free some space or choose another folder");
    }
    assert_eq!(world.contacts().await, "");
    assert_eq!(
        world.json(["status", NAME])["evidence"].as_array().unwrap().len(),
        1,
        "the manifest's check alone"
    );
    assert_eq!(world.json(["backfill", NAME])["clean"], true);
    assert_eq!(world.contacts().await, world.projected().await);
}

/// The database file itself cannot grow.
#[tokio::test]
async fn a_full_sqlite_file_takes_nothing_half() {
    let world = World::sqlite().await;
    world.fill(2_000).await;
    world.init();
    world.succeed(["advance", NAME]);
    world.succeed(["snapshot", NAME, "--out", "snapshot"]);
    world.run(["scan", NAME, "--snapshot", "snapshot", "--out", "findings"], 4);
    // Into the database, so that the log beside it is empty and has to grow.
    world.database.execute("pragma wal_checkpoint(truncate)").await;
    let full = limited(&world, 100, &["copy", NAME, "--findings", "findings"]);
    assert_eq!(full.code(), Some(1), "{full}");
    assert_eq!(full.stderr.matches("\nhint: ").count(), 1, "{full}");
    let projected = world.projected().await;
    let whole = world.contacts().await.lines().all(|line| projected.contains(line));
    assert!(whole, "what is there is whole");
    world.succeed(["copy", NAME, "--findings", "findings"]);
    assert_eq!(world.contacts().await, projected);
    assert_eq!(world.json(["backfill", NAME])["clean"], true);
}

/// Rows in no order that do not fit into memory, and not onto the disk either.
#[tokio::test]
async fn a_scan_that_cannot_put_rows_aside_leaves_no_result() {
    let world = World::sqlite().await;
    world.fill(CUSTOMERS).await;
    world.init();
    world.succeed(["advance", NAME]);
    world.succeed(["snapshot", NAME, "--out", "snapshot"]);
    let sides = ["--old", "snapshot/old", "--new", "snapshot/new", "--key", "customer_id,kind"];
    let how = ["--order", "none", "--memory", "1KiB", "--out", "findings"];
    let scan: Vec<&str> = ["scan"].into_iter().chain(sides).chain(how).collect();
    let full = limited(&world, 16, &scan);
    assert_eq!(full.code(), Some(1), "{full}");
    assert_one_error(&full, "no space is left for", "free some space or choose another folder");
    world.fail(["copy", NAME, "--findings", "findings"], 1, "no findings in", "crossfade scan");
    assert!(!world.path("findings/partitions.tmp").exists(), "what was put aside is removed");
    world.run(scan, 4);
}
