//! Jobs against writers.

use crossfade_migration_core::mirror::{Direction, Mirror};
use crossfade_migration_core::phase::{Epoch, Phase};
use crossfade_migration_core::work::{Done, Workbench};
use sqlx::Postgres;
use tokio::task::JoinHandle;

use super::{begin, fence, mirror, mirroring, run, running, until_waiting};
use crate::conformance::world::{World, subscriptions};

/// What a copy would be without its lock.
const NAIVE_COPY: &str = "insert into subscriptions (customer_id, slot, plan)
    select id, 'a', plan_a from customers where id = 1 on conflict do nothing";

async fn dual_writing() -> (World<Postgres>, Epoch) {
    let world = World::<Postgres>::new(subscriptions()).await;
    world.run("insert into customers (id, plan_a) values (1, 'gold'), (2, 'tin')").await;
    world.enter(Phase::DualWrite).await;
    let epoch = world.epoch().await;
    (world, epoch)
}

type Job = JoinHandle<crossfade_migration_core::Result<Done>>;

fn copying(world: &World<Postgres>, epoch: Epoch, keys: &[i32]) -> Job {
    let (store, subject, keys) = (world.connected.clone(), world.subject.clone(), world.coerce(keys));
    tokio::spawn(async move { store.copy(&subject, epoch, &keys).await })
}

fn repairing(world: &World<Postgres>, epoch: Epoch, keys: &[i32]) -> Job {
    let (store, subject, keys) = (world.connected.clone(), world.subject.clone(), world.coerce(keys));
    tokio::spawn(async move { store.repair(&subject, epoch, &keys).await })
}

#[tokio::test]
async fn a_copy_waits_for_an_update_in_flight_and_copies_what_it_wrote() {
    let (world, epoch) = dual_writing().await;
    // Out of the ramp, say: nobody mirrors it.
    let mut write = begin(&world, "read committed").await;
    fence(&world, &mut write).await;
    run(&mut write, "update customers set plan_a = 'newer' where id = 1").await;
    let copy = copying(&world, epoch, &[1, 2]);
    until_waiting(&world, 1).await;
    write.commit().await.unwrap();
    assert_eq!(copy.await.unwrap().unwrap().copied, 2);
    assert_eq!(world.subscriptions().await, ["1 a newer", "2 a tin"]);

    world.run("delete from subscriptions").await;
    let mut write = begin(&world, "read committed").await;
    run(&mut write, "update customers set plan_a = 'newest' where id = 1").await;
    world.run(NAIVE_COPY).await;
    write.commit().await.unwrap();
    assert_eq!(world.subscriptions().await, ["1 a newer"], "without the lock the copy is stale");
}

#[tokio::test]
async fn a_copy_that_waits_for_a_mirrored_update_does_not_overwrite_it() {
    let (world, epoch) = dual_writing().await;
    let mut write = begin(&world, "read committed").await;
    run(&mut write, "update customers set plan_a = 'newer' where id = 1").await;
    mirror(&world, &mut write, Direction::OldToNew, &[1], epoch).await.unwrap();
    let copy = copying(&world, epoch, &[1, 2]);
    until_waiting(&world, 1).await;
    write.commit().await.unwrap();
    assert_eq!(copy.await.unwrap().unwrap().copied, 1);
    assert_eq!(world.subscriptions().await, ["1 a newer", "2 a tin"]);
}

#[tokio::test]
async fn a_copy_that_waits_for_a_delete_in_flight_brings_nothing_back() {
    let (world, epoch) = dual_writing().await;
    let mut write = begin(&world, "read committed").await;
    run(&mut write, "delete from customers where id = 1").await;
    mirror(&world, &mut write, Direction::OldToNew, &[1], epoch).await.unwrap();
    let copy = copying(&world, epoch, &[1, 2]);
    until_waiting(&world, 1).await;
    write.commit().await.unwrap();
    assert_eq!(copy.await.unwrap().unwrap().copied, 1);
    assert_eq!(world.subscriptions().await, ["2 a tin"]);
    // Nor does one that comes later.
    assert_eq!(copying(&world, epoch, &[1, 2]).await.unwrap().unwrap().copied, 0);
    assert_eq!(world.subscriptions().await, ["2 a tin"]);

    world.run("insert into customers (id, plan_a) values (1, 'gold')").await;
    let mut write = begin(&world, "read committed").await;
    run(&mut write, "delete from customers where id = 1").await;
    mirror(&world, &mut write, Direction::OldToNew, &[1], epoch).await.unwrap();
    world.run(NAIVE_COPY).await;
    write.commit().await.unwrap();
    assert_eq!(world.subscriptions().await, ["1 a gold", "2 a tin"], "without the lock it comes back");
}

