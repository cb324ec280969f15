//! `#[derive(Diff)]`, attribute by attribute.

use std::collections::BTreeMap;

use crossfade_experiment::{Diff, DiffKind, Differences, Experiment, FieldValue, Reveal, Sampling};
use proptest::prelude::*;
use serde_json::json;

#[derive(Debug, Clone, Diff)]
struct Order {
    id: u64,
    #[diff(rename = "total")]
    amount: f64,
    #[diff(tolerance = 0.005)]
    tax: f64,
    #[diff(ignore)]
    loaded_at: u64,
    #[diff(unordered)]
    lines: Vec<Line>,
    status: Status,
    #[diff(leaf)]
    range: std::ops::Range<u32>,
    tags: BTreeMap<String, Option<i32>>,
    r#type: String,
}

#[derive(Debug, Clone, Diff)]
struct Line {
    sku: String,
    count: u32,
}

#[derive(Debug, Clone, Diff)]
enum Status {
    Open,
    Shipped { carrier: String, parcels: Vec<u32> },
    Lost(String),
}

fn order() -> Order {
    Order {
        id: 1,
        amount: 9.5,
        tax: 1.234,
        loaded_at: 7,
        lines: vec![Line { sku: "a".into(), count: 1 }, Line { sku: "b".into(), count: 2 }],
        status: Status::Shipped { carrier: "bike".into(), parcels: vec![1, 2] },
        range: 0..3,
        tags: BTreeMap::from([("x".into(), Some(1)), ("y".into(), None)]),
        r#type: "web".into(),
    }
}

fn found(change: impl FnOnce(&mut Order)) -> Vec<(String, DiffKind)> {
    let (old, mut new) = (order(), order());
    change(&mut new);
    let mut differences = Differences::new(Reveal::Paths);
    old.diff(&new, &mut differences);
    let found: Vec<_> = differences.into_found().into_iter().map(|diff| (diff.path, diff.kind)).collect();
    assert_eq!(found.is_empty(), Differences::same(&old, &new), "one notion of the same");
    found
}

fn at(path: &str, kind: DiffKind) -> Vec<(String, DiffKind)> {
    vec![(path.to_owned(), kind)]
}

