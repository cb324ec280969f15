//! Rows on their way out.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Date32Type, Float64Type, Int64Type, TimestampMicrosecondType};
use crossfade_migration_core::Error;
use crossfade_migration_core::connect::Connected;
use crossfade_migration_core::fence::Fence;
use crossfade_migration_core::key::Key;
use crossfade_migration_core::mirror::{Direction, Mirror, Subject};
use crossfade_migration_core::phase::{Epoch, Side, Standing};
use crossfade_migration_core::rows::{BATCH_ROWS, ConsistentRead, Rows, ScopeRange};
use sqlx::Postgres;
use tokio::sync::mpsc;

use super::{Fixture, manifest};

/// Reads one side to its end.
async fn read(snapshot: &dyn ConsistentRead, side: Side) -> (u64, Vec<RecordBatch>) {
    let (sender, mut receiver) = mpsc::channel(2);
    let collect = async {
        let mut batches = Vec::new();
        while let Some(batch) = receiver.recv().await {
            batches.push(batch);
        }
        batches
    };
    let (count, batches) = futures::join!(snapshot.read(side, &ScopeRange::WHOLE, sender), collect);
    (count.unwrap(), batches)
}

async fn one(snapshot: &dyn ConsistentRead, side: Side, subject: &Subject) -> RecordBatch {
    let (_, batches) = read(snapshot, side).await;
    concat_batches(&subject.plan.schema(), &batches).unwrap()
}

const TYPES: &str =
    "id bigint primary key, a boolean, b smallint, c real, d varchar(20), e bytea, f uuid, g date,
     h timestamp, i timestamptz, j jsonb, k numeric(40, 6), l interval, m json, n char(5), o integer[]";

const COLUMNS: &str = "id, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o";

