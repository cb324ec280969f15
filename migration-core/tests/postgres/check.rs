//! What a check finds.

use crossfade_migration_core::catalog::Catalog;
use crossfade_migration_core::check::{CheckReport, Proof};
use crossfade_migration_core::control::MigrationId;
use crossfade_migration_core::manifest::Manifest;
use crossfade_migration_core::mirror::Subject;
use crossfade_migration_core::plan::Plan;

use super::{Fixture, manifest};

/// Checks a projection of `old` into `new` before anything is installed.
async fn check(fixture: &Fixture, projection: &str) -> CheckReport {
    let manifest = manifest("old", "new", projection, "");
    let plan = Plan::read(&manifest, &fixture.store as &dyn Catalog).await.unwrap();
    let subject = Subject { id: MigrationId(0), plan };
    let keys = fixture.store.sample_keys(&subject, 50).await.unwrap();
    fixture.store.check_projection(&subject, &keys).await.unwrap()
}

fn messages(report: &CheckReport) -> Vec<&str> {
    report.faults.iter().map(|fault| fault.message.as_str()).collect()
}

#[tokio::test]
async fn a_good_projection_has_no_faults() {
    let fixture = Fixture::new(
        "create table old (id integer primary key, v text, n numeric);
         create table new (id integer primary key, v varchar(5), n numeric(6, 2), at timestamp(0));
         insert into old select n, 'abc', 1.5 from generate_series(1, 1000) as n",
    )
    .await;
    let report =
        check(&fixture, "select id, v, n, timestamp '2020-01-01' as at from old where id in (:keys)").await;
    assert_eq!(messages(&report), Vec::<&str>::new());
    assert_eq!((report.keys, report.rows, report.is_scan), (50, 50, false));
    assert!(report.explain.contains("old"), "{}", report.explain);
}

#[tokio::test]
async fn values_that_the_column_would_change_or_refuse_are_found() {
    let fixture = Fixture::new(
        "create domain small as integer check (value < 5);
         create type mood as enum ('sad', 'happy');
         create table old (id integer primary key, v text);
         create table new (id integer primary key, cut varchar(3), padded char(4), rounded numeric(4, 1),
                           large numeric(3, 1), late timestamp(0), whole integer, day date, checked small,
                           feeling mood, number integer, wanted text not null);
         insert into old values (7, 'abcdef')",
    )
    .await;
    let faults = async |columns: &str| {
        let report =
            check(&fixture, &format!("select id, {columns}, 'x' as wanted from old where id in (:keys)"))
                .await;
        report.faults.into_iter().map(|fault| fault.message).collect::<Vec<_>>()
    };
    assert_eq!(
        faults("v as cut, 'ab  ' as padded, 1.25 as rounded, timestamp '2020-01-01 00:00:00.7' as late")
            .await,
        [
            "key 7: column cut of type character varying(3) would keep abcdef as abc",
            "key 7: column padded of type character(4) would keep ab   as ab",
            "key 7: column rounded of type numeric(4,1) would keep 1.25 as 1.3",
            "key 7: column late of type timestamp(0) without time zone would keep 2020-01-01 00:00:00.7 as 2020-01-01 00:00:01",
        ]
    );
    assert_eq!(
        faults("1.5 as whole, timestamp '2020-01-01 12:00' as day").await,
        [
            "key 7: column whole of type integer would keep 1.5 as 2",
            "key 7: column day of type date would keep 2020-01-01 12:00:00 as 2020-01-01",
        ]
    );
    assert_eq!(
        faults("'0012' as number, '2020-1-1' as day, '1.50' as rounded, 3 as checked").await,
        Vec::<String>::new()
    );
    assert_eq!(
        faults("v as number, 9 as checked, 'angry' as feeling, 123.4 as large").await,
        [
            "key 7: the projection gives a value in column number, which does not fit its type integer: invalid input syntax for type integer: \"abcdef\"",
            "key 7: the projection gives a value in column checked, which does not fit its type small: value for domain small violates check constraint \"small_check\"",
            "key 7: the projection gives a value in column feeling, which does not fit its type mood: invalid input value for enum mood: \"angry\"",
            "key 7: the projection gives a value in column large, which does not fit its type numeric(3,1): numeric field overflow",
        ]
        .map(str::to_owned).to_vec()
    );
    let report =
        check(&fixture, "select id, 1 / (id - 7) as number, null as wanted from old where id in (:keys)")
            .await;
    assert_eq!(messages(&report), ["key 7: the projection fails: division by zero"]);
    let report = check(&fixture, "select id, null as wanted from old where id in (:keys)").await;
    assert_eq!(
        messages(&report),
        ["key 7: the projection gives NULL in column wanted, which may not be NULL"]
    );
}

