//! An export with some connections against `psql` copying the same rows, in as many parts, to /dev/null.
//!
//! `cargo run --release -p crossfade-bench-export`
//!
//! The server is one of the benchmark's own. Both sides are exported, and both are copied; the two take turns.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use clap::Parser;
use crossfade::backfill::export::export;
use crossfade::backfill::progress::Silent;
use crossfade::backfill::{Cancel, Migration};
use crossfade::core::connect::AnyDatabase;
use crossfade::{DatabaseUrl, Manifest, Operator};
use crossfade_test_harness::Postgres;

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

    let (mut exports, mut copies, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..arguments.turns {
        let begun = Instant::now();
        for table in ["old_subscriptions", "subscriptions"] {
            copy_with_psql(url, table, &arguments)?;
        }
        let copied = begun.elapsed().as_secs_f64();

        let out = folder.path().join(format!("{turn}"));
        let begun = Instant::now();
        let exported = export(&migration, &out, &Silent, &Cancel::new()).await?;
        let took = begun.elapsed().as_secs_f64();
        if i64::try_from(exported.pair.old().rows())? != arguments.rows {
            return Err("rows are missing".into());
        }
        println!("turn {turn}: psql {copied:.2} s, export {took:.2} s, {} MB", bytes(&out)? / 1_000_000);
        std::fs::remove_dir_all(&out)?;
        exports.push(took);
        copies.push(copied);
        ratios.push(copied / took);
    }
    println!(
        "2 x {} rows, {} connections, {} turns (median)",
        arguments.rows, arguments.connections, arguments.turns
    );
    println!("  psql, binary, to /dev/null {:>6.2} s", median(&mut copies));
    println!(
        "  crossfade snapshot         {:>6.2} s   {:.2} of its speed   bar: 0.8",
        median(&mut exports),
        median(&mut ratios)
    );
    Ok(())
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

/// The whole table in order, in as many equal parts as there are connections, each by a `psql` of its own.
fn copy_with_psql(url: &str, table: &str, arguments: &Arguments) -> Result<(), Fault> {
    let part = |number: i64| arguments.rows * number / arguments.connections;
    let children = (0..arguments.connections)
        .map(|number| {
            let copy = format!(
                "copy (select {COLUMNS} from {table} where id > {} and id <= {} order by id) to stdout (format binary)",
                part(number),
                part(number + 1)
            );
            Command::new("psql").args([url, "-qX", "-c", &copy]).stdout(Stdio::null()).spawn()
        })
        .collect::<Result<Vec<_>, _>>()?;
    for mut child in children {
        if !child.wait()?.success() {
            return Err("psql failed".into());
        }
    }
    Ok(())
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

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}
