//! What only SQLite has: columns that prefer a type and hold any.

use std::time::Duration;

use crossfade_migration_core::Error;
use crossfade_migration_core::catalog::ColumnKind;
use crossfade_migration_core::connect::{AnyDatabase, Engine};
use crossfade_migration_core::fence::Fence;
use crossfade_migration_core::manifest::TableName;
use crossfade_migration_core::mirror::Direction;
use crossfade_migration_core::phase::{Phase, Ramp, Side, Standing};
use sqlx::Sqlite;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

use super::engine::TestEngine;
use super::world::{Model, PATIENCE, World, account, subscriptions};

/// Documents whose fields move into columns of every affinity.
fn documents() -> Model {
    Model {
        tables: "create table source (id integer primary key, doc text);
                 create table target (
                     id integer primary key, i integer, t text, r real, n decimal(10, 2), d datetime,
                     f boolean, j json, u);"
            .to_owned(),
        old: "table = \"source\"\nkey = [\"id\"]".to_owned(),
        new: "table = \"target\"\nscope = [\"id\"]\nkey = [\"id\"]".to_owned(),
        mapping: "projection = \"\"\"select id, doc ->> 'i' as i, doc ->> 't' as t, doc ->> 'r' as r, doc ->> 'n' as n,
            doc ->> 'd' as d, doc ->> 'f' as f, doc -> 'j' as j, doc ->> 'u' as u from source where id in (:keys)\"\"\""
            .to_owned(),
    }
}

