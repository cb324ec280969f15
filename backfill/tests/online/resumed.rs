//! Exports that go on after a kill: whatever was finished and whatever was written since, the snapshot is the one that a full
//! export takes.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crossfade_backfill::export::{ExportOptions, Exported, export_with, interrupted};
use crossfade_backfill::progress::{Silent, Update};
use crossfade_backfill::snapshot::{MANIFEST_FILE, Side};
use crossfade_backfill::{Cancel, Error};
use sqlx::Sqlite;

use crate::since::{RANGES, rows, world};
use crate::world::{TestEngine, World, open};

const URL: &str = "CROSSFADE_TEST_EXPORT_URL";
const OUT: &str = "CROSSFADE_TEST_EXPORT_OUT";

/// So slow that it can be killed between two ranges, and so quick that it need not be waited for.
const BYTES_PER_SECOND: u64 = 2_000_000;

fn options() -> ExportOptions {
    let mut options = ExportOptions::default();
    options.ranges = RANGES.try_into().ok();
    options
}

/// The process that is killed: an export that takes its time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it is run by the tests that kill it, which give it a database"]
async fn exporting_process() {
    let migration = open(&env::var(URL).unwrap()).await;
    let mut options = options();
    options.bytes_per_second_max = BYTES_PER_SECOND.try_into().ok();
    let out = PathBuf::from(env::var(OUT).unwrap());
    export_with(&migration, &out, &options, &Silent, &Cancel::new()).await.unwrap();
}

/// Begins an export in a process of its own, and waits until it is so far.
async fn begun<E: TestEngine>(world: &World<E>, out: &Path, is_far: impl Fn() -> bool) -> Child {
    let mut process = Command::new(env::current_exe().unwrap())
        .args(["--exact", "resumed::exporting_process", "--ignored"])
        .env(URL, &world.url)
        .env(OUT, out)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !is_far() {
        assert!(process.try_wait().unwrap().is_none(), "the export ended before it was killed");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    process
}

async fn killed<E: TestEngine>(world: &World<E>, out: &Path, is_far: impl Fn() -> bool) {
    let mut process = begun(world, out, is_far).await;
    process.kill().unwrap();
    process.wait().unwrap();
}

fn journal(out: &Path, side: Side) -> PathBuf {
    side.folder(out).join("part-journal")
}

/// The numbers of a side's finished ranges.
fn finished(out: &Path, side: Side) -> Vec<usize> {
    let text = fs::read_to_string(journal(out, side)).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut ranges: Vec<usize> = whole
        .lines()
        .skip(1)
        .map(|line| {
            let range: serde_json::Value = serde_json::from_str(&line[17..]).unwrap();
            range["range"].as_u64().unwrap() as usize
        })
        .collect();
    ranges.sort_unstable();
    ranges.dedup();
    ranges
}

async fn resumed<E: TestEngine>(world: &World<E>, out: &Path) -> Exported {
    export_with(&world.migration, out, &options(), &Silent, &Cancel::new()).await.unwrap()
}

/// Compares with a full export; what is left is a pair, and nothing beside it.
async fn is_whole<E: TestEngine>(world: &World<E>, out: &Path, taken: &Exported) {
    let full = out.with_extension("full");
    let full = export_with(&world.migration, &full, &options(), &Silent, &Cancel::new()).await.unwrap();
    assert!(taken.pair.is_simultaneous() && interrupted(out).is_none());
    for side in [Side::Old, Side::New] {
        assert_eq!(rows(&taken.pair, side), rows(&full.pair, side), "{side}");
        let manifest = taken.pair.side(side).manifest();
        let mut expected: Vec<String> = manifest.files.iter().map(|file| file.name.clone()).collect();
        expected.push(MANIFEST_FILE.to_owned());
        expected.sort();
        let mut found: Vec<String> = fs::read_dir(side.folder(out))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        assert_eq!(found, expected, "{side}");
        assert_eq!(manifest.rows, full.pair.side(side).manifest().rows);
    }
}

/// Old ranges are finished first: killed before the first, between them, and when the new ones are under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_not_changed_is_taken_over_after_a_kill() {
    let (_server, world) = world().await;
    let moments: [(Side, usize); 4] = [(Side::Old, 0), (Side::Old, 2), (Side::Old, 5), (Side::New, 3)];
    for (number, (side, ranges)) in moments.into_iter().enumerate() {
        let out = world.path(&format!("killed-{number}"));
        killed(&world, &out, || journal(&out, side).exists() && finished(&out, side).len() >= ranges).await;
        let left = [Side::Old, Side::New].map(|side| finished(&out, side));
        let told = interrupted(&out).unwrap();
        assert_eq!(told.finished, left[0].len() + left[1].len());
        // Not by the inode alone: one that was freed is given to the next file.
        let inode = |path: &Path| {
            fs::metadata(path).ok().map(|metadata| (metadata.ino(), metadata.modified().unwrap()))
        };
        let file =
            |side: Side, range: usize| side.folder(&out).join(format!("part-{range:05}-00000.parquet"));
        let before: Vec<_> = left[0].iter().map(|range| inode(&file(Side::Old, *range))).collect();

        // A row of the first range, one of the last, and one that goes away.
        world.run(format!("update customers set plan_a = 'since {number}' where id = 7")).await;
        world.run(format!("delete from customers where id = {}", 20_000 - number)).await;
        world.run(format!("delete from subscriptions where customer_id = {}", 8 + number)).await;

        let taken = resumed(&world, &out).await;
        let unchanged: Vec<usize> =
            left[0].iter().copied().filter(|range| *range != 0 && *range != RANGES - 1).collect();
        assert_eq!(taken.reuse_old.resumed, unchanged.len(), "{:?} of {left:?}", taken.reuse_old);
        assert_eq!(taken.reuse_new.resumed, left[1].iter().filter(|range| **range != 0).count());
        for (range, before) in left[0].iter().zip(before) {
            assert_eq!(inode(&file(Side::Old, *range)) == before, unchanged.contains(range), "range {range}");
        }
        assert_eq!(taken.reuse_old.anew_because.is_some(), left[0].is_empty());
        is_whole(&world, &out, &taken).await;
    }
}