#[tokio::test]
async fn rows_of_other_keys_and_rows_twice_are_found() {
    let fixture = Fixture::new(
        "create table old (id integer primary key, v integer); create table new (id integer primary key, v integer);
         insert into old select n, n / 2 from generate_series(1, 4) as n",
    )
    .await;
    let report = check(&fixture, "select id % 4 + 1 as id, v from old where id in (:keys)").await;
    assert_eq!(messages(&report), ["key 1: the projection gives a row of key 2 (id)"]);
    let report =
        check(&fixture, "select o.id, n as v from old o, generate_series(1, 2) n where o.id in (:keys)")
            .await;
    assert_eq!(messages(&report), ["key 1: the projection gives two rows with (id) = (1)"]);
    let report = check(&fixture, "select id, v from old where id in (:keys) order by id limit 1").await;
    assert_eq!(
        messages(&report),
        ["for 4 keys at once the projection gives 1 rows, and for the same keys one by one 4"]
    );
}

#[tokio::test]
async fn a_projection_that_reads_the_whole_table_is_found() {
    let fixture = Fixture::new(
        "create table old (id integer primary key, v integer); create table new (id integer primary key, v integer);
         insert into old select n, n from generate_series(1, 20000) as n; analyze old;
         create table tiny (id integer primary key, v integer); insert into tiny values (1, 1)",
    )
    .await;
    let report = check(&fixture, "select id, v from old where id in (:keys)").await;
    assert!(!report.is_scan, "{}", report.explain);
    for filter in ["id + 0 in (:keys)", "id::text in (select k::text from (:keys) as k(k))"] {
        let report = check(&fixture, &format!("select id, v from old where {filter}")).await;
        assert!(report.is_scan, "{}", report.explain);
        assert!(report.faults[0].message.contains("the whole of table old"), "{:?}", report.faults);
        assert!(report.faults[0].hint.contains("where id in (:keys)"));
    }
    // However small the table is now.
    let small = manifest("tiny", "new", "select id, v from tiny where id + 0 in (:keys)", "");
    let plan = Plan::read(&small, &fixture.store as &dyn Catalog).await.unwrap();
    let subject = Subject { id: MigrationId(0), plan };
    let keys = fixture.store.sample_keys(&subject, 5).await.unwrap();
    assert!(fixture.store.check_projection(&subject, &keys).await.unwrap().is_scan);
}

#[tokio::test]
async fn samples_are_spread_over_small_and_large_tables() {
    let fixture = Fixture::new(
        "create table old (id integer primary key, v integer); create table new (id integer primary key, v integer);
         insert into old select n, n from generate_series(1, 90) as n",
    )
    .await;
    let manifest = manifest("old", "new", "select id, v from old where id in (:keys)", "");
    let plan = Plan::read(&manifest, &fixture.store as &dyn Catalog).await.unwrap();
    let subject = Subject { id: MigrationId(0), plan };
    let sample = async || -> Vec<i64> {
        let keys = fixture.store.sample_keys(&subject, 10).await.unwrap();
        keys.iter().map(|key| key.to_string().parse().unwrap()).collect()
    };
    assert_eq!(sample().await, [1, 10, 19, 28, 37, 46, 55, 64, 73, 82]);
    fixture.run("insert into old select n, n from generate_series(91, 200000) as n; analyze old").await;
    let keys = sample().await;
    assert_eq!(keys.len(), 10);
    assert_eq!((keys[0], keys[1], keys[9]), (1, 2, 200_000));
    assert!(keys[2..8].iter().all(|key| (3..199_999).contains(key)), "{keys:?}");
    fixture.run("truncate old").await;
    assert!(sample().await.is_empty());
}