async fn mirror(store: &Connected<Postgres>, subject: &Subject, keys: &[Key]) {
    let mut transaction = Postgres::begin_write(&store.pool).await.unwrap();
    Postgres::mirror(&mut transaction, subject, Direction::OldToNew, keys, Epoch::FIRST).await.unwrap();
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn every_type_arrives_alike_from_both_sides() {
    let fixture = Fixture::new(&format!(
        "create table old ({TYPES}); create table new ({TYPES});
         insert into old values
         (1, true, -3, 1.1, 'ünï', '\\x00ff', '00112233-4455-6677-8899-aabbccddeeff', '1969-12-31',
          '1970-01-01 00:00:00.000001', '2000-01-01 00:00:00+02', '{{\"b\": 1, \"a\": [1.50]}}', 12.500000,
          '1 day 2 hours', '{{ \"z\":1,\"y\":2 }}', 'ab', '{{1,null,3}}'),
         (2, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null),
         (3, false, 32767, 'NaN', '', '', '00000000-0000-0000-0000-000000000000', 'infinity',
          'infinity', '-infinity', 'null', 1234567890123456789012345678901234.000001, '0', '\"x\"', '', '{{}}'),
         (4, false, 0, '-Infinity', 'x', '\\x01', 'ffffffff-ffff-ffff-ffff-ffffffffffff', '-infinity',
          '4714-11-24 00:00:00 BC', '2262-04-12 00:00:00+00', '1', -0.000001, '1 year', '[]', 'abcde', null)"
    ))
    .await;
    let projection = format!("select {COLUMNS} from old where id in (:keys)");
    let subject = fixture.register(&manifest("old", "new", &projection, "")).await;
    let keys: Vec<Key> = (1..=5).map(Key::from).collect();
    mirror(&fixture.store, &subject, &keys).await;

    let snapshot = fixture.store.read_both(&subject).await.unwrap();
    let old = one(snapshot.as_ref(), Side::Old, &subject).await;
    let new = one(snapshot.as_ref(), Side::New, &subject).await;
    assert_eq!(old, new);
    let mut transaction = Postgres::begin_write(&fixture.store.pool).await.unwrap();
    let keyed = Postgres::projected(&mut transaction, &subject, &keys).await.unwrap();
    assert_eq!(keyed, old);

    assert_eq!(old.column(0).as_primitive::<Int64Type>().values(), &[1, 2, 3, 4]);
    assert!(old.columns()[1..].iter().all(|column| column.is_null(1)));
    assert!(old.column(1).as_boolean().value(0));
    assert_eq!(old.column(2).as_primitive::<Int64Type>().value(2), 32767);
    let floats = old.column(3).as_primitive::<Float64Type>();
    assert_eq!(floats.value(0), f64::from(1.1_f32));
    assert!(floats.value(2).is_nan());
    assert_eq!(floats.value(3), f64::NEG_INFINITY);
    assert_eq!(old.column(4).as_string::<i32>().value(0), "ünï");
    assert_eq!(old.column(5).as_binary::<i32>().value(0), [0, 255]);
    assert_eq!(old.column(6).as_fixed_size_binary().value(0)[..3], [0, 0x11, 0x22]);
    let dates = old.column(7).as_primitive::<Date32Type>();
    assert_eq!((dates.value(0), dates.value(2), dates.value(3)), (-1, i32::MAX, i32::MIN));
    let times = old.column(8).as_primitive::<TimestampMicrosecondType>();
    assert_eq!((times.value(0), times.value(2)), (1, i64::MAX));
    let zoned = old.column(9).as_primitive::<TimestampMicrosecondType>();
    assert_eq!((zoned.value(0), zoned.value(2)), (946_684_800_000_000 - 7_200_000_000, i64::MIN));
    let texts =
        |column: usize| -> Vec<Option<&str>> { old.column(column).as_string::<i32>().iter().collect() };
    assert_eq!(texts(10), [Some("{\"a\": [1.50], \"b\": 1}"), None, Some("null"), Some("1")]);
    assert_eq!(
        texts(11),
        [Some("12.5"), None, Some("1234567890123456789012345678901234.000001"), Some("-0.000001")]
    );
    assert_eq!(texts(12), [Some("1 day 02:00:00"), None, Some("00:00:00"), Some("1 year")]);
    assert_eq!(texts(13), [Some("{\"y\": 2, \"z\": 1}"), None, Some("\"x\""), Some("[]")]);
    assert_eq!(texts(14), [Some("ab"), None, Some(""), Some("abcde")]);
    assert_eq!(texts(15), [Some("{1,NULL,3}"), None, Some("{}"), None]);
}

#[tokio::test]
async fn rows_come_in_arrows_order_whatever_the_collation() {
    let fixture = Fixture::new(
        "create table old (id text primary key); create table new (id text primary key);
         insert into old values ('b'), ('B'), ('a'), ('_'), ('ä'), ('Z'), ('aa'), ('')",
    )
    .await;
    let subject =
        fixture.register(&manifest("old", "new", "select id from old where id in (:keys)", "")).await;
    let snapshot = fixture.store.read_both(&subject).await.unwrap();
    let old = one(snapshot.as_ref(), Side::Old, &subject).await;
    let seen: Vec<_> = old.column(0).as_string::<i32>().iter().flatten().collect();
    let mut sorted = seen.clone();
    sorted.sort_unstable();
    assert_eq!(seen, sorted);
    assert_eq!(seen.len(), 8);
}

#[tokio::test]
async fn both_sides_are_read_as_of_one_moment_while_writers_run() {
    let fixture = Fixture::new(
        "create table old (id integer primary key, v bigint not null);
         create table new (id integer primary key, v bigint not null);
         insert into old select n, 0 from generate_series(1, 500) as n",
    )
    .await;
    let subject =
        fixture.register(&manifest("old", "new", "select id, v from old where id in (:keys)", "")).await;
    mirror(&fixture.store, &subject, &(1..=500).map(Key::from).collect::<Vec<_>>()).await;
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let writers = tokio::spawn({
        let (store, subject) = (fixture.store.clone(), subject.clone());
        async move {
            let mut round = 0_u64;
            while stopped.try_recv().is_err() {
                round += 1;
                let key = (round * 37 % 500 + 1) as i32;
                let mut transaction = Postgres::begin_write(&store.pool).await.unwrap();
                sqlx::query("update old set v = v + 1 where id = $1")
                    .bind(key)
                    .execute(&mut *transaction)
                    .await
                    .unwrap();
                let keys = [Key::from(key)];
                Postgres::mirror(&mut transaction, &subject, Direction::OldToNew, &keys, Epoch::FIRST)
                    .await
                    .unwrap();
                transaction.commit().await.unwrap();
            }
            round
        }
    });
    let mut sums = Vec::new();
    for _ in 0..5 {
        let snapshot = fixture.store.read_both(&subject).await.unwrap();
        assert_eq!(snapshot.moment().standing, Standing::INITIAL);
        assert!(
            snapshot.moment().began_at.ends_with('Z') && snapshot.moment().point.starts_with("snapshot ")
        );
        let old = one(snapshot.as_ref(), Side::Old, &subject).await;
        // Until something has been written since the snapshot, the two reads would agree anyway.
        let sum =
            |batch: &RecordBatch| batch.column(1).as_primitive::<Int64Type>().iter().flatten().sum::<i64>();
        loop {
            let now: i64 = sqlx::query_scalar("select sum(v)::bigint from old")
                .fetch_one(&fixture.store.pool)
                .await
                .unwrap();
            if now > sum(&old) {
                break;
            }
        }
        let new = one(snapshot.as_ref(), Side::New, &subject).await;
        assert_eq!(old, new);
        sums.push(sum(&old));
    }
    stop.send(()).unwrap();
    assert!(writers.await.unwrap() > 0);
    assert!(sums.windows(2).all(|pair| pair[0] < pair[1]), "{sums:?}");
}

#[tokio::test]
async fn batches_are_bounded_and_a_dropped_receiver_ends_the_read() {
    let fixture = Fixture::new(
        "create table old (id integer primary key, v text);
         create table new (id integer primary key, v text);
         insert into old select n, repeat('x', 100) from generate_series(1, 30000) as n;
         insert into new select 1, repeat('y', 9000000) union all select 2, 'z'; analyze old",
    )
    .await;
    let subject =
        fixture.register(&manifest("old", "new", "select id, v from old where id in (:keys)", "")).await;
    let snapshot = fixture.store.read_both(&subject).await.unwrap();
    let (count, batches) = read(snapshot.as_ref(), Side::Old).await;
    assert_eq!(count, 30_000);
    let sizes: Vec<_> = batches.iter().map(RecordBatch::num_rows).collect();
    assert_eq!(sizes, [BATCH_ROWS, BATCH_ROWS, BATCH_ROWS, 30_000 - 3 * BATCH_ROWS]);
    // A row larger than a piece of the stream, and than a batch should be.
    let (count, batches) = read(snapshot.as_ref(), Side::New).await;
    assert_eq!((count, batches.len()), (2, 2));
    assert_eq!(batches[0].column(1).as_string::<i32>().value(0).len(), 9_000_000);

    let estimate = snapshot.estimate(Side::Old).await.unwrap();
    assert!((10_000..100_000).contains(&estimate), "{estimate}");

    let (sender, mut receiver) = mpsc::channel(1);
    let stop = async {
        receiver.recv().await.unwrap();
        drop(receiver);
    };
    let (count, ()) = futures::join!(snapshot.read(Side::Old, &ScopeRange::WHOLE, sender), stop);
    assert!(count.unwrap() < 30_000);
    // The snapshot is still there.
    assert_eq!(read(snapshot.as_ref(), Side::Old).await.0, 30_000);
}

#[tokio::test]
async fn values_that_do_not_fit_are_named() {
    let fixture = Fixture::new(
        "create table old (id integer primary key, v timestamp); create table new (id integer primary key, v timestamp);
         insert into old values (1, '294260-01-01')",
    )
    .await;
    let read_old = async |projection: &str| {
        let subject = fixture.register(&manifest("old", "new", projection, "")).await;
        let snapshot = fixture.store.read_both(&subject).await.unwrap();
        snapshot.read(Side::Old, &ScopeRange::WHOLE, mpsc::channel(1).0).await.unwrap_err()
    };
    let error = read_old("select id, v from old where id in (:keys)").await;
    assert!(matches!(&error, Error::Value { column, .. } if column == "v"), "{error}");
    let error = read_old("select nullif(id, 1) as id, v from old where id in (:keys)").await;
    assert!(matches!(&error, Error::Value { column, .. } if column == "id"), "{error}");
    let error = read_old("select id, 'soon' as v from old where id in (:keys)").await;
    assert!(error.to_string().contains("soon") && error.to_string().contains("projection"), "{error}");
}

#[tokio::test]
async fn a_key_of_several_columns_travels_in_its_order() {
    let fixture = Fixture::new(
        "create table old (tenant text, id integer, tags text[], primary key (tenant, id));
         create table new (tenant text, id integer, tag text, primary key (tenant, id, tag));
         insert into old values ('b', 2, '{y,x}'), ('a', 10, '{z}'), ('b', 1, '{}'), ('a', 9, '{q,p}')",
    )
    .await;
    let text = r#"
name = "tags"
[old]
url = "postgres:///unused"
table = "old"
key = ["tenant", "id"]
[new]
url = "postgres:///unused"
table = "new"
scope = ["tenant", "id"]
key = ["tag", "tenant", "id"]
[mapping]
projection = "select unnest(tags) as tag, id, tenant from old where (tenant, id) in (:keys)"
"#;
    let manifest = crossfade_migration_core::manifest::Manifest::parse(text, "test").unwrap();
    let subject = fixture.register(&manifest).await;
    let snapshot = fixture.store.read_both(&subject).await.unwrap();
    let old = one(snapshot.as_ref(), Side::Old, &subject).await;
    let rows: Vec<_> = (0..old.num_rows())
        .map(|row| {
            format!(
                "{}{}{}",
                old.column(2).as_string::<i32>().value(row),
                old.column(1).as_primitive::<Int64Type>().value(row),
                old.column(0).as_string::<i32>().value(row)
            )
        })
        .collect();
    assert_eq!(rows, ["a9p", "a9q", "a10z", "b2x", "b2y"]);
}

/// What the server makes of a value and what is made of its binary form here are the same, whatever the value.
#[tokio::test]
async fn raw_values_become_what_the_server_would_make_of_them() {
    let fixture = Fixture::new(
        "create table old (id bigint primary key, n numeric, j jsonb, t json, f real, d double precision, s smallint,
                           i integer);
         create table new (like old including all);
         select setseed(0.5);
         insert into old
         select g,
                case g % 10 when 0 then 'NaN' when 1 then 'Infinity' when 2 then '-Infinity' when 3 then 0
                     else round(((random() - 0.5) * 10 ^ (random() * 40 - 20)::integer)::numeric, (g % 23)::integer)
                          * 10::numeric ^ (g % 41 - 20) end,
                jsonb_build_object('k', random() * 10 ^ (g % 30), 'e', '\\u00e9', 'n', null, 'a', jsonb_build_array(1.50, g)),
                json_build_object('z', g, 'a', random()),
                (random() - 0.5) * 10 ^ (g % 60 - 30), (random() - 0.5) * 10 ^ (g % 500 - 250),
                (g % 65536 - 32768)::smallint, (random() * 2147483647)::integer * (g % 3 - 1)
         from generate_series(1, 4000) as g;
         insert into old (id, n) values (5000, 1e300), (5001, -1e-300), (5002, '123456789.000100'), (5003, 1000000),
                                        (5004, 0.00), (5005, '-0.00010'), (5006, '99999999999999999999999999999999999.9')",
    )
    .await;
    let projection = "select id, n, j, t, f, d, s, i from old where id in (:keys)";
    let subject = fixture.register(&manifest("old", "new", projection, "")).await;
    let snapshot = fixture.store.read_both(&subject).await.unwrap();
    let raw = one(snapshot.as_ref(), Side::Old, &subject).await;
    let keys: Vec<Key> = (1..=4000).chain(5000..=5006).map(Key::from).collect();
    let mut transaction = Postgres::begin_write(&fixture.store.pool).await.unwrap();
    let travelling = Postgres::projected(&mut transaction, &subject, &keys).await.unwrap();
    assert_eq!(raw.num_rows(), keys.len());
    assert_eq!(raw, travelling);
}

