//! A migration from its manifest to its end, by the command line alone.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::world::{Manifest, NAME, World, on_both_engines};

on_both_engines!(
    a_quiet_table_goes_through_every_phase,
    a_scaffolded_manifest_says_what_is_left_to_do,
    every_step_back_until_new_only_loses_nothing,
    changed_rows_are_followed_by_the_next_backfill,
    a_job_is_paused_tuned_and_cancelled,
);

async fn a_quiet_table_goes_through_every_phase(world: World) {
    world.fill(50).await;
    let checked = world.json(["check", "contacts.toml"]);
    assert_eq!((&checked["keys"], &checked["faults"]), (&json!(20), &json!([])), "{checked}");
    assert!(!world.database.tables().await.contains("crossfade"), "a check leaves nothing behind");

    assert_eq!(world.json(["init", "contacts.toml"])["registration"], "created");
    assert_eq!(world.json(["init", "contacts.toml"])["registration"], "unchanged");
    assert_stands(&world, "old_only", 100.0, "dual_write");

    let moved = world.json(["advance", NAME, "--ramp", "5"]);
    assert_eq!((&moved["to"]["phase"], &moved["migration"]), (&json!("dual_write"), &json!(NAME)), "{moved}");
    assert_stands(&world, "dual_write", 5.0, "shadow_read");
    assert_eq!(world.json(["ramp", NAME, "100"])["migration"], NAME);
    assert_stands(&world, "dual_write", 100.0, "shadow_read");

    let backfilled = world.json(["backfill", NAME]);
    let rows = world.projected().await.lines().count();
    assert_eq!((&backfilled["copied"], &backfilled["clean"]), (&json!(rows), &json!(true)), "{backfilled}");
    assert_eq!(world.contacts().await, world.projected().await);

    assert_eq!(world.json(["advance", NAME])["to"]["phase"], "shadow_read");
    world.json(["experiments", NAME]);
    world.json(["report", NAME]);
    assert_eq!(world.json(["advance", NAME])["to"]["phase"], "read_new");
    assert_eq!(world.json(["plan", NAME])["gate"]["open"], true);
    assert_eq!(world.json(["advance", NAME])["to"]["phase"], "new_primary");
    let verified = world.json(["verify", NAME]);
    assert_differences(&verified, [rows, rows], [0, 0, 0, 0]);
    let closed = world.json(["advance", NAME, "--confirm", NAME]);
    assert_eq!(
        (&closed["to"]["phase"], &closed["unrecorded"]),
        (&json!("new_only"), &Value::Null),
        "{closed}"
    );
    assert!(Path::new(closed["snapshot"].as_str().unwrap()).join("old/snapshot.json").exists(), "{closed}");
    let archive = world.run(["snapshot", NAME, "--out", "archive"], 0);
    assert!(archive.stdout.contains("crossfade cleanup contacts --baseline archive"), "{archive}");

    let before = world.contacts().await;
    let cleaned = world.json(["cleanup", NAME]);
    assert_eq!((&cleaned["clean"], &cleaned["rows_left"]), (&json!(true), &json!(0)), "{cleaned}");
    assert_eq!(world.projected().await, "");
    assert_eq!(world.contacts().await, before, "cleanup takes nothing from the new table");

    assert_eq!(world.json(["advance", NAME])["to"]["phase"], "complete");
    for command in ["backfill", "verify", "cleanup"] {
        world.fail([command, NAME], 1, "the old data has been removed", "nothing is left to be done");
    }
    let status = world.json(["status", NAME]);
    assert_eq!((&status["phase"], &status["gate"]), (&json!("complete"), &Value::Null));
    let phases: Vec<Value> = world
        .json(["history", NAME])
        .as_array()
        .unwrap()
        .iter()
        .map(|record| record["to"]["phase"].clone())
        .collect();
    let expected = [
        "old_only",
        "dual_write",
        "dual_write",
        "shadow_read",
        "read_new",
        "new_primary",
        "new_only",
        "complete",
    ];
    assert_eq!(phases, expected);
    let jobs = world.json(["jobs", NAME]);
    assert_eq!(jobs.as_array().unwrap().len(), 2, "a copy and a cleanup: {jobs}");
    assert_eq!(world.json(["status"])[0]["migration"], NAME);
}

/// `status --json` has the fields that scripts rely on, and says this.
fn assert_stands(world: &World, phase: &str, ramp: f64, next: &str) {
    let status = world.json(["status", NAME]);
    assert_eq!(status["migration"], NAME);
    assert_eq!(status["phase"], phase);
    assert_eq!(status["ramp_percent"], ramp);
    assert!(status["epoch"].is_i64() && status["jobs"].is_array(), "{status}");
    assert_eq!(status["gate"]["to"], next);
    assert!(status["gate"]["open"].is_boolean() && status["gate"]["missing"].is_array(), "{status}");
}

