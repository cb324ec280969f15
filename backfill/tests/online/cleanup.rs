//! Taking moved data out of the old store.

use std::path::PathBuf;

use crossfade_backfill::cleanup::{Cleaned, CleanupOptions, cleanup};
use crossfade_backfill::progress::{Silent, Stage, Update};
use crossfade_backfill::queue::Tunables;
use crossfade_backfill::rounds::{BackfillOptions, backfill};
use crossfade_backfill::{Cancel, Error, Result};
use crossfade_migration_core::gate::{Evidence, EvidenceKind};
use crossfade_migration_core::phase::Phase;

use crate::world::{TestEngine, World, tunables};

/// In `new_only`, having been verified in `new_primary`; gives the verification's snapshots.
async fn moved<E: TestEngine>(world: &World<E>) -> PathBuf {
    let options = BackfillOptions { tunables: Some(tunables()), ..BackfillOptions::default() };
    backfill(&world.migration, world.root(), &options, &Silent, &Cancel::new()).await.unwrap();
    world.enter(Phase::NewPrimary).await;
    let verified = backfill(&world.migration, world.root(), &options, &Silent, &Cancel::new()).await.unwrap();
    assert!(verified.clean);
    world.enter(Phase::NewOnly).await;
    verified.verification.snapshot
}

async fn cleaned<E: TestEngine>(world: &World<E>, baseline: Option<PathBuf>) -> Result<Cleaned> {
    let options = CleanupOptions { baseline, tunables: Some(tunables()) };
    cleanup(&world.migration, world.root(), &options, &Silent, &Cancel::new()).await
}

async fn evidence<E: TestEngine>(world: &World<E>) -> Evidence {
    let evidence = world.migration.control.evidence(world.migration.subject.id).await.unwrap();
    evidence.into_iter().find(|evidence| evidence.kind == EvidenceKind::Cleanup).unwrap()
}

pub(crate) async fn what_was_verified_is_removed_and_the_rest_is_left<E: TestEngine>() {
    let world = World::<E>::new(60).await;
    moved(&world).await;
    // The new store lives on, and the archive does not follow: that does not hold its removal up.
    world.run("update subscriptions set plan = 'newer' where customer_id = 2").await;
    world.run("delete from subscriptions where customer_id = 4").await;
    // Written behind crossfade's back, after the verification.
    world.run("update customers set plan_a = 'secret' where id = 8").await;
    world.run("insert into customers (id, plan_a) values (777, 'secret')").await;
    let kept = world.subscriptions().await;

    let report = cleaned(&world, None).await.unwrap();
    assert_eq!((report.clean, report.kept, report.keys_left), (false, 2, 2), "{report:?}");
    assert_eq!(report.left, ["8", "777"]);
    assert_eq!(report.rows_left, 3, "both rows of 8, and the one of 777");
    assert!(report.retired >= 40, "{report:?}");
    assert_eq!(world.projected().await, ["8 a secret", "8 b plus", "777 a secret"]);
    assert_eq!(world.subscriptions().await, kept, "the new store is not touched");
    assert_eq!((evidence(&world).await.faults, evidence(&world).await.phase), (3, Phase::NewOnly));

    // The operator has looked, and saved what was there.
    world.run("update customers set plan_a = null, plan_b = null where id in (8, 777)").await;
    let report = cleaned(&world, None).await.unwrap();
    assert_eq!((report.clean, report.job, report.rows_left), (true, None, 0), "{report:?}");
    assert_eq!(evidence(&world).await.faults, 0);
    assert!(world.projected().await.is_empty());
    assert_eq!(world.subscriptions().await, kept);
}

pub(crate) async fn without_a_baseline_only_equal_rows_are_removed<E: TestEngine>() {
    let world = World::<E>::new(30).await;
    let snapshot = moved(&world).await;
    std::fs::remove_dir_all(&snapshot).unwrap();
    world.run("update subscriptions set plan = 'newer' where customer_id = 2 and slot = 'a'").await;
    let report = cleaned(&world, None).await.unwrap();
    assert_eq!(report.left, ["2"]);
    assert!(report.baseline.contains("only data that equals"), "{}", report.baseline);
    assert_eq!(world.projected().await, ["2 a basic", "2 b plus"]);
}