/// All rows of a side, range by range.
async fn cut(
    snapshot: &dyn ConsistentRead,
    side: Side,
    count: usize,
    subject: &Subject,
) -> (usize, RecordBatch) {
    let ranges = snapshot.ranges(side, count.try_into().unwrap()).await.unwrap();
    let mut batches = Vec::new();
    for range in &ranges {
        let (sender, mut receiver) = mpsc::channel(64);
        snapshot.read(side, range, sender).await.unwrap();
        while let Some(batch) = receiver.recv().await {
            batches.push(batch);
        }
    }
    (ranges.len(), concat_batches(&subject.plan.schema(), &batches).unwrap())
}

/// Every kind of scope: ranges hold each row once, in order, on both sides, whatever the old column's width.
#[tokio::test]
async fn ranges_hold_every_row_once_whatever_the_key() {
    for (old_type, new_type, value) in [
        ("integer", "bigint", "g"),
        ("smallint", "smallint", "g::smallint"),
        ("uuid", "uuid", "md5(g::text)::uuid"),
        ("text", "varchar(40)", "md5(g::text) || '''é\\\\'"),
        ("varchar(40)", "text", "case g % 3 when 0 then 'É' when 1 then 'e' else '' end || g"),
        ("numeric(12, 3)", "numeric", "g / 8.0"),
        (
            "timestamptz",
            "timestamptz",
            "'2000-01-01 BC'::timestamptz + g * interval '7 months 3 microseconds'",
        ),
        ("date", "date", "'1999-12-31'::date + g"),
        ("bytea", "bytea", "decode(md5(g::text), 'hex')"),
        ("double precision", "double precision", "g / 3.0"),
    ] {
        let fixture = Fixture::new(&format!(
            "create table old (id {old_type} primary key, v integer); create table new (id {new_type} primary key, v integer);
             insert into old select {value}, g from generate_series(1, 9000) as g;
             insert into new select id, v from old; analyze"
        ))
        .await;
        let projection = "select id, v from old where id in (:keys)";
        let subject = fixture.register(&manifest("old", "new", projection, "")).await;
        let snapshot = fixture.store.read_both(&subject).await.unwrap();
        for side in [Side::Old, Side::New] {
            let (ranges, rows) = cut(snapshot.as_ref(), side, 7, &subject).await;
            let whole = one(snapshot.as_ref(), side, &subject).await;
            assert_eq!(rows, whole, "{old_type}, {side}");
            assert_eq!(rows.num_rows(), 9000);
            // An index serves every range, though the old column's narrower type makes small ones dearer.
            assert!(old_type != "integer" || ranges >= if side == Side::New { 7 } else { 2 }, "{ranges}");
        }
    }
}

