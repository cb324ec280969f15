//! Whole backfills and verifications.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crossfade_backfill::copy::copy;
use crossfade_backfill::export::export;
use crossfade_backfill::progress::{Silent, Stage, Update};
use crossfade_backfill::queue::{JobState, Tunables};
use crossfade_backfill::rounds::{BackfillOptions, backfill};
use crossfade_backfill::verify::verify;
use crossfade_backfill::workspace::Round;
use crossfade_backfill::{Cancel, Error};
use crossfade_migration_core::gate::{Evidence, EvidenceKind};
use crossfade_migration_core::phase::Phase;

use crate::world::{TestEngine, World, now, tunables};

fn options() -> BackfillOptions {
    BackfillOptions { tunables: Some(tunables()), ..BackfillOptions::default() }
}

async fn verifications<E: TestEngine>(world: &World<E>) -> Vec<Evidence> {
    let evidence = world.migration.control.evidence(world.migration.subject.id).await.unwrap();
    evidence.into_iter().filter(|evidence| evidence.kind == EvidenceKind::Verification).collect()
}

pub(crate) async fn a_backfill_ends_clean_with_evidence<E: TestEngine>() {
    let world = World::<E>::new(250).await;
    world.run("insert into subscriptions (customer_id, slot, plan) values (900, 'a', 'orphan')").await;
    let stages = Mutex::new(Vec::new());
    let progress = |update: &Update| {
        let mut stages = stages.lock().unwrap();
        if stages.last() != Some(&update.stage) {
            stages.push(update.stage);
        }
    };
    let done = backfill(&world.migration, world.root(), &options(), &progress, &Cancel::new()).await.unwrap();

    let rows = world.projected().await;
    assert_eq!(world.subscriptions().await, rows);
    assert!(done.clean);
    assert_eq!((done.rounds, done.copied, done.removed), (2, rows.len() as u64, 1));
    assert_eq!(done.verification.differences.rows_old, rows.len() as u64);
    assert_eq!(done.verification.differences.rows_new, rows.len() as u64);
    use Stage::{Copy, ExportNew, ExportOld, Scan};
    assert_eq!(*stages.lock().unwrap(), [ExportOld, ExportNew, Scan, Copy, ExportOld, ExportNew, Scan]);

    let evidence = verifications(&world).await;
    let [evidence] = evidence.as_slice() else { panic!("one verification: {evidence:?}") };
    assert_eq!((evidence.faults, evidence.phase), (0, Phase::DualWrite));
    assert_eq!(evidence.epoch, world.epoch().await);
    assert_eq!(evidence.details["snapshot"], serde_json::json!(done.verification.snapshot));
    assert!(done.verification.snapshot.join("old/snapshot.json").exists());
}