/// A migration of a list of tags, whose way back is `reverse`.
fn tags(reverse: &str) -> Manifest {
    let text = format!(
        r#"
name = "tags"
[old]
url = "postgres:///unused"
table = "old"
key = ["id"]
[new]
url = "postgres:///unused"
table = "new"
scope = ["id"]
key = ["id", "tag"]
[mapping]
projection = "select id, unnest(tags) as tag from old where id in (:keys)"
reverse = "{reverse}"
"#
    );
    Manifest::parse(&text, "test").unwrap()
}

#[tokio::test]
async fn a_way_back_is_proven_and_undone() {
    let fixture = Fixture::new(
        "create table old (id integer primary key, tags text[] not null);
         create table new (id integer, tag text, primary key (id, tag));
         insert into old values (1, '{a,b}'), (2, '{}'), (3, '{c}')",
    )
    .await;
    let reverse = async |reverse: &str| {
        let subject = fixture.register(&tags(reverse)).await;
        let keys = fixture.store.sample_keys(&subject, 10).await.unwrap();
        let report = fixture.store.check_reverse(&subject, &keys).await.unwrap();
        let left: i64 =
            sqlx::query_scalar("select count(*) from new").fetch_one(&fixture.store.pool).await.unwrap();
        assert_eq!(left, 0);
        report
    };
    let report = reverse(
        "update old set tags = coalesce((select array_agg(tag order by tag) from new where new.id = old.id), '{}') where id in (:keys)",
    )
    .await;
    assert_eq!(messages(&report), Vec::<&str>::new());
    assert_eq!((report.keys, report.rows), (3, 3));
    let report = reverse("update old set tags = '{x}' where id in (:keys)").await;
    assert_eq!(
        messages(&report),
        ["key 1: after reversing rows that were just projected, the projection gives other rows"]
    );
    let report = reverse("update old set tags = tags where id in (:keys)").await;
    assert_eq!(
        messages(&report),
        ["key 1: after a new row was deleted and reversed, the projection does not follow"]
    );
    let report = reverse(
        "update old set tags = (select array_agg(tag order by tag) from new where new.id = old.id) where id in (:keys)",
    )
    .await;
    assert_eq!(report.faults.len(), 1);
    assert!(report.faults[0].message.starts_with("key 2: "), "{:?}", report.faults);
}

#[tokio::test]
async fn tables_with_more_columns_than_a_query_may_judge_are_checked() {
    let columns: Vec<String> = (0..900).map(|number| format!("c{number}")).collect();
    let declared = columns.iter().map(|name| format!("{name} smallint")).collect::<Vec<_>>().join(", ");
    let fixture = Fixture::new(&format!(
        "create table old (id integer primary key, v integer);
         create table new (id integer primary key, {declared});
         insert into old values (1, 5), (2, 70000)"
    ))
    .await;
    let given = |last: &str| {
        let list =
            columns[..899].iter().map(|name| format!("v % 7 as {name}")).collect::<Vec<_>>().join(", ");
        format!("select id, {list}, {last} as c899 from old where id in (:keys)")
    };
    let report = check(&fixture, &given("0")).await;
    assert_eq!((messages(&report), report.rows), (Vec::new(), 2));
    let report = check(&fixture, &given("v")).await;
    assert_eq!(report.faults.len(), 1, "{:?}", messages(&report));
    assert!(report.faults[0].message.contains("key 2: the projection gives a value in column c899"));
    let report = check(&fixture, &given("v + 0.5")).await;
    assert!(
        report
            .faults
            .iter()
            .any(|fault| fault.message.contains("column c899 of type smallint would keep 5.5"))
    );
}

