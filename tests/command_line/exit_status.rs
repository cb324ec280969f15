//! Each exit status, by a command that ends with it.

use crossfade_test_harness::{Running, Signal};
use serde_json::Value;

use crate::world::{Manifest, NAME, World, assert_one_error, binary, document, on_both_engines};

on_both_engines!(
    a_shut_gate_is_3_and_leaves_the_standing,
    a_forced_step_needs_a_reason_and_is_on_record,
    an_irreversible_step_is_confirmed_by_name,
    differences_are_4,
    an_instance_that_does_not_adopt_is_5,
    a_rehearsal_changes_nothing,
    what_cannot_be_asked_for_is_said,
    each_missing_condition_has_a_line_and_a_hint,
    waiting_ends_with_what_it_waited_for_or_with_5,
);

#[test]
fn wrong_usage_is_2() {
    for arguments in [
        &["advance"][..],
        &["advance", NAME, "--ramp", "101"],
        &["advance", NAME, "--force"],
        &["ramp", NAME, "some"],
        &["nonsense"],
        &["backfill", NAME, "--workers", "0"],
        &["copy", NAME, "--findings", "findings", "--work-percent", "101"],
        &["backfill", NAME, "--batch-keys-max", "0"],
        &["wait", NAME],
        &["wait", NAME, "--phase", "read_new", "--gate-open"],
        &["wait", NAME, "--phase", "readnew"],
        &["wait", NAME, "--gate-open", "--timeout", "soon"],
        &["new", NAME, "--old", "env:DATABASE_URL", "--new", "env:DATABASE_URL#t"],
        &["scan", NAME, "--snapshot", "s", "--out", "o", "--engine", "elsewhere"],
        &["scan", NAME, "--snapshot", "s", "--out", "o", "--engine", "df://nowhere"],
    ] {
        let finished = binary().args(arguments).run();
        assert_eq!(finished.code(), Some(2), "{arguments:?}: {finished}");
        assert!(finished.stderr.starts_with("error: ") && finished.stdout.is_empty(), "{finished}");
    }
}

#[cfg(not(feature = "distributed"))]
#[test]
fn a_build_without_clusters_says_how_to_get_one_with_them() {
    let arguments = ["scan", NAME, "--snapshot", "s", "--out", "o", "--engine", "df://scheduler:50050"];
    let finished = binary().args(arguments).run();
    assert_eq!(finished.code(), Some(2), "{finished}");
    assert!(finished.stderr.contains("--features distributed"), "{finished}");
}

async fn a_shut_gate_is_3_and_leaves_the_standing(world: World) {
    world.fill(10).await;
    world.init();
    world.succeed(["advance", NAME]);
    let before = world.standing();
    world.fail(["advance", NAME], 3, "verification: none at epoch", "crossfade backfill contacts");
    let refused = world.crossfade(["advance", NAME, "--json"]).run();
    assert_eq!(refused.code(), Some(3), "{refused}");
    let refused = document(&refused);
    assert!(refused["error"].as_str().unwrap().contains("may not enter shadow_read"), "{refused}");
    assert_eq!(refused["gate"]["missing"][0]["name"], "verification", "{refused}");
    assert_eq!(world.standing(), before);
}

async fn a_forced_step_needs_a_reason_and_is_on_record(world: World) {
    world.fill(10).await;
    world.init();
    world.succeed(["advance", NAME]);
    let before = world.standing();
    world.run(["advance", NAME, "--force"], 2);
    assert_eq!(world.standing(), before);
    let moved = world.json(["advance", NAME, "--force", "--reason", "a rehearsal", "--as", "mary"]);
    assert_eq!(moved["forced"], true);
    let history = world.json(["history", NAME]);
    let last = history.as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["forced"], &last["reason"], &last["actor"]),
        (&true.into(), &"a rehearsal".into(), &"mary".into())
    );
    assert_eq!(last["evidence"]["open"], false, "what was missing is on record as well: {last}");
}

