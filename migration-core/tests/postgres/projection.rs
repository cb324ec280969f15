//! What is made of a projection's text: the rows of an export stay those that the projection gives for all keys.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use crossfade_migration_core::fence::Fence;
use crossfade_migration_core::key::Key;
use crossfade_migration_core::manifest::Manifest;
use crossfade_migration_core::mirror::{Mirror, Subject};
use crossfade_migration_core::phase::Side;
use crossfade_migration_core::rows::{ConsistentRead, Horizon, Rows, ScopeRange};
use sqlx::Postgres;
use tokio::sync::mpsc;

use super::Fixture;

fn manifest(projection: &str) -> Manifest {
    let text = format!(
        r#"
name = "moved"
[old]
url = "postgres:///unused"
table = "customers"
key = ["id"]
[new]
url = "postgres:///unused"
table = "items"
scope = ["customer_id"]
key = ["customer_id", "n"]
[mapping]
projection = '''{projection}'''
"#
    );
    Manifest::parse(&text, "test").unwrap()
}

const TABLES: &str = r#"
    create type mood as enum ('sad', 'glad');
    create table customers (id integer primary key, n integer not null, v text, at timestamptz, items jsonb, feeling mood);
    create table items (customer_id bigint, n integer, v text, at timestamptz, feeling mood, primary key (customer_id, n));
    create table orders (id integer primary key, customer_id integer, n integer, v text);
    insert into customers
    select g, g % 7, case when g % 5 > 0 then 'v' || g end, '2020-01-01'::timestamptz + g * interval '1 hour',
           jsonb_build_array(jsonb_build_object('n', 1, 'v', g), jsonb_build_object('n', 2, 'v', 'x')),
           (array['sad', 'glad']::mood[])[1 + g % 2]
    from generate_series(1, 200) as g;
    -- Orders of customers that there are, of some that there are not, and of none.
    insert into orders select g, case when g % 9 > 0 then g * 3 end, g, 'o' || g from generate_series(1, 150) as g;
    analyze"#;

async fn all(snapshot: &dyn ConsistentRead, subject: &Subject) -> RecordBatch {
    let (sender, mut receiver) = mpsc::channel(64);
    snapshot.read(Side::Old, &ScopeRange::WHOLE, sender).await.unwrap();
    let mut batches = Vec::new();
    while let Some(batch) = receiver.recv().await {
        batches.push(batch);
    }
    concat_batches(&subject.plan.schema(), &batches).unwrap()
}

