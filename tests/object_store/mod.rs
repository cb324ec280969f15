//! Snapshots and dumps in object stores, from the command line, against an S3-compatible server.

use std::fs;
use std::path::{Path, PathBuf};

use crossfade_test_harness::{Mischief, Program, S3};
use serde_json::{Value, json};

use crate::world::{NAME, World, assert_one_error, document};

const BUCKET: &str = "backups";
const URL: &str = "s3://backups/contacts/monday";

/// A migration in `dual_write` with differences planted, and a server with a bucket.
struct Stored {
    world: World,
    server: S3,
}

impl Stored {
    async fn begin() -> Stored {
        let world = World::sqlite().await;
        world.fill(60).await;
        world.init();
        world.succeed(["advance", NAME]);
        world.succeed(["backfill", NAME]);
        world.plant().await;
        Stored { world, server: S3::start().bucket(BUCKET) }
    }

    /// The binary, with credentials for the server in its environment.
    fn crossfade(&self, arguments: &[&str]) -> Program {
        let program = self.world.crossfade(arguments).env("CROSSFADE_STORE_TIMEOUT", "20s");
        self.server.environment().into_iter().fold(program, |program, (name, value)| program.env(name, value))
    }

    /// Runs it with `--json`; it must end with this status, and print no secret.
    fn run(&self, arguments: &[&str], code: i32) -> Value {
        let finished = self.crossfade(arguments).arg("--json").run();
        assert_eq!(finished.code(), Some(code), "{finished}");
        assert!(!finished.to_string().contains(self.server.secret()), "{finished}");
        document(&finished)
    }

    /// Runs it with another environment; it must fail with one error and one hint, and print no secret.
    fn fail(&self, arguments: &[&str], settings: &[(&str, &str)], code: i32, message: &str, hint: &str) {
        let program = self.crossfade(arguments);
        let finished = settings.iter().fold(program, |program, (name, value)| program.env(name, value)).run();
        assert_eq!(finished.code(), Some(code), "{finished}");
        assert_one_error(&finished, message, hint);
        assert!(!finished.to_string().contains(self.server.secret()), "{finished}");
        assert!(!finished.to_string().contains("n0t-the-s3cr3t"), "{finished}");
    }

    /// The folders of what is on its way to an object store, or was fetched from one.
    fn staged(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.world.path("crossfade-work")) else { return Vec::new() };
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("remote-")).collect()
    }

    fn object(&self, name: &str) -> PathBuf {
        self.server.path(BUCKET, &format!("contacts/monday/{name}"))
    }
}

fn counts(found: &Value) -> [i64; 4] {
    ["missing", "mismatched", "orphaned", "duplicated"].map(|kind| found[kind].as_i64().unwrap_or(-1))
}

#[tokio::test]
async fn a_snapshot_is_published_fetched_and_looked_into() {
    let stored = Stored::begin().await;
    let taken = stored.run(&["snapshot", NAME, "--out", URL], 0);
    assert_eq!((&taken["snapshot"], &taken["migration"]), (&json!(URL), &json!(NAME)));
    assert!(stored.object("old/snapshot.json").exists() && stored.object("new/snapshot.json").exists());
    assert_eq!(stored.staged(), Vec::<PathBuf>::new(), "what was sent takes no room here any more");
    stored.fail(&["snapshot", NAME, "--out", URL], &[], 1, "already holds a snapshot", "choose an empty");

    let found = stored.run(&["scan", NAME, "--snapshot", URL, "--out", "one"], 4);
    assert_eq!(counts(&found), [2, 3, 2, 0], "{found}");
    // The same bytes as from a folder.
    stored.server.requests();
    let folder = stored.staged()[0].join("fetched").to_string_lossy().into_owned();
    let again = stored.run(&["scan", NAME, "--snapshot", &folder, "--out", "two"], 4);
    assert_eq!(found["chunks"], again["chunks"]);
    let inspected = stored.run(&["snapshot", "inspect", URL], 0);
    assert_eq!(inspected[1]["rows"], taken["rows_new"], "{inspected}");
    let diff = stored.run(&["snapshot", "diff", URL, "4", "phone"], 4);
    assert_eq!((&diff["rows_old"], &diff["rows_new"]), (&json!(1), &json!(1)));
    assert_eq!(
        stored.run(&["snapshot", "head", URL, "--side", "new", "--rows", "3"], 0).as_array().unwrap().len(),
        3
    );
    let fetched: Vec<_> =
        stored.server.requests().into_iter().filter(|asked| asked.ends_with(".parquet")).collect();
    assert_eq!(fetched, Vec::<String>::new(), "what was fetched once is not fetched again");
    stored.world.succeed(["copy", NAME, "--findings", "one"]);

    // Another snapshot at the same place is another snapshot.
    for side in ["old", "new"] {
        fs::remove_dir_all(stored.object(side)).unwrap();
    }
    stored.run(&["snapshot", NAME, "--out", URL], 0);
    let found = stored.run(&["scan", NAME, "--snapshot", URL, "--out", "three"], 0);
    assert_eq!(counts(&found), [0; 4], "{found}");
}

