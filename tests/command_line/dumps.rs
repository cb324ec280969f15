//! Dumps of other tools compared as they are, and a look into snapshots.

use std::fs;

use serde_json::json;

use crate::world::{Manifest, NAME, World, on_both_engines};

on_both_engines!(
    dumps_are_compared_with_and_without_a_migration,
    snapshots_are_looked_into,
    a_migration_may_be_called_like_a_command,
);

/// A world with planted differences and its snapshot; and its files alone, without what makes them a snapshot, as `dumps`.
async fn dumped(world: &World) {
    world.fill(40).await;
    world.advance_to("dual_write");
    world.succeed(["backfill", NAME]);
    world.plant().await;
    world.succeed(["snapshot", NAME, "--out", "snapshot"]);
    for side in ["old", "new"] {
        let folder = world.path(&format!("dumps/{side}"));
        fs::create_dir_all(&folder).unwrap();
        for entry in fs::read_dir(world.path(&format!("snapshot/{side}"))).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "parquet") {
                fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
            }
        }
    }
}

async fn dumps_are_compared_with_and_without_a_migration(world: World) {
    dumped(&world).await;
    let counts = |found: &serde_json::Value| {
        ["missing", "mismatched", "orphaned", "duplicated"].map(|kind| found[kind].as_u64().unwrap())
    };
    let dumps = ["--old", "dumps/old", "--new", "dumps/new"];
    let run = |arguments: &[&str], code: i32| {
        let finished = world.crossfade(["scan", "--json"].iter().chain(&dumps).chain(arguments)).run();
        assert_eq!(finished.code(), Some(code), "{finished}");
        serde_json::from_str::<serde_json::Value>(&finished.stdout).unwrap_or_default()
    };
    let found = run(&["--key", "customer_id,kind", "--out", "one"], 4);
    assert_eq!(counts(&found), [2, 3, 2, 0], "{found}");
    let found = run(&["--key", "customer_id,kind", "--out", "two", "--order", "none", "--memory", "1MiB"], 4);
    assert_eq!(counts(&found), [2, 3, 2, 0], "{found}");
    let found = run(&["--key", "customer_id,kind", "--out", "three", "--keys-only", "--threads", "1"], 4);
    assert_eq!((counts(&found), &found["columns"]), ([2, 0, 2, 0], &json!([])), "{found}");
    let found = run(&[NAME, "--out", "four"], 4);
    assert_eq!((counts(&found), &found["migration"]), ([2, 3, 2, 0], &json!(NAME)), "{found}");

    // The same differences, of an epoch that nobody has named: they can be looked at.
    world.fail(["copy", NAME, "--findings", "four"], 1, "was made at epoch 0", "crossfade backfill");
    let epoch = world.json(["status", NAME])["epoch"].to_string();
    run(&[NAME, "--out", "five", "--epoch", &epoch], 4);
    world.succeed(["copy", NAME, "--findings", "five"]);
    assert_eq!(world.contacts().await, world.projected().await);

    // A snapshot of ours on one side, a dump on the other.
    let mixed =
        ["scan", "--old", "snapshot/old", "--new", "dumps/old", "--key", "customer_id,kind", "--out", "six"];
    assert_eq!(counts(&world.json(mixed)), [0; 4]);
    world.fail(
        ["scan", "--old", "dumps/old", "--new", "nowhere", "--key", "customer_id", "--out", "bad"],
        1,
        "no Parquet files in",
        "point at a Parquet file",
    );
    world.fail(
        ["scan", "--old", "dumps/old", "--new", "dumps/new", "--out", "bad"],
        2,
        "nothing says which columns identify a row",
        "pass --key",
    );
}

async fn snapshots_are_looked_into(world: World) {
    dumped(&world).await;
    let inspected = world.json(["snapshot", "inspect", "snapshot"]);
    assert_eq!((&inspected[0]["side"], &inspected[1]["side"]), (&json!("old"), &json!("new")));
    assert_eq!(inspected[0]["key"], json!(["customer_id", "kind"]));
    let text = world.succeed(["snapshot", "inspect", "snapshot/new"]);
    assert!(text.contains("keys              1, phone to 1000, email"), "{text}");

    let diff = world.json_with(["snapshot", "diff", "snapshot", "4", "phone"], 4);
    let differing: Vec<_> =
        diff["columns"].as_array().unwrap().iter().filter(|column| column["differs"] == true).collect();
    assert_eq!((differing.len(), &differing[0]["name"]), (1, &json!("value")), "{diff}");
    assert_eq!(differing[0]["new"], json!({ "value": "wrong" }));
    let equal = world.succeed(["snapshot", "diff", "snapshot", "16", "phone"]);
    assert!(equal.starts_with("1 old row and 1 new row with this key"), "{equal}");
    world.fail(
        ["snapshot", "diff", "snapshot", "four", "phone"],
        1,
        "is not a key",
        "as `inspect` shows them",
    );

    let head = world.json(["snapshot", "head", "snapshot", "--side", "new", "--rows", "3"]);
    assert_eq!(head.as_array().unwrap().len(), 3);
    assert_eq!(head[0]["customer_id"], "1");
    world.fail(["snapshot", "head", "dumps"], 1, "no snapshot in", "crossfade snapshot");
}

async fn a_migration_may_be_called_like_a_command(world: World) {
    world.fill(3).await;
    let named = Manifest { name: "inspect", ..Manifest::default() };
    fs::write(world.manifest_path(), named.text()).unwrap();
    world.init();
    world.succeed(["advance", "inspect"]);
    assert_eq!(world.json(["snapshot", "inspect", "--out", "snapshot"])["migration"], "inspect");
    assert_eq!(world.json(["snapshot", "inspect", "snapshot"])[0]["migration"], "inspect");
}