/// Whether the key filter can be left out or not, an export gives what the projection gives for all keys.
#[tokio::test]
async fn an_export_gives_what_the_projection_gives_for_all_keys() {
    let projections = [
        // Surely the old table's own key.
        "select id as customer_id, n, v from customers where id in (:keys)",
        r#"select "c"."id" as customer_id, C.n, c.v from "customers" as C where ((c.Id in ((:keys))) and v is not null)"#,
        "select c.id as customer_id, (s.value->>'n')::int as n, s.value->>'v' as v
         from customers c, jsonb_array_elements(c.items) s where c.id in (:keys)",
        "select id as customer_id, 1 as n, v from customers where id in (:keys)
         union all select c.id, 2, c.v from customers c where c.id in (:keys) and c.n > 3",
        "select c.id as customer_id, o.n, o.v from orders o right join customers c on c.id = o.customer_id
         where c.id in (:keys) and o.n is not null -- '",
        "select * from (select c.id as customer_id, c.n, c.v from customers c where c.id in (:keys)) as c",
        // Another table's column, which need not be a key of the old one.
        "select o.customer_id, o.n, o.v from orders o where o.customer_id in (:keys)",
        "select o.customer_id, o.n, o.v from customers c join orders o on o.n < 500 where c.id = 1 and o.customer_id in (:keys)",
        "select customers.customer_id, customers.n, customers.v from orders customers where customers.customer_id in (:keys)",
        "select c.customer_id, c.n, c.v from orders c where c.customer_id in (:keys) and exists (select from customers c)",
        // The old table's name or its columns stand for something else.
        "with customers as (select customer_id as id, n, v from orders where n < 60)
         select id as customer_id, n, v from customers where id in (:keys)",
        "select c.id as customer_id, c.x as n, c.v from customers as c (x, id, v) where c.x in (:keys) and c.x <> 9",
        "select c.n + 300 as customer_id, c.id as n, c.v from customers c where c.n in (:keys)",
        "select c.id as customer_id, c.n, c.v from customers c where c.id + 190 in (:keys)",
        "select c.id as customer_id, c.n, c.v from customers c where not (c.id + 3 in (:keys)) or c.id in (:keys)",
        // Nothing is known of what a filter turned round leaves.
        "select c.id as customer_id, c.n, c.v from customers c where c.id not in (:keys) or c.id = 3",
        "select o.customer_id, o.n, o.v from orders o left join customers c on c.id in (:keys) and c.id = o.customer_id
         where o.customer_id is not null",
    ];
    for projection in projections {
        let fixture = Fixture::new(TABLES).await;
        let subject = fixture.register(&manifest(projection)).await;
        let snapshot = fixture.store.read_both(&subject).await.unwrap();
        let exported = all(snapshot.as_ref(), &subject).await;
        let keys: Vec<Key> = (1..=200).map(Key::from).collect();
        let mut transaction = Postgres::begin_write(&fixture.store.pool).await.unwrap();
        let keyed = Postgres::projected(&mut transaction, &subject, &keys).await.unwrap();
        assert_eq!(exported, keyed, "{projection}");
    }
}

async fn horizon(fixture: &Fixture, subject: &Subject, side: Side) -> Result<Horizon, String> {
    let snapshot = fixture.store.read_both(subject).await.unwrap();
    snapshot.changes().unwrap().horizon(side).await.unwrap()
}

