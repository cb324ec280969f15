//! Writes against changes of phase.

use crossfade_migration_core::Error;
use crossfade_migration_core::connect::Engine;
use crossfade_migration_core::fence::Fence;
use crossfade_migration_core::migration::Migration;
use crossfade_migration_core::mirror::Direction;
use crossfade_migration_core::phase::{Epoch, Phase};
use crossfade_migration_core::url::DatabaseUrl;
use crossfade_migration_core::write::WriteTransaction;
use sqlx::Postgres;
use tokio::sync::oneshot;

use super::{A_MOMENT, ISOLATIONS, begin, changing, fence, mirror, mirroring, run, running, until_waiting};
use crate::conformance::engine::TestEngine;
use crate::conformance::world::{PATIENCE, World, subscriptions};

const INSERT: &str = "insert into customers (id, plan_a) values (1, 'gold')";

#[tokio::test]
async fn an_early_fenced_write_of_the_app_commits_before_the_change_that_waits_for_it() {
    for isolation in ISOLATIONS {
        let world = World::<Postgres>::new(subscriptions()).await;
        let mut write = begin(&world, isolation).await;
        let epoch = fence(&world, &mut write).await;
        run(&mut write, INSERT).await;
        let change = changing(&world, Phase::DualWrite).await;
        until_waiting(&world, 1).await;
        mirror(&world, &mut write, Direction::OldToNew, &[], epoch).await.unwrap();
        assert_eq!(world.epoch().await, Epoch(1), "{isolation}");
        write.commit().await.unwrap();
        change.await.unwrap().unwrap();
        assert_eq!(world.epoch().await, Epoch(2), "{isolation}");
    }
}

#[tokio::test]
async fn a_late_fenced_write_of_the_app_that_a_change_has_overtaken_cannot_commit() {
    for isolation in ISOLATIONS {
        let world = World::<Postgres>::new(subscriptions()).await;
        let migration = Migration::<Postgres>::join(world.connected.pool.clone(), "moving").await.unwrap();
        let pinned = migration.pin();
        let mut write = begin(&world, isolation).await;
        run(&mut write, INSERT).await;
        world.enter(Phase::DualWrite).await;
        // Even in old_only, where there is nothing to mirror, the call fences.
        let error = pinned.mirror(&mut write, 1).await.unwrap_err();
        assert!(error.is_retryable(), "{isolation}: {error:?}");
        assert!(
            write.commit().await.is_err() || world.lines("select id::text from customers").await.is_empty()
        );

        // Without the call the write would commit in dual_write, unmirrored.
        let mut naive = begin(&world, isolation).await;
        run(&mut naive, INSERT).await;
        world.enter(Phase::ShadowRead).await;
        naive.commit().await.unwrap();
        assert_eq!(world.differing(&[1]).await, world.coerce(&[1]), "the danger is real");
    }
}