#[tokio::test]
async fn a_killed_upload_and_a_killed_download_go_on() {
    let stored = Stored::begin().await;
    let snapshot = ["snapshot", NAME, "--out", URL];
    stored.server.hold(Some(("PUT", "new/part-00000-00000.parquet")));
    let sending = stored.crossfade(&snapshot).spawn();
    stored.server.wait_for("PUT", "new/part-00000-00000.parquet");
    sending.kill();
    stored.server.hold(None);
    stored.fail(
        &["scan", NAME, "--snapshot", URL, "--out", "none"],
        &[],
        1,
        "no snapshot in",
        "take it again",
    );
    stored.server.requests();

    let finished = stored.crossfade(&snapshot).run();
    assert_eq!(finished.code(), Some(0), "{finished}");
    assert!(finished.stderr.contains("going on with the snapshot of"), "{finished}");
    let requests = stored.server.requests();
    let sent = |end: &str| requests.iter().any(|asked| asked.starts_with("PUT") && asked.ends_with(end));
    assert!(sent("new/part-00000-00000.parquet") && !sent("old/part-00000-00000.parquet"), "{requests:?}");

    let scan = ["scan", NAME, "--snapshot", URL, "--out", "findings"];
    stored.server.hold(Some(("GET", "new/part-00000-00000.parquet")));
    let fetching = stored.crossfade(&scan).spawn();
    stored.server.wait_for("GET", "new/part-00000-00000.parquet");
    fetching.kill();
    stored.server.hold(None);
    stored.server.requests();
    assert_eq!(counts(&stored.run(&scan, 4)), [2, 3, 2, 0]);
    let requests = stored.server.requests();
    let fetched = |end: &str| requests.iter().any(|asked| asked.starts_with("GET") && asked.ends_with(end));
    assert!(
        fetched("new/part-00000-00000.parquet") && !fetched("old/part-00000-00000.parquet"),
        "{requests:?}"
    );
}