/// Rows that are made of more than their own old row, or by what may change, prove nothing when the old rows are the same.
#[tokio::test]
async fn only_projections_row_by_row_have_a_horizon() {
    let fixture = Fixture::new(TABLES).await;
    for projection in [
        "select id as customer_id, n, v, at, feeling from customers where id in (:keys)",
        "select c.id as customer_id, (s.value->>'n')::int as n, upper(s.value->>'v') as v
         from customers c, jsonb_array_elements(c.items) s where c.id in (:keys) and c.v like 'v%'",
        "select c.id as customer_id, 1 as n, coalesce(c.v, 'none') as v from customers c where c.id in (:keys)
         union all
         select c.id, 2, case c.n when 1 then 'one' else c.n::text end from customers c
         cross join lateral jsonb_array_elements(c.items) s where c.id in (:keys) and c.at is not null",
    ] {
        let subject = fixture.register(&manifest(projection)).await;
        let found = horizon(&fixture, &subject, Side::Old).await;
        assert!(found.is_ok(), "{projection}: {found:?}");
        // And it finds that nothing has changed: what it counts are the projection's rows.
        let snapshot = fixture.store.read_both(&subject).await.unwrap();
        let rows = all(snapshot.as_ref(), &subject).await.num_rows() as u64;
        let changes = snapshot.changes().unwrap();
        let mut since = found.unwrap();
        // Other tests of the server's run transactions of their own.
        since.ended_below = since.begun_below;
        let unchanged = changes.is_unchanged(Side::Old, &ScopeRange::WHOLE, &since, rows).await.unwrap();
        assert!(unchanged, "{projection}");
        for wrong in [rows + 1, rows - 1] {
            assert!(!changes.is_unchanged(Side::Old, &ScopeRange::WHOLE, &since, wrong).await.unwrap());
        }
    }
    for (projection, why) in [
        ("select o.customer_id, o.n, o.v from orders o where o.customer_id in (:keys)", "not understood"),
        (
            "select c.id as customer_id, o.n, o.v from customers c join orders o on true where c.id in (:keys)",
            "reads more",
        ),
        (
            "select c.id as customer_id, c.n, (select max(v) from orders) as v from customers c where c.id in (:keys)",
            "not looked into",
        ),
        ("select c.id as customer_id, c.n, c.at::text as v from customers c where c.id in (:keys)", "cast"),
        ("select c.id as customer_id, c.n, c.v, now() as at from customers c where c.id in (:keys)", "now"),
        (
            "select c.id as customer_id, c.n, c.v, c.v::timestamptz as at from customers c where c.id in (:keys)",
            "cast",
        ),
        ("select c.id as customer_id, c.n, c.v, 'now' as at from customers c where c.id in (:keys)", "cast"),
        (
            "select c.id as customer_id, c.n, c.feeling::text as v from customers c where c.id in (:keys)",
            "cast",
        ),
        (
            "select c.id as customer_id, c.n, current_user as v from customers c where c.id in (:keys)",
            "current_user",
        ),
        (
            "select distinct c.id as customer_id, c.n, c.v from customers c where c.id in (:keys)",
            "drops rows",
        ),
        (
            "select c.id as customer_id, max(c.n) as n from customers c where c.id in (:keys) group by c.id",
            "groups",
        ),
        (
            "select c.id as customer_id, c.n, c.v from customers c where c.id in (:keys) and c.at > '2020-01-01'",
            "kinds",
        ),
        ("select c.id as customer_id, c.n, c.v from customers c where c.id in (:keys) limit 5", "limit"),
        (
            "select c.id as customer_id, (row_number() over (order by c.v))::int as n from customers c where c.id in (:keys)",
            "row_number",
        ),
        (
            "select c.id as customer_id, c.n, random()::text as v from customers c where c.id in (:keys)",
            "random",
        ),
    ] {
        let subject = fixture.register(&manifest(projection)).await;
        let found = horizon(&fixture, &subject, Side::Old).await.unwrap_err();
        assert!(found.contains(why), "{projection}: {found}");
        assert!(horizon(&fixture, &subject, Side::New).await.is_ok());
    }
}

/// What a table's values mean may change while no row does.
#[tokio::test]
async fn what_changes_without_a_row_is_another_horizon_or_none() {
    let fixture = Fixture::new(TABLES).await;
    let projection =
        "select id as customer_id, n, lower(v) as v, at, feeling from customers where id in (:keys)";
    let subject = fixture.register(&manifest(projection)).await;
    let mut before = horizon(&fixture, &subject, Side::New).await.unwrap();
    for change in [
        "alter type mood rename value 'sad' to 'blue'",
        // There and back again.
        "alter type mood rename value 'blue' to 'sad'",
        "alter table items drop column v; alter table items add column v text",
        "cluster items using items_pkey",
    ] {
        fixture.run(change).await;
        let after = horizon(&fixture, &subject, Side::New).await.unwrap();
        assert!(after.obstacle(&before).is_some(), "{change}");
        assert_eq!(horizon(&fixture, &subject, Side::New).await.unwrap().obstacle(&after), None);
        before = after;
    }
    assert!(horizon(&fixture, &subject, Side::Old).await.is_ok());
    fixture.run("create function lower(mood) returns text language sql as 'select max(v) from orders'").await;
    let found = horizon(&fixture, &subject, Side::Old).await.unwrap_err();
    assert!(found.contains("in the place"), "{found}");
    for (change, why) in [
        ("alter table items alter column feeling type text; alter table items alter column v type interval using null", "column v"),
        ("drop table items; create table items (customer_id bigint, n integer, v text, at timestamptz, feeling mood,
              primary key (customer_id, n)) partition by range (n)", "parts"),
    ] {
        fixture.run(change).await;
        let found = horizon(&fixture, &subject, Side::New).await.unwrap_err();
        assert!(found.contains(why), "{found}");
    }
}
