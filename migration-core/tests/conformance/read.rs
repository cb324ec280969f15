//! What a caller gets from a reader, and what the control store learns of it.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossfade_experiment::{Builder, Limits, RecheckPolicy, Totals};
use crossfade_migration_core::Error;
use crossfade_migration_core::comparisons::Mismatch;
use crossfade_migration_core::migration::Migration;
use crossfade_migration_core::phase::{Epoch, Phase, Ramp, Side, Standing};
use crossfade_migration_core::read::Reader;

use super::engine::TestEngine;
use super::world::{PATIENCE, World, account, subscriptions};

/// A difference is read again at once, and a candidate that never ends is given up soon.
fn quick(experiment: Builder<String, Error>) -> Builder<String, Error> {
    experiment
        .recheck(RecheckPolicy { delay: Duration::ZERO, rounds: 1 })
        .limits(Limits { timeout: Duration::from_millis(50), ..Limits::default() })
}

async fn joined<E: TestEngine>(phase: Phase, ppm: u32) -> (World<E>, Migration<E>, Reader<E, String, Error>) {
    let world = World::<E>::new(subscriptions()).await;
    let migration = Migration::<E>::join(world.connected.pool.clone(), "moving").await.unwrap();
    let reader = migration.reader_with("get", quick).unwrap();
    move_to(&world, &migration, phase, ppm).await;
    (world, migration, reader)
}

async fn move_to<E: TestEngine>(world: &World<E>, migration: &Migration<E>, phase: Phase, ppm: u32) -> Epoch {
    let registered = world.registered().await;
    let to = Standing { phase, ramp: Ramp::from_ppm(ppm), epoch: registered.standing.epoch.next() };
    world.control.change(&registered, to, &account("testing"), PATIENCE).await.unwrap();
    assert_eq!(migration.refresh().await.unwrap(), to);
    to.epoch
}

async fn says(word: &str) -> Result<String, Error> {
    Ok(word.to_owned())
}

/// The counts of an epoch, once the control store has learnt of so many calls.
async fn totals<E: TestEngine>(world: &World<E>, epoch: Epoch, eligible: u64) -> Totals {
    loop {
        let mut sum = Totals::default();
        for tally in world.control.tallies(world.subject.id, epoch).await.unwrap() {
            assert_eq!(tally.experiment, "get");
            sum += serde_json::from_value::<crossfade_experiment::Tally>(tally.totals).unwrap().totals;
        }
        if sum.eligible >= eligible {
            return sum;
        }
        tokio::task::yield_now().await;
    }
}

pub(crate) async fn while_shadowing_the_caller_gets_controls_answer<E: TestEngine>() {
    let (world, migration, reader) = joined::<E>(Phase::ShadowRead, 1_000_000).await;
    // In turn the candidate differs, fails, panics and hangs. The caller notices nothing of it.
    assert_eq!(reader.read(1, || says("old"), || says("new")).await.unwrap(), "old");
    let fails = || async { Err(Error::Unreadable { what: "a test".to_owned() }) };
    assert_eq!(reader.read(2, || says("old"), fails).await.unwrap(), "old");
    let panics = || async { panic!("the candidate panics, as this test wants it to") };
    assert_eq!(reader.read(3, || says("old"), panics).await.unwrap(), "old");
    assert_eq!(reader.read(4, || says("old"), pending).await.unwrap(), "old");
    let error = reader.read(5, fails, || says("new")).await.unwrap_err();
    assert!(matches!(error, Error::Unreadable { .. }), "control's error is the caller's: {error:?}");

    let epoch = migration.standing().epoch;
    let counts = totals(&world, epoch, 5).await;
    assert!(counts.is_closed(), "{counts:?}");
    assert_eq!((counts.eligible, counts.panicked, counts.timed_out), (5, 1, 1), "{counts:?}");
    assert!(counts.mismatched >= 1 && counts.errored >= 1, "{counts:?}");
}

