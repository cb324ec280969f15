//! A job's transactions.

use crossfade_migration_core::key::Key;
use crossfade_migration_core::phase::{Epoch, Phase, Side};
use crossfade_migration_core::work::Done;

use super::engine::TestEngine;
use super::world::{World, is_stale, subscriptions};

pub(crate) async fn a_copy_inserts_what_is_absent_and_never_overwrites<E: TestEngine>() {
    let world = World::<E>::new(subscriptions()).await;
    world.run("insert into customers (id, plan_a, plan_b) values (1, 'old', 'iron'), (2, 'tin', null)").await;
    world.run("insert into subscriptions (customer_id, slot, plan) values (1, 'a', 'newer'), (1, 'z', 'orphan')").await;
    let keys = world.coerce(&[1, 2]);
    let copied = async || world.store.copy(&world.subject, Epoch(1), &keys).await.unwrap().copied;
    assert_eq!(copied().await, 2);
    assert_eq!(copied().await, 0);
    assert_eq!(world.subscriptions().await, ["1 a newer", "1 b iron", "1 z orphan", "2 a tin"]);
}

pub(crate) async fn a_copy_at_a_stale_epoch_does_nothing<E: TestEngine>() {
    let world = World::<E>::new(subscriptions()).await;
    world.run("insert into customers (id, plan_a) values (1, 'gold')").await;
    world.enter(Phase::DualWrite).await;
    let error = world.store.copy(&world.subject, Epoch(1), &world.coerce(&[1])).await.unwrap_err();
    assert!(is_stale(&error), "{error:?}");
    assert!(world.subscriptions().await.is_empty());
}

pub(crate) async fn a_copy_brings_nothing_back_once_the_new_store_is_primary<E: TestEngine>() {
    let world = World::<E>::new(subscriptions()).await;
    world.run("insert into customers (id, plan_a) values (1, 'gold')").await;
    for phase in [Phase::NewPrimary, Phase::NewOnly] {
        world.enter(phase).await;
        let copied =
            world.store.copy(&world.subject, world.epoch().await, &world.coerce(&[1])).await.unwrap();
        assert_eq!(copied, Done::default());
        assert!(world.subscriptions().await.is_empty(), "what the new store lacks was deleted there");
    }
}

pub(crate) async fn a_repair_follows_the_phase<E: TestEngine>() {
    let world = World::<E>::new(subscriptions()).await;
    let keys = world.coerce(&[1]);
    world.run("insert into customers (id, plan_a) values (1, 'gold')").await;
    world
        .run("insert into subscriptions (customer_id, slot, plan) values (1, 'a', 'tin'), (1, 'b', 'iron')")
        .await;
    let repair = async || world.store.repair(&world.subject, world.epoch().await, &keys).await.unwrap();
    assert_eq!(repair().await, Done::default(), "in old_only there is no secondary");
    world.enter(Phase::NewPrimary).await;
    repair().await;
    assert_eq!(world.lines("select plan_a || ' ' || plan_b from customers").await, ["tin iron"]);
    world.run("update customers set plan_a = 'gold', plan_b = null").await;
    world.enter(Phase::ReadNew).await;
    assert_eq!(repair().await, Done { copied: 0, repaired: 1, removed: 1 });
    assert_eq!(world.subscriptions().await, ["1 a gold"]);
}

pub(crate) async fn keys_that_are_equal_are_retired_and_others_left<E: TestEngine>() {
    let world = World::<E>::new(subscriptions()).await;
    world.run("insert into customers (id, plan_a) values (1, 'gold'), (2, 'tin')").await;
    let keys = world.coerce(&[1, 2]);
    world.store.copy(&world.subject, Epoch(1), &keys).await.unwrap();
    world.run("update customers set plan_a = 'written behind our back' where id = 2").await;
    let retired = world.store.retire_equal(&world.subject, Epoch(1), &keys).await.unwrap();
    assert_eq!((retired.retired, retired.left), (world.coerce(&[1]), world.coerce(&[2])));
    assert_eq!(world.read(Side::Old).await.unwrap(), ["2,a,written behind our back"]);
    let judge = |_: &_| world.coerce(&[2]);
    let retired = world.store.retire(&world.subject, Epoch(1), &keys, &judge).await.unwrap();
    assert_eq!((retired.retired, retired.left), (world.coerce(&[2]), world.coerce(&[1])));
    assert!(world.read(Side::Old).await.unwrap().is_empty());
    assert_eq!(world.subscriptions().await, ["1 a gold", "2 a tin"]);
}

pub(crate) async fn a_copy_of_many_keys_is_split<E: TestEngine>() {
    // More keys than any engine takes as parameters of one statement.
    const COUNT: i32 = 70_000;
    let world = World::<E>::new(subscriptions()).await;
    world
        .run(format!(
            "insert into customers (id, plan_a)
             with recursive n (i) as (select 1 union all select i + 1 from n where i < {COUNT})
             select i, 'gold' from n"
        ))
        .await;
    let keys: Vec<Key> = (1..=COUNT).map(Key::from).collect();
    let copied = world.store.copy(&world.subject, Epoch(1), &keys).await.unwrap().copied;
    assert_eq!(copied, COUNT as u64);
    assert!(world.differing(&(1..=COUNT).collect::<Vec<_>>()).await.is_empty());
}
