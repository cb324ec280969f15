//! Exports in several ranges, with limits, and with connections that are lost.

use std::num::NonZeroU64;
use std::time::Duration;

use arrow::array::RecordBatch;
use crossfade_backfill::export::{ExportOptions, export_with};
use crossfade_backfill::progress::Silent;
use crossfade_backfill::snapshot::{MANIFEST_FILE, Side};
use crossfade_backfill::{Cancel, Error};
use crossfade_migration_core::connect::AnyDatabase;
use crossfade_migration_core::url::DatabaseUrl;
use crossfade_test_harness::Postgres as Server;
use sqlx::{PgPool, Postgres, Sqlite};

use crate::world::{TestEngine, World};

/// Enough that the projection's rows are cut into ranges.
const CUSTOMERS: u32 = 400_000;

fn options(change: impl FnOnce(&mut ExportOptions)) -> ExportOptions {
    let mut options = ExportOptions::default();
    change(&mut options);
    options
}

/// Ends the sessions of the test's database whose last statement begins like this, as soon as there are any.
async fn terminate(pool: &PgPool, statement: &str) -> i64 {
    loop {
        let ended: i64 = sqlx::query_scalar(
            // Chosen before any is ended: conditions of one `where` are tried in the planner's order.
            "with chosen as materialized (
                 select pid from pg_stat_activity
                 where datname = current_database() and pid <> pg_backend_pid() and query like $1 || '%'
                   and xact_start is not null)
             select count(*) from chosen where pg_terminate_backend(pid)",
        )
        .bind(statement)
        .fetch_one(pool)
        .await
        .unwrap();
        if ended > 0 {
            return ended;
        }
        tokio::task::yield_now().await;
    }
}

/// The same rows, whether read in one go or in ranges on any number of connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_make_the_same_snapshot() {
    let world = World::<Postgres>::new(CUSTOMERS).await;
    let mut seen = Vec::new();
    for connections in [1, 3] {
        let out = world.folder.path().join(format!("{connections}"));
        let options = options(|options| options.connections = connections.try_into().unwrap());
        let exported = export_with(&world.migration, &out, &options, &Silent, &Cancel::new()).await.unwrap();
        let manifest = exported.pair.old().manifest();
        assert!(manifest.files.len() >= 2, "{} files", manifest.files.len());
        assert_eq!(exported.pair.new_side().rows(), 0);
        assert!(exported.pair.is_simultaneous());
        exported.pair.old().verify_checksums().unwrap();
        let batches: Vec<RecordBatch> = exported.pair.old().batches().collect::<Result<_, _>>().unwrap();
        let schema = batches[0].schema();
        seen.push(arrow::compute::concat_batches(&schema, &batches).unwrap());
    }
    // Two of three customers have the one plan, every second one the other.
    assert_eq!(seen[0].num_rows() as u32, CUSTOMERS - CUSTOMERS / 3 + CUSTOMERS / 2);
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_whose_connection_is_lost_is_read_again() {
    let world = World::<Postgres>::new(CUSTOMERS).await;
    let out = world.folder.path().join("out");
    // Slow enough to be met in the middle.
    let options = options(|options| options.bytes_per_second_max = NonZeroU64::new(20_000_000));
    let cancel = Cancel::new();
    let exporting = export_with(&world.migration, &out, &options, &Silent, &cancel);
    let (exported, ended) = tokio::join!(exporting, terminate(&world.pool, "copy ("));
    assert!(ended > 0);
    let exported = exported.unwrap();
    assert_eq!(exported.pair.old().rows() as u32, CUSTOMERS - CUSTOMERS / 3 + CUSTOMERS / 2);
    exported.pair.old().verify_checksums().unwrap();
}

