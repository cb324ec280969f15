//! Snapshots and findings that do not belong here, or are not whole.

use std::fs;
use std::path::{Path, PathBuf};

use crate::world::{Manifest, NAME, World, on_both_engines};

on_both_engines!(
    a_snapshot_of_another_migration_is_refused,
    a_damaged_snapshot_is_refused,
    what_was_found_at_an_older_epoch_is_not_copied,
    damaged_findings_are_refused,
    a_folder_that_cannot_be_written_is_named,
);

/// A world in `dual_write` with a snapshot and its findings, of which nothing has been copied.
async fn scanned(world: &World) {
    world.fill(50).await;
    world.init();
    world.succeed(["advance", NAME]);
    world.succeed(["snapshot", NAME, "--out", "snapshot"]);
    world.run(["scan", NAME, "--snapshot", "snapshot", "--out", "findings"], 4);
}

async fn a_snapshot_of_another_migration_is_refused(world: World) {
    scanned(&world).await;
    let other = Manifest { name: "other", ..Manifest::default() };
    fs::write(world.path("other.toml"), other.text()).unwrap();
    world.succeed(["init", "other.toml"]);
    world.succeed(["advance", "other"]);
    let scan = ["scan", "other", "--snapshot", "snapshot", "--out", "found"];
    world.fail(scan, 1, "belongs to migration contacts, not other", "crossfade snapshot other");
    assert!(!world.path("found").exists());
    let copy = ["copy", "other", "--findings", "findings"];
    world.fail(copy, 1, "belongs to migration contacts, not other", "crossfade");
    world.fail(["copy", "other", "--findings", "snapshot"], 1, "no findings in", "crossfade scan");
    world.fail(
        ["scan", "other", "--snapshot", "findings", "--out", "found"],
        1,
        "no snapshot in",
        "crossfade snapshot",
    );
    assert_eq!(world.contacts().await, "");
}

/// The first file below a folder whose name ends like this.
fn file(folder: &Path, end: &str) -> PathBuf {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().find(|path| path.to_string_lossy().ends_with(end)).expect("the folder has such a file")
}

async fn a_damaged_snapshot_is_refused(world: World) {
    scanned(&world).await;
    let parquet = file(&world.path("snapshot/old"), ".parquet");
    let whole = fs::read(&parquet).unwrap();
    let scan = ["scan", NAME, "--snapshot", "snapshot", "--out", "found"];
    let again = "take the snapshot again";

    fs::write(&parquet, &whole[..whole.len() / 2]).unwrap();
    world.fail(scan, 1, "is truncated or has grown", again);
    fs::remove_file(&parquet).unwrap();
    world.fail(scan, 1, "but absent", again);
    let mut torn = whole.clone();
    torn[4..whole.len() / 2].fill(0);
    fs::write(&parquet, &torn).unwrap();
    world.fail(scan, 1, "is corrupt", again);
    fs::write(&parquet, &whole).unwrap();

    let manifest = world.path("snapshot/new/snapshot.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, &text[..text.len() / 2]).unwrap();
    world.fail(scan, 1, "is not a snapshot manifest", again);
    fs::remove_file(&manifest).unwrap();
    world.fail(scan, 1, "no snapshot in", "crossfade snapshot");
    fs::write(&manifest, &text).unwrap();
    world.run(scan, 4);
    world.fail(scan, 1, "already holds the findings of a scan", "choose an empty folder");
    world.fail(
        ["snapshot", NAME, "--out", "snapshot"],
        1,
        "already holds a snapshot",
        "choose an empty folder",
    );
}

async fn what_was_found_at_an_older_epoch_is_not_copied(world: World) {
    scanned(&world).await;
    world.succeed(["ramp", NAME, "50"]);
    let copy = ["copy", NAME, "--findings", "findings"];
    world.fail(copy, 1, "was made at epoch 2, and the migration is at epoch 3", "crossfade backfill");
    let scan = ["scan", NAME, "--snapshot", "snapshot", "--out", "older"];
    world.fail(scan, 1, "began in epoch 2, but epoch 3 or later is needed", "take the snapshot again");
    assert!(!world.path("older").exists());
    let looked_at = world.run(scan.into_iter().chain(["--stale"]), 4);
    assert!(looked_at.stderr.contains("warning: the snapshot began in epoch 2"), "{looked_at}");
    world.fail(["copy", NAME, "--findings", "older"], 1, "was made at epoch 2", "crossfade backfill");
    assert_eq!(world.contacts().await, "");
    assert_eq!(world.json(["jobs", NAME]), serde_json::json!([]));
}

async fn damaged_findings_are_refused(world: World) {
    scanned(&world).await;
    let copy = ["copy", NAME, "--findings", "findings"];
    let chunk = file(&world.path("findings"), ".parquet");
    let whole = fs::read(&chunk).unwrap();
    fs::write(&chunk, &whole[..whole.len() / 2]).unwrap();
    world.fail(copy, 1, "", "again");
    assert_eq!(world.contacts().await, "");
    fs::write(&chunk, &whole).unwrap();
    world.succeed(copy);
    assert_eq!(world.contacts().await, world.projected().await);

    let summary = world.path("findings/scan.json");
    let text = fs::read_to_string(&summary).unwrap();
    fs::write(&summary, &text[..text.len() / 2]).unwrap();
    world.fail(copy, 1, "is not a scan's summary", "crossfade scan");
}

async fn a_folder_that_cannot_be_written_is_named(world: World) {
    scanned(&world).await;
    fs::write(world.path("file"), "in the way").unwrap();
    let hint = "choose another folder";
    world.fail(["snapshot", NAME, "--out", "file/snapshot"], 1, "file/snapshot", hint);
    world.fail(["scan", NAME, "--snapshot", "snapshot", "--out", "file/found"], 1, "file/found", hint);
    for command in ["verify", "backfill"] {
        world.fail([command, NAME, "--work", "file"], 1, "file/contacts", hint);
    }
    world.fail(["copy", NAME, "--findings", "nowhere"], 1, "no findings in", "crossfade scan");
    assert_eq!(world.contacts().await, "");
    assert_eq!(fs::read_to_string(world.path("file")).unwrap(), "in the way");
}
