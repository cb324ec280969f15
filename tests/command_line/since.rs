//! Snapshots since an earlier one: what was taken over is said, and what cannot be is refused.

use crate::world::{Database, Manifest, NAME, World, on_both_engines};

on_both_engines!(what_was_taken_over_is_said, a_snapshot_of_another_migration_is_no_earlier_one);

/// A world in `dual_write` with a snapshot.
async fn exported(world: &World) {
    world.fill(50).await;
    world.init();
    world.succeed(["advance", NAME]);
    world.succeed(["snapshot", NAME, "--out", "monday", "--ranges", "4"]);
}

async fn what_was_taken_over_is_said(world: World) {
    exported(&world).await;
    let document = world.json(["snapshot", NAME, "--since", "monday", "--out", "tuesday"]);
    assert_eq!(document["since"], "monday");
    let why = &document["ranges_new"]["full_because"];
    let said = world.succeed(["snapshot", NAME, "--since", "tuesday", "--out", "wednesday"]);
    match world.database {
        Database::Postgres(..) => {
            // How many depends on what else runs on the server.
            assert!(why.is_null() && document["ranges_new"]["taken_over"].is_u64(), "{document}");
            assert!(said.contains("unchanged, taken over from tuesday"), "{said}");
        }
        Database::Sqlite(..) => {
            assert!(why.as_str().unwrap().contains("only Postgres"), "{document}");
            assert!(said.contains("new: exported in full: only Postgres"), "{said}");
        }
    }
    world.run(["scan", NAME, "--snapshot", "wednesday", "--out", "findings"], 4);
    let usage = world.run(["snapshot", NAME, "--since", "monday", "--ranges", "4", "--out", "thursday"], 2);
    assert!(usage.stderr.contains("cannot be used with"), "{usage}");
}

async fn a_snapshot_of_another_migration_is_no_earlier_one(world: World) {
    exported(&world).await;
    let other = Manifest { name: "other", ..Manifest::default() };
    std::fs::write(world.path("other.toml"), other.text()).unwrap();
    world.succeed(["init", "other.toml"]);
    let since = ["snapshot", "other", "--since", "monday", "--out", "tuesday"];
    world.fail(since, 1, "belongs to migration contacts, not other", "crossfade snapshot other");
    let nowhere = ["snapshot", NAME, "--since", "sunday", "--out", "tuesday"];
    world.fail(nowhere, 1, "no snapshot in", "crossfade snapshot");
    assert!(!world.path("tuesday").exists());
}