async fn an_irreversible_step_is_confirmed_by_name(world: World) {
    world.fill(10).await;
    world.advance_to("new_primary");
    world.succeed(["verify", NAME]);
    let before = world.standing();
    world.fail(["advance", NAME], 2, "new_primary to new_only was not confirmed", "--confirm contacts");
    world.fail(["advance", NAME, "--yes"], 2, "was not confirmed", "--confirm contacts");
    world.fail(["advance", NAME, "--confirm", "other"], 2, "was not confirmed", "--confirm contacts");
    assert_eq!(world.standing(), before);
    world.succeed(["advance", NAME, "--confirm", NAME]);

    // Without a way back, the turn-round itself is the step that cannot be undone.
    let one_way = match world.database {
        crate::world::Database::Postgres(_) => World::postgres().await,
        crate::world::Database::Sqlite(_) => World::sqlite().await,
    };
    one_way.fill(10).await;
    let manifest = Manifest { is_reversible: false, ..Manifest::default() };
    std::fs::write(one_way.manifest_path(), manifest.text()).unwrap();
    one_way.advance_to("read_new");
    one_way.fail(
        ["advance", NAME, "-y"],
        2,
        "read_new to new_primary was not confirmed",
        "--confirm contacts",
    );
    one_way.succeed(["advance", NAME, "--confirm", NAME]);
    one_way.fail(["rollback", NAME], 1, "mapping.reverse", "crossfade status contacts");
}

async fn differences_are_4(world: World) {
    world.fill(10).await;
    world.init();
    world.succeed(["advance", NAME]);
    let verified = world.json_with(["verify", NAME], 4);
    assert!(verified["missing"].as_u64() > Some(0), "{verified}");
    let backfilled = world.json_with(["backfill", NAME, "--rounds-max", "1"], 4);
    assert_eq!(backfilled["clean"], false, "one round has no second look: {backfilled}");
    assert_eq!(world.json(["backfill", NAME])["clean"], true);

    world.advance_to("new_only");
    world.database.execute("update customers set email = 'late@example.org' where id = 3").await;
    let cleaned = world.json_with(["cleanup", NAME], 4);
    assert_eq!((&cleaned["clean"], &cleaned["keys_left"]), (&false.into(), &1.into()), "{cleaned}");
    world.fail(["advance", NAME], 3, "old data removed: 1 fault", "crossfade cleanup contacts");
}

async fn an_instance_that_does_not_adopt_is_5(world: World) {
    world.fill(10).await;
    world.init();
    lease(&world, "frozen-1").await;
    let late = world.crossfade(["advance", NAME, "--patience", "1"]).run();
    assert_eq!(late.code(), Some(5), "{late}");
    assert_one_error(&late, "1 instance has not adopted it: frozen-1", "stop the instance");
    // The change was made: the next step is what may not be taken before the instance has adopted it.
    assert_eq!(world.json(["status", NAME])["phase"], "dual_write");
    let refused = world.fail(["advance", NAME], 3, "frozen-1", "crossfade plan contacts");
    assert!(refused.stderr.contains("    hint: wait for them, or stop them"), "{refused}");
    world.fail(["ramp", NAME, "50", "--patience", "0"], 5, "frozen-1", "stop the instance");
    assert_eq!(world.json(["status", NAME])["ramp_percent"], 100.0);
}

/// An instance of the application that has adopted the present epoch, and does nothing any more.
async fn lease(world: &World, name: &str) {
    let (table, now) = match world.database {
        crate::world::Database::Postgres(_) => ("lease_until", "now() + interval '1 hour'"),
        crate::world::Database::Sqlite(_) => ("lease_until_ms", "(unixepoch() + 3600) * 1000"),
    };
    let (instance, migration) = (world.database.own_table("instance"), world.database.own_table("migration"));
    world
        .database
        .execute(&format!(
            "insert into {instance} (migration, name, adopted, {table}) select id, '{name}', epoch, {now} from {migration}"
        ))
        .await;
}

async fn a_rehearsal_changes_nothing(world: World) {
    world.fill(10).await;
    world.init();
    let before = world.standing();
    let moved = world.json(["advance", NAME, "--dry-run"]);
    assert_eq!((&moved["dry_run"], &moved["to"]["phase"]), (&true.into(), &"dual_write".into()));
    assert_eq!(world.standing(), before);
    world.succeed(["advance", NAME]);
    let before = world.standing();
    world.json(["ramp", NAME, "10", "--dry-run"]);
    world.json(["rollback", NAME, "--dry-run"]);
    world.run(["advance", NAME, "--dry-run"], 3);
    assert_eq!(world.standing(), before);
}

async fn what_cannot_be_asked_for_is_said(world: World) {
    world.fill(10).await;
    world.init();
    let before = world.standing();
    let hint = "crossfade status contacts";
    world.fail(["ramp", NAME, "50"], 1, "old_only has no ramp", hint);
    world.fail(["backfill", NAME], 1, "contacts is in old_only", "crossfade advance contacts");
    world.fail(["cleanup", NAME], 1, "contacts is in old_only", hint);
    assert_eq!(world.standing(), before);
    world.succeed(["advance", NAME]);
    world.fail(["ramp", NAME, "100"], 1, "already at 100", hint);
    interrupted(&world).await;
}

