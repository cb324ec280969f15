//! What a check finds, and what it must not find.

use crossfade_migration_core::check::CheckReport;
use crossfade_migration_core::key::Key;

use super::engine::TestEngine;
use super::world::{World, subscriptions};

/// Checks a projection on all customers of the subscriptions model.
async fn checked<E: TestEngine>(projection: &str, rows: &str) -> CheckReport {
    let world = World::<E>::new(subscriptions().mapped(&format!("projection = \"{projection}\""))).await;
    world.run(format!("insert into customers (id, plan_a, plan_b) values {rows}")).await;
    let keys = world.store.sample_keys(&world.subject, 100).await.unwrap();
    world.store.check_projection(&world.subject, &keys).await.unwrap()
}

fn assert_fault(report: &CheckReport, words: &[&str]) {
    let found = report
        .faults
        .iter()
        .any(|fault| words.iter().all(|word| fault.message.contains(word)) && !fault.hint.is_empty());
    assert!(found, "{words:?} in {:#?}", report.faults);
}

pub(crate) async fn sampled_keys_are_spread_over_the_table<E: TestEngine>() {
    let world = World::<E>::new(subscriptions()).await;
    assert!(world.store.sample_keys(&world.subject, 5).await.unwrap().is_empty());
    world
        .run(
            "insert into customers (id)
             with recursive n (i) as (select 1 union all select i + 1 from n where i < 1000)
             select i from n",
        )
        .await;
    let keys = world.store.sample_keys(&world.subject, 10).await.unwrap();
    assert!((5..=10).contains(&keys.len()), "{keys:?}");
    assert!(keys.iter().any(|key| *key <= Key::from(400)) && keys.iter().any(|key| *key > Key::from(600)));
    let mut all = world.store.sample_keys(&world.subject, 5000).await.unwrap();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 1000);
}

pub(crate) async fn a_good_projection_has_no_faults<E: TestEngine>() {
    let world = World::<E>::new(subscriptions()).await;
    world.run("insert into customers (id, plan_a, plan_b) values (1, 'a', 'b'), (2, null, 'b'), (3, null, null)").await;
    let keys = world.store.sample_keys(&world.subject, 100).await.unwrap();
    let report = world.store.check_projection(&world.subject, &keys).await.unwrap();
    assert_eq!((report.keys, report.rows), (3, 3));
    assert_eq!(report.faults, []);
    assert!(!report.is_scan && !report.explain.is_empty());
}

pub(crate) async fn a_null_in_a_not_null_column_is_a_fault<E: TestEngine>() {
    let projection =
        "select id as customer_id, 'a' as slot, plan_a as plan from customers where id in (:keys)";
    let report = checked::<E>(projection, "(1, 'x', null), (2, null, null)").await;
    assert_fault(&report, &["2", "plan", "NULL"]);
}

pub(crate) async fn two_rows_for_one_new_key_are_a_fault<E: TestEngine>() {
    let projection = "select id as customer_id, 'a' as slot, plan_a as plan from customers where id in (:keys) union all select id, 'a', plan_b from customers where id in (:keys)";
    let report = checked::<E>(projection, "(1, 'x', 'y')").await;
    assert_fault(&report, &["two rows", "1"]);
}

pub(crate) async fn two_keys_claiming_one_row_are_a_fault<E: TestEngine>() {
    let model = subscriptions();
    let mut model = model.mapped(
        "projection = \"select plan_a as slot, id as customer_id, 'p' as plan from customers where id in (:keys)\"",
    );
    model.tables = model.tables.replace("primary key (customer_id, slot)", "primary key (slot)");
    model.new = model.new.replace("key = [\"customer_id\", \"slot\"]", "key = [\"slot\"]");
    let world = World::<E>::new(model).await;
    world.run("insert into customers (id, plan_a) values (1, 'x'), (2, 'y'), (3, 'x')").await;
    let keys = world.store.sample_keys(&world.subject, 100).await.unwrap();
    let report = world.store.check_projection(&world.subject, &keys).await.unwrap();
    assert_fault(&report, &["1", "3", "x"]);
}

pub(crate) async fn a_row_outside_the_scope_is_a_fault<E: TestEngine>() {
    let projection =
        "select id + 1 as customer_id, 'a' as slot, plan_a as plan from customers where id in (:keys)";
    let report = checked::<E>(projection, "(1, 'x', null), (2, 'x', null), (3, 'y', null)").await;
    assert_fault(&report, &["customer_id"]);
}

