//! Both sides at one moment, as record batches.

use crossfade_migration_core::phase::{Epoch, Phase, Side};
use crossfade_migration_core::rows::{BATCH_ROWS, ScopeRange};
use tokio::sync::mpsc;

use super::engine::TestEngine;
use super::world::{Model, World, spelt, subscriptions};

pub(crate) async fn both_sides_come_in_the_plans_order_and_schema<E: TestEngine>() {
    let world = World::<E>::new(subscriptions()).await;
    world.run("insert into customers (id, plan_a, plan_b) values (10, 'x', 'y'), (9, 'z', null), (2, null, 'q')").await;
    world.run("insert into subscriptions (customer_id, slot, plan) values (10, 'b', 'y'), (10, 'a', 'x'), (9, 'a', 'z')").await;
    for batch in world.batches(Side::Old).await.unwrap() {
        assert_eq!(batch.schema(), world.subject.plan.schema());
    }
    assert_eq!(world.read(Side::Old).await.unwrap(), ["2,b,q", "9,a,z", "10,a,x", "10,b,y"]);
    assert_eq!(world.read(Side::New).await.unwrap(), ["9,a,z", "10,a,x", "10,b,y"]);
}

pub(crate) async fn text_keys_come_in_bytewise_order<E: TestEngine>() {
    let model = Model {
        tables: "create table source (k text primary key not null);
                 create table target (k text primary key not null);"
            .to_owned(),
        old: "table = \"source\"\nkey = [\"k\"]".to_owned(),
        new: "table = \"target\"\nscope = [\"k\"]\nkey = [\"k\"]".to_owned(),
        mapping: "projection = \"select k from source where k in (:keys)\"".to_owned(),
    };
    let world = World::<E>::new(model).await;
    for table in ["source", "target"] {
        world.run(format!("insert into {table} values ('é'), ('z'), ('a'), ('Z'), ('a b'), ('a-b'), ('ab'), ('10'), ('9')")).await;
    }
    let bytewise = ["10", "9", "Z", "a", "a b", "a-b", "ab", "z", "é"];
    assert_eq!(world.read(Side::Old).await.unwrap(), bytewise);
    assert_eq!(world.read(Side::New).await.unwrap(), bytewise);
}

pub(crate) async fn a_read_sees_one_moment<E: TestEngine>() {
    let world = World::<E>::new(subscriptions()).await;
    world.run("insert into customers (id, plan_a) values (1, 'gold')").await;
    let read = world.store.read_both(&world.subject).await.unwrap();
    // Writers go on, and a change of phase too.
    world.run("insert into customers (id, plan_a) values (2, 'tin')").await;
    world.run("insert into subscriptions (customer_id, slot, plan) values (2, 'a', 'tin')").await;
    world.enter(Phase::DualWrite).await;

    assert_eq!(read.moment().standing.epoch, Epoch(1));
    assert!(read.moment().began_at.ends_with('Z'), "{}", read.moment().began_at);
    assert!(!read.moment().point.is_empty());
    // An estimate is what the engine has at hand; it need not be right, but it must not fail.
    read.estimate(Side::New).await.unwrap();
    let (sender, mut receiver) = mpsc::channel(4);
    assert_eq!(read.read(Side::Old, &ScopeRange::WHOLE, sender.clone()).await.unwrap(), 1);
    assert_eq!(read.read(Side::New, &ScopeRange::WHOLE, sender).await.unwrap(), 0);
    assert_eq!(spelt(&[receiver.recv().await.unwrap()]), ["1,a,gold"]);
    assert!(receiver.recv().await.is_none());

    let later = world.store.read_both(&world.subject).await.unwrap();
    assert_eq!(later.moment().standing.epoch, Epoch(2));
    assert_eq!(world.read(Side::Old).await.unwrap().len(), 2);
}

pub(crate) async fn many_rows_come_in_batches<E: TestEngine>() {
    let count = 2 * BATCH_ROWS + 7;
    let world = World::<E>::new(subscriptions()).await;
    world.run(many(count)).await;
    let batches = world.batches(Side::Old).await.unwrap();
    assert!(batches.iter().all(|batch| (1..=BATCH_ROWS).contains(&batch.num_rows())));
    let expected: Vec<_> = (1..=count).map(|number| format!("{number},a,gold")).collect();
    assert_eq!(spelt(&batches), expected);
}

pub(crate) async fn a_dropped_receiver_ends_the_read<E: TestEngine>() {
    let world = World::<E>::new(subscriptions()).await;
    world.run(many(4 * BATCH_ROWS)).await;
    let read = world.store.read_both(&world.subject).await.unwrap();
    let (sender, mut receiver) = mpsc::channel(1);
    let take_one = async {
        receiver.recv().await.unwrap();
        drop(receiver);
    };
    let (count, ()) = tokio::join!(read.read(Side::Old, &ScopeRange::WHOLE, sender), take_one);
    assert!(count.unwrap() < 4 * BATCH_ROWS as u64);
}

fn many(count: usize) -> String {
    format!(
        "insert into customers (id, plan_a)
         with recursive n (i) as (select 1 union all select i + 1 from n where i < {count})
         select i, 'gold' from n"
    )
}
