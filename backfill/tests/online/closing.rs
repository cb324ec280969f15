//! The step that closes the old store, and what cleanup makes of it.

use std::time::Duration;

use crossfade_backfill::cleanup::{Cleaned, CleanupOptions, cleanup};
use crossfade_backfill::closing::{Closed, close};
use crossfade_backfill::progress::Silent;
use crossfade_backfill::rounds::{BackfillOptions, backfill};
use crossfade_backfill::workspace::Workspace;
use crossfade_backfill::{Cancel, Error, Result};
use crossfade_migration_core::gate::EvidenceKind;
use crossfade_migration_core::mirror::Direction;
use crossfade_migration_core::operate::Order;
use crossfade_migration_core::phase::{Phase, Ramp};
use crossfade_migration_core::transition::Request;

use crate::world::{TestEngine, World, tunables};

/// In `new_primary`, verified.
async fn verified<E: TestEngine>(customers: u32) -> World<E> {
    let world = World::<E>::new(customers).await;
    let options = BackfillOptions { tunables: Some(tunables()), ..BackfillOptions::default() };
    backfill(&world.migration, world.root(), &options, &Silent, &Cancel::new()).await.unwrap();
    world.enter(Phase::NewPrimary).await;
    let verified = backfill(&world.migration, world.root(), &options, &Silent, &Cancel::new()).await.unwrap();
    assert!(verified.clean);
    world
}

async fn closed<E: TestEngine>(world: &World<E>, cancel: &Cancel) -> Result<Closed> {
    let order = Order {
        request: Request::Advance { ramp: Ramp::FULL },
        decided_at: None,
        actor: "tester".to_owned(),
        reason: Some("no time to soak".to_owned()),
        force: true,
        dry_run: false,
        patience: Duration::from_secs(30),
    };
    close(&world.operator().await, &world.migration, &order, world.root(), &Silent, cancel).await
}

async fn cleaned<E: TestEngine>(world: &World<E>) -> Cleaned {
    let options = CleanupOptions { baseline: None, tunables: Some(tunables()) };
    cleanup(&world.migration, world.root(), &options, &Silent, &Cancel::new()).await.unwrap()
}

fn rewrite(id: i64, plan: &str) -> String {
    format!("update subscriptions set plan = '{plan}' where customer_id = {id}")
}

pub(crate) async fn keys_written_after_the_verification_are_removed_too<E: TestEngine>() {
    let world = verified::<E>(40).await;
    let epoch = world.epoch().await;
    world.try_write(&rewrite(2, "between"), 2, Direction::NewToOld, epoch).await.unwrap();
    // Behind crossfade's back, in the same time: nobody has vouched for it.
    world.run("update customers set plan_a = 'secret' where id = 8").await;
    let closed = closed(&world, &Cancel::new()).await.unwrap();
    assert!(closed.moved.to.phase == Phase::NewOnly && closed.unrecorded.is_none(), "{closed:?}");
    // The new store goes on, the old one does not follow.
    world.run(rewrite(2, "afterwards")).await;
    world.run(rewrite(8, "afterwards")).await;

    let report = cleaned(&world).await;
    assert_eq!(report.left, ["8"], "{report:?}");
    assert!(report.baseline.contains("when it was closed"), "{}", report.baseline);
    assert_eq!(world.projected().await, ["8 a secret", "8 b plus"]);
}

pub(crate) async fn without_the_closing_such_keys_are_left<E: TestEngine>() {
    let world = verified::<E>(40).await;
    let epoch = world.epoch().await;
    world.try_write(&rewrite(2, "between"), 2, Direction::NewToOld, epoch).await.unwrap();
    world.enter(Phase::NewOnly).await;
    world.run(rewrite(2, "afterwards")).await;
    assert_eq!(cleaned(&world).await.left, ["2"]);
}

pub(crate) async fn writers_up_to_the_last_moment_leave_nothing_behind<E: TestEngine>() {
    let world = verified::<E>(40).await;
    let epoch = world.epoch().await;
    let (began, begun) = tokio::sync::oneshot::channel();
    let writing = async {
        let mut began = Some(began);
        for round in 0_u32.. {
            for id in [2, 4, 8] {
                let sql = rewrite(id, &format!("round {round}"));
                match world.try_write(&sql, id, Direction::NewToOld, epoch).await {
                    Ok(()) => {}
                    Err(crossfade_migration_core::Error::StaleEpoch { .. }) => return round,
                    Err(error) if error.is_retryable() => {}
                    Err(error) => panic!("{error}"),
                }
            }
            // The closing begins in the middle of it all.
            if round == 3
                && let Some(began) = began.take()
            {
                let _ = began.send(());
            }
        }
        0
    };
    let cancel = Cancel::new();
    let closing = async {
        begun.await.unwrap();
        closed(&world, &cancel).await.unwrap()
    };
    let (rounds, closed) = tokio::join!(writing, closing);
    assert!(rounds >= 3 && closed.snapshot.is_some(), "{closed:?}");
    world.run("update subscriptions set plan = 'afterwards'").await;
    let report = cleaned(&world).await;
    assert!(report.clean, "the last write before the step was not seen: {report:?}");
}

pub(crate) async fn a_closing_that_is_broken_off_has_been_made_and_says_so<E: TestEngine>() {
    let world = verified::<E>(40).await;
    let cancel = Cancel::new();
    cancel.cancel();
    let closed = closed(&world, &cancel).await.unwrap();
    assert!(closed.unrecorded.is_some() && closed.snapshot.is_none(), "{closed:?}");
    assert_eq!(world.migration.standing().await.unwrap().phase, Phase::NewOnly);
    let evidence = world.migration.control.evidence(world.migration.subject.id).await.unwrap();
    assert!(evidence.iter().all(|evidence| evidence.kind != EvidenceKind::Closing));
    let report = cleaned(&world).await;
    assert!(report.clean && report.baseline.contains("the verification in"), "{report:?}");
}

pub(crate) async fn a_folder_in_use_is_said_before_anything_changes<E: TestEngine>() {
    let world = verified::<E>(4).await;
    let _other = Workspace::open(world.root(), "moving").unwrap();
    let error = closed(&world, &Cancel::new()).await.unwrap_err();
    assert!(matches!(error, Error::FolderInUse { .. }), "{error:?}");
    assert_eq!(world.migration.standing().await.unwrap().phase, Phase::NewPrimary);
}
