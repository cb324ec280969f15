//! Instances and the old path.

use std::time::Duration;

use crossfade_migration_core::fleet::LEASE_TTL;
use crossfade_migration_core::phase::{Epoch, Phase, Standing};

use super::engine::TestEngine;
use super::world::{World, subscriptions};

pub(crate) async fn an_instance_renews_adopts_and_leaves<E: TestEngine>() {
    let world = World::<E>::new(subscriptions()).await;
    let id = world.subject.id;
    let renew = async |epoch| world.control.renew(id, "a", Epoch(epoch), LEASE_TTL).await.unwrap();
    assert_eq!(renew(1).await, Standing::INITIAL);
    world.enter(Phase::DualWrite).await;
    assert_eq!(renew(1).await.epoch, Epoch(2), "a renewal brings the news");
    renew(2).await;
    let instances = world.control.instances(id).await.unwrap();
    assert_eq!(instances.len(), 1);
    assert_eq!(
        (instances[0].name.as_str(), instances[0].adopted, instances[0].is_live),
        ("a", Epoch(2), true)
    );
    world.control.leave(id, "a").await.unwrap();
    world.control.leave(id, "a").await.unwrap();
    assert!(world.control.instances(id).await.unwrap().is_empty());
}

pub(crate) async fn a_lease_that_ran_out_is_not_live<E: TestEngine>() {
    let world = World::<E>::new(subscriptions()).await;
    let id = world.subject.id;
    world.control.renew(id, "gone", Epoch(1), Duration::ZERO).await.unwrap();
    world.control.renew(id, "here", Epoch(1), LEASE_TTL).await.unwrap();
    let instances = world.control.instances(id).await.unwrap();
    let live: Vec<_> = instances.iter().map(|one| (one.name.as_str(), one.is_live)).collect();
    assert_eq!(live, [("gone", false), ("here", true)]);
}

pub(crate) async fn the_old_paths_last_use_is_kept_by_epoch<E: TestEngine>() {
    let world = World::<E>::new(subscriptions()).await;
    let id = world.subject.id;
    assert_eq!(world.control.old_path_idle(id, Epoch(1)).await.unwrap(), None);
    world.control.touch_old_path(id, Epoch(1)).await.unwrap();
    world.control.touch_old_path(id, Epoch(1)).await.unwrap();
    let idle = world.control.old_path_idle(id, Epoch(1)).await.unwrap().unwrap();
    assert!(idle < Duration::from_secs(60), "{idle:?}");
    assert_eq!(world.control.old_path_idle(id, Epoch(2)).await.unwrap(), None);
}
