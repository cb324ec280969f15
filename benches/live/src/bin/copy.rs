//! A copy with two workers against one plain `insert … select` of the same rows, on a Postgres of its own.
//!
//! `cargo run --release -p crossfade-bench-live --bin copy`
//!
//! The findings of a scan say that every row is missing; finding them is not timed. Copy and insert take
//! turns, each into an empty table.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::time::Instant;

use clap::Parser;
use crossfade::backfill::copy::copy;
use crossfade::backfill::export::export;
use crossfade::backfill::progress::Silent;
use crossfade::backfill::queue::Tunables;
use crossfade::backfill::scan::{ScanOptions, scan};
use crossfade::backfill::{Cancel, Migration};
use crossfade_bench_live::{Fault, create_tables, enter_dual_write, median};
use crossfade_test_harness::Postgres;
use sqlx::PgPool;

const INSERT_SELECT: &str = "insert into subscriptions (customer_id, id, plan, quantity)
    select c.id, (s.value->>'id')::bigint, s.value->>'plan', (s.value->>'quantity')::integer
    from customers c, jsonb_array_elements(c.subscriptions) s(value)";

/// Copy against insert … select.
#[derive(Debug, Parser)]
struct Arguments {
    /// Rows to copy, four for each customer.
    #[arg(long, default_value_t = 1_000_000)]
    rows: i64,
    /// Workers of the copy.
    #[arg(long, default_value_t = 2)]
    workers: u32,
    /// Turns of each.
    #[arg(long, default_value_t = 3)]
    turns: usize,
}

#[tokio::main]
async fn main() -> Result<(), Fault> {
    let arguments = Arguments::parse();
    let server = Postgres::start();
    let database = server.database().await;
    create_tables(database.pool(), arguments.rows / 4, 4).await?;
    let operator = enter_dual_write(database.url()).await?;
    let registered = operator.database().control.migration("subscriptions").await?;
    let migration = Migration::new(operator.database(), operator.subject(&registered).await?);
    let folder = tempfile::tempdir()?;

    let (mut copies, mut inserts, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..arguments.turns {
        empty(database.pool()).await?;
        let snapshot = folder.path().join(format!("snapshot-{turn}"));
        let findings = folder.path().join(format!("findings-{turn}"));
        let begun = Instant::now();
        let exported = export(&migration, &snapshot, &Silent, &Cancel::new()).await?;
        let exporting = begun.elapsed().as_secs_f64();
        let out = findings.clone();
        let begun = Instant::now();
        let summary = tokio::task::spawn_blocking(move || {
            scan(&exported.pair, out, &ScanOptions::default(), &|_| std::ops::ControlFlow::Continue(()))
        })
        .await??;
        println!(
            "turn {turn}: exported in {exporting:.2} s, scanned in {:.2} s, {} missing",
            begun.elapsed().as_secs_f64(),
            summary.missing
        );

        empty(database.pool()).await?;
        let begun = Instant::now();
        sqlx::query(INSERT_SELECT).execute(database.pool()).await?;
        let insert = begun.elapsed().as_secs_f64();

        empty(database.pool()).await?;
        let tunables = Tunables { workers: arguments.workers, ..migration.tunables };
        let begun = Instant::now();
        let report = copy(&migration, &findings, Some(tunables), &Silent, &Cancel::new()).await?;
        let copied = begun.elapsed().as_secs_f64();
        if i64::try_from(report.copied)? != arguments.rows / 4 * 4 {
            return Err(format!("copied {} rows of {}", report.copied, arguments.rows).into());
        }
        copies.push(copied);
        inserts.push(insert);
        ratios.push(insert / copied);
    }
    println!("{} rows, {} workers, {} turns (median)", arguments.rows, arguments.workers, arguments.turns);
    println!("  insert … select            {:>6.2} s", median(&mut inserts));
    println!(
        "  crossfade copy             {:>6.2} s   {:.2} of its speed   bar: 0.9",
        median(&mut copies),
        median(&mut ratios)
    );
    Ok(())
}

async fn empty(pool: &PgPool) -> Result<(), Fault> {
    sqlx::raw_sql("truncate subscriptions").execute(pool).await?;
    Ok(())
}
