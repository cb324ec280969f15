//! The mirror in both directions, and what else is done to keys under lock.

use crossfade_migration_core::error::Error;
use crossfade_migration_core::mirror::{Direction, Mirrored};
use crossfade_migration_core::phase::{Epoch, Phase};

use super::engine::TestEngine;
use super::world::{World, is_stale, spelt, subscriptions};

async fn dual_writing<E: TestEngine>(rows: &str) -> World<E> {
    let world = World::<E>::new(subscriptions()).await;
    world.enter(Phase::DualWrite).await;
    world.run(format!("insert into customers (id, plan_a, plan_b) values {rows}")).await;
    world
}

fn mirrored(written: u64, removed: u64) -> Mirrored {
    Mirrored { written, removed }
}

pub(crate) async fn one_key_may_have_no_row_one_or_several<E: TestEngine>() {
    let world = dual_writing::<E>("(1, null, null), (2, 'gold', null), (3, 'gold', 'iron')").await;
    assert_eq!(world.mirror(Direction::OldToNew, &[1]).await, mirrored(0, 0));
    assert_eq!(world.mirror(Direction::OldToNew, &[2, 3]).await, mirrored(3, 0));
    assert_eq!(world.subscriptions().await, ["2 a gold", "3 a gold", "3 b iron"]);
}

pub(crate) async fn a_mirror_touches_only_what_differs<E: TestEngine>() {
    let world = dual_writing::<E>("(1, 'gold', 'iron')").await;
    world.mirror(Direction::OldToNew, &[1]).await;
    assert_eq!(world.mirror(Direction::OldToNew, &[1]).await, mirrored(0, 0));
    world.run("update customers set plan_b = 'IRON' where id = 1").await;
    assert_eq!(world.mirror(Direction::OldToNew, &[1]).await, mirrored(1, 0));
    assert_eq!(world.subscriptions().await, ["1 a gold", "1 b IRON"]);
}

pub(crate) async fn a_partial_update_of_a_row_not_yet_copied_takes_the_whole_key<E: TestEngine>() {
    let world = dual_writing::<E>("(1, 'gold', 'iron')").await;
    world.run("update customers set plan_a = 'lead' where id = 1").await;
    world.mirror(Direction::OldToNew, &[1]).await;
    assert_eq!(world.subscriptions().await, ["1 a lead", "1 b iron"]);
}

pub(crate) async fn a_deleted_key_takes_its_rows_along<E: TestEngine>() {
    let world = dual_writing::<E>("(1, 'gold', 'iron'), (2, 'gold', null)").await;
    world.mirror(Direction::OldToNew, &[1, 2]).await;
    world.run("delete from customers where id = 1").await;
    assert_eq!(world.mirror(Direction::OldToNew, &[1]).await, mirrored(0, 2));
    assert_eq!(world.subscriptions().await, ["2 a gold"]);
}

pub(crate) async fn orphans_of_the_key_go_and_others_stay<E: TestEngine>() {
    let world = dual_writing::<E>("(1, 'gold', null)").await;
    world
        .run(
            "insert into subscriptions (customer_id, slot, plan) values
             (1, 'b', 'ghost'), (1, 'z', 'ghost'), (2, 'a', 'other')",
        )
        .await;
    assert_eq!(world.mirror(Direction::OldToNew, &[1]).await, mirrored(1, 2));
    assert_eq!(world.subscriptions().await, ["1 a gold", "2 a other"]);
}

pub(crate) async fn the_reverse_brings_the_old_store_up_to_date<E: TestEngine>() {
    let world = dual_writing::<E>("(1, 'gold', 'iron'), (2, 'tin', null)").await;
    world.mirror(Direction::OldToNew, &[1, 2]).await;
    world.enter(Phase::NewPrimary).await;
    world.run("delete from subscriptions where customer_id = 1 and slot = 'a'").await;
    world.run("update subscriptions set plan = 'zinc' where customer_id = 2").await;
    world.mirror(Direction::NewToOld, &[1, 2]).await;
    let old = "select id || ' ' || coalesce(plan_a, '-') || ' ' || coalesce(plan_b, '-') from customers order by id";
    assert_eq!(world.lines(old).await, ["1 - iron", "2 zinc -"]);
    assert!(world.differing(&[1, 2]).await.is_empty());
}