#[tokio::test]
async fn a_delete_waits_for_a_copy_in_flight_and_takes_its_rows_along() {
    let (world, epoch) = dual_writing().await;
    let mut copy = begin(&world, "read committed").await;
    fence(&world, &mut copy).await;
    let keys = world.coerce(&[1, 2]);
    assert_eq!(Postgres::copy(&mut copy, &world.subject, &keys).await.unwrap(), 2);
    let write = begin(&world, "read committed").await;
    let subject = world.subject.clone();
    let write = tokio::spawn(async move {
        let mut write = write;
        run(&mut write, "delete from customers where id = 1").await;
        Postgres::mirror(&mut write, &subject, Direction::OldToNew, &keys[..1], epoch).await.unwrap();
        write.commit().await.unwrap();
    });
    until_waiting(&world, 1).await;
    copy.commit().await.unwrap();
    write.await.unwrap();
    assert_eq!(world.subscriptions().await, ["2 a tin"]);
}

#[tokio::test]
async fn an_orphans_removal_that_meets_the_insert_of_its_key_keeps_the_row() {
    // One key and several go different ways in the database.
    for keys in [vec![1], vec![1, 2]] {
        let (world, epoch) = dual_writing().await;
        world.run("delete from customers").await;
        world.run("insert into subscriptions (customer_id, slot, plan) values (1, 'a', 'orphan')").await;
        let mut write = begin(&world, "read committed").await;
        run(&mut write, "insert into customers (id, plan_a) values (1, 'gold')").await;
        mirror(&world, &mut write, Direction::OldToNew, &[1], epoch).await.unwrap();
        let repair = repairing(&world, epoch, &keys);
        until_waiting(&world, 1).await;
        write.commit().await.unwrap();
        repair.await.unwrap().unwrap();
        assert_eq!(world.subscriptions().await, ["1 a gold"]);
    }
}

#[tokio::test]
async fn an_insert_that_meets_the_removal_of_an_orphan_in_flight_keeps_its_row() {
    let (world, epoch) = dual_writing().await;
    world.run("delete from customers").await;
    world.run("insert into subscriptions (customer_id, slot, plan) values (1, 'a', 'orphan')").await;
    let mut repair = begin(&world, "read committed").await;
    fence(&world, &mut repair).await;
    mirror(&world, &mut repair, Direction::OldToNew, &[1, 2], epoch).await.unwrap();
    let mut write = begin(&world, "read committed").await;
    run(&mut write, "insert into customers (id, plan_a) values (1, 'gold')").await;
    let write = mirroring(&world, write, Direction::OldToNew, &[1], epoch);
    until_waiting(&world, 1).await;
    repair.commit().await.unwrap();
    write.await.unwrap().unwrap();
    assert_eq!(world.subscriptions().await, ["1 a gold"]);
}