pub(crate) async fn rows_that_the_new_table_refuses_are_faults<E: TestEngine>() {
    let mut model = subscriptions().mapped(
        "projection = \"select id as customer_id, 'a' as slot, plan_a as plan from customers where id in (:keys)\"",
    );
    model.tables = model.tables.replace(
        "plan text not null",
        "plan text not null references plan_names (name) check (plan <> 'refused')",
    );
    model.tables = format!("create table plan_names (name text primary key); {}", model.tables);
    let world = World::<E>::new(model).await;
    world.run("insert into plan_names (name) values ('gold'), ('refused')").await;
    world.run("insert into customers (id, plan_a) values (1, 'gold')").await;
    let check = async || {
        let keys = world.store.sample_keys(&world.subject, 100).await.unwrap();
        world.store.check_projection(&world.subject, &keys).await.unwrap()
    };
    assert_eq!(check().await.faults, []);
    world.run("insert into customers (id, plan_a) values (2, 'refused'), (3, 'tin')").await;
    let report = check().await;
    assert_eq!(report.faults.len(), 2, "{:#?}", report.faults);
    assert_fault(&report, &["key 2", "refuses", "plan"]);
    assert_fault(&report, &["key 3", "(tin)", "plan_names has no such (name)"]);
    assert!(world.subscriptions().await.is_empty());
}

pub(crate) async fn what_is_another_each_time_is_warned_of<E: TestEngine>() {
    let given = |value: &str| {
        format!(
            "select id as customer_id, 'a' as slot, cast({value} as text) as plan from customers where id in (:keys)"
        )
    };
    let report = checked::<E>(&given("random()"), "(1, 'x', null)").await;
    assert!(
        report.warnings.iter().any(|warning| warning.message.contains("random()")),
        "{:?}",
        report.warnings
    );
    let report = checked::<E>(&given("current_timestamp"), "(1, 'x', null)").await;
    assert!(report.warnings[0].message.contains("current_timestamp"), "{:?}", report.warnings);
    let report = checked::<E>(&given("upper(plan_a)"), "(1, 'x', null)").await;
    assert_eq!(report.warnings, []);
}

pub(crate) async fn a_reverse_that_is_the_inverse_has_no_faults<E: TestEngine>() {
    let report = reversed::<E>(None).await;
    assert_eq!(report.keys, 3);
    assert_eq!(report.faults, []);
}

pub(crate) async fn a_reverse_that_forgets_deletions_is_a_fault<E: TestEngine>() {
    let report = reversed::<E>(Some(
        "update customers set plan_a = coalesce(
             (select plan from subscriptions s where s.customer_id = customers.id and slot = 'a'), plan_a)
         where id in (:keys)",
    ))
    .await;
    assert_fault(&report, &["follow"]);
}

pub(crate) async fn a_reverse_that_changes_the_projection_is_a_fault<E: TestEngine>() {
    let report = reversed::<E>(Some("update customers set plan_a = 'always' where id in (:keys)")).await;
    assert_eq!(report.faults.len(), 1, "{:#?}", report.faults);
    assert!(!report.faults[0].hint.is_empty());
}

/// Checks a reverse statement, and that the check leaves nothing behind.
async fn reversed<E: TestEngine>(reverse: Option<&str>) -> CheckReport {
    let mut model = subscriptions();
    if let Some(reverse) = reverse {
        let mapping = model.mapping.clone();
        let (projection, _) = mapping.split_once("reverse =").unwrap();
        model = model.mapped(&format!("{projection}\nreverse = \"\"\"{reverse}\"\"\""));
    }
    let world = World::<E>::new(model).await;
    world.run("insert into customers (id, plan_a, plan_b) values (1, 'gold', 'iron'), (2, 'tin', null), (3, null, null)").await;
    world.run("insert into subscriptions (customer_id, slot, plan) values (1, 'z', 'stale')").await;
    let old = "select id || coalesce(plan_a, '-') || coalesce(plan_b, '-') from customers order by id";
    let before = world.lines(old).await;
    let keys = world.coerce(&[1, 2, 3]);
    let report = world.store.check_reverse(&world.subject, &keys).await.unwrap();
    assert_eq!(world.lines(old).await, before);
    assert_eq!(world.subscriptions().await, ["1 z stale"]);
    report
}