pub(crate) async fn a_chosen_baseline_is_followed_and_a_wrong_one_refused<E: TestEngine>() {
    let world = World::<E>::new(30).await;
    let snapshot = moved(&world).await;
    world.run("update subscriptions set plan = 'newer' where customer_id = 2 and slot = 'a'").await;
    let exports = std::sync::atomic::AtomicU32::new(0);
    let progress = |_: &Update| {
        exports.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    };
    let options = CleanupOptions { baseline: Some(world.path("nowhere")), tunables: None };
    let error =
        cleanup(&world.migration, world.root(), &options, &progress, &Cancel::new()).await.unwrap_err();
    assert!(matches!(error, Error::SnapshotAbsent { .. }), "{error:?}");
    assert_eq!(exports.into_inner(), 0, "nothing is exported for a baseline that is not there");
    let away = world.path("away");
    std::fs::rename(&snapshot, &away).unwrap();
    let manifest = away.join("old/snapshot.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("\"moving\"", "\"another\"")).unwrap();
    let error = cleaned(&world, Some(away.clone())).await.unwrap_err();
    assert!(matches!(&error, Error::Baseline { why, .. } if why.contains("another")), "{error:?}");
    assert_eq!(world.projected().await.len(), 35, "nothing was removed");

    std::fs::write(&manifest, text).unwrap();
    let report = cleaned(&world, Some(away)).await.unwrap();
    assert!(report.clean, "{report:?}");
}

pub(crate) async fn nothing_is_removed_before_new_only_or_without_a_mapping<E: TestEngine>() {
    let world = World::<E>::new(6).await;
    for phase in [Phase::DualWrite, Phase::NewPrimary, Phase::Complete] {
        world.enter(phase).await;
        let error = cleaned(&world, None).await.unwrap_err();
        assert!(matches!(error, Error::WrongPhase { .. }), "{error:?}");
    }
    let world = World::<E>::without_retire(6).await;
    world.enter(Phase::NewOnly).await;
    let error = cleaned(&world, None).await.unwrap_err();
    assert!(matches!(error, Error::NotRetirable { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("mapping.retire"));
    assert!(!world.projected().await.is_empty());
}

pub(crate) async fn a_stopped_cleanup_goes_on_where_it_was<E: TestEngine>() {
    let world = World::<E>::new(200).await;
    moved(&world).await;
    let keys = world
        .lines("select cast(count(*) as text) from customers where plan_a is not null or plan_b is not null")
        .await;
    let cancel = Cancel::new();
    let progress = |update: &Update| {
        if update.stage == Stage::Retire && update.done > 0 {
            cancel.cancel();
        }
    };
    let slow = Tunables { workers: 1, batch_keys_max: 3, batch_ms: 5, work_percent: 10 };
    let options = CleanupOptions { baseline: None, tunables: Some(slow) };
    let error = cleanup(&world.migration, world.root(), &options, &progress, &cancel).await.unwrap_err();
    assert!(matches!(error, Error::Stopped { .. }), "{error:?}");
    let left = world.projected().await.len();
    assert!(left > 0);

    let report = cleaned(&world, None).await.unwrap();
    assert!(report.clean, "{report:?}");
    assert_eq!(report.retired.to_string(), keys[0], "each key is counted once over both runs");
    assert_eq!(
        world.migration.queue.jobs(world.migration.subject.id).await.unwrap().len(),
        2,
        "the copy and one cleanup"
    );
}

pub(crate) async fn a_cleanup_whose_work_is_damaged_begins_again<E: TestEngine>() {
    let world = World::<E>::new(20).await;
    moved(&world).await;
    let cancel = Cancel::new();
    let progress = |update: &Update| {
        if update.stage == Stage::Retire {
            cancel.cancel();
        }
    };
    let options = CleanupOptions { baseline: None, tunables: Some(tunables()) };
    cleanup(&world.migration, world.root(), &options, &progress, &cancel).await.unwrap_err();
    let job = world.migration.queue.jobs(world.migration.subject.id).await.unwrap().remove(0);
    std::fs::write(job.source.join("work.json"), "{").unwrap();
    let report = cleaned(&world, None).await.unwrap();
    assert!(report.clean && report.job != Some(job.id), "{report:?}");
}