async fn each_missing_condition_has_a_line_and_a_hint(world: World) {
    world.fill(10).await;
    let manifest = Manifest { gates: "comparisons_min = 1000", ..Manifest::default() };
    std::fs::write(world.manifest_path(), manifest.text()).unwrap();
    world.init();
    world.succeed(["advance", NAME]);
    let reason = ["--force", "--reason", "a rehearsal"];
    world.succeed(["advance", NAME].into_iter().chain(reason));
    let refused =
        world.fail(["advance", NAME], 3, "may not enter read_new yet:\n  soak: ", "crossfade plan contacts");
    for line in [
        "  comparisons: 0 of 1,000",
        "    hint: let the shadow reads run on, or raise the sample with `crossfade ramp contacts 100`",
        "  mismatches: 0 seen; they may be up to 100 % of all reads, limit 0.1 %",
        "    hint: more comparisons lower the bound",
    ] {
        assert!(refused.stderr.lines().any(|found| found == line), "no {line:?} in\n{refused}");
    }
    let missing = document(&world.crossfade(["advance", NAME, "--json"]).run())["gate"]["missing"].clone();
    assert_eq!((&missing[1]["value"], &missing[1]["limit"]), (&0.0.into(), &1000.0.into()), "{missing}");
    assert_eq!((&missing[2]["value"], &missing[2]["limit"]), (&1.0.into(), &0.001.into()), "{missing}");
}

async fn waiting_ends_with_what_it_waited_for_or_with_5(world: World) {
    world.fill(10).await;
    world.init();
    let waited = world.json(["wait", NAME, "--gate-open", "--timeout", "1m"]);
    assert_eq!((&waited["reached"], &waited["gate"]["to"]), (&true.into(), &"dual_write".into()), "{waited}");
    let late = ["wait", NAME, "--phase", "dual_write", "--timeout", "0s"];
    world.fail(late, 5, "waited 0s in vain: contacts: old_only", "crossfade status contacts");

    // Begun before the step, ended by it.
    let waiting = world.crossfade(["wait", NAME, "--phase", "dual_write", "--json"]).spawn();
    waiting.stderr_line("waiting: contacts: old_only");
    world.succeed(["advance", NAME]);
    let waited = waiting.wait();
    assert_eq!(waited.code(), Some(0), "{waited}");
    assert_eq!(document(&waited)["phase"], "dual_write", "{waited}");
    // What lies behind has been reached.
    world.succeed(["wait", NAME, "--phase", "old_only"]);

    lease(&world, "frozen-1").await;
    world.run(["ramp", NAME, "50", "--patience", "0"], 5);
    let late = ["wait", NAME, "--phase", "dual_write", "--timeout", "0s"];
    world.fail(late, 5, "not adopted by 1 instance: frozen-1", "crossfade status contacts");

    let late = ["wait", NAME, "--gate-open", "--timeout", "0s"];
    world.fail(late, 5, "verification: none at epoch 3", "crossfade status contacts");
    world.succeed(["wait", NAME, "--job"]);
    world.fail(["wait", NAME, "--job", "7"], 2, "has no job 7", "crossfade jobs contacts");
    let backfilled = world.json(["backfill", NAME, "--batch-keys-max", "7", "--work-percent", "80"]);
    assert_eq!(backfilled["clean"], true);
    let job = world.json(["wait", NAME, "--job", "1"])["job"].clone();
    assert_eq!((&job["state"], &job["tunables"]["batch_keys_max"]), (&"done".into(), &7.into()), "{job}");
    assert_eq!(job["tunables"]["work_percent"], 80);
}

/// Ctrl-C stops a backfill after the batch in hand, and the same command goes on.
async fn interrupted(world: &World) {
    world.fill_more(11, 600).await;
    let held = world.database.hold(599).await;
    let backfill: Running = world.crossfade(["backfill", NAME, "--workers", "1"]).spawn();
    world.database.wait_until_held_up().await;
    backfill.signal(Signal::Interrupt);
    backfill.stderr_line("stopping after the batch in hand");
    backfill.signal(Signal::Interrupt);
    let stopped = backfill.wait();
    assert_eq!(stopped.code(), Some(130), "{stopped}");
    world.database.release(held).await;
    let backfilled: Value = world.json(["backfill", NAME]);
    assert_eq!(backfilled["clean"], true, "{backfilled}");
    assert_eq!(world.contacts().await, world.projected().await);
}