#[tokio::test]
async fn a_deadlock_of_a_writer_of_the_new_store_and_a_recheck_is_retried_and_loses_nothing() {
    let (world, epoch) = dual_writing().await;
    world.store.copy(&world.subject, epoch, &world.coerce(&[1, 2])).await.unwrap();
    world.enter(Phase::NewPrimary).await;
    let epoch = world.epoch().await;
    // The writer has the new row and wants the old one, the job the other way round.
    const WRITE: &str = "update subscriptions set plan = 'zinc' where customer_id = 1";
    let mut write = begin(&world, "read committed").await;
    run(&mut write, WRITE).await;
    let recheck = tokio::spawn({
        let (store, subject, keys) = (world.connected.clone(), world.subject.clone(), world.coerce(&[1, 2]));
        async move {
            let mut deadlocks = 0;
            loop {
                match store.recheck(&subject, epoch, &keys).await {
                    Ok(differing) => return (differing, deadlocks),
                    Err(error) if error.is_retryable() => deadlocks += 1,
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
    });
    until_waiting(&world, 1).await;
    let mut deadlocks = 0;
    if let Err(error) = mirroring(&world, write, Direction::NewToOld, &[1], epoch).await.unwrap() {
        assert!(error.is_retryable(), "{error:?}");
        deadlocks += 1;
        let mut write = begin(&world, "read committed").await;
        run(&mut write, WRITE).await;
        mirroring(&world, write, Direction::NewToOld, &[1], epoch).await.unwrap().unwrap();
    }
    let (differing, others) = recheck.await.unwrap();
    assert!(differing.is_empty(), "{differing:?}");
    assert!(deadlocks + others > 0, "they met");
    assert_eq!(world.lines("select plan_a from customers order by id").await, ["zinc", "tin"]);
    assert!(world.differing(&[1, 2]).await.is_empty());
}

#[tokio::test]
async fn a_repair_waits_for_a_mirror_in_flight_and_changes_nothing_of_it() {
    let (world, epoch) = dual_writing().await;
    let mut write = begin(&world, "read committed").await;
    run(&mut write, "update customers set plan_a = null, plan_b = 'iron' where id = 1").await;
    mirror(&world, &mut write, Direction::OldToNew, &[1], epoch).await.unwrap();
    let repair = repairing(&world, epoch, &[2, 1]);
    until_waiting(&world, 1).await;
    let reader = running(begin(&world, "read committed").await, "select * from subscriptions");
    reader.await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(repair.await.unwrap().unwrap(), Done { copied: 0, repaired: 1, removed: 0 });
    assert_eq!(world.subscriptions().await, ["1 b iron", "2 a tin"]);
}

#[tokio::test]
async fn a_creator_of_a_key_waits_for_a_job_that_found_no_row_of_it() {
    // Else the job's statement could see the row as it is created, wait for a later change of it, and put
    // the older state over the newer.
    for (keys, creator) in
        [([1].as_slice(), [1].as_slice()), (&[1, 2], &[1]), (&[1], &[1, 2]), (&[1, 2], &[1, 2])]
    {
        for is_copy in [true, false] {
            let (world, epoch) = dual_writing().await;
            world.run("delete from customers").await;
            let mut job = begin(&world, "read committed").await;
            fence(&world, &mut job).await;
            if is_copy {
                Postgres::copy(&mut job, &world.subject, &world.coerce(keys)).await.unwrap();
            } else {
                mirror(&world, &mut job, Direction::OldToNew, keys, epoch).await.unwrap();
            }
            let mut write = begin(&world, "read committed").await;
            run(&mut write, "insert into customers (id, plan_a) values (1, 'gold')").await;
            let write = mirroring(&world, write, Direction::OldToNew, creator, epoch);
            until_waiting(&world, 1).await;
            job.commit().await.unwrap();
            write.await.unwrap().unwrap();
            assert_eq!(world.subscriptions().await, ["1 a gold"]);
        }
    }
}

#[tokio::test]
async fn a_statement_that_waits_puts_an_older_state_over_a_newer() {
    let (world, epoch) = dual_writing().await;
    world.mirror(Direction::OldToNew, &[1]).await;
    let mut write = begin(&world, "read committed").await;
    run(&mut write, "update customers set plan_a = 'newer' where id = 1").await;
    mirror(&world, &mut write, Direction::OldToNew, &[1], epoch).await.unwrap();
    // What a job's statement does for a key that nothing of its own holds still.
    let repair = running(
        begin(&world, "read committed").await,
        "insert into subscriptions (customer_id, slot, plan) select id, 'a', plan_a from customers where id = 1
         on conflict (customer_id, slot) do update set plan = excluded.plan",
    );
    until_waiting(&world, 1).await;
    write.commit().await.unwrap();
    repair.await.unwrap();
    assert_eq!(world.subscriptions().await, ["1 a gold"], "the danger is real");
}

#[tokio::test]
async fn a_creator_within_a_savepoint_waits_for_a_job_that_found_no_row_of_its_key() {
    // The row's version is not the transaction's own then, but its savepoint's.
    let (world, epoch) = dual_writing().await;
    world.run("delete from customers").await;
    let mut job = begin(&world, "read committed").await;
    fence(&world, &mut job).await;
    Postgres::copy(&mut job, &world.subject, &world.coerce(&[1])).await.unwrap();
    let mut write = begin(&world, "read committed").await;
    run(&mut write, "savepoint creating").await;
    run(&mut write, "insert into customers (id, plan_a) values (1, 'gold')").await;
    run(&mut write, "release savepoint creating").await;
    let write = mirroring(&world, write, Direction::OldToNew, &[1], epoch);
    until_waiting(&world, 1).await;
    job.commit().await.unwrap();
    write.await.unwrap().unwrap();
    assert_eq!(world.subscriptions().await, ["1 a gold"]);
}

#[tokio::test]
async fn a_row_that_is_recreated_while_a_list_is_locked_is_held_still_by_its_name() {
    let (world, epoch) = dual_writing().await;
    // The list's lock waits for this delete, and finds no row; the key is created anew behind its back.
    let mut delete = begin(&world, "read committed").await;
    run(&mut delete, "delete from customers where id = 1").await;
    let mut blocker = begin(&world, "read committed").await;
    run(&mut blocker, "delete from customers where id = 2").await;
    let mut job = begin(&world, "read committed").await;
    let subject = world.subject.clone();
    let keys = world.coerce(&[1, 2]);
    let locked = tokio::spawn(async move {
        Postgres::differing(&mut job, &subject, &keys).await.unwrap();
        job
    });
    until_waiting(&world, 1).await;
    delete.commit().await.unwrap();
    let mut create = begin(&world, "read committed").await;
    run(&mut create, "insert into customers (id, plan_a) values (1, 'zinc')").await;
    mirror(&world, &mut create, Direction::OldToNew, &[1], epoch).await.unwrap();
    create.commit().await.unwrap();
    blocker.rollback().await.unwrap();
    let job = locked.await.unwrap();
    // Whoever deletes the row and creates it anew now has to wait, at the row or at the name.
    let mut write = begin(&world, "read committed").await;
    let write = tokio::spawn({
        let subject = world.subject.clone();
        let keys = world.coerce(&[1]);
        async move {
            run(&mut write, "delete from customers where id = 1").await;
            Postgres::mirror(&mut write, &subject, Direction::OldToNew, &keys, epoch).await.unwrap();
            write.commit().await.unwrap();
        }
    });
    until_waiting(&world, 1).await;
    job.rollback().await.unwrap();
    write.await.unwrap();
    assert_eq!(world.subscriptions().await, ["1 a zinc"; 0]);
}

#[tokio::test]
async fn a_row_that_a_job_copies_after_a_snapshot_is_not_left_behind_by_its_removal() {
    for isolation in ["repeatable read", "serializable"] {
        for job in [copying, repairing] {
            let (world, epoch) = dual_writing().await;
            let mut write = begin(&world, isolation).await;
            run(&mut write, "select 1 from customers").await;
            // The old row is locked by it, but not changed: nothing tells the write below.
            job(&world, epoch, &[1, 2]).await.unwrap().unwrap();
            run(&mut write, "update customers set plan_a = null where id = 1").await;
            let error = mirror(&world, &mut write, Direction::OldToNew, &[1], epoch).await.unwrap_err();
            assert!(error.is_retryable(), "{error:?}");
            write.rollback().await.unwrap();
            // Run again, it is a snapshot that sees them.
            let mut write = begin(&world, isolation).await;
            run(&mut write, "update customers set plan_a = null where id = 1").await;
            mirror(&world, &mut write, Direction::OldToNew, &[1], epoch).await.unwrap();
            write.commit().await.unwrap();
            assert_eq!(world.subscriptions().await, ["2 a tin"]);
        }
    }
}

#[tokio::test]
async fn a_batch_in_flight_of_other_keys_does_not_fail_a_write_under_a_snapshot() {
    let (world, epoch) = dual_writing().await;
    let mut job = begin(&world, "read committed").await;
    fence(&world, &mut job).await;
    Postgres::copy(&mut job, &world.subject, &world.coerce(&[2])).await.unwrap();
    Postgres::end_batch(&mut job).await.unwrap();
    let mut write = begin(&world, "repeatable read").await;
    run(&mut write, "update customers set plan_a = 'zinc' where id = 1").await;
    mirror(&world, &mut write, Direction::OldToNew, &[1], epoch).await.unwrap();
    write.commit().await.unwrap();
    job.commit().await.unwrap();
    assert_eq!(world.subscriptions().await, ["1 a zinc", "2 a tin"]);
}
