//! Which control store a command works on, and that no password is ever printed.

use std::fs;

use crate::world::{Database, Manifest, NAME, PASSWORD, World, assert_one_error, on_both_engines};

on_both_engines!(
    the_nearest_word_on_the_control_store_counts,
    a_store_without_crossfade_is_said_to_be_one,
    a_schema_that_crossfade_did_not_make_is_left_alone,
    one_manifest_names_one_database,
);

const NOWHERE: &str = "sqlite:/nonexistent/folder/nowhere.db";

async fn the_nearest_word_on_the_control_store_counts(world: World) {
    world.fill(5).await;
    world.init();
    let url = world.database.url();
    let unnamed = world.bare(["status", NAME]).run();
    assert_eq!(unnamed.code(), Some(2), "{unnamed}");
    assert_one_error(&unnamed, "no control store was named", "--control URL");

    let stands = |program: crossfade_test_harness::Program| {
        let finished = program.run();
        assert_eq!(finished.code(), Some(0), "{finished}");
        assert!(finished.stdout.contains("old_only"), "{finished}");
    };
    stands(world.bare(["status", NAME]).env("DATABASE_URL", url));
    stands(world.bare(["status", NAME]).env("DATABASE_URL", NOWHERE).env("CROSSFADE_CONTROL", url));
    let status = world.bare(["status", NAME, "--control", url]);
    stands(status.env("DATABASE_URL", NOWHERE).env("CROSSFADE_CONTROL", NOWHERE));
    stands(world.bare(["--control", url, "status", NAME]));

    fs::write(world.path(".env"), format!("DATABASE_URL=\"{url}\"\n")).unwrap();
    stands(world.bare(["status", NAME]));
    let overridden = world.bare(["status", NAME]).env("DATABASE_URL", NOWHERE).run();
    assert_eq!(overridden.code(), Some(1), "what is exported counts more than .env: {overridden}");
    fs::write(world.path(".env"), format!("CROSSFADE_CONTROL=\"{url}\"\nDATABASE_URL={NOWHERE}\n")).unwrap();
    stands(world.bare(["status", NAME]));
    fs::write(world.path(".env"), "this is = no 'environment\n").unwrap();
    let broken = world.bare(["status", NAME]).run();
    assert!(broken.stderr.contains("warning: .env was not read"), "{broken}");
}

async fn a_store_without_crossfade_is_said_to_be_one(world: World) {
    world.fail(["status", NAME], 1, "has no tables of crossfade's", "crossfade init");
    world.fail(["advance", NAME], 1, "has no tables of crossfade's", "crossfade init");
    world.init();
    let finished = world.fail(["advance", "orders"], 1, "there is no migration \"orders\"", "crossfade init");
    assert!(finished.stderr.contains("it knows contacts"), "{finished}");
    for command in
        ["plan", "history", "rollback", "verify", "backfill", "cleanup", "jobs", "experiments", "report"]
    {
        world.fail([command, "orders"], 1, "there is no migration \"orders\"", "crossfade init");
    }
}

async fn a_schema_that_crossfade_did_not_make_is_left_alone(world: World) {
    world.fill(5).await;
    world
        .database
        .execute(match world.database {
            Database::Postgres(_) => "create schema crossfade; create table crossfade.migration (mine text)",
            Database::Sqlite(_) => "create table crossfade_migration (mine text)",
        })
        .await;
    let before = world.database.tables().await;
    world.fail(["init", "contacts.toml"], 1, "that crossfade did not make", "rename");
    assert_eq!(world.database.tables().await, before);
}

async fn one_manifest_names_one_database(world: World) {
    let other = match world.database {
        Database::Postgres(_) => World::postgres().await,
        Database::Sqlite(_) => World::sqlite().await,
    };
    let text = Manifest::default().text().replacen("env:DATABASE_URL", "env:OTHER_URL", 1);
    fs::write(world.manifest_path(), text).unwrap();
    for command in ["check", "init"] {
        let finished =
            world.crossfade([command, "contacts.toml"]).env("OTHER_URL", other.database.url()).run();
        assert_eq!(finished.code(), Some(1), "{finished}");
        assert_one_error(&finished, "two databases are not supported yet", "the same database URL");
        let unset = world.run([command, "contacts.toml"], 1);
        assert_one_error(&unset, "OTHER_URL", "export OTHER_URL=");
    }
    fs::write(world.manifest_path(), Manifest::default().text()).unwrap();
    let elsewhere = world.crossfade(["init", "contacts.toml", "--control", other.database.url()]).run();
    assert_eq!(elsewhere.code(), Some(1), "{elsewhere}");
    assert_one_error(&elsewhere, "different databases", "the same database URL");
    for database in [&world.database, &other.database] {
        assert!(!database.tables().await.contains("crossfade"));
    }
}