/// What scan, verify and copy report: rows of old and new; missing, mismatched, orphaned and duplicated keys.
fn assert_differences(report: &Value, rows: [usize; 2], found: [usize; 4]) {
    let number = |name: &str| report[name].as_u64().unwrap_or_else(|| panic!("no {name}: {report}")) as usize;
    assert_eq!(["rows_old", "rows_new"].map(number), rows, "{report}");
    assert_eq!(["missing", "mismatched", "orphaned", "duplicated"].map(number), found, "{report}");
    assert!(report["findings"].is_string(), "{report}");
}

async fn a_scaffolded_manifest_says_what_is_left_to_do(world: World) {
    world.fill(5).await;
    let places = ["--old", "env:DATABASE_URL#customers", "--new", "env:DATABASE_URL#contacts"];
    let printed = world.json(["new", NAME].into_iter().chain(places));
    let written = world.json(["new", NAME, "-o", "new.toml"].into_iter().chain(places));
    let text = fs::read_to_string(world.path("new.toml")).unwrap();
    assert_eq!(
        (printed["manifest"].as_str(), written["manifest"].as_str()),
        (Some(text.as_str()), Some(text.as_str()))
    );
    assert!(!text.contains(world.database.url()), "secrets stay in the environment");

    // How customers become contacts cannot be known from the tables.
    let finished = world.run(["check", "new.toml"], 1);
    assert!(finished.stdout.contains("the projection gives NULL in column kind"), "{finished}");
    let again = ["new", NAME, "-o", "new.toml"].into_iter().chain(places);
    world.fail(again, 1, "new.toml already exists", "-o");
    assert_eq!(fs::read_to_string(world.path("new.toml")).unwrap(), text);

    // With the mapping written by hand, the rest of it stands.
    let by_hand = Manifest::default().text();
    let (_, mapping) = by_hand.split_once("[mapping]").unwrap();
    let (scaffolded, _) = text.split_once("\n[mapping]").expect("a scaffold has a place for the mapping");
    fs::write(world.path("mended.toml"), format!("{scaffolded}\n[mapping]{mapping}")).unwrap();
    world.succeed(["check", "mended.toml"]);
}

async fn every_step_back_until_new_only_loses_nothing(world: World) {
    world.fill(10).await;
    world.advance_to("new_primary");
    let expected = world.projected().await;
    for phase in ["read_new", "shadow_read", "dual_write", "old_only"] {
        assert_eq!(world.json(["rollback", NAME])["to"]["phase"], phase);
        assert_eq!((world.projected().await, world.contacts().await), (expected.clone(), expected.clone()));
    }
    world.fail(["rollback", NAME], 1, "there is no phase before it", "crossfade status contacts");

    world.advance_to("new_only");
    let before = world.standing();
    world.fail(["rollback", NAME], 1, "cannot be rolled back", "crossfade status contacts");
    assert_eq!(world.standing(), before);
}

async fn changed_rows_are_followed_by_the_next_backfill(world: World) {
    world.fill(30).await;
    world.advance_to("shadow_read");
    // Past the mirror, as a forgotten write path does.
    world
        .database
        .execute("update customers set email = 'new@example.org', phone = null where id in (1, 2, 15)")
        .await;
    world.database.execute("delete from customers where id = 7").await;
    world.json_with(["verify", NAME], 4);
    assert_eq!(world.json(["backfill", NAME])["clean"], true);
    assert_eq!(world.contacts().await, world.projected().await);
}

async fn a_job_is_paused_tuned_and_cancelled(world: World) {
    world.fill(600).await;
    world.init();
    world.succeed(["advance", NAME]);
    world.fail(["pause", NAME], 2, "no unfinished job", "crossfade jobs contacts");
    world.json(["snapshot", NAME, "--out", "snapshot"]);
    world.json_with(["scan", NAME, "--snapshot", "snapshot", "--out", "findings"], 4);

    let held = world.database.hold(599).await;
    let copy = world.crossfade(["copy", NAME, "--findings", "findings", "--workers", "1"]).spawn();
    world.database.wait_until_held_up().await;
    world.database.wait_for("select count(*) from contacts", 1).await;
    copy.kill();
    world.database.release(held).await;

    assert_eq!(world.json(["pause", NAME])["requested"], "pause");
    world.fail(["tune", NAME], 2, "nothing was said", "crossfade tune --help");
    assert_eq!(world.json(["tune", NAME, "--workers", "3"])["tunables"]["workers"], 3);
    assert_eq!(world.json(["jobs", NAME])[0]["requested"], "pause");
    assert_eq!(world.json(["resume", NAME])["requested"], "run");
    assert_eq!(world.json(["cancel", NAME])["requested"], "cancel");
    let ended = world.json_with(["wait", NAME, "--job", "1"], 1);
    assert_eq!((&ended["reached"], &ended["job"]["state"]), (&true.into(), &"cancelled".into()), "{ended}");
    assert_eq!(world.json(["status", NAME])["jobs"][0]["state"], "cancelled");
    assert_eq!(world.json(["backfill", NAME])["clean"], true);
    assert_eq!(world.contacts().await, world.projected().await);
}
