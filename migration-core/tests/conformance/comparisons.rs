//! Tallies and mismatches.

use crossfade_migration_core::comparisons::{MISMATCHES_MAX, Mismatch, Tally};
use crossfade_migration_core::phase::Epoch;
use serde_json::json;

use super::engine::TestEngine;
use super::world::{World, subscriptions};

pub(crate) async fn an_instances_tallies_replace_its_earlier_ones<E: TestEngine>() {
    let world = World::<E>::new(subscriptions()).await;
    let id = world.subject.id;
    let tally = |experiment: &str, seen: u64| Tally {
        experiment: experiment.to_owned(),
        totals: json!({ "seen": seen }),
    };
    let control = &world.control;
    control.tally(id, "a", Epoch(1), &[tally("list", 1), tally("get", 2)]).await.unwrap();
    control.tally(id, "a", Epoch(1), &[tally("list", 5)]).await.unwrap();
    control.tally(id, "b", Epoch(1), &[tally("list", 7)]).await.unwrap();
    control.tally(id, "a", Epoch(2), &[tally("list", 9)]).await.unwrap();
    let mut tallies = control.tallies(id, Epoch(1)).await.unwrap();
    tallies.sort_by_key(|tally| tally.totals["seen"].as_u64());
    assert_eq!(tallies, [tally("list", 5), tally("list", 7)]);
    assert_eq!(control.tallies(id, Epoch(2)).await.unwrap(), [tally("list", 9)]);
}

pub(crate) async fn mismatches_are_bounded_and_newest_first<E: TestEngine>() {
    let world = World::<E>::new(subscriptions()).await;
    let id = world.subject.id;
    let mismatches = |range: std::ops::Range<u32>| -> Vec<Mismatch> {
        range
            .map(|number| Mismatch {
                at: String::new(),
                epoch: Epoch(1),
                experiment: "list".to_owned(),
                key: number.to_string(),
                differences: json!([{ "path": "plan", "kind": "changed" }]),
            })
            .collect()
    };
    let beyond = MISMATCHES_MAX + 10;
    world.control.mismatch(id, &mismatches(0..beyond)).await.unwrap();
    world.control.mismatch(id, &mismatches(beyond..beyond + 5)).await.unwrap();
    world.control.mismatch(id, &[]).await.unwrap();
    let kept = world.control.mismatches(id, u32::MAX / 2).await.unwrap();
    assert_eq!(kept.len(), MISMATCHES_MAX as usize);
    assert_eq!(kept[0].key, (beyond + 4).to_string());
    assert_eq!(kept.last().unwrap().key, "15");
    assert_eq!(kept[0].differences, json!([{ "path": "plan", "kind": "changed" }]));
    assert!(kept[0].at.ends_with('Z'), "{}", kept[0].at);
    assert_eq!(world.control.mismatches(id, 3).await.unwrap(), kept[..3]);
}
