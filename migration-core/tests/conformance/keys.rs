//! Keys of every kind go the whole way: mirror, copy, difference, export and sample.

use crossfade_migration_core::key::{Key, KeyValue};
use crossfade_migration_core::mirror::Direction;
use crossfade_migration_core::phase::{Phase, Side};
use uuid::Uuid;

use super::engine::TestEngine;
use super::world::{Model, World};

/// A model whose key is one column of this type.
fn model(key_type: &str) -> Model {
    Model {
        tables: format!(
            "create table source (k {key_type} primary key not null, v text);
             create table target (k {key_type} primary key not null, v text);"
        ),
        old: "table = \"source\"\nkey = [\"k\"]".to_owned(),
        new: "table = \"target\"\nscope = [\"k\"]\nkey = [\"k\"]".to_owned(),
        mapping: "projection = \"select k, v from source where k in (:keys)\"".to_owned(),
    }
}

/// Carries three rows over: the first by the mirror, the others by a copy. The literals are the keys'.
async fn carry<E: TestEngine>(world: &World<E>, keys: &[Key; 3]) {
    world.enter(Phase::DualWrite).await;
    assert_eq!(world.mirror(Direction::OldToNew, &keys[..1]).await.written, 1);
    assert_eq!(world.differing(keys).await, world.coerce(&keys[1..]));
    let copied = world.store.copy(&world.subject, world.epoch().await, &world.coerce(keys)).await.unwrap();
    assert_eq!(copied.copied, 2);
    assert!(world.differing(keys).await.is_empty());
    let old = world.read(Side::Old).await.unwrap();
    assert_eq!(old.len(), 3);
    assert_eq!(old, world.read(Side::New).await.unwrap());

    let mut sampled = world.store.sample_keys(&world.subject, 10).await.unwrap();
    let mut coerced = world.coerce(keys);
    sampled.sort();
    coerced.sort();
    assert_eq!(sampled, coerced, "sampled keys are as coerced ones");

    world.run("delete from source").await;
    assert_eq!(world.mirror(Direction::OldToNew, keys).await.removed, 3);
}

pub(crate) async fn integer_keys<E: TestEngine>() {
    let world = World::<E>::new(model("bigint")).await;
    world.run(format!("insert into source values (-5, 'a'), (10, 'b'), ({}, 'c')", i64::MAX)).await;
    carry(&world, &[(-5_i64).into(), "10".into(), i64::MAX.into()]).await;
}

pub(crate) async fn text_keys<E: TestEngine>() {
    let world = World::<E>::new(model("text")).await;
    world.run("insert into source values ('it''s', 'a'), ('007', 'b'), ('Ärger \\x', 'c')").await;
    carry(&world, &["it's".into(), "007".into(), "Ärger \\x".into()]).await;
}

pub(crate) async fn composite_keys<E: TestEngine>() {
    let model = Model {
        tables:
            "create table source (tenant text not null, n integer not null, v text, primary key (tenant, n));
                 create table target (
                     tenant text not null, n integer not null, part integer not null, v text,
                     primary key (tenant, n, part));"
                .to_owned(),
        old: "table = \"source\"\nkey = [\"tenant\", \"n\"]".to_owned(),
        new: "table = \"target\"\nscope = [\"tenant\", \"n\"]\nkey = [\"tenant\", \"n\", \"part\"]"
            .to_owned(),
        mapping: "projection = \"select tenant, n, 1 as part, v from source where (tenant, n) in (:keys)\""
            .to_owned(),
    };
    let world = World::<E>::new(model).await;
    world.run("insert into source values ('acme', 1, 'a'), ('acme', 2, 'b'), ('bolt', 1, 'c')").await;
    carry(&world, &[("acme", 1).into(), ("acme", 2).into(), ("bolt", 1).into()]).await;
}

pub(crate) async fn bytes_keys<E: TestEngine>() {
    let world = World::<E>::new(model(E::BYTES)).await;
    let contents: [&[u8]; 3] = [&[0, 255], &[], b"abc"];
    for content in contents {
        world.run(format!("insert into source values ({}, 'a')", E::bytes(content))).await;
    }
    carry(&world, &contents.map(|content| Key::new([KeyValue::Bytes(content.to_vec())]))).await;
}

pub(crate) async fn uuid_keys<E: TestEngine>() {
    let world = World::<E>::new(model(E::UUID)).await;
    let uuids = [Uuid::nil(), Uuid::max(), Uuid::from_u128(0x1234_5678_9abc)];
    for uuid in uuids {
        world.run(format!("insert into source values ({}, 'a')", E::uuid(uuid))).await;
    }
    carry(&world, &uuids.map(Key::from)).await;
}

pub(crate) async fn odd_names<E: TestEngine>() {
    let model = Model {
        tables: r#"create table "Old ""Table" ("the key" integer primary key, "select" text);
                   create table "new'table" ("the key" integer primary key, "Order" text);"#
            .to_owned(),
        old: r#"table = 'Old "Table'
                key = ["the key"]"#
            .to_owned(),
        new: "table = \"new'table\"\nscope = [\"the key\"]\nkey = [\"the key\"]".to_owned(),
        mapping: r#"projection = '''select "the key", "select" as "Order" from "Old ""Table" where "the key" in (:keys)'''"#
            .to_owned(),
    };
    let world = World::<E>::new(model).await;
    world.run(r#"insert into "Old ""Table" values (1, 'a'), (2, null)"#).await;
    world.enter(Phase::DualWrite).await;
    assert_eq!(world.mirror(Direction::OldToNew, &[1, 2]).await.written, 2);
    assert_eq!(world.read(Side::New).await.unwrap(), ["1,a", "2,"]);
    assert!(world.differing(&[1, 2]).await.is_empty());
}