#[tokio::test]
async fn values_are_compared_as_their_columns_store_them() {
    let world = World::<Sqlite>::new(documents()).await;
    world.enter(Phase::DualWrite).await;
    for (id, doc) in [
        (
            1,
            r#"{"i": "12", "t": 5, "r": 3, "n": "1.50", "d": "2024-01-02", "f": true, "j": {"a": 1}, "u": 1}"#,
        ),
        (2, r#"{"i": 7.0, "t": 1.5, "r": "2.25", "n": "1e3", "d": 1700000000, "f": 0, "j": 12, "u": "1"}"#),
        (3, r#"{"i": null, "t": "x", "r": 0.1, "n": 0.30000000000000004, "d": "", "j": "12", "u": 1.0}"#),
        (4, r#"{"i": " 42 ", "t": "007", "r": 1e300, "n": "abc", "d": "12.50", "j": 1.0, "u": null}"#),
        (5, r#"{"i": -9223372036854775808, "t": 2.0, "r": "0.1234567890123456789", "n": 9007199254740993}"#),
    ] {
        world.run(format!("insert into source values ({id}, '{doc}')")).await;
    }
    let keys = [1, 2, 3, 4, 5];
    assert_eq!(world.mirror(Direction::OldToNew, &keys).await.written, 5);
    assert_eq!(world.mirror(Direction::OldToNew, &keys).await.written, 0, "nothing differs any more");
    assert!(world.differing(&keys).await.is_empty());
    let old = world.read(Side::Old).await.unwrap();
    assert_eq!(old, world.read(Side::New).await.unwrap());
    assert_eq!(old[0], "1,12,5,3.0,1.5,2024-01-02,1,{\"a\":1},1");
    assert_eq!(old[1], "2,7,1.5,2.25,1000,1700000000,0,12,'1'");
    assert_eq!(old[3], "4,42,007,1e300,abc,12.5,,1,");

    // A difference in each is still seen.
    for (column, value) in
        [("i", "13"), ("t", "'5 '"), ("r", "3.5"), ("n", "1.51"), ("d", "20240102"), ("u", "'1'")]
    {
        world.run(format!("update target set {column} = {value} where id = 1")).await;
        assert_eq!(world.differing(&keys).await, world.coerce(&[1]), "{column}");
        assert_eq!(world.mirror(Direction::OldToNew, &[1]).await.written, 1, "{column}");
    }
    assert!(world.differing(&keys).await.is_empty());
}

#[tokio::test]
async fn a_value_that_does_not_fit_is_named() {
    let world = World::<Sqlite>::new(documents()).await;
    world.run(r#"insert into source values (1, '{"i": "twelve"}')"#).await;
    match world.read(Side::Old).await {
        Err(Error::Value { what, column, value, sql_type }) => {
            assert!(what.contains("source"), "{what}");
            assert_eq!((column.as_str(), value.as_str(), sql_type.as_str()), ("i", "'twelve'", "INTEGER"));
        }
        other => panic!("{other:?}"),
    }
    world.run("insert into target (id, r) values (1, x'00')").await;
    match world.read(Side::New).await {
        Err(Error::Value { what, column, .. }) => {
            assert_eq!((what.as_str(), column.as_str()), ("table target", "r"));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_check_finds_what_does_not_fit_or_would_be_rounded() {
    let world = World::<Sqlite>::new(documents()).await;
    world.run(r#"insert into source values (1, '{"i": "twelve", "r": 1}'), (2, '{"n": "12345678901234567890.5"}')"#).await;
    world.run(r#"insert into source values (3, '{"i": "thirteen", "r": "x", "t": 5, "n": "1.50"}')"#).await;
    let keys = world.coerce(&[1, 2, 3]);
    let report = world.store.check_projection(&world.subject, &keys).await.unwrap();
    let messages: Vec<_> = report.faults.iter().map(|fault| fault.message.as_str()).collect();
    assert_eq!(messages.len(), 3, "{messages:#?}");
    assert!(messages[0].contains("key 1") && messages[0].contains("'twelve' in column i"), "{}", messages[0]);
    assert!(messages[1].contains("key 2") && messages[1].contains("column n"), "{}", messages[1]);
    assert!(messages[2].contains("key 3") && messages[2].contains("column r"), "{}", messages[2]);
}

#[tokio::test]
async fn a_projection_that_reads_the_whole_table_is_a_fault() {
    let mapping = "projection = \"select c.id as customer_id, 'a' as slot, c.plan_a as plan from customers c where c.id + 0 in (:keys)\"";
    let world = World::<Sqlite>::new(subscriptions().mapped(mapping)).await;
    let report = world.store.check_projection(&world.subject, &world.coerce(&[1])).await.unwrap();
    assert!(report.is_scan, "{}", report.explain);
    assert!(report.faults[0].hint.contains("id in (:keys)"), "{:?}", report.faults);
}

#[tokio::test]
async fn a_null_key_is_never_inserted() {
    let mut model = documents();
    model.tables = "create table source (id integer primary key, doc text);
                    create table target (id integer not null, slot text primary key, v text);"
        .to_owned();
    model.new = "table = \"target\"\nscope = [\"id\"]\nkey = [\"slot\"]".to_owned();
    model.mapping =
        "projection = \"select id, doc ->> 'slot' as slot, 'v' as v from source where id in (:keys)\""
            .to_owned();
    let world = World::<Sqlite>::new(model).await;
    world.run("insert into source values (1, '{}')").await;
    let epoch = world.epoch().await;
    let error = world.store.copy(&world.subject, epoch, &world.coerce(&[1])).await.unwrap_err();
    assert!(matches!(&error, Error::Value { column, .. } if column == "slot"), "{error:?}");
    assert_eq!(world.lines("select v from target").await, [""; 0]);
}

#[tokio::test]
async fn a_collation_that_ignores_case_does_not_hide_a_difference() {
    let mut model = subscriptions();
    model.tables = model.tables.replace("plan text not null", "plan text not null collate nocase");
    let world = World::<Sqlite>::new(model).await;
    world.run("insert into customers (id, plan_a) values (1, 'Gold')").await;
    world.run("insert into subscriptions (customer_id, slot, plan) values (1, 'a', 'gold')").await;
    world.enter(Phase::DualWrite).await;
    assert_eq!(world.differing(&[1]).await, world.coerce(&[1]));
    assert_eq!(world.mirror(Direction::OldToNew, &[1]).await.written, 1);
    assert_eq!(world.subscriptions().await, ["1 a Gold"]);
}

#[tokio::test]
async fn a_key_in_another_spelling_is_compared_as_the_database_does() {
    let mut model = documents();
    model.tables = "create table source (k text primary key not null collate nocase, v text);
                    create table target (k text primary key not null collate nocase, v text);"
        .to_owned();
    model.old = "table = \"source\"\nkey = [\"k\"]".to_owned();
    model.new = "table = \"target\"\nscope = [\"k\"]\nkey = [\"k\"]".to_owned();
    model.mapping = "projection = \"select k, v from source where k in (:keys)\"".to_owned();
    let world = World::<Sqlite>::new(model).await;
    world.run("insert into source values ('ann', 'x'), ('bob', 'y')").await;
    world.run("insert into target values ('ann', 'X'), ('bob', 'y')").await;
    assert_eq!(world.differing(&["ANN", "BOB"]).await, world.coerce(&["ANN"]));
}

#[tokio::test]
async fn without_the_write_ahead_log_the_fence_holds_and_long_reads_are_refused() {
    let world = World::<Sqlite>::new(subscriptions()).await;
    let path = world.url.strip_prefix("sqlite://").unwrap();
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(Duration::ZERO);
    world.connected.pool.close().await;
    let pool = SqlitePoolOptions::new().connect_with(options).await.unwrap();
    let mode: String = sqlx::query_scalar("pragma journal_mode = delete").fetch_one(&pool).await.unwrap();
    assert_eq!(mode, "delete");
    let AnyDatabase { control, store, .. } = Sqlite::database(pool.clone());
    let change = async |patience| {
        let registered = control.migration("moving").await.unwrap();
        let to =
            Standing { phase: Phase::DualWrite, ramp: Ramp::FULL, epoch: registered.standing.epoch.next() };
        control.change(&registered, to, &account("testing"), patience).await
    };

    // The transaction has read under the old phase, so no change of it commits before it has ended.
    let mut write = pool.begin().await.unwrap();
    let id = world.subject.id;
    let standing = Sqlite::fence(&mut write, id, "moving", None).await.unwrap();
    let error = change(Duration::from_millis(20)).await.unwrap_err();
    assert!(matches!(error, Error::FenceTimeout { .. }), "{error:?}");
    Sqlite::fence(&mut write, id, "moving", Some(standing.epoch)).await.unwrap();
    write.commit().await.unwrap();

    let mut read = pool.begin().await.unwrap();
    assert_eq!(Sqlite::lines(&mut read, "select name from crossfade_migration".to_owned()).await, ["moving"]);
    let error = change(Duration::from_millis(20)).await.unwrap_err();
    assert!(matches!(error, Error::FenceTimeout { .. }), "{error:?}");
    read.commit().await.unwrap();
    change(PATIENCE).await.unwrap();

    match store.read_both(&world.subject).await {
        Err(error @ Error::ControlStore { .. }) => assert!(error.hint().unwrap().contains("wal"), "{error}"),
        other => panic!("{:?}", other.map(|_| ())),
    }
}

#[tokio::test]
async fn the_catalogue_tells_kinds_keys_and_defaults() {
    let world = World::<Sqlite>::new(documents()).await;
    world
        .run(
            "create table t (a text, b integer default 5, c int generated always as (b + 1), d blob not null, e,
                 primary key (d, b));
             create unique index t_d on t (d);
             create unique index t_a on t (a);
             create unique index t_partial on t (d, a) where a is not null;
             create unique index t_expression on t (d, lower(a));
             create table s (id integer primary key, v any) strict;
             create table w (k text primary key) without rowid;
             create view v as select * from w;",
        )
        .await;
    let table = async |name: &str| world.store.table(&TableName::parse(name).unwrap()).await.unwrap();
    let t = table("t").await;
    let kinds: Vec<_> = t.columns.iter().map(|column| column.kind).collect();
    assert_eq!(
        kinds,
        [ColumnKind::Text, ColumnKind::Int, ColumnKind::Int, ColumnKind::Bytes, ColumnKind::Other]
    );
    assert_eq!(t.primary_key, ["d", "b"]);
    assert_eq!(t.unique_keys, [["d"]]);
    assert!(t.columns[1].has_default && !t.columns[0].has_default);
    assert!(t.columns[2].generated && t.columns[0].nullable && !t.columns[3].nullable);
    let s = table("main.s").await;
    assert!(!s.columns[0].nullable && s.columns[0].has_default, "the rowid fills itself in");
    assert_eq!(s.columns[1].kind, ColumnKind::Other);
    assert!(!table("w").await.columns[0].nullable);
    let error = world.store.table(&TableName::parse("missing").unwrap()).await.unwrap_err();
    assert!(matches!(error, Error::NoTable { .. }), "{error:?}");
    let error = world.store.table(&TableName::parse("v").unwrap()).await.unwrap_err();
    assert!(matches!(&error, Error::NotATable { kind, .. } if kind == "a view"), "{error:?}");
    let error = world.store.columns_of("select 1 from nowhere").await.unwrap_err();
    assert!(matches!(&error, Error::Query { message, .. } if message.contains("nowhere")), "{error:?}");
}

#[tokio::test]
async fn the_apps_own_schema_versions_are_left_alone() {
    let world = World::<Sqlite>::new(subscriptions()).await;
    let tables = world.lines("select name from sqlite_schema where name like '\\_sqlx%' escape '\\'").await;
    assert!(tables.is_empty(), "{tables:?}");
}

#[tokio::test]
async fn clocks_and_zones_of_a_projection_are_warned_of() {
    let warnings = async |value: &str| {
        let projection = format!("projection = \"select id, {value} as t from source where id in (:keys)\"");
        let world = World::<Sqlite>::new(documents().mapped(&projection)).await;
        world.run("insert into source values (1, '{}')").await;
        let keys = world.coerce(&[1]);
        world.store.check_projection(&world.subject, &keys).await.unwrap().warnings
    };
    assert!(warnings("datetime('now')").await[0].message.contains("datetime(…, 'now')"));
    assert!(warnings("datetime(doc, 'localtime')").await[0].message.contains("the time zone of the process"));
    assert_eq!(warnings("datetime(doc, '+1 day')").await, []);
}