pub(crate) async fn mismatches_and_tallies_reach_the_control_store<E: TestEngine>() {
    let (world, migration, reader) = joined::<E>(Phase::ShadowRead, 1_000_000).await;
    let first = migration.standing().epoch;
    reader.read(7, || says("secret gold"), || says("secret tin")).await.unwrap();
    reader.read(8, || says("same"), || says("same")).await.unwrap();
    let counts = totals(&world, first, 2).await;
    assert_eq!((counts.matched, counts.mismatched), (1, 1));
    // Tallies are handed over first.
    let mismatches = loop {
        let mismatches = world.control.mismatches(world.subject.id, 10).await.unwrap();
        if !mismatches.is_empty() {
            break mismatches;
        }
        tokio::task::yield_now().await;
    };
    let [Mismatch { epoch, experiment, key, differences, .. }] = mismatches.as_slice() else {
        panic!("{mismatches:?}")
    };
    assert_eq!((*epoch, experiment.as_str()), (first, "get"));
    assert!(key.contains('7'), "{key}");
    assert!(!differences.to_string().contains("secret"), "values are redacted: {differences}");

    // What is seen at another epoch counts for that one alone.
    let second = move_to(&world, &migration, Phase::ShadowRead, 999_999).await;
    reader.read(9, || says("same"), || says("same")).await.unwrap();
    assert_eq!(totals(&world, second, 1).await.eligible, 1);
    assert_eq!(totals(&world, first, 2).await.eligible, 2);
}

pub(crate) async fn read_new_follows_the_ramp<E: TestEngine>() {
    let (world, migration, reader) = joined::<E>(Phase::ReadNew, 400_000).await;
    let mut from_new = Vec::new();
    for id in 0..200 {
        if reader.read(id, || says("old"), || says("new")).await.unwrap() == "new" {
            from_new.push(id);
        }
    }
    assert!((50..110).contains(&from_new.len()), "{} of 200 at 40 %", from_new.len());
    move_to(&world, &migration, Phase::ReadNew, 800_000).await;
    for id in from_new {
        assert_eq!(reader.read(id, || says("old"), || says("new")).await.unwrap(), "new", "{id} went back");
    }
    move_to(&world, &migration, Phase::ReadNew, 0).await;
    assert_eq!(reader.read(1, || says("old"), || says("new")).await.unwrap(), "old");
    assert_eq!(reader.experiment().tallies().len(), 0, "nothing is compared any more");
}

pub(crate) async fn in_new_only_the_old_closure_is_never_called<E: TestEngine>() {
    let (_world, _migration, reader) = joined::<E>(Phase::NewOnly, 1_000_000).await;
    let calls = Arc::new(AtomicU64::new(0));
    for id in 0..20 {
        let calls = calls.clone();
        let old = move || {
            calls.fetch_add(1, Ordering::SeqCst);
            says("old")
        };
        assert_eq!(reader.read(id, old, || says("new")).await.unwrap(), "new");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

pub(crate) async fn the_old_paths_guard_names_migration_and_call_site<E: TestEngine>() {
    let (world, migration, _reader) = joined::<E>(Phase::NewPrimary, 1_000_000).await;
    migration.old_path().unwrap();
    let epoch = migration.standing().epoch;
    // The gate of new_only learns of the use.
    while world.control.old_path_idle(world.subject.id, epoch).await.unwrap().is_none() {
        tokio::task::yield_now().await;
    }

    move_to(&world, &migration, Phase::NewOnly, 1_000_000).await;
    let line = line!() + 1;
    let error = migration.old_path().unwrap_err();
    let Error::OldPathClosed { migration, phase, at } = &error else { panic!("{error:?}") };
    assert_eq!((migration.as_str(), *phase), ("moving", Phase::NewOnly));
    assert_eq!((at.line(), at.file()), (line, file!()));
    assert!(error.to_string().contains("moving") && error.to_string().contains(file!()), "{error}");
}

pub(crate) async fn a_key_that_is_read_is_retired_if_it_is_equal<E: TestEngine>() {
    let (world, migration, reader) = joined::<E>(Phase::NewOnly, 1_000_000).await;
    world.run("insert into customers (id, plan_a) values (1, 'gold'), (2, 'tin'), (3, 'zinc')").await;
    world.run("insert into subscriptions (customer_id, slot, plan) values (1, 'a', 'gold'), (2, 'a', 'changed since'), (3, 'a', 'zinc')").await;
    for id in [1, 2] {
        reader.read(id, || says("old"), || says("new")).await.unwrap();
    }
    // Leaving retires what still waits; the background task may be at it at the same moment.
    migration.leave().await.unwrap();
    let left = ["2,a,tin", "3,a,zinc"];
    while world.read(Side::Old).await.unwrap() != left {
        let now = world.read(Side::Old).await.unwrap();
        assert!(now.len() >= left.len(), "{now:?}");
        tokio::task::yield_now().await;
    }
    assert_eq!(world.subscriptions().await, ["1 a gold", "2 a changed since", "3 a zinc"]);
}
