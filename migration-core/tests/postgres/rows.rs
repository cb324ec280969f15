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
use crossfade_migration_core::rows::{BATCH_ROWS, ConsistentRead, Rows};
use sqlx::Postgres;
use tokio::sync::mpsc;

use super::{Fixture, manifest};

/// Reads one side to its end.
async fn read(snapshot: &mut dyn ConsistentRead, side: Side) -> (u64, Vec<RecordBatch>) {
    let (sender, mut receiver) = mpsc::channel(2);
    let collect = async {
        let mut batches = Vec::new();
        while let Some(batch) = receiver.recv().await {
            batches.push(batch);
        }
        batches
    };
    let (count, batches) = futures::join!(snapshot.read(side, sender), collect);
    (count.unwrap(), batches)
}

async fn one(snapshot: &mut dyn ConsistentRead, side: Side, subject: &Subject) -> RecordBatch {
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

    let mut snapshot = fixture.store.read_both(&subject).await.unwrap();
    let old = one(snapshot.as_mut(), Side::Old, &subject).await;
    let new = one(snapshot.as_mut(), Side::New, &subject).await;
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
    let mut snapshot = fixture.store.read_both(&subject).await.unwrap();
    let old = one(snapshot.as_mut(), Side::Old, &subject).await;
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
        let mut snapshot = fixture.store.read_both(&subject).await.unwrap();
        assert_eq!(snapshot.standing(), Standing::INITIAL);
        assert!(snapshot.began_at().ends_with('Z') && snapshot.point().starts_with("snapshot "));
        let old = one(snapshot.as_mut(), Side::Old, &subject).await;
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
        let new = one(snapshot.as_mut(), Side::New, &subject).await;
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
    let mut snapshot = fixture.store.read_both(&subject).await.unwrap();
    let (count, batches) = read(snapshot.as_mut(), Side::Old).await;
    assert_eq!(count, 30_000);
    let sizes: Vec<_> = batches.iter().map(RecordBatch::num_rows).collect();
    assert_eq!(sizes, [BATCH_ROWS, BATCH_ROWS, BATCH_ROWS, 30_000 - 3 * BATCH_ROWS]);
    // A row larger than a piece of the stream, and than a batch should be.
    let (count, batches) = read(snapshot.as_mut(), Side::New).await;
    assert_eq!((count, batches.len()), (2, 2));
    assert_eq!(batches[0].column(1).as_string::<i32>().value(0).len(), 9_000_000);

    let estimate = snapshot.estimate(Side::Old).await.unwrap();
    assert!((10_000..100_000).contains(&estimate), "{estimate}");

    let (sender, mut receiver) = mpsc::channel(1);
    let stop = async {
        receiver.recv().await.unwrap();
        drop(receiver);
    };
    let (count, ()) = futures::join!(snapshot.read(Side::Old, sender), stop);
    assert!(count.unwrap() < 30_000);
    // The snapshot is still there.
    assert_eq!(read(snapshot.as_mut(), Side::Old).await.0, 30_000);
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
        let mut snapshot = fixture.store.read_both(&subject).await.unwrap();
        snapshot.read(Side::Old, mpsc::channel(1).0).await.unwrap_err()
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
    let mut snapshot = fixture.store.read_both(&subject).await.unwrap();
    let old = one(snapshot.as_mut(), Side::Old, &subject).await;
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
