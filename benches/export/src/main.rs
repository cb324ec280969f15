//! An export with some connections against `psql` copying the same rows, in as many parts, to /dev/null.
//!
//! `cargo run --release -p crossfade-bench-export`
//!
//! The server is one of the benchmark's own. Both sides are exported, and both are copied; the two take turns, and with
//! them a client that receives the same rows as the exporter does and throws them away: what no exporter on top of that
//! client can do without.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod cpu;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use crossfade::backfill::export::export;
use crossfade::backfill::progress::Silent;
use crossfade::backfill::{Cancel, Migration};
use crossfade::core::connect::AnyDatabase;
use crossfade::{DatabaseUrl, Manifest, Operator};
use crossfade_test_harness::Postgres;
use futures::TryStreamExt;
use sqlx::{Connection, PgConnection};
use tokio::runtime::Builder;

use cpu::Cpu;

/// What can go wrong in a benchmark ends it.
type Fault = Box<dyn std::error::Error + Send + Sync>;

/// An export against psql.
#[derive(Debug, Parser)]
struct Arguments {
    /// Rows of each side.
    #[arg(long, default_value_t = 4_000_000)]
    rows: i64,
    /// Connections of the export, and parts that psql copies at once.
    #[arg(long, default_value_t = 2)]
    connections: i64,
    /// Turns of each.
    #[arg(long, default_value_t = 3)]
    turns: usize,
    /// A server to use instead of starting one: the URL of an empty database on it.
    #[arg(long)]
    database: Option<String>,
}

const COLUMNS: &str = "id, customer_id, plan, status, quantity, amount, created_at, updated_at, details";

#[tokio::main]
async fn main() -> Result<(), Fault> {
    let arguments = Arguments::parse();
    let server = Postgres::start();
    let database = server.database().await;
    let url = database.url();
    create_tables(database.pool(), arguments.rows).await?;
    let operator = Operator::new(AnyDatabase::connect(&DatabaseUrl::parse(url)?).await?);
    operator.init(&manifest(url)?, "benchmark").await?;
    let registered = operator.database().control.migration("subscriptions").await?;
    let migration = Migration::new(operator.database(), operator.subject(&registered).await?);
    let folder = tempfile::tempdir()?;

    let server_process = cpu::server(database.pool()).await?;
    let mut copies = Row::new("psql, binary, to /dev/null");
    let mut receptions = Row::new("received and thrown away");
    let mut exports = Row::new("crossfade snapshot");
    for turn in 0..arguments.turns {
        let begun = Turn::begin(server_process);
        for table in ["old_subscriptions", "subscriptions"] {
            copy_with_psql(url, table, &arguments)?;
        }
        copies.end(begun).await;

        let begun = Turn::begin(server_process);
        for table in ["old_subscriptions", "subscriptions"] {
            receive(url, table, &arguments)?;
        }
        receptions.end(begun).await;

        let out = folder.path().join(format!("{turn}"));
        let begun = Turn::begin(server_process);
        let exported = export(&migration, &out, &Silent, &Cancel::new()).await?;
        exports.end(begun).await;
        if i64::try_from(exported.pair.old().rows())? != arguments.rows {
            return Err("rows are missing".into());
        }
        println!(
            "turn {turn}: psql {:.2} s, received {:.2} s, export {:.2} s, {} MB",
            copies.last(),
            receptions.last(),
            exports.last(),
            bytes(&out)? / 1_000_000
        );
        std::fs::remove_dir_all(&out)?;
    }
    println!(
        "2 x {} rows, {} connections, {} turns (median); core seconds of client and server",
        arguments.rows, arguments.connections, arguments.turns
    );
    copies.print(&copies, "");
    receptions.print(&copies, "");
    exports.print(&copies, "   bar: 0.8");
    Ok(())
}

/// How long after its connections are closed a server has surely counted what they took.
const REAPED: Duration = Duration::from_millis(200);

/// What something took, turn by turn.
struct Row {
    name: &'static str,
    seconds: Vec<f64>,
    client: Vec<f64>,
    server: Vec<f64>,
}

/// One turn, under way.
struct Turn {
    begun: Instant,
    server_process: Option<u32>,
    client: Cpu,
    server: Cpu,
}

impl Turn {
    fn begin(server_process: Option<u32>) -> Turn {
        let (client, server) = (Cpu::of_this_process(), Cpu::of_children(server_process));
        Turn { begun: Instant::now(), server_process, client, server }
    }
}

impl Row {
    fn new(name: &'static str) -> Row {
        Row { name, seconds: Vec::new(), client: Vec::new(), server: Vec::new() }
    }