/// What each run has finished is known by its own moment: a change between the first two is not seen as one by the third.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_goes_on_may_be_killed_too() {
    let (_server, world) = world().await;
    let out = world.path("twice");
    killed(&world, &out, || finished(&out, Side::Old).len() >= 3).await;
    let first = finished(&out, Side::Old);
    world.run("update customers set plan_a = 'between' where id in (7, 10000)").await;
    killed(&world, &out, || finished(&out, Side::New).len() >= 2).await;
    let left = [Side::Old, Side::New].map(|side| finished(&out, side));
    assert_eq!(left[0].len(), RANGES, "{first:?}");
    world.run("update customers set plan_a = 'after' where id = 19999").await;
    let updates = std::sync::Mutex::new(0);
    let progress = |update: &Update| {
        let mut most = updates.lock().unwrap();
        *most = update.ranges_taken_over.max(*most);
    };
    let taken = export_with(&world.migration, &out, &options(), &progress, &Cancel::new()).await.unwrap();
    assert_eq!((taken.reuse_old.resumed, taken.reuse_new.resumed), (RANGES - 1, left[1].len()));
    assert_eq!(*updates.lock().unwrap(), RANGES - 1, "it is told while it goes on");
    is_whole(&world, &out, &taken).await;
}

/// Whatever the record has come to, the snapshot is right: of a torn one the whole lines count, a damaged one counts for nothing,
/// as do files that are not what it says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_believed_is_read_again() {
    let (mut server, world) = world().await;
    let killed = async |name: &str| {
        let out = world.path(name);
        killed(&world, &out, || finished(&out, Side::Old).len() >= 4).await;
        world.run("update customers set plan_a = plan_a || '!' where id = 7").await;
        out
    };

    let out = killed("torn").await;
    let text = fs::read(journal(&out, Side::Old)).unwrap();
    fs::write(journal(&out, Side::Old), &text[..text.len() - 20]).unwrap();
    let left = finished(&out, Side::Old);
    let taken = resumed(&world, &out).await;
    assert_eq!(taken.reuse_old.resumed, left.iter().filter(|range| **range != 0).count());
    is_whole(&world, &out, &taken).await;

    let out = killed("damaged").await;
    let mut text = fs::read(journal(&out, Side::Old)).unwrap();
    let middle = text.len() / 2;
    text[middle] ^= 1;
    fs::write(journal(&out, Side::Old), text).unwrap();
    let taken = resumed(&world, &out).await;
    assert_eq!(taken.reuse_old.resumed, 0);
    assert!(taken.reuse_old.anew_because.as_ref().unwrap().contains("damaged"));
    is_whole(&world, &out, &taken).await;

    // Files that a machine lost with its power, of the same length: one byte of one, and all of another.
    let out = killed("lost").await;
    let left: Vec<usize> = finished(&out, Side::Old).into_iter().filter(|range| *range != 0).collect();
    let file = |range: usize| Side::Old.folder(&out).join(format!("part-{range:05}-00000.parquet"));
    let mut bytes = fs::read(file(left[0])).unwrap();
    bytes[100] ^= 1;
    fs::write(file(left[0]), bytes).unwrap();
    fs::remove_file(file(left[1])).unwrap();
    let taken = resumed(&world, &out).await;
    assert_eq!(taken.reuse_old.resumed, left.len() - 2);
    is_whole(&world, &out, &taken).await;

    let out = killed("fresh").await;
    let mut fresh = options();
    fresh.fresh = true;
    let taken = export_with(&world.migration, &out, &fresh, &Silent, &Cancel::new()).await.unwrap();
    assert_eq!((taken.reuse_old.resumed, &taken.reuse_old.anew_because), (0, &None));
    is_whole(&world, &out, &taken).await;

    let out = killed("altered").await;
    world.run("alter table customers alter column plan_a type varchar").await;
    let taken = resumed(&world, &out).await;
    assert!(taken.reuse_old.anew_because.as_ref().unwrap().contains("altered"));
    is_whole(&world, &out, &taken).await;

    let out = killed("restarted").await;
    server.restart();
    let taken = resumed(&world, &out).await;
    assert!(taken.reuse_old.anew_because.as_ref().unwrap().contains("restarted"));
    is_whole(&world, &out, &taken).await;
}