#[tokio::test]
async fn a_write_that_crossfade_has_begun_commits_before_the_change_that_waits_for_it() {
    for isolation in ISOLATIONS {
        let world = World::<Postgres>::new(subscriptions()).await;
        world
            .run(format!(
                "do $$ begin execute format(
                     'alter database %I set default_transaction_isolation to %L', current_database(), '{isolation}');
                 end $$"
            ))
            .await;
        // Only new connections have the setting.
        let pool = Postgres::connect(&DatabaseUrl::parse(&world.url).unwrap()).await.unwrap();
        let migration = Migration::<Postgres>::join(pool, "moving").await.unwrap();
        let (written, is_written) = oneshot::channel();
        let (go_on, may_go_on) = oneshot::channel();
        let channels = std::sync::Mutex::new(Some((written, may_go_on)));
        let write = tokio::spawn({
            let migration = migration.clone();
            async move {
                migration
                    .write(async move |transaction: &mut WriteTransaction<Postgres>| {
                        Postgres::run(transaction, INSERT.to_owned())
                            .await
                            .map_err(Error::database("inserting"))?;
                        let channels = channels.lock().unwrap().take();
                        if let Some((written, may_go_on)) = channels {
                            written.send(()).unwrap();
                            may_go_on.await.unwrap();
                        }
                        transaction.mirror(1).await?;
                        Ok::<_, Error>(transaction.standing().epoch)
                    })
                    .await
            }
        });
        is_written.await.unwrap();
        let change = changing(&world, Phase::DualWrite).await;
        until_waiting(&world, 1).await;
        assert_eq!(world.epoch().await, Epoch(1), "{isolation}");
        go_on.send(()).unwrap();
        assert_eq!(write.await.unwrap().unwrap(), Epoch(1), "{isolation}");
        change.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_fence_that_waited_for_a_change_sees_it() {
    for (isolation, by_hand) in ISOLATIONS.map(|isolation| (isolation, isolation == "read committed")) {
        let world = World::<Postgres>::new(subscriptions()).await;
        let id = world.subject.id;
        let lock = format!("select pg_advisory_xact_lock(1668834915, {})", id.0);
        let mut change = begin(&world, "read committed").await;
        run(&mut change, &lock).await;
        run(&mut change, "update crossfade.migration set phase = 'dual_write', epoch = 2").await;

        let mut write = begin(&world, isolation).await;
        // The snapshot of the transaction is older than the change, where it has one.
        run(&mut write, "select 1 from customers").await;
        let write = tokio::spawn(async move { Postgres::fence(&mut write, id, "moving", None).await });
        let mut naive = begin(&world, "read committed").await;
        let naive = tokio::spawn(async move {
            let sql = "select m.epoch::text from crossfade.migration m,
                           pg_advisory_xact_lock_shared(1668834915, m.id)";
            Postgres::lines(&mut naive, sql.to_owned()).await
        });
        until_waiting(&world, 2).await;
        change.commit().await.unwrap();
        let seen = write.await.unwrap();
        match seen {
            Ok(standing) => assert!(by_hand && standing.epoch == Epoch(2), "{isolation}: {standing:?}"),
            Err(error) => assert!(!by_hand && error.is_retryable(), "{isolation}: {error:?}"),
        }
        assert_eq!(naive.await.unwrap(), ["1"], "read in the statement that waits, the phase is stale");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_gets_through_while_shared_holders_never_cease() {
    let world = World::<Postgres>::new(subscriptions()).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let id = world.subject.id;
    let holders: Vec<_> = (0..6)
        .map(|_| {
            let (pool, stopped) = (world.connected.pool.clone(), stopped.clone());
            tokio::spawn(async move {
                let mut fenced = 0;
                while !*stopped.borrow() {
                    let mut write = Postgres::begin_write(&pool).await.unwrap();
                    Postgres::fence(&mut write, id, "moving", None).await.unwrap();
                    // Long against the gap to the next, so that some are held at any moment.
                    run(&mut write, "select pg_sleep(0.01)").await;
                    write.commit().await.unwrap();
                    fenced += 1;
                }
                fenced
            })
        })
        .collect();
    for phase in [Phase::DualWrite, Phase::OldOnly, Phase::DualWrite, Phase::ShadowRead] {
        let changed = world.enter(phase).await;
        assert!(changed.pause <= changed.waited);
    }
    stop.send(true).unwrap();
    for holder in holders {
        assert!(holder.await.unwrap() > 0);
    }
}

#[tokio::test]
async fn a_change_that_times_out_leaves_everything_and_lets_later_writers_go_on() {
    let world = World::<Postgres>::new(subscriptions()).await;
    let mut write = begin(&world, "read committed").await;
    fence(&world, &mut write).await;
    let error = world.try_enter(Phase::DualWrite, A_MOMENT).await.unwrap_err();
    assert!(matches!(error, Error::FenceTimeout { waited, .. } if waited >= A_MOMENT), "{error:?}");
    assert_eq!(world.epoch().await, Epoch(1));
    assert_eq!(world.control.history(world.subject.id).await.unwrap().len(), 1);
    let mut other = begin(&world, "read committed").await;
    fence(&world, &mut other).await;
    other.commit().await.unwrap();
    write.commit().await.unwrap();
    world.enter(Phase::DualWrite).await;
}

#[tokio::test]
async fn a_late_fence_behind_a_change_whose_holder_waits_for_its_row_gets_through() {
    let world = World::<Postgres>::new(subscriptions()).await;
    world.run(INSERT).await;
    // The late writer has the row; the early one has the fence and waits for the row.
    let mut late = begin(&world, "read committed").await;
    run(&mut late, "update customers set plan_a = 'late' where id = 1").await;
    let mut early = begin(&world, "read committed").await;
    fence(&world, &mut early).await;
    let early = running(early, "update customers set plan_a = 'early' where id = 1");
    until_waiting(&world, 1).await;
    // The change waits for the early one, and the late one waits behind the change: nobody can go on
    // until the change gives way.
    let change = changing(&world, Phase::DualWrite).await;
    until_waiting(&world, 2).await;
    let late = mirroring(&world, late, Direction::OldToNew, &[], Epoch(1));
    late.await.unwrap().unwrap();
    early.await.unwrap();
    let changed = tokio::time::timeout(PATIENCE, change).await.unwrap().unwrap().unwrap();
    assert!(changed.waited > changed.pause, "it took more than one try");
    assert_eq!(world.lines("select plan_a from customers").await, ["early"]);
}

#[tokio::test]
async fn a_change_decided_before_another_is_a_conflict_and_changes_nothing() {
    let world = World::<Postgres>::new(subscriptions()).await;
    let mut write = begin(&world, "read committed").await;
    fence(&world, &mut write).await;
    let (one, other) = (changing(&world, Phase::DualWrite).await, changing(&world, Phase::DualWrite).await);
    until_waiting(&world, 2).await;
    write.commit().await.unwrap();
    let ended = [one.await.unwrap(), other.await.unwrap()];
    assert_eq!(ended.iter().filter(|change| change.is_ok()).count(), 1, "{ended:?}");
    let lost = ended.into_iter().find_map(Result::err).unwrap();
    assert!(matches!(lost, Error::Conflict { expected: Epoch(1), .. }), "{lost:?}");
    assert_eq!(world.epoch().await, Epoch(2));
}