/// Rows that were exported before the migration moved on are none that count.
#[tokio::test]
async fn what_a_killed_upload_left_is_taken_anew_in_another_epoch() {
    let stored = Stored::begin().await;
    let snapshot = ["snapshot", NAME, "--out", URL];
    stored.server.hold(Some(("PUT", "old/part-00000-00000.parquet")));
    let sending = stored.crossfade(&snapshot).spawn();
    stored.server.wait_for("PUT", "old/part-00000-00000.parquet");
    sending.kill();
    stored.server.hold(None);
    stored.world.succeed(["ramp", NAME, "50"]);
    let epoch = &stored.world.json(["status", NAME])["epoch"];
    assert_eq!(&stored.run(&snapshot, 0)["epoch"], epoch);
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

#[tokio::test]
async fn dumps_in_a_bucket_are_scanned() {
    let stored = Stored::begin().await;
    stored.world.succeed(["snapshot", NAME, "--out", "snapshot"]);
    for side in ["old", "new"] {
        let there = stored.server.path(BUCKET, &format!("exports/{side}"));
        copy_folder(&stored.world.path(&format!("snapshot/{side}")), &there);
        // A dump, and not a snapshot.
        fs::remove_file(there.join("snapshot.json")).unwrap();
        fs::write(there.join("_SUCCESS"), "").unwrap();
    }
    let (old, new) = ("s3://backups/exports/old", "s3://backups/exports/new/");
    let scan = |out| ["scan", "--old", old, "--new", new, "--key", "customer_id,kind", "--out", out];
    let found = stored.run(&scan("one"), 4);
    assert_eq!(counts(&found), [2, 3, 2, 0], "{found}");
    assert_eq!(found["old"]["store"], old, "{found}");
    // One side here, one there; and one file of a dump by its own name.
    let file = "s3://backups/exports/new/part-00000-00000.parquet";
    let mixed = ["scan", "--old", "snapshot/old", "--new", file, "--key", "customer_id,kind", "--out", "two"];
    assert_eq!(counts(&stored.run(&mixed, 4)), [2, 3, 2, 0]);

    stored.server.misbehave([Mischief::Half, Mischief::Fail, Mischief::Stall], None);
    stored.staged().iter().for_each(|folder| fs::remove_dir_all(folder).unwrap());
    let program = stored.crossfade(&scan("three")).env("CROSSFADE_STORE_TIMEOUT", "2s").run();
    assert_eq!(program.code(), Some(4), "{program}");
    stored.fail(
        &[
            "scan",
            "--old",
            "s3://backups/nothing",
            "--new",
            new,
            "--key",
            "customer_id,kind",
            "--out",
            "four",
        ],
        &[],
        1,
        "no Parquet files in s3://backups/nothing",
        "point at a Parquet file",
    );
}

#[tokio::test]
async fn a_store_that_cannot_be_used_is_said_before_anything_is_exported() {
    let stored = Stored::begin().await;
    let to = |url| ["snapshot", NAME, "--out", url];
    let wrong = [("AWS_SECRET_ACCESS_KEY", "n0t-the-s3cr3t")];
    stored.fail(&to(URL), &wrong, 1, "403 Forbidden", "AWS_SECRET_ACCESS_KEY");
    stored.fail(&to("s3://nowhere/monday"), &[], 1, "there is no such bucket", "is its name right");
    stored.fail(&to("ftp://host/monday"), &[], 2, "its scheme is not known", "s3://bucket/prefix");
    stored.fail(
        &to("ftp://me:n0t-the-s3cr3t@host/x"),
        &[],
        2,
        "its scheme is not known",
        "s3://bucket/prefix",
    );
    #[cfg(not(feature = "gcs"))]
    stored.fail(&to("gs://bucket/monday"), &[], 2, "it was built without gcs", "--features gcs");
    // A port that nobody listens on.
    let deaf = [("AWS_ENDPOINT", "http://127.0.0.1:1"), ("CROSSFADE_STORE_TIMEOUT", "200ms")];
    stored.fail(&to(URL), &deaf, 1, URL, "its endpoint");
    assert_eq!(stored.server.requests().iter().filter(|asked| asked.starts_with("PUT")).count(), 0);
    assert_eq!(exports(&stored), 0, "nothing was exported");
}

fn exports(stored: &Stored) -> usize {
    stored.staged().iter().filter(|folder| folder.join("outgoing").exists()).count()
}

#[tokio::test]
async fn a_store_that_fails_slows_down_or_breaks_off_leaves_no_result() {
    let stored = Stored::begin().await;
    stored.run(&["snapshot", NAME, "--out", URL], 0);
    let scan = ["scan", NAME, "--snapshot", URL, "--out", "findings"];
    let hasty = [("CROSSFADE_STORE_TIMEOUT", "300ms")];
    for (mischief, message) in [
        (Mischief::Fail, "500 Internal Server Error"),
        (Mischief::Stall, "nothing has come for 0.3 s"),
        (Mischief::Half, "old/part-00000-00000.parquet"),
        (Mischief::Garble, "its checksum is not its manifest's"),
    ] {
        stored.server.misbehave([], Some(mischief));
        stored.fail(&scan, &hasty, 1, message, "");
        stored.fail(&["copy", NAME, "--findings", "findings"], &[], 1, "no findings in", "crossfade scan");
    }
    stored.server.misbehave([], None);
    assert_eq!(counts(&stored.run(&scan, 4)), [2, 3, 2, 0]);
}
