//! Snapshot, scan and copy by hand, over differences that were planted.

use serde_json::json;

use crate::world::{NAME, World, on_both_engines};

on_both_engines!(
    planted_differences_are_found_and_mended,
    snapshots_of_no_rows_are_compared_too,
    a_copy_is_done_once
);

async fn planted_differences_are_found_and_mended(world: World) {
    world.fill(40).await;
    world.advance_to("dual_write");
    world.succeed(["backfill", NAME]);
    world.plant().await;
    let planted = world.contacts().await;

    let exported = world.json(["snapshot", NAME, "--out", "snapshots/monday"]);
    assert_eq!(exported["rows_old"], world.projected().await.lines().count(), "{exported}");
    assert_eq!(exported["rows_new"], planted.lines().count(), "{exported}");
    let scan = ["scan", NAME, "--snapshot", "snapshots/monday", "--out", "findings/monday"];
    let found = world.json_with(scan, 4);
    let counts = ["missing", "mismatched", "orphaned", "duplicated"].map(|kind| &found[kind]);
    assert_eq!(counts, [&json!(2), &json!(3), &json!(2), &json!(0)], "{found}");
    assert_eq!((&found["rows_old"], &found["rows_new"]), (&exported["rows_old"], &exported["rows_new"]));
    let findings = found["findings"].as_str().unwrap_or_else(|| panic!("no path of the findings: {found}"));
    assert!(world.folder().join(findings).join("scan.json").exists(), "{found}");
    assert_eq!(world.contacts().await, planted, "a scan writes to no table");

    let copied = world.json(["copy", NAME, "--findings", findings, "--workers", "2"]);
    for kind in ["rows_old", "rows_new", "missing", "mismatched", "orphaned", "duplicated"] {
        assert_eq!(copied[kind], found[kind], "{copied}");
    }
    assert!(copied["findings"].is_string(), "{copied}");
    let done = ["copied", "repaired", "removed"].map(|what| copied[what].as_u64().unwrap());
    // Keys 1 is missing a row and no more; 2, 4, 8 are made equal as a whole; two rows had no old one.
    assert!(done[0] >= 1 && done[0] + done[1] >= 5 && done[2] == 2, "{copied}");
    assert_eq!(world.contacts().await, world.projected().await);
    assert_eq!(world.json(["verify", NAME])["missing"], 0);
}

async fn snapshots_of_no_rows_are_compared_too(world: World) {
    world.init();
    world.succeed(["advance", NAME]);
    world.succeed(["snapshot", NAME, "--out", "empty"]);
    let found = world.json(["scan", NAME, "--snapshot", "empty", "--out", "findings"]);
    assert_eq!((&found["rows_old"], &found["rows_new"]), (&json!(0), &json!(0)));
    let copied = world.json(["copy", NAME, "--findings", "findings"]);
    assert_eq!(copied["copied"], 0);
    assert_eq!(world.json(["backfill", NAME])["clean"], true);
}

async fn a_copy_is_done_once(world: World) {
    world.fill(40).await;
    world.advance_to("dual_write");
    world.succeed(["snapshot", NAME, "--out", "snapshot"]);
    world.run(["scan", NAME, "--snapshot", "snapshot", "--out", "findings"], 4);
    let rows = world.projected().await.lines().count();
    assert_eq!(world.json(["copy", NAME, "--findings", "findings"])["copied"], rows);
    // A key that has gone since does not come back with an old finding.
    world
        .database
        .execute("delete from contacts where customer_id = 3; delete from customers where id = 3")
        .await;
    assert_eq!(world.json(["copy", NAME, "--findings", "findings"])["copied"], 0);
    assert_eq!(world.contacts().await, world.projected().await);
}