#[test]
fn each_attribute_does_what_it_says() {
    assert_eq!(found(|_| {}), []);
    assert_eq!(found(|order| order.id = 2), at("id", DiffKind::Value));
    assert_eq!(found(|order| order.amount = 9.0), at("total", DiffKind::Value));
    assert_eq!(found(|order| order.tax = 1.238), []);
    assert_eq!(found(|order| order.tax = 1.240), at("tax", DiffKind::Value));
    assert_eq!(found(|order| order.loaded_at = 8), []);
    assert_eq!(found(|order| order.lines.reverse()), []);
    assert_eq!(found(|order| order.range = 0..4), at("range", DiffKind::Value));
    assert_eq!(found(|order| order.r#type = "app".into()), at("type", DiffKind::Value));
    assert_eq!(
        found(|order| order.lines[1].count = 3),
        [("lines[1]".into(), DiffKind::Missing), ("lines[1]".into(), DiffKind::Added)]
    );
    assert_eq!(found(|order| order.lines.truncate(1)), at("lines[1]", DiffKind::Missing));
}

#[test]
fn enumerations_and_maps_are_walked() {
    let shipped = |parcels| Status::Shipped { carrier: "bike".into(), parcels };
    assert_eq!(
        found(|order| order.status = shipped(vec![1, 3])),
        at("status.Shipped.parcels[1]", DiffKind::Value)
    );
    assert_eq!(
        found(|order| order.status = shipped(vec![1])),
        at("status.Shipped.parcels", DiffKind::Length)
    );
    assert_eq!(found(|order| order.status = Status::Open), at("status", DiffKind::Type));
    assert_eq!(found(|order| order.status = Status::Lost("sea".into())), at("status", DiffKind::Type));
    assert_eq!(
        found(|order| {
            order.tags.remove("x");
        }),
        at("tags.x", DiffKind::Missing)
    );
    assert_eq!(
        found(|order| {
            order.tags.insert("z".into(), None);
        }),
        at("tags.z", DiffKind::Added)
    );
    assert_eq!(
        found(|order| {
            order.tags.insert("y".into(), Some(2));
        }),
        at("tags.y", DiffKind::Type)
    );
}

#[test]
fn values_are_shown_only_where_asked_for() {
    let (old, mut new) = (order(), order());
    new.id = 2;
    for (reveal, shown) in
        [(Reveal::Paths, FieldValue::Redacted), (Reveal::Values, FieldValue::Shown(json!(1)))]
    {
        let mut differences = Differences::new(reveal);
        old.diff(&new, &mut differences);
        assert_eq!(differences.into_found()[0].old, shown);
    }
}

#[test]
fn what_cannot_be_shown_is_not_shown_as_null() {
    let (old, mut new) = (order(), order());
    new.lines.truncate(1);
    new.tags.insert("z".into(), Some(1));
    let mut differences = Differences::new(Reveal::Values);
    old.diff(&new, &mut differences);
    let sides: Vec<_> = differences.into_found().into_iter().map(|diff| (diff.old, diff.new)).collect();
    assert_eq!(
        sides,
        [(FieldValue::Redacted, FieldValue::Absent), (FieldValue::Absent, FieldValue::Redacted)]
    );
}

#[test]
fn an_experiment_by_fields_counts_what_is_within_tolerance_as_matched() {
    let experiment: Experiment<Order, String> =
        Experiment::by_fields("orders").sampling(Sampling::Always).build().unwrap();
    let near = || {
        let mut near = order();
        near.tax += 0.001;
        near.lines.reverse();
        Ok(near)
    };
    experiment.run_sync_in_line("k", || Ok(order()), near).unwrap();
    assert_eq!(experiment.tallies()[0].totals.matched, 1);
}

/// Where the crate goes by another path, as in a façade.
mod facade {
    pub(crate) use crossfade_experiment as experiment;
}

#[derive(Debug, Diff)]
#[diff(crate = "facade::experiment")]
struct Elsewhere {
    inner: u8,
}

#[test]
fn the_crate_may_go_by_another_path() {
    assert!(!Differences::same(&Elsewhere { inner: 1 }, &Elsewhere { inner: 2 }));
}

#[derive(Debug, Diff)]
struct Generic<T> {
    inner: T,
}

proptest! {
    #[test]
    fn a_bag_is_the_same_in_any_order(mut items in prop::collection::vec(0u8..5, 0..12), seed in any::<u64>()) {
        let old = items.clone();
        let swaps = items.len();
        for n in 0..swaps {
            items.swap(n, (seed as usize).wrapping_mul(n + 1) % swaps);
        }
        let mut differences = Differences::new(Reveal::Paths);
        differences.unordered(&old, &items);
        prop_assert!(differences.into_found().is_empty());
    }

    #[test]
    fn a_bag_reports_what_has_no_partner(old in prop::collection::vec(0u8..5, 0..12), new in prop::collection::vec(0u8..5, 0..12)) {
        let mut differences = Differences::new(Reveal::Paths);
        differences.unordered(&old, &new);
        let surplus = |a: &[u8], b: &[u8]| -> usize {
            let count = |items: &[u8], value| items.iter().filter(|&&item| item == value).count();
            (0..5).map(|value| count(a, value).saturating_sub(count(b, value))).sum()
        };
        let found = differences.into_found();
        let of = |kind| found.iter().filter(|diff| diff.kind == kind).count();
        prop_assert_eq!(of(DiffKind::Missing), surplus(&old, &new));
        prop_assert_eq!(of(DiffKind::Added), surplus(&new, &old));
    }

    #[test]
    fn same_is_equality_where_nothing_is_relaxed(a in any::<(i64, String, Vec<Option<u8>>)>(), b in any::<(i64, String, Vec<Option<u8>>)>()) {
        prop_assert_eq!(Differences::same(&a, &b), a == b);
        let (one, other) = (Generic { inner: a.clone() }, Generic { inner: a });
        prop_assert!(Differences::same(&one, &other));
    }
}
