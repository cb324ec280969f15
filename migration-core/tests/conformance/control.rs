//! Registry, standing, audit and evidence.

use std::time::Duration;

use crossfade_migration_core::Error;
use crossfade_migration_core::control::Registration;
use crossfade_migration_core::gate::{Evidence, EvidenceKind};
use crossfade_migration_core::phase::{Epoch, Phase, Ramp, Standing};
use crossfade_migration_core::plan::Plan;

use super::engine::TestEngine;
use super::world::{PATIENCE, World, account, bare, subscriptions};

pub(crate) async fn installing_twice_is_installing_once<E: TestEngine>() {
    let world = World::<E>::new(subscriptions()).await;
    world.enter(Phase::DualWrite).await;
    world.control.install().await.unwrap();
    assert_eq!(world.registered().await.standing.phase, Phase::DualWrite);
}

pub(crate) async fn two_installers_at_once_do_not_collide<E: TestEngine>() {
    let (_database, connected) = bare::<E>().await;
    let control = E::database(connected.pool.clone()).control;
    let (one, other) = tokio::join!(control.install(), control.install());
    one.unwrap();
    other.unwrap();
    assert!(control.names().await.unwrap().is_empty());
}

pub(crate) async fn tables_that_are_not_crossfades_are_refused<E: TestEngine>() {
    let (_database, connected) = bare::<E>().await;
    let mut connection = connected.pool.acquire().await.unwrap();
    E::run(&mut connection, E::FOREIGN_TABLE.to_owned()).await.unwrap();
    let control = E::database(connected.pool.clone()).control;
    let error = control.install().await.unwrap_err();
    assert!(matches!(error, Error::ControlStore { .. }), "{error:?}");
    assert!(error.hint().is_some());
}

pub(crate) async fn a_store_without_tables_says_so<E: TestEngine>() {
    let (_database, connected) = bare::<E>().await;
    let control = E::database(connected.pool.clone()).control;
    for error in [control.migration("moving").await.unwrap_err(), control.names().await.unwrap_err()] {
        assert!(matches!(error, Error::ControlStore { .. }), "{error:?}");
        assert!(error.hint().unwrap().contains("crossfade init"), "{error}");
    }
}

pub(crate) async fn registering_follows_the_rules<E: TestEngine>() {
    let world = World::<E>::new(subscriptions()).await;
    let register = async |mapping: Option<&str>, gates: &str| {
        let model = subscriptions();
        let model = match mapping {
            Some(mapping) => model.mapped(mapping),
            None => model,
        };
        let manifest = model.manifest(&world.url, gates);
        let plan = Plan::read(&manifest, &*world.store).await.unwrap();
        world.control.register(&manifest, &plan, &account("again")).await
    };
    let other = "projection = \"select id as customer_id, 'a' as slot, coalesce(plan_a, '') as plan from customers where id in (:keys)\"";

    assert_eq!(register(None, "").await.unwrap(), Registration::Unchanged);
    assert_eq!(world.epoch().await, Epoch(1));
    assert_eq!(register(None, "[gates]\nsoak_min = \"1s\"").await.unwrap(), Registration::Updated);
    assert_eq!(world.epoch().await, Epoch(1), "thresholds leave the epoch");
    assert_eq!(world.registered().await.manifest.thresholds().soak_min, Duration::from_secs(1));
    assert_eq!(register(Some(other), "").await.unwrap(), Registration::Updated);
    assert_eq!(world.epoch().await, Epoch(2), "evidence for another mapping counts for nothing");
    assert!(!world.registered().await.manifest.is_reversible());

    world.enter(Phase::DualWrite).await;
    assert_eq!(register(Some(other), "[gates]\nsoak_min = \"2s\"").await.unwrap(), Registration::Updated);
    let error = register(None, "").await.unwrap_err();
    assert!(matches!(error, Error::Registered { phase: Phase::DualWrite, .. }), "{error:?}");
    assert!(!world.registered().await.manifest.is_reversible(), "nothing was replaced");
    assert_eq!(world.control.history(world.subject.id).await.unwrap().len(), 5);
}