pub(crate) async fn a_second_backfill_finds_nothing_and_keeps_only_what_evidence_points_at<E: TestEngine>() {
    let world = World::<E>::new(30).await;
    let first = backfill(&world.migration, world.root(), &options(), &Silent, &Cancel::new()).await.unwrap();
    let second = backfill(&world.migration, world.root(), &options(), &Silent, &Cancel::new()).await.unwrap();
    assert!(second.clean);
    assert_eq!((second.rounds, second.copied, second.repaired, second.removed), (1, 0, 0, 0));
    assert_ne!(first.verification.snapshot, second.verification.snapshot);
    let rounds: Vec<_> = fs::read_dir(world.root().join("moving"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    assert_eq!(rounds, [second.verification.snapshot]);
}

pub(crate) async fn findings_that_healed_are_no_faults<E: TestEngine>() {
    let world = World::<E>::new(20).await;
    backfill(&world.migration, world.root(), &options(), &Silent, &Cancel::new()).await.unwrap();
    world.run("delete from subscriptions where customer_id in (2, 4, 8)").await;
    let healed = AtomicBool::new(false);
    // Between the snapshots and the second look the application writes two of the three keys.
    let progress = |update: &Update| {
        if update.stage == Stage::Recheck && !healed.swap(true, Ordering::Relaxed) {
            for id in [2, 4] {
                now(world.write(format!("update customers set plan_a = 'healed' where id = {id}"), id));
            }
        }
    };
    let round = Round::at(world.path("verification"));
    let verification =
        verify(&world.migration, &round, &Default::default(), &progress, &Cancel::new()).await.unwrap();
    assert_eq!((verification.differences.missing, verification.healed), (2, 4), "{verification:?}");
    assert_eq!(verifications(&world).await[0].faults, 2);

    let findings = verification.differences.findings;
    assert_eq!(findings, round.confirmed());
    let report = copy(&world.migration, &findings, None, &Silent, &Cancel::new()).await.unwrap();
    assert_eq!((report.keys, report.copied), (1, 2), "only what was confirmed is worked on");
    assert_eq!(world.subscriptions().await, world.projected().await);
}

pub(crate) async fn an_interrupted_export_is_no_snapshot_and_is_done_again<E: TestEngine>() {
    let world = World::<E>::new(100).await;
    let out = world.path("pair");
    let cancel = Cancel::new();
    let progress = |update: &Update| {
        if update.stage == Stage::ExportNew {
            cancel.cancel();
        }
    };
    let error = export(&world.migration, &out, &progress, &cancel).await.unwrap_err();
    assert!(matches!(error, Error::Stopped { .. }), "{error:?}");
    assert!(out.join("old/snapshot.json").exists() && !out.join("new/snapshot.json").exists());
    world.write("update customers set plan_a = 'later' where id = 1".into(), 1).await;

    let pair = export(&world.migration, &out, &Silent, &Cancel::new()).await.unwrap().pair;
    assert!(pair.is_simultaneous(), "both sides are of the second export");
    assert_eq!(pair.old().rows(), world.projected().await.len() as u64);
    assert_eq!(pair.new_side().rows(), world.subscriptions().await.len() as u64);
    pair.old().verify_checksums().unwrap();
    let again = export(&world.migration, &out, &Silent, &Cancel::new()).await.unwrap_err();
    assert!(matches!(again, Error::SnapshotPresent { .. }), "{again:?}");
}

pub(crate) async fn rounds_end_and_say_what_is_left<E: TestEngine>() {
    let world = World::<E>::new(20).await;
    // Somebody deletes a row past crossfade after every copy.
    let progress = |update: &Update| {
        if update.stage == Stage::Copy && Some(update.done) == update.total {
            now(world.run("delete from subscriptions where customer_id = 4"));
        }
    };
    // A second worker could be in the middle of a transaction, which the deletion would wait for, and it for the deletion.
    let alone = Tunables { workers: 1, ..tunables() };
    let few = BackfillOptions { rounds_max: 3, tunables: Some(alone), ..BackfillOptions::default() };
    let done = backfill(&world.migration, world.root(), &few, &progress, &Cancel::new()).await.unwrap();
    assert!(!done.clean);
    assert_eq!(done.rounds, 3);
    assert_eq!(done.verification.differences.missing, 2, "both rows of the one key");
    assert_eq!(verifications(&world).await[0].faults, 2);
}

pub(crate) async fn an_unfinished_copy_is_gone_on_with<E: TestEngine>() {
    let world = World::<E>::new(120).await;
    let cancel = Cancel::new();
    let progress = |update: &Update| {
        if update.stage == Stage::Copy && update.done > 0 {
            cancel.cancel();
        }
    };
    let slow = Tunables { workers: 1, batch_keys_max: 2, batch_ms: 5, work_percent: 10 };
    let begun = BackfillOptions { tunables: Some(slow), ..BackfillOptions::default() };
    let error = backfill(&world.migration, world.root(), &begun, &progress, &cancel).await.unwrap_err();
    assert!(matches!(error, Error::Stopped { .. }), "{error:?}");

    let done = backfill(&world.migration, world.root(), &options(), &Silent, &Cancel::new()).await.unwrap();
    assert!(done.clean);
    assert_eq!(done.rounds, 1, "the copy was finished before the first round");
    assert_eq!(world.subscriptions().await, world.projected().await);
    let jobs = world.migration.queue.jobs(world.migration.subject.id).await.unwrap();
    assert_eq!(jobs.iter().map(|job| job.state).collect::<Vec<_>>(), [JobState::Done]);
}

pub(crate) async fn an_unfinished_copy_whose_findings_are_lost_makes_room_for_a_new_round<E: TestEngine>() {
    let world = World::<E>::new(40).await;
    let cancel = Cancel::new();
    cancel.cancel();
    let (findings, summary) = world.scan("first", 10).await;
    let error = copy(&world.migration, &findings, Some(tunables()), &Silent, &cancel).await.unwrap_err();
    assert!(matches!(error, Error::Stopped { .. }), "{error:?}");
    fs::remove_file(findings.join(&summary.chunks[0].name)).unwrap();

    let done = backfill(&world.migration, world.root(), &options(), &Silent, &Cancel::new()).await.unwrap();
    assert!(done.clean);
    assert_eq!(world.subscriptions().await, world.projected().await);
    let jobs = world.migration.queue.jobs(world.migration.subject.id).await.unwrap();
    let states: Vec<_> = jobs.iter().map(|job| job.state).collect();
    assert_eq!(states, [JobState::Done, JobState::Failed], "newest first");
    assert!(jobs[1].error.as_ref().unwrap().contains(&summary.chunks[0].name));
}