/// An interrupted export since a snapshot: what it had finished comes from its folder, the rest from the snapshot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_since_a_snapshot_goes_on_with_both() {
    let (_server, world) = world().await;
    let out = world.path("both");
    killed(&world, &out, || finished(&out, Side::Old).len() >= 3).await;
    let mut options = options();
    options.since = Some(world.path("0"));
    let left = finished(&out, Side::Old).len();
    let taken = export_with(&world.migration, &out, &options, &Silent, &Cancel::new()).await.unwrap();
    assert_eq!((taken.reuse_old.resumed, &taken.reuse_old.full_because), (left, &None));
    assert!(taken.reuse_old.taken_over >= left);
    is_whole(&world, &out, &taken).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_that_is_under_way_is_left_alone() {
    let (_server, world) = world().await;
    let out = world.path("shared");
    let mut process = begun(&world, &out, || finished(&out, Side::New).len() >= 2).await;
    let error = export_with(&world.migration, &out, &options(), &Silent, &Cancel::new()).await.unwrap_err();
    assert!(matches!(error, Error::FolderInUse { .. }), "{error:?}");
    assert!(process.wait().unwrap().success());
    assert!(interrupted(&out).is_none());
}

/// There is nothing by which a later moment could tell what has changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_it_begins_anew_and_says_why() {
    let world = World::<Sqlite>::new(20_000).await;
    let out = world.path("anew");
    let marker = Side::New.folder(&out).join("part-unfinished");
    killed(&world, &out, || marker.exists()).await;
    assert_eq!(interrupted(&out).unwrap().started_at, None);
    world.run("update customers set plan_a = 'since' where id = 7").await;
    let taken = resumed(&world, &out).await;
    for reuse in [&taken.reuse_old, &taken.reuse_new] {
        assert_eq!(reuse.taken_over, 0);
        assert!(reuse.anew_because.as_ref().unwrap().contains("only Postgres"), "{reuse:?}");
    }
    is_whole(&world, &out, &taken).await;
}
