//! Servers and databases come and go with their tests.

use std::{fs, path::Path, thread, time::Duration};

use crossfade_test_harness::{Postgres, Program, SERVER_VARIABLE, Signal, sqlite};
use sqlx::{Connection, PgConnection};

const WITH_POSTGRES: &str = env!("CARGO_BIN_EXE_with-postgres");

/// The folder of the server in a URL of it.
fn folder_of(url: &str) -> &Path {
    Path::new(url.split_once("?host=").expect("the URL names a socket").1)
}

/// Waits until a supervisor that nobody waits for has tidied up.
fn assert_goes_away(folder: &Path) {
    for _ in 0..2000 {
        if !folder.exists() {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("{} is still there", folder.display());
}

#[tokio::test]
async fn each_test_has_a_database_of_its_own() {
    let (one, two) = (Postgres::shared().database().await, Postgres::shared().database().await);
    sqlx::query("create table t (id int)").execute(one.pool()).await.unwrap();
    sqlx::query("create table t (id int)").execute(two.pool()).await.unwrap();
    assert_ne!(one.url(), two.url());
}

#[tokio::test]
async fn a_database_goes_away_with_its_value_though_connections_are_open() {
    let server = Postgres::shared();
    let kept = server.database().await;
    let dropped = server.database().await;
    let pool = dropped.pool().clone();
    let name: String = sqlx::query_scalar("select current_database()").fetch_one(&pool).await.unwrap();
    drop(dropped);
    let left: i64 = sqlx::query_scalar("select count(*) from pg_database where datname = $1")
        .bind(&name)
        .fetch_one(kept.pool())
        .await
        .unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn the_default_order_of_text_is_not_bytewise() {
    let database = Postgres::shared().database().await;
    let (linguistic, bytewise): (bool, bool) =
        sqlx::query_as("select 'a' < 'B', 'a' < 'B' collate \"C\"").fetch_one(database.pool()).await.unwrap();
    assert!(linguistic && !bytewise);
}

#[tokio::test]
async fn the_server_listens_on_no_network() {
    let database = Postgres::shared().database().await;
    let addresses: String =
        sqlx::query_scalar("show listen_addresses").fetch_one(database.pool()).await.unwrap();
    assert_eq!(addresses, "");
}

#[tokio::test]
async fn an_acknowledged_commit_outlives_a_killed_server() {
    let mut server = Postgres::start();
    let database = server.database().await;
    sqlx::query("create table t (id int)").execute(database.pool()).await.unwrap();
    for round in 1..=3_i64 {
        sqlx::query("insert into t values (1)").execute(database.pool()).await.unwrap();
        match round {
            1 => server.kill(),
            2 => server.stop_immediately(),
            _ => server.stop(),
        }
        // Not through the pool, which would try again for as long as an acquisition may take.
        assert!(PgConnection::connect(database.url()).await.is_err(), "the server is down");
        server.restart();
        let rows: i64 =
            sqlx::query_scalar("select count(*) from t").fetch_one(database.pool()).await.unwrap();
        assert_eq!(rows, round);
    }
}

#[test]
fn a_server_goes_away_with_its_value() {
    let server = Postgres::start();
    let folder = folder_of(server.url()).to_owned();
    assert!(folder.exists());
    drop(server);
    assert!(!folder.exists());
}

#[test]
fn a_server_goes_away_when_its_process_is_killed() {
    // The wrapper's own child is nobody's once the wrapper is killed: it ends by itself when the server's folder
    // is gone, or after a minute.
    let script = "echo url=$CROSSFADE_TEST_POSTGRES; turns=0;
        while [ -d \"${CROSSFADE_TEST_POSTGRES##*host=}\" ] && [ $turns -lt 6000 ]; do
            sleep 0.01; turns=$((turns + 1));
        done";
    let program = Program::at(WITH_POSTGRES).args(["sh", "-c", script]).spawn();
    let line = program.stdout_line("url=postgres://");
    let folder = folder_of(line.trim()).to_owned();
    assert!(folder.exists());
    let pid_file = fs::read_to_string(folder.join("data/postmaster.pid")).unwrap();
    program.kill();
    assert_goes_away(&folder);
    let pid = pid_file.lines().next().unwrap();
    assert!(!Path::new("/proc").join(pid).join("exe").exists(), "the server runs on");
}

#[test]
fn the_wrapper_passes_on_the_exit_status_and_removes_its_server() {
    let finished =
        Program::at(WITH_POSTGRES).args(["sh", "-c", &format!("echo url=${SERVER_VARIABLE}; exit 7")]).run();
    assert_eq!(finished.code(), Some(7), "{finished}");
    assert!(!folder_of(finished.stdout.trim()).exists());
}

#[test]
fn the_wrapper_without_a_command_says_how_it_is_used() {
    let finished = Program::at(WITH_POSTGRES).run();
    assert_eq!(finished.code(), Some(1));
    assert!(finished.stderr.contains("hint: with-postgres COMMAND"), "{finished}");
}

#[test]
fn a_stopped_program_goes_on_when_told_and_ends_when_asked() {
    let program = Program::at("/bin/sh")
        .args(["-c", "trap 'echo asked; exit 3' TERM; echo ready; while :; do sleep 0.01; done"])
        .spawn();
    program.stdout_line("ready");
    program.signal(Signal::Stop);
    program.signal(Signal::Terminate);
    program.signal(Signal::Continue);
    let finished = program.wait();
    assert_eq!((finished.code(), finished.stdout.as_str()), (Some(3), "ready\nasked\n"));
}

#[tokio::test]
async fn a_sqlite_database_goes_away_with_its_value() {
    let database = sqlite().await;
    sqlx::query("create table t (id int)").execute(database.pool()).await.unwrap();
    let path = Path::new(database.url().strip_prefix("sqlite://").unwrap()).to_owned();
    assert!(path.exists());
    drop(database);
    assert!(!path.parent().unwrap().exists());
}