/// The URL of the server with another role, which has a password.
fn with_role(url: &str, role: &str) -> String {
    let (_, rest) = url.split_once('@').expect("the harness names its role");
    format!("postgres://{role}:{PASSWORD}@{rest}")
}

#[tokio::test]
async fn a_role_that_is_not_let_in_is_told_so_without_its_password() {
    let world = World::postgres().await;
    world.init();
    let url = with_role(world.database.url(), "nobody_knows_me");
    for command in ["status", "advance", "backfill", "verify"] {
        let finished = world.bare([command, NAME, "--control", &url]).run();
        assert_eq!(finished.code(), Some(1), "{finished}");
        assert_one_error(&finished, "connecting to postgres://nobody_knows_me:***@", "user and password");
        assert!(!finished.to_string().contains(PASSWORD), "{finished}");
    }
}

#[tokio::test]
async fn a_password_is_masked_wherever_a_url_is_printed() {
    let world = World::postgres().await;
    world.fill(20).await;
    let role = world.database.lines("select current_user::text").await;
    let url = with_role(world.database.url(), &role);
    let run = |arguments: &[&str]| {
        let finished = world.bare(arguments).env("DATABASE_URL", &url).run();
        assert!(!finished.to_string().contains(PASSWORD), "{arguments:?}: {finished}");
        finished
    };
    run(&["status", NAME]);
    run(&["init", "contacts.toml"]);
    for arguments in [
        &["advance", NAME][..],
        &["snapshot", NAME, "--out", "snapshot"],
        &["scan", NAME, "--snapshot", "snapshot", "--out", "findings", "--json"],
        &["backfill", NAME, "--json"],
        &["status", NAME, "--json"],
        &["history", NAME, "--json"],
        &["plan", NAME],
        &["new", "other", "--old", "env:DATABASE_URL#nothing", "--new", "env:DATABASE_URL#contacts"],
    ] {
        run(arguments);
    }
    let place = format!("{url}#nothing");
    run(&["new", "other", "--old", &place, "--new", &place]);
    run(&["--control", &format!("{url}&application_name=x%zz"), "status"]);
    run(&["--control", &url.replace("postgres://", "mysql://"), "status"]);
    let literal = Manifest::default().text().replace("env:DATABASE_URL", &url);
    fs::write(world.manifest_path(), literal.replacen(&role, "someone_else", 1)).unwrap();
    run(&["check", "contacts.toml"]);
    fs::write(world.manifest_path(), literal).unwrap();
    run(&["init", "contacts.toml"]);
    // Nor does it lie in what is handed on: snapshots and findings.
    let kept = ["snapshot/old/snapshot.json", "snapshot/new/snapshot.json", "findings/scan.json"];
    for file in kept {
        let text = fs::read_to_string(world.path(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(!text.contains(PASSWORD), "{file}: {text}");
    }
}

#[test]
fn a_server_that_is_not_there_is_an_error_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("postgres://me:{PASSWORD}@localhost/app?host={}", folder.path().display());
    for command in ["status", "advance", "backfill"] {
        let finished = crate::world::binary().args([command, NAME, "--control", &url]).run();
        assert_eq!(finished.code(), Some(1), "{finished}");
        assert_one_error(&finished, "connecting to postgres://me:***@", "is the database running");
        assert!(!finished.to_string().contains(PASSWORD), "{finished}");
    }
    let missing = folder.path().join("missing.db");
    let finished =
        crate::world::binary().args(["status", "--control", &format!("sqlite:{}", missing.display())]).run();
    assert_eq!(finished.code(), Some(1), "{finished}");
    assert_one_error(&finished, "missing.db", "mode=rwc");
    assert!(!missing.exists());
}
