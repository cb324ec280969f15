//! Write transactions and changes of phase, interleaved.

use std::time::Duration;

use crossfade_migration_core::Error;
use crossfade_migration_core::fence::Fence;
use crossfade_migration_core::mirror::Direction;
use crossfade_migration_core::phase::{Epoch, Phase};

use super::engine::TestEngine;
use super::world::{PATIENCE, World, is_stale, subscriptions};

pub(crate) async fn a_change_times_out_while_a_write_is_in_flight<E: TestEngine>() {
    let world = World::<E>::new(subscriptions()).await;
    let mut write = E::begin_write(&world.connected.pool).await.unwrap();
    world.fence(&mut write, None).await.unwrap();
    let error = world.try_enter(Phase::DualWrite, Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(error, Error::FenceTimeout { .. }), "{error:?}");
    write.commit().await.unwrap();
    assert_eq!(world.epoch().await, Epoch(1));
    world.enter(Phase::DualWrite).await;
}

pub(crate) async fn a_change_waits_for_the_write_in_flight<E: TestEngine>() {
    let world = World::<E>::new(subscriptions()).await;
    let mut write = E::begin_write(&world.connected.pool).await.unwrap();
    world.fence(&mut write, None).await.unwrap();
    let mut change = Box::pin(world.try_enter(Phase::DualWrite, PATIENCE));
    // However far it gets within this time, it cannot get through.
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut change).await.is_err());
    assert_eq!(world.epoch().await, Epoch(1));
    E::run(&mut write, "insert into customers (id, plan_a) values (1, 'gold')".to_owned()).await.unwrap();
    write.commit().await.unwrap();
    change.await.unwrap();
    assert_eq!(world.epoch().await, Epoch(2));
}

pub(crate) async fn a_write_that_begins_after_the_change_sees_it<E: TestEngine>() {
    let world = World::<E>::new(subscriptions()).await;
    world.enter(Phase::DualWrite).await;
    let mut write = E::begin_write(&world.connected.pool).await.unwrap();
    let standing = world.fence(&mut write, Some(Epoch(2))).await.unwrap();
    assert_eq!((standing.phase, standing.epoch), (Phase::DualWrite, Epoch(2)));
}

pub(crate) async fn a_write_decided_before_the_change_is_stale_after_it<E: TestEngine>() {
    let world = World::<E>::new(subscriptions()).await;
    world.enter(Phase::DualWrite).await;
    let mut write = E::begin_write(&world.connected.pool).await.unwrap();
    match world.fence(&mut write, Some(Epoch(1))).await {
        Err(Error::StaleEpoch { expected, found, .. }) => assert_eq!((expected, found), (Epoch(1), Epoch(2))),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn a_transaction_begun_by_the_app_holds_the_fence<E: TestEngine>() {
    let world = World::<E>::new(subscriptions()).await;
    let mut write = world.connected.pool.begin().await.unwrap();
    world.fence(&mut write, Some(Epoch(1))).await.unwrap();
    let error = world.try_enter(Phase::DualWrite, Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(error, Error::FenceTimeout { .. }), "{error:?}");
    E::run(&mut write, "insert into customers (id) values (1)".to_owned()).await.unwrap();
    write.commit().await.unwrap();
    world.enter(Phase::DualWrite).await;
}

pub(crate) async fn a_transaction_that_read_before_the_change_cannot_write_after_it<E: TestEngine>() {
    let world = World::<E>::new(subscriptions()).await;
    let mut write = world.connected.pool.begin().await.unwrap();
    let count = "select cast(count(*) as text) from customers".to_owned();
    assert_eq!(E::lines(&mut write, count).await, ["0"]);
    world.enter(Phase::DualWrite).await;
    let error = world.fence(&mut write, Some(Epoch(1))).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    drop(write);
    let mut again = world.connected.pool.begin().await.unwrap();
    assert_eq!(world.fence(&mut again, None).await.unwrap().epoch, Epoch(2));
}

pub(crate) async fn a_mirror_decided_before_the_change_writes_nothing<E: TestEngine>() {
    let world = World::<E>::new(subscriptions()).await;
    world.run("insert into customers (id, plan_a) values (1, 'gold')").await;
    world.enter(Phase::DualWrite).await;
    let mut write = E::begin_write(&world.connected.pool).await.unwrap();
    let keys = world.coerce(&[1]);
    let error =
        E::mirror(&mut write, &world.subject, Direction::OldToNew, &keys, Epoch(1)).await.unwrap_err();
    assert!(is_stale(&error) && error.is_retryable(), "{error:?}");
    drop(write);
    assert!(world.subscriptions().await.is_empty());
}

pub(crate) async fn the_fence_may_be_taken_again<E: TestEngine>() {
    let world = World::<E>::new(subscriptions()).await;
    let mut write = E::begin_write(&world.connected.pool).await.unwrap();
    E::run(&mut write, "insert into customers (id) values (1)".to_owned()).await.unwrap();
    for _ in 0..3 {
        world.fence(&mut write, Some(Epoch(1))).await.unwrap();
    }
    write.commit().await.unwrap();
    let error = {
        let mut write = E::begin_write(&world.connected.pool).await.unwrap();
        <E as Fence>::fence(&mut write, crossfade_migration_core::control::MigrationId(999), "none", None)
            .await
            .unwrap_err()
    };
    assert!(matches!(error, Error::UnknownMigration { .. }), "{error:?}");
}
