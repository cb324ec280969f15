//! Copying findings.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossfade_backfill::copy::copy;
use crossfade_backfill::progress::{Silent, Stage, Update};
use crossfade_backfill::queue::{JobState, Tunables};
use crossfade_backfill::verify::verify;
use crossfade_backfill::workspace::Round;
use crossfade_backfill::{Cancel, Error, export};
use crossfade_migration_core::phase::Phase;

use crate::world::{TestEngine, World, now, tunables};

async fn copied<E: TestEngine>(
    world: &World<E>,
    findings: &std::path::Path,
) -> crossfade_backfill::Result<crossfade_backfill::copy::CopyReport> {
    copy(&world.migration, findings, Some(tunables()), &Silent, &Cancel::new()).await
}

pub(crate) async fn missing_rows_are_copied_and_wrong_ones_repaired<E: TestEngine>() {
    let world = World::<E>::new(300).await;
    // A row that is there and right, one that is wrong, one that nobody owns, and one too many of a key that lacks one.
    world
        .run(
            "insert into subscriptions (customer_id, slot, plan) values
                (2, 'a', 'basic'), (4, 'a', 'stale'), (999, 'a', 'orphan'), (3, 'a', 'gone'), (8, 'c', 'odd')",
        )
        .await;
    let (findings, summary) = world.scan("first", 37).await;
    assert_eq!((summary.mismatched, summary.orphaned, summary.duplicated), (1, 3, 0));
    assert!(summary.chunks.len() > 3, "several chunks");

    let report = copied(&world, &findings).await.unwrap();

    assert_eq!(world.subscriptions().await, world.projected().await);
    assert_eq!(report.removed, 3);
    // Keys 4 and 8 are repaired whole: one row updated and one inserted, and both of 8's inserted.
    assert_eq!(report.repaired, 4);
    assert_eq!(report.copied, summary.missing - 3);
    let job = world.migration.queue.job(report.job.unwrap()).await.unwrap();
    assert_eq!((job.state, job.done.keys_done), (JobState::Done, job.keys));

    let again = copied(&world, &findings).await.unwrap();
    assert_eq!((again.copied, again.repaired, again.removed), (0, 0, 0), "copying is idempotent");
}

