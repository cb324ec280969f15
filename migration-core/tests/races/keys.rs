//! Writers of one key against each other.

use crossfade_migration_core::mirror::Direction;
use crossfade_migration_core::phase::Phase;
use sqlx::Postgres;

use super::{
    CREATE_IN_OLD, ISOLATIONS, begin, children, created_in_new, mirror, mirroring, run, until_waiting,
};
use crate::conformance::world::World;

const PLANS: &str = "select slot || ' ' || plan from plans order by slot";

/// Customer 1 with the plans a and b, mirrored or not yet.
async fn two_children(is_mirrored: bool) -> World<Postgres> {
    let world = World::<Postgres>::new(children()).await;
    world.run("insert into customers values (1)").await;
    world.run("insert into old_plans values (1, 'a', 'gold'), (1, 'b', 'tin')").await;
    world.enter(Phase::DualWrite).await;
    if is_mirrored {
        world.mirror(Direction::OldToNew, &[1]).await;
    }
    world
}

#[tokio::test]
async fn of_two_writers_of_different_children_the_last_mirror_has_both() {
    for keys in [vec![1], vec![1, 2]] {
        let world = two_children(true).await;
        let epoch = world.epoch().await;
        let mut one = begin(&world, "read committed").await;
        let mut other = begin(&world, "read committed").await;
        run(&mut one, "delete from old_plans where slot = 'a'").await;
        run(&mut other, "update old_plans set plan = 'zinc' where slot = 'b'").await;
        mirror(&world, &mut one, Direction::OldToNew, &keys, epoch).await.unwrap();
        let other = mirroring(&world, other, Direction::OldToNew, &keys, epoch);
        until_waiting(&world, 1).await;
        one.commit().await.unwrap();
        other.await.unwrap().unwrap();
        assert_eq!(world.lines(PLANS).await, ["b zinc"]);
    }
}

#[tokio::test]
async fn without_the_lock_on_the_parent_a_deleted_child_comes_back() {
    let world = two_children(true).await;
    let epoch = world.epoch().await;
    let mut one = begin(&world, "read committed").await;
    run(&mut one, "delete from old_plans where slot = 'a'").await;
    mirror(&world, &mut one, Direction::OldToNew, &[1], epoch).await.unwrap();
    let other = super::running(
        begin(&world, "read committed").await,
        "update old_plans set plan = 'zinc' where slot = 'b';
         insert into plans select * from old_plans where customer_id = 1
         on conflict (customer_id, slot) do update set plan = excluded.plan",
    );
    until_waiting(&world, 1).await;
    one.commit().await.unwrap();
    other.await.unwrap();
    assert_eq!(world.lines(PLANS).await, ["a gold", "b zinc"], "the danger is real");
}

/// A mirror under a snapshot that is older than another writer's commit must not write what it sees.
async fn a_mirror_under_an_old_snapshot(is_mirrored: bool) {
    for (isolation, keys) in
        ISOLATIONS[1..].iter().flat_map(|isolation| [(isolation, vec![1]), (isolation, vec![1, 2])])
    {
        let world = two_children(is_mirrored).await;
        let epoch = world.epoch().await;
        let mut other = begin(&world, isolation).await;
        run(&mut other, "select 1 from customers").await;
        let mut one = begin(&world, "read committed").await;
        run(&mut one, "delete from old_plans where slot = 'a'").await;
        mirror(&world, &mut one, Direction::OldToNew, &[1], epoch).await.unwrap();
        one.commit().await.unwrap();
        run(&mut other, "update old_plans set plan = 'zinc' where slot = 'b'").await;
        match mirror(&world, &mut other, Direction::OldToNew, &keys, epoch).await {
            Ok(()) => drop(other.commit().await),
            Err(error) => assert!(error.is_retryable(), "{isolation}: {error:?}"),
        }
        assert!(world.differing(&[1]).await.is_empty(), "{isolation}: {:?}", world.lines(PLANS).await);
    }
}

#[tokio::test]
async fn a_mirror_under_an_old_snapshot_does_not_bring_back_a_child_deleted_since() {
    a_mirror_under_an_old_snapshot(true).await;
}

#[tokio::test]
async fn of_two_creators_of_a_key_in_the_new_store_the_archive_has_both() {
    for keys in [vec![1], vec![1, 2]] {
        let world = World::<Postgres>::new(created_in_new()).await;
        world.enter(Phase::NewPrimary).await;
        let epoch = world.epoch().await;
        let mut one = begin(&world, "read committed").await;
        let mut other = begin(&world, "read committed").await;
        run(&mut one, "insert into target values (1, 'a', 'gold')").await;
        run(&mut other, "insert into target values (1, 'b', 'tin')").await;
        mirror(&world, &mut one, Direction::NewToOld, &keys, epoch).await.unwrap();
        let other = mirroring(&world, other, Direction::NewToOld, &keys, epoch);
        until_waiting(&world, 1).await;
        one.commit().await.unwrap();
        other.await.unwrap().unwrap();
        assert_eq!(world.lines("select a || ' ' || b from source").await, ["gold tin"]);
    }
}

#[tokio::test]
async fn without_the_lock_on_the_name_the_archive_of_a_created_key_lacks_one() {
    let world = World::<Postgres>::new(created_in_new()).await;
    let create = CREATE_IN_OLD.replace("KEYS", "1");
    let mut one = begin(&world, "read committed").await;
    run(&mut one, "insert into target values (1, 'a', 'gold')").await;
    run(&mut one, &create).await;
    let mut other = begin(&world, "read committed").await;
    run(&mut other, "insert into target values (1, 'b', 'tin')").await;
    let other = tokio::spawn(async move {
        run(&mut other, &create).await;
        other.commit().await.unwrap();
    });
    until_waiting(&world, 1).await;
    one.commit().await.unwrap();
    other.await.unwrap();
    assert_eq!(
        world.lines("select coalesce(a, '-') || ' ' || b from source").await,
        ["- tin"],
        "the danger is real"
    );
}
