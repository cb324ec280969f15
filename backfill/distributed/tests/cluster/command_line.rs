//! The same through the operator's binary: `crossfade scan --engine df://…` and `crossfade project`.

use std::fs;
use std::path::Path;

use crossfade_test_harness::{Finished, Program, TestDatabase, sqlite};
use sqlx::Sqlite;
use tempfile::TempDir;

use crate::processes::{Processes, crossfade, free_ports};
use crate::rows::files;

const MANIFEST: &str = "name = \"contacts\"

[old]
url = \"env:DATABASE_URL\"
table = \"customers\"
key = [\"id\"]

[new]
url = \"env:DATABASE_URL\"
table = \"contacts\"
scope = [\"customer_id\"]
key = [\"customer_id\", \"kind\"]

[mapping]
projection = '''
select id as customer_id, 'email' as kind, email as value from customers where email is not null and id in (:keys)
union all
select id, 'phone', phone from customers where phone is not null and id in (:keys)'''
";

/// Customers, of whose contacts some are missing, some wrong and some nobody's.
const TABLES: &str = "
create table customers (id bigint primary key, email text, phone text);
create table contacts (
    customer_id bigint not null, kind text not null, value text not null, primary key (customer_id, kind)
);
insert into customers
with recursive numbers (id) as (select 1 union all select id + 1 from numbers where id < 3000)
select id, case when id % 5 > 0 then 'c' || id || '@example.org' end, case when id % 3 > 0 then '+' || id end from numbers;
insert into contacts
select id, 'email', case when id % 11 = 0 then 'wrong' else email end from customers
where email is not null and id % 7 > 0
union all select -id, 'phone', '+0' from customers where id % 100 = 0;";

struct World {
    folder: TempDir,
    database: TestDatabase<Sqlite>,
}

impl World {
    /// A migration that writes twice, and a snapshot of it.
    async fn new() -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap(), database: sqlite().await };
        sqlx::raw_sql(TABLES).execute(world.database.pool()).await.unwrap();
        fs::write(world.folder.path().join("contacts.toml"), MANIFEST).unwrap();
        world.run(&["init", "contacts.toml"], 0);
        world.run(&["advance", "contacts"], 0);
        world.run(&["snapshot", "contacts", "--out", "snapshot"], 0);
        world
    }

    fn run(&self, arguments: &[&str], status: i32) -> Finished {
        let program = Program::at(crossfade()).args(arguments).current_dir(self.folder.path());
        let finished = program.env("DATABASE_URL", self.database.url()).run();
        assert_eq!(finished.code(), Some(status), "{arguments:?}: {finished}");
        finished
    }

    fn scan(&self, engine: &str, out: &str, status: i32) -> Finished {
        self.run(&["scan", "contacts", "--snapshot", "snapshot", "--out", out, "--engine", engine], status)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cluster_finds_is_copied_like_what_is_found_here() {
    let world = World::new().await;
    let processes = Processes::start();
    let engine = processes.cluster.to_string();
    world.scan("local", "here", 4);
    let finished = world.scan(&engine, "there", 4);
    assert!(finished.stdout.contains("next: crossfade copy contacts --findings there"), "{finished}");
    assert!(finished.stderr.contains(&engine), "{finished}");
    assert_eq!(files(&world.path("there")), files(&world.path("here")));

    world.run(&["copy", "contacts", "--findings", "there"], 0);
    world.run(&["snapshot", "contacts", "--out", "snapshot-2"], 0);
    let arguments = ["scan", "contacts", "--snapshot", "snapshot-2", "--out", "after", "--engine", &engine];
    let finished = world.run(&arguments, 0);
    assert!(finished.stdout.contains("nothing differs"), "{finished}");
}

#[tokio::test(flavor = "multi_thread")]
async fn engines_that_are_none_or_do_not_answer_are_said_with_their_exit_status() {
    let world = World::new().await;
    for wrong in ["duckdb", "df://", "df://host", "http://127.0.0.1:1"] {
        let finished = world.scan(wrong, "out", 2);
        assert!(finished.stderr.contains("df://HOST:PORT"), "{finished}");
    }
    let [port] = free_ports();
    let engine = format!("df://127.0.0.1:{port}");
    let finished = world.scan(&engine, "out", 1);
    assert!(finished.stderr.contains(&format!("no scheduler answers at {engine}")), "{finished}");
    assert!(finished.stderr.contains("\nhint: start one with `ballista-scheduler"), "{finished}");
    assert!(!world.path("out").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_is_projected_without_any_database() {
    let world = World::new().await;
    // One side of a snapshot is a folder of Parquet files like any dump.
    fs::write(
        world.path("query.sql"),
        "select customer_id as id, unnest(make_array(kind, value)) as word from old where customer_id < 3",
    )
    .unwrap();
    let project = |out: &str, query: &str, status| {
        world.run(&["project", "--dump", "snapshot/old", "--query", query, "--out", out], status)
    };
    let finished = project("words", "query.sql", 0);
    assert!(finished.stdout.contains("wrote 8 rows to words: id, word"), "{finished}");
    assert!(is_parquet(&world.path("words")));

    let finished = project("words", "query.sql", 1);
    assert!(finished.stderr.contains("could not create words"), "{finished}");
    fs::write(world.path("wrong.sql"), "select colour from old").unwrap();
    let finished = project("other", "wrong.sql", 1);
    assert!(finished.stderr.contains("wrong.sql") && finished.stderr.contains("\nhint: "), "{finished}");
    assert!(!world.path("other").exists());
}

fn is_parquet(folder: &Path) -> bool {
    let files = files(folder);
    !files.is_empty() && files.values().all(|bytes| bytes.starts_with(b"PAR1"))
}