pub(crate) async fn nothing_is_copied_before_writes_are_mirrored<E: TestEngine>() {
    let world = World::<E>::new(10).await;
    world.enter(Phase::OldOnly).await;
    let (findings, _) = world.scan("first", 100).await;
    let error = copied(&world, &findings).await.unwrap_err();
    assert!(matches!(&error, Error::WrongPhase { phase: Phase::OldOnly, .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("dual_write"));
    assert!(world.subscriptions().await.is_empty());
    assert!(world.migration.queue.jobs(world.migration.subject.id).await.unwrap().is_empty());
}

pub(crate) async fn findings_that_do_not_belong_here_are_refused<E: TestEngine>() {
    let world = World::<E>::new(10).await;
    let (findings, _) = world.scan("first", 100).await;
    let summary = findings.join("scan.json");
    let text = fs::read_to_string(&summary).unwrap();
    let spoilt = |field: &str, value: serde_json::Value| {
        let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
        json[field] = value;
        fs::write(&summary, json.to_string()).unwrap();
    };
    spoilt("migration", "other".into());
    assert!(matches!(copied(&world, &findings).await, Err(Error::OtherMigration { .. })));
    spoilt("manifest_hash", "00".into());
    assert!(matches!(copied(&world, &findings).await, Err(Error::OtherManifest { .. })));
    spoilt("format_version", 99.into());
    assert!(matches!(copied(&world, &findings).await, Err(Error::FindingsVersion { .. })));
    fs::write(&summary, "{").unwrap();
    assert!(matches!(copied(&world, &findings).await, Err(Error::FindingsSummary { .. })));
    fs::write(&summary, &text).unwrap();

    world.enter(Phase::ShadowRead).await;
    let error = copied(&world, &findings).await.unwrap_err();
    assert!(matches!(error, Error::OtherEpoch { .. }), "{error:?}");
    fs::remove_file(&summary).unwrap();
    assert!(matches!(copied(&world, &findings).await, Err(Error::FindingsAbsent { .. })));
    assert!(world.subscriptions().await.is_empty());
}

pub(crate) async fn damaged_findings_end_the_job<E: TestEngine>() {
    let world = World::<E>::new(40).await;
    let (findings, summary) = world.scan("first", 10).await;
    let chunk = findings.join(&summary.chunks[1].name);
    let whole = fs::read(&chunk).unwrap();
    fs::write(&chunk, &whole[..whole.len() - 1]).unwrap();
    assert!(
        matches!(copied(&world, &findings).await, Err(Error::FileLength { .. })),
        "seen before a job is made"
    );

    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    fs::write(&chunk, &flipped).unwrap();
    let error = copied(&world, &findings).await.unwrap_err();
    assert!(matches!(error, Error::FileCorrupt { .. } | Error::JobFailed { .. }), "{error:?}");
    let job = &world.migration.queue.jobs(world.migration.subject.id).await.unwrap()[0];
    assert_eq!(job.state, JobState::Failed);
    assert!(job.error.as_ref().unwrap().contains("corrupt"), "{job:?}");

    fs::write(&chunk, whole).unwrap();
    copied(&world, &findings).await.unwrap();
    assert_eq!(world.subscriptions().await, world.projected().await);
}

pub(crate) async fn a_row_that_cannot_be_copied_names_its_key<E: TestEngine>() {
    let world = World::<E>::new(60).await;
    // The new table's check does not take it.
    world.run("update customers set plan_a = 'refused' where id = 17").await;
    let (findings, _) = world.scan("first", 20).await;
    let error = copied(&world, &findings).await.unwrap_err();
    assert!(matches!(error, Error::JobFailed { .. }), "{error:?}");
    assert!(error.to_string().contains("key 17"), "{error}");
    let missing: Vec<_> = {
        let held = world.subscriptions().await;
        world.projected().await.into_iter().filter(|line| !held.contains(line)).collect()
    };
    assert!(missing.iter().any(|line| line.starts_with("17 ")));
    assert!(missing.len() < 20, "other chunks are not held up: {missing:?}");

    world.run("update customers set plan_a = 'basic' where id = 17").await;
    copied(&world, &findings).await.unwrap();
    assert_eq!(world.subscriptions().await, world.projected().await);
}

pub(crate) async fn copying_under_concurrent_writers_loses_and_resurrects_nothing<E: TestEngine>() {
    const CUSTOMERS: i64 = 400;
    let world = Arc::new(World::<E>::new(CUSTOMERS as u32).await);
    // Half of the keys have wrong or superfluous rows, so that repairs race with writers too.
    world
        .run(
            "insert into subscriptions (customer_id, slot, plan)
             select id, 'a', 'stale' from customers where id % 2 = 0 and id > 100",
        )
        .await;
    let (findings, _) = world.scan("first", 25).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writes = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..3_u64)
        .map(|seed| {
            let (world, stop, writes) = (world.clone(), stop.clone(), writes.clone());
            tokio::spawn(async move {
                let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
                while !stop.load(Ordering::Relaxed) {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let id = (random >> 33) as i64 % CUSTOMERS + 1;
                    let sql = match (random >> 20) % 4 {
                        0 => format!("delete from customers where id = {id}"),
                        1 => format!("update customers set plan_a = null where id = {id}"),
                        2 => format!("update customers set plan_b = 'w{}' where id = {id}", random >> 40),
                        _ => format!(
                            "insert into customers (id, plan_a) values ({id}, 'again') on conflict (id) do nothing"
                        ),
                    };
                    world.write(sql, id).await;
                    writes.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    // Small batches, so that many writes fall between and into them.
    let slow = Tunables { workers: 2, batch_keys_max: 4, batch_ms: 20, work_percent: 60 };
    let report = copy(&world.migration, &findings, Some(slow), &Silent, &Cancel::new()).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(report.copied > 0 && writes.load(Ordering::Relaxed) > 20, "{report:?}, {writes:?}");
    assert_eq!(world.subscriptions().await, world.projected().await);
    let round = Round::at(world.path("second"));
    let verification =
        verify(&world.migration, &round, &Default::default(), &Silent, &Cancel::new()).await.unwrap();
    assert!(verification.is_clean(), "{verification:?}");
}

pub(crate) async fn a_copy_stops_when_the_migration_moves_on<E: TestEngine>() {
    let world = World::<E>::new(100).await;
    let (findings, _) = world.scan("first", 10).await;
    let epoch = world.epoch().await;
    let moved = AtomicBool::new(false);
    // The job is made, and no batch is done yet.
    let progress = |update: &Update| {
        if update.stage == Stage::Copy && !moved.swap(true, Ordering::Relaxed) {
            now(world.enter(Phase::ShadowRead));
        }
    };
    let error =
        copy(&world.migration, &findings, Some(tunables()), &progress, &Cancel::new()).await.unwrap_err();
    assert!(matches!(&error, Error::MovedOn { from, .. } if *from == epoch.0), "{error:?}");
    assert!(error.hint().is_some() && !error.is_retryable());
    assert!(world.subscriptions().await.is_empty(), "no batch of the earlier epoch was committed");
    let job = &world.migration.queue.jobs(world.migration.subject.id).await.unwrap()[0];
    assert_eq!(job.state, JobState::Failed);
}

pub(crate) async fn a_stopped_copy_goes_on_where_it_was<E: TestEngine>() {
    let world = World::<E>::new(200).await;
    let (findings, _) = world.scan("first", 30).await;
    let cancel = Cancel::new();
    let progress = |update: &Update| {
        if update.stage == Stage::Copy && update.done > 0 {
            cancel.cancel();
        }
    };
    let slow = Tunables { workers: 1, batch_keys_max: 2, batch_ms: 5, work_percent: 10 };
    let error = copy(&world.migration, &findings, Some(slow), &progress, &cancel).await.unwrap_err();
    assert!(matches!(error, Error::Stopped { .. }), "{error:?}");
    let before = world.migration.queue.jobs(world.migration.subject.id).await.unwrap().remove(0);
    assert_eq!((before.state, before.chunks_leased), (JobState::Running, 0), "its chunks are given back");
    assert!(before.done.copied > 0 && before.done.keys_done < before.keys, "{before:?}");
    assert_eq!(before.done.copied, world.subscriptions().await.len() as u64);

    let report = copied(&world, &findings).await.unwrap();
    assert_eq!(report.job, Some(before.id));
    assert_eq!(world.subscriptions().await, world.projected().await);
    assert_eq!(report.copied, world.projected().await.len() as u64, "each row is counted once");
}

pub(crate) async fn what_was_deleted_from_the_new_primary_does_not_come_back<E: TestEngine>() {
    let world = World::<E>::new(12).await;
    let (findings, _) = world.scan("first", 100).await;
    copied(&world, &findings).await.unwrap();
    world.enter(Phase::NewPrimary).await;
    // Written past the mirror: the old store lags behind.
    world.run("delete from subscriptions where customer_id = 2").await;
    world.run("update subscriptions set plan = 'new' where customer_id = 4").await;
    let (findings, summary) = world.scan("second", 100).await;
    assert_eq!((summary.missing, summary.mismatched), (2, 2));
    let expected = world.subscriptions().await;

    let report = copied(&world, &findings).await.unwrap();
    assert_eq!(report.copied, 0);
    assert_eq!(world.subscriptions().await, expected, "the new store decides");
    assert_eq!(world.projected().await, expected, "and the old one follows");
    assert!(export::export(&world.migration, &world.path("second"), &Silent, &Cancel::new()).await.is_err());
}