/// The moment is gone with its session: what would be read after that would be of another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_whose_moment_is_lost_fails_and_leaves_no_snapshot() {
    let world = World::<Postgres>::new(CUSTOMERS).await;
    let out = world.folder.path().join("out");
    let options = options(|options| options.bytes_per_second_max = NonZeroU64::new(2_000_000));
    let cancel = Cancel::new();
    let exporting = export_with(&world.migration, &out, &options, &Silent, &cancel);
    let ending = async {
        // The holder's session idles behind one of these; ending a reader makes the export look after it.
        let readers = async {
            loop {
                let reading: i64 = sqlx::query_scalar(
                    "select count(*) from pg_stat_activity where datname = current_database() and query like 'copy (%'",
                )
                .fetch_one(&world.pool)
                .await
                .unwrap();
                if reading > 0 {
                    break;
                }
            }
        };
        readers.await;
        sqlx::query(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where datname = current_database() and state = 'idle in transaction'",
        )
        .execute(&world.pool)
        .await
        .unwrap();
        terminate(&world.pool, "copy (").await
    };
    let (exported, _) = tokio::join!(exporting, ending);
    let error = exported.unwrap_err();
    assert!(matches!(error, Error::SnapshotLost { .. }), "{error:?}");
    assert!(error.hint().is_some());
    assert!(!Side::Old.folder(&out).join(MANIFEST_FILE).exists());
    // Nothing is in the way of the next one.
    let options = ExportOptions::default();
    export_with(&world.migration, &out, &options, &Silent, &Cancel::new()).await.unwrap();
}

async fn stops_when_too_old<E: TestEngine>() {
    let world = World::<E>::new(30_000).await;
    let out = world.folder.path().join("out");
    let options = options(|options| {
        options.age_max = Duration::from_millis(300);
        options.bytes_per_second_max = NonZeroU64::new(1_000);
    });
    let error = export_with(&world.migration, &out, &options, &Silent, &Cancel::new()).await.unwrap_err();
    assert!(matches!(error, Error::SnapshotTooOld { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("dead rows"));
    assert!(!Side::Old.folder(&out).join(MANIFEST_FILE).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_ends_when_its_moment_is_too_old() {
    stops_when_too_old::<Postgres>().await;
    stops_when_too_old::<Sqlite>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_read_only_past_the_barrier() {
    let primary = Server::start();
    let world = World::<Postgres>::on(primary.database().await, 1_000).await;
    let server = primary.replica();
    let url = server.url_of(&world.url);
    let replica = AnyDatabase::connect(&DatabaseUrl::parse(&url).unwrap()).await.unwrap();
    let follower = PgPool::connect(&url).await.unwrap();

    sqlx::query("select pg_wal_replay_pause()").execute(&follower).await.unwrap();
    sqlx::query("insert into customers values (5000, 'late', null)").execute(&world.pool).await.unwrap();
    let out = world.folder.path().join("out");
    let mut chosen = options(|options| {
        options.replica = Some(replica.clone());
        options.replica_patience = Duration::from_millis(200);
    });
    let error = export_with(&world.migration, &out, &chosen, &Silent, &Cancel::new()).await.unwrap_err();
    assert!(matches!(error, Error::ReplicaBehind { .. }), "{error:?}");

    sqlx::query("select pg_wal_replay_resume()").execute(&follower).await.unwrap();
    chosen.replica_patience = Duration::from_secs(60);
    let exported = export_with(&world.migration, &out, &chosen, &Silent, &Cancel::new()).await.unwrap();
    // 667 with the one plan, 500 with the other, and the late one.
    assert_eq!(exported.pair.old().rows(), 1_168);
    assert_eq!(exported.standing, world.migration.standing().await.unwrap());

    // The primary is no replica, nor is a server that follows nobody.
    let primary_itself = AnyDatabase::connect(&DatabaseUrl::parse(&world.url).unwrap()).await.unwrap();
    let elsewhere = Server::shared().database().await;
    let stranger = AnyDatabase::connect(&DatabaseUrl::parse(elsewhere.url()).unwrap()).await.unwrap();
    for wrong in [primary_itself, stranger] {
        chosen.replica = Some(wrong);
        let out = world.folder.path().join("wrong");
        let error = export_with(&world.migration, &out, &chosen, &Silent, &Cancel::new()).await.unwrap_err();
        assert!(error.to_string().contains("no replica"), "{error}");
    }
}