pub(crate) async fn an_unknown_migration_names_the_known_ones<E: TestEngine>() {
    let world = World::<E>::new(subscriptions()).await;
    match world.control.migration("other").await {
        Err(Error::UnknownMigration { name, known }) => {
            assert_eq!((name.as_str(), known), ("other", vec!["moving".to_owned()]));
        }
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn a_change_moves_standing_and_audit_together<E: TestEngine>() {
    let world = World::<E>::new(subscriptions()).await;
    let before = world.registered().await;
    assert_eq!(before.standing, Standing::INITIAL);
    let to = Standing { phase: Phase::DualWrite, ramp: Ramp::from_ppm(250_000), epoch: Epoch(2) };
    let changed = world.control.change(&before, to, &account("ramping"), PATIENCE).await.unwrap();
    assert!(changed.pause <= changed.waited);
    assert_eq!(world.control.standing(world.subject.id).await.unwrap(), to);
    let last = world.control.history(world.subject.id).await.unwrap().pop().unwrap();
    assert_eq!((last.from, last.to), (Some(Standing::INITIAL), to));
    assert_eq!(last.account, account("ramping"));
}

pub(crate) async fn of_two_operators_one_is_told<E: TestEngine>() {
    let world = World::<E>::new(subscriptions()).await;
    let seen = world.registered().await;
    let to = |phase| Standing { phase, ramp: Ramp::FULL, epoch: Epoch(2) };
    let ann = account("ann");
    let bob = account("bob");
    let (one, other) = tokio::join!(
        world.control.change(&seen, to(Phase::DualWrite), &ann, PATIENCE),
        world.control.change(&seen, to(Phase::DualWrite), &bob, PATIENCE),
    );
    let lost = [one, other].into_iter().filter_map(Result::err).collect::<Vec<_>>();
    match lost.as_slice() {
        [Error::Conflict { expected, found, .. }] => {
            assert_eq!((*expected, *found), (Epoch(1), to(Phase::DualWrite)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(world.control.history(world.subject.id).await.unwrap().len(), 2);
}

pub(crate) async fn history_is_in_order_and_whole<E: TestEngine>() {
    let world = World::<E>::new(subscriptions()).await;
    for phase in [Phase::DualWrite, Phase::ShadowRead, Phase::DualWrite] {
        world.enter(phase).await;
    }
    let history = world.control.history(world.subject.id).await.unwrap();
    assert!(history[0].from.is_none(), "the registration comes from nowhere");
    let phases: Vec<_> = history.iter().map(|line| line.to.phase).collect();
    assert_eq!(phases, [Phase::OldOnly, Phase::DualWrite, Phase::ShadowRead, Phase::DualWrite]);
    for pair in history.windows(2) {
        assert_eq!(pair[1].from, Some(pair[0].to));
        assert!(pair[0].at <= pair[1].at);
    }
    let at = &history[0].at;
    assert!(at.starts_with("20") && at.contains('T') && at.ends_with('Z'), "{at}");
}

pub(crate) async fn the_latest_evidence_of_each_kind_and_epoch_counts<E: TestEngine>() {
    let world = World::<E>::new(subscriptions()).await;
    let id = world.subject.id;
    let evidence = |kind, epoch, faults, age| Evidence {
        kind,
        epoch: Epoch(epoch),
        phase: Phase::DualWrite,
        faults,
        age: Duration::from_secs(age),
        details: serde_json::json!({ "faults": faults }),
    };
    for (kind, epoch, faults, age) in [
        (EvidenceKind::Check, 1, 3, 0),
        (EvidenceKind::Check, 1, 0, 3600),
        (EvidenceKind::Verification, 1, 7, 0),
        (EvidenceKind::Verification, 2, 8, 0),
    ] {
        world.control.record(id, &evidence(kind, epoch, faults, age)).await.unwrap();
    }
    let kept = world.control.evidence(id).await.unwrap();
    let seen: Vec<_> = kept.iter().map(|one| (one.kind, one.epoch.0, one.faults)).collect();
    assert_eq!(
        seen,
        [(EvidenceKind::Verification, 2, 8), (EvidenceKind::Verification, 1, 7), (EvidenceKind::Check, 1, 0)]
    );
    let check = kept.last().unwrap();
    assert!(check.age >= Duration::from_secs(3600) && check.age < Duration::from_secs(3660));
    assert_eq!(check.details, serde_json::json!({ "faults": 0 }));
    assert_eq!(check.phase, Phase::DualWrite);
}