/// A range that could only be had by computing everything is not worth having.
#[tokio::test]
async fn a_projection_that_cannot_be_cut_is_read_in_one_go() {
    let fixture = Fixture::new(
        "create table old (id bigint primary key, v integer); create table new (id bigint primary key, v bigint);
         insert into old select g, g from generate_series(1, 50000) as g; analyze",
    )
    .await;
    let projection = "select id, sum(v) over (order by v desc) as v from old where id in (:keys)";
    let subject = fixture.register(&manifest("old", "new", projection, "")).await;
    let snapshot = fixture.store.read_both(&subject).await.unwrap();
    assert_eq!(snapshot.ranges(Side::Old, 8.try_into().unwrap()).await.unwrap(), [ScopeRange::WHOLE]);
    // One that misnames its rows loses none of them.
    let projection = "select 50001 - id as id, v from old where id in (:keys)";
    let subject = fixture.register(&manifest("old", "new", projection, "").clone()).await;
    let snapshot = fixture.store.read_both(&subject).await.unwrap();
    let bound = |text: &str| Some(vec![text.to_owned()]);
    let mut rows = 0;
    for (from, to) in [(None, bound("100")), (bound("100"), bound("40000")), (bound("40000"), None)] {
        let (sender, mut receiver) = mpsc::channel(64);
        let range = ScopeRange { from, to };
        let (count, ()) = futures::join!(snapshot.read(Side::Old, &range, sender), async {
            while receiver.recv().await.is_some() {}
        });
        rows += count.unwrap();
    }
    assert_eq!(rows, 50_000);
}