fn warned(report: &CheckReport) -> Vec<&str> {
    report.warnings.iter().map(|warning| warning.message.as_str()).collect()
}

#[tokio::test]
async fn values_that_depend_on_the_session_or_the_moment_are_warned_of() {
    let fixture = Fixture::new(
        "create table old (id integer primary key, at timestamptz, amount float8, span interval, raw bytea, doc jsonb);
         create table new (id integer primary key, day date, t text, local timestamp, n numeric);
         create function drawn() returns integer language sql as 'select 4';
         insert into old select n, timestamptz '2024-02-29 12:00Z', 1 / 3.0, '1 day', 'abc', '{\"a\": 1}'
         from generate_series(1, 3) as n",
    )
    .await;
    let warnings = async |columns: &str| {
        let given = format!("select id, {columns} from old where id in (:keys)");
        let report = check(&fixture, &given).await;
        assert_eq!(messages(&report), Vec::<&str>::new(), "a warning is no fault");
        warned(&report).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    for (columns, word) in [
        ("at::date as day", "column day depends on the session's TimeZone"),
        ("at as local", "column local depends on the session's TimeZone"),
        ("at::text as t", "column t depends on the session's TimeZone"),
        ("(timestamp '2024-02-03 00:00')::text as t", "column t depends on the session's DateStyle"),
        ("'1/2/2024'::date as day", "column day depends on the session's DateStyle"),
        ("span::text as t", "column t depends on the session's IntervalStyle"),
        ("raw::text as t", "column t depends on the session's bytea_output"),
        ("amount::text as t", "column t depends on the session's extra_float_digits"),
    ] {
        let found = warnings(columns).await;
        assert!(matches!(found.as_slice(), [only] if only.starts_with(word)), "{columns}: {found:?}");
    }
    let found = warnings("random()::text as t").await;
    assert_eq!(found.len(), 2, "by its name and by what it gives: {found:?}");
    assert!(warnings("drawn() as n").await[0].contains("drawn()"));
    assert!(warnings("now()::date as day").await[0].contains("now()"));
    assert!(warnings("current_date as day").await[0].contains("current_date"));
    let none = "(at at time zone 'UTC')::date as day, doc ->> 'a' as t, round(amount::numeric, 2) as n";
    let report = check(&fixture, &format!("select id, {none} from old where id in (:keys)")).await;
    assert_eq!(warned(&report), Vec::<&str>::new());
}

#[tokio::test]
async fn rows_that_a_constraint_of_the_new_table_refuses_are_found() {
    let fixture = Fixture::new(
        "create table plan (name text primary key); insert into plan values ('gold'), ('iron');
         create table old (id integer primary key, v text, n integer);
         create table new (id integer primary key, v text references plan, n integer,
             made timestamptz not null default now(), parent integer references new,
             constraint positive check (n > 0), constraint named check (new.v <> ''),
             constraint recent check (made > '2000-01-01' and n < 1000000));
         insert into old values (7, 'gold', 5)",
    )
    .await;
    let given = "select id, v, n, 5 as parent from old where id in (:keys)";
    assert_eq!(messages(&check(&fixture, given).await), Vec::<&str>::new());
    fixture.run("insert into old values (8, 'tin', -1), (9, null, null)").await;
    let report = check(&fixture, given).await;
    assert_eq!(
        messages(&report),
        [
            "key 8: the projection gives a row with (v) = (tin), and plan has no such (name)",
            "key 8: the projection gives a row that the new table refuses: positive CHECK ((n > 0))",
        ]
    );
    // Nothing is left behind, and nobody's rows were needed.
    let left: i64 =
        sqlx::query_scalar("select count(*) from new").fetch_one(&fixture.store.pool).await.unwrap();
    assert_eq!(left, 0);
}