pub(crate) async fn mirroring_no_key_still_fences<E: TestEngine>() {
    let world = dual_writing::<E>("(1, 'gold', null)").await;
    assert_eq!(world.mirror::<i32>(Direction::OldToNew, &[]).await, mirrored(0, 0));
    let mut write = E::begin_write(&world.connected.pool).await.unwrap();
    let stale = E::mirror(&mut write, &world.subject, Direction::OldToNew, &[], Epoch(1)).await.unwrap_err();
    assert!(is_stale(&stale), "{stale:?}");
}

pub(crate) async fn differing_keys_are_found<E: TestEngine>() {
    let world =
        dual_writing::<E>("(1, 'gold', null), (2, 'gold', null), (3, 'gold', 'iron'), (4, 'tin', null)")
            .await;
    world
        .run(
            "insert into subscriptions (customer_id, slot, plan, note) values
             (1, 'a', 'gold', 'a column that the projection does not give'),
             (2, 'a', 'GOLD', null), (3, 'a', 'gold', null), (5, 'a', 'orphan', null)",
        )
        .await;
    // 1 is equal; 2 has another value, 3 lacks a row, 4 lacks all, 5 is an orphan, 6 is nowhere.
    assert_eq!(world.differing(&[6, 5, 4, 3, 2, 1]).await, world.coerce(&[5, 4, 3, 2]));
    world.mirror(Direction::OldToNew, &[1, 2, 3, 4, 5, 6]).await;
    assert!(world.differing(&[1, 2, 3, 4, 5, 6]).await.is_empty());
}

pub(crate) async fn a_row_that_the_projection_gives_twice_differs<E: TestEngine>() {
    let twice = "projection = \"select id as customer_id, 'a' as slot, plan_a as plan from customers where id in (:keys) union all select id, 'a', plan_a from customers where id in (:keys)\"";
    let world = World::<E>::new(subscriptions().mapped(twice)).await;
    world.run("insert into customers (id, plan_a) values (1, 'gold')").await;
    world.run("insert into subscriptions (customer_id, slot, plan) values (1, 'a', 'gold')").await;
    assert_eq!(world.differing(&[1]).await, world.coerce(&[1]));
}

pub(crate) async fn the_projection_comes_as_a_batch<E: TestEngine>() {
    let world = dual_writing::<E>("(2, 'tin', 'iron'), (1, 'gold', null), (3, 'zinc', null)").await;
    let mut write = E::begin_write(&world.connected.pool).await.unwrap();
    let keys = world.coerce(&[2, 1]);
    let batch = E::projected(&mut write, &world.subject, &keys).await.unwrap();
    assert_eq!(batch.schema(), world.subject.plan.schema());
    assert_eq!(spelt(&[batch]), ["1,a,gold", "2,a,tin", "2,b,iron"]);
    let none = E::projected(&mut write, &world.subject, &[]).await.unwrap();
    assert_eq!((none.num_rows(), none.schema()), (0, world.subject.plan.schema()));
}

pub(crate) async fn retiring_empties_the_projection<E: TestEngine>() {
    let world = dual_writing::<E>("(1, 'gold', 'iron'), (2, 'tin', null)").await;
    let mut write = E::begin_write(&world.connected.pool).await.unwrap();
    E::retire(&mut write, &world.subject, &world.coerce(&[1])).await.unwrap();
    E::retire(&mut write, &world.subject, &[]).await.unwrap();
    let batch = E::projected(&mut write, &world.subject, &world.coerce(&[1, 2])).await.unwrap();
    assert_eq!(spelt(&[batch]), ["2,a,tin"]);
}

pub(crate) async fn a_rolled_back_mirror_leaves_nothing<E: TestEngine>() {
    let world = dual_writing::<E>("(1, 'gold', null)").await;
    let mut write = E::begin_write(&world.connected.pool).await.unwrap();
    let keys = world.coerce(&[1]);
    E::mirror(&mut write, &world.subject, Direction::OldToNew, &keys, Epoch(2)).await.unwrap();
    write.rollback().await.unwrap();
    assert!(world.subscriptions().await.is_empty());
    let wrong = world.subject.plan.coerce(&("one", "two").into()).unwrap_err();
    assert!(matches!(wrong, Error::Key { .. }), "{wrong:?}");
}