/// Several columns of scope are cut between whole scopes.
#[tokio::test]
async fn a_scope_of_several_columns_is_cut_too() {
    let fixture = Fixture::new(
        "create table old (tenant text, id integer, primary key (tenant, id));
         create table new (tenant text, id integer, slot integer, primary key (tenant, id, slot));
         insert into old select 'tenant ' || g % 3, g from generate_series(1, 6000) as g;
         insert into new select tenant, id, s from old, generate_series(1, 3) as s; analyze",
    )
    .await;
    let text = r#"
name = "slots"
[old]
url = "postgres:///unused"
table = "old"
key = ["tenant", "id"]
[new]
url = "postgres:///unused"
table = "new"
scope = ["tenant", "id"]
key = ["tenant", "id", "slot"]
[mapping]
projection = "select tenant, id, s as slot from old, generate_series(1, 3) as s where (tenant, id) in (:keys)"
"#;
    let manifest = crossfade_migration_core::manifest::Manifest::parse(text, "test").unwrap();
    let subject = fixture.register(&manifest).await;
    let snapshot = fixture.store.read_both(&subject).await.unwrap();
    for side in [Side::Old, Side::New] {
        let (_, rows) = cut(snapshot.as_ref(), side, 5, &subject).await;
        assert_eq!(rows, one(snapshot.as_ref(), side, &subject).await);
        assert_eq!(rows.num_rows(), 18_000);
    }
}