    async fn end(&mut self, turn: Turn) {
        self.seconds.push(turn.begun.elapsed().as_secs_f64());
        self.client.push(Cpu::of_this_process().since(turn.client));
        tokio::time::sleep(REAPED).await;
        self.server.push(Cpu::of_children(turn.server_process).since(turn.server));
    }

    fn last(&self) -> f64 {
        self.seconds.last().copied().unwrap_or(f64::NAN)
    }

    fn print(&self, peer: &Row, bar: &str) {
        let ratios: Vec<f64> = peer.seconds.iter().zip(&self.seconds).map(|(peer, own)| peer / own).collect();
        println!(
            "  {:<27} {:>6.2} s   {:.2} of psql's speed   client {:.2}, server {:.2}{bar}",
            self.name,
            median(&self.seconds),
            median(&ratios),
            median(&self.client),
            median(&self.server),
        );
    }
}

async fn create_tables(pool: &sqlx::PgPool, rows: i64) -> Result<(), Fault> {
    sqlx::raw_sql(
        "create table old_subscriptions (id bigint primary key, customer_id bigint not null, plan text not null,
             status text not null, quantity integer not null, amount numeric(12, 2) not null,
             created_at timestamptz not null, updated_at timestamptz not null, details jsonb not null);
         create table subscriptions (like old_subscriptions including all);",
    )
    .execute(pool)
    .await?;
    sqlx::query(
        "insert into old_subscriptions
         select n, n * 7 % 1000003, 'plan-' || n % 20,
                (array['active', 'paused', 'cancelled', 'trial'])[1 + n % 4], n % 100, (n * 37 % 100000) / 100.0,
                '2020-01-01'::timestamptz + n * interval '1 second',
                '2024-01-01'::timestamptz + n * interval '1 second',
                jsonb_build_object('r', md5(n::text), 'n', n % 1000)
         from generate_series(1, $1) n",
    )
    .bind(rows)
    .execute(pool)
    .await?;
    sqlx::raw_sql("insert into subscriptions select * from old_subscriptions").execute(pool).await?;
    sqlx::raw_sql("vacuum analyze").execute(pool).await?;
    Ok(())
}

fn manifest(url: &str) -> Result<Manifest, Fault> {
    let text = format!(
        r#"name = "subscriptions"
[old]
url = "{url}"
table = "old_subscriptions"
key = ["id"]
[new]
url = "{url}"
table = "subscriptions"
scope = ["id"]
key = ["id"]
[mapping]
projection = "select {COLUMNS} from old_subscriptions where id in (:keys)"
"#
    );
    Ok(Manifest::parse(&text, "manifest")?)
}

/// The statements that copy a table in order, in as many equal parts as there are connections.
fn copies(table: &str, arguments: &Arguments) -> Vec<String> {
    let part = |number: i64| arguments.rows * number / arguments.connections;
    let copy = |number: i64| {
        format!(
            "copy (select {COLUMNS} from {table} where id > {} and id <= {} order by id) to stdout (format binary)",
            part(number),
            part(number + 1)
        )
    };
    (0..arguments.connections).map(copy).collect()
}

/// The whole table, each part by a `psql` of its own.
fn copy_with_psql(url: &str, table: &str, arguments: &Arguments) -> Result<(), Fault> {
    let children = copies(table, arguments)
        .iter()
        .map(|copy| Command::new("psql").args([url, "-qX", "-c", copy]).stdout(Stdio::null()).spawn())
        .collect::<Result<Vec<_>, _>>()?;
    for mut child in children {
        if !child.wait()?.success() {
            return Err("psql failed".into());
        }
    }
    Ok(())
}

/// The same through the client that the exporter uses, each part by a thread and a runtime of its own, as there.
fn receive(url: &str, table: &str, arguments: &Arguments) -> Result<(), Fault> {
    let parts: Vec<_> = copies(table, arguments)
        .into_iter()
        .map(|copy| {
            let url = url.to_owned();
            std::thread::spawn(move || {
                let runtime = Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(throw_away(&url, &copy)).map_err(std::io::Error::other)
            })
        })
        .collect();
    for part in parts {
        part.join().map_err(|_| "a receiver was lost")??;
    }
    Ok(())
}

async fn throw_away(url: &str, copy: &str) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    let mut pieces = connection.copy_out_raw(copy).await?;
    while pieces.try_next().await?.is_some() {}
    drop(pieces);
    connection.close().await
}

fn bytes(folder: &Path) -> Result<u64, Fault> {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        sum += if metadata.is_dir() { bytes(&entry.path())? } else { metadata.len() };
    }
    Ok(sum)
}

fn median(samples: &[f64]) -> f64 {
    let mut samples = samples.to_vec();
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}
