//! A shadow read on real SQLite: subscriptions move from an array on the customer's row to a table of their
//! own, and the new read is tried beside the old one while writers are active.
//!
//! `cargo run --release --example shadow_read`
//!
//! It plants two things: a new read that forgets cancelled subscriptions, which is a real mismatch, and writers
//! that touch the two tables in two transactions, which is a race. The experiment tells them apart, the
//! judge refuses; then the read is mended, and the judge agrees. It exits with 1 if anything else happens.

#![expect(clippy::print_stdout, reason = "a demonstration shows what it does")]

use std::{
    error::Error,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crossfade_experiment::{
    Diff, Examples, Experiment, Limits, RecheckPolicy, Sampling, Totals,
    judge::{Criteria, Judgement, judge},
};
use sqlx::{Row, SqlitePool, sqlite::SqliteConnectOptions, sqlite::SqlitePoolOptions};

type Failure = Box<dyn Error + Send + Sync>;

const CUSTOMERS: i64 = 500;
const READS: i64 = 12_000;

#[derive(Debug, Clone, Diff)]
struct Customer {
    #[diff(unordered)]
    subscriptions: Vec<Subscription>,
}

#[derive(Debug, Clone, Diff)]
struct Subscription {
    id: String,
    plan: String,
    cancelled: bool,
}

#[tokio::main]
async fn main() -> Result<ExitCode, Failure> {
    let folder = tempfile::tempdir()?;
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("shop.db"))
        .create_if_missing(true)
        .busy_timeout(Duration::from_secs(10))
        .pragma("journal_mode", "wal")
        .pragma("synchronous", "normal");
    let pool = SqlitePoolOptions::new().max_connections(8).connect_with(options).await?;
    fill(&pool).await?;

    // The read, in shadow. Nothing below makes a caller wait for `read_new`.
    let examples = Arc::new(Examples::new(2, 20));
    let reads: Experiment<Customer, sqlx::Error> = Experiment::by_fields("subscriptions.read")
        .sampling(Sampling::Always)
        .limits(Limits { timeout: Duration::from_secs(5), ..Limits::default() })
        .recheck(RecheckPolicy { delay: Duration::from_millis(5), rounds: 4 })
        .publisher(examples.clone())
        .epoch(1)
        .build()?;

    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write_until(pool.clone(), stop.clone()));

    println!("1. The new read forgets cancelled subscriptions.");
    let forgetful = run(
        &reads,
        &pool,
        "select id, plan, cancelled from subscriptions where customer = ? and not cancelled order by id",
    )
    .await?;
    report(&forgetful.0, &forgetful.1);
    for group in examples.drain() {
        let bucket = group.examples.first().map(|example| example.bucket);
        println!("   {} × `{}` {:?}, one in bucket {bucket:?}", group.seen, group.path, group.kind);
    }

    println!("\n2. The read is mended: a new epoch, for evidence from before counts for nothing.");
    reads.set_epoch(2);
    let mended =
        run(&reads, &pool, "select id, plan, cancelled from subscriptions where customer = ? order by id")
            .await?;
    report(&mended.0, &mended.1);

    stop.store(true, Ordering::Relaxed);
    let writes = writer.await??;
    reads.shutdown(Duration::from_secs(1)).await;
    println!("\n{writes} writes went on meanwhile.");

    let caught = forgetful.0.mismatched > 0 && !forgetful.1.passed();
    let agreed = mended.0.mismatched == 0 && mended.1.passed();
    let passed = caught && agreed && mended.0.is_closed() && forgetful.0.is_closed();
    println!("{}", if passed { "ok" } else { "FAILED: not what was planted" });
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Reads all customers in turn, as a service would, and judges what came of it.
async fn run(
    reads: &Experiment<Customer, sqlx::Error>,
    pool: &SqlitePool,
    new: &'static str,
) -> Result<(Totals, Judgement), Failure> {
    let mut slowest = Duration::ZERO;
    for number in 0..READS {
        let customer = number % CUSTOMERS;
        let (old_pool, new_pool) = (pool.clone(), pool.clone());
        let started = Instant::now();
        let read_old = move || read_old(old_pool.clone(), customer);
        let read_new = move || read_new(new_pool.clone(), new, customer);
        reads.run_rechecked(customer.to_be_bytes(), read_old, read_new).await?;
        slowest = slowest.max(started.elapsed());
        // The demonstration wants every comparison: it lets candidates keep up instead of shedding them.
        while reads.in_flight() > 32 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    while reads.in_flight() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let tallies = reads.drain();
    let mut totals = Totals::default();
    for tally in &tallies {
        totals += tally.totals;
        let p99 = |sketch: &crossfade_experiment::LatencySketch| sketch.quantile(0.99).unwrap_or_default();
        println!(
            "   p99: control {:?}, candidate {:?}",
            p99(&tally.control_latency),
            p99(&tally.candidate_latency)
        );
    }
    println!("   slowest caller: {slowest:?}");
    Ok((
        totals,
        judge(&Criteria { dropped_rate_max: 0.01, mismatch_rate_max: 2e-3, ..Criteria::default() }, &tallies),
    ))
}

fn report(totals: &Totals, judgement: &Judgement) {
    println!(
        "   {} eligible: {} matched ({} of them on a second read), {} mismatched, {} dropped",
        totals.eligible,
        totals.matched,
        totals.transient,
        totals.mismatched,
        totals.dropped()
    );
    match judgement.passed() {
        true => println!("   judge: passed, mismatches below {:.1e}", judgement.mismatch_rate_bound),
        false => judgement.shortfalls.iter().for_each(|shortfall| println!("   judge: {shortfall}")),
    }
}

async fn read_old(pool: SqlitePool, customer: i64) -> Result<Customer, sqlx::Error> {
    let sql = "select s.value->>'id' as id, s.value->>'plan' as plan, s.value->>'cancelled' as cancelled \
               from customers c, json_each(c.subscriptions) s where c.id = ? order by 1";
    fetch(pool, sql, customer).await
}

async fn read_new(pool: SqlitePool, sql: &'static str, customer: i64) -> Result<Customer, sqlx::Error> {
    fetch(pool, sql, customer).await
}

async fn fetch(pool: SqlitePool, sql: &'static str, customer: i64) -> Result<Customer, sqlx::Error> {
    let rows = sqlx::query(sql).bind(customer).fetch_all(&pool).await?;
    let subscription = |row: &sqlx::sqlite::SqliteRow| {
        let cancelled = row.try_get::<i64, _>("cancelled")? != 0;
        Ok(Subscription { id: row.try_get("id")?, plan: row.try_get("plan")?, cancelled })
    };
    let subscriptions = rows.iter().map(subscription).collect::<Result<_, sqlx::Error>>()?;
    Ok(Customer { subscriptions })
}

/// Each customer has up to three subscriptions, every seventh of them cancelled, in both places.
async fn fill(pool: &SqlitePool) -> Result<(), sqlx::Error> {
    sqlx::query("create table customers (id integer primary key, subscriptions text not null)")
        .execute(pool)
        .await?;
    sqlx::query("create table subscriptions (customer integer, id text, plan text, cancelled integer, primary key (customer, id))")
        .execute(pool)
        .await?;
    let mut transaction = pool.begin().await?;
    for customer in 0..CUSTOMERS {
        let items: Vec<_> = (0..customer % 4)
            .map(|n| serde_json::json!({ "id": format!("s{n}"), "plan": "gold", "cancelled": i64::from((customer + n) % 7 == 0) }))
            .collect();
        sqlx::query("insert into customers values (?, ?)")
            .bind(customer)
            .bind(serde_json::Value::from(items).to_string())
            .execute(&mut *transaction)
            .await?;
    }
    sqlx::query(
        "insert into subscriptions select c.id, s.value->>'id', s.value->>'plan', s.value->>'cancelled' \
         from customers c, json_each(c.subscriptions) s",
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await
}

/// Changes plans, first here and a moment later there: readers of both see a race.
async fn write_until(pool: SqlitePool, stop: Arc<AtomicBool>) -> Result<u64, sqlx::Error> {
    let mut writes = 0u64;
    while !stop.load(Ordering::Relaxed) {
        let customer = (writes as i64 * 7 + 1) % CUSTOMERS;
        let plan = format!("plan-{writes}");
        sqlx::query(
            "update customers set subscriptions = json_replace(subscriptions, '$[0].plan', ?) where id = ?",
        )
        .bind(&plan)
        .bind(customer)
        .execute(&pool)
        .await?;
        tokio::time::sleep(Duration::from_millis(2)).await;
        sqlx::query("update subscriptions set plan = ? where customer = ? and id = 's0'")
            .bind(&plan)
            .bind(customer)
            .execute(&pool)
            .await?;
        writes += 1;
    }
    Ok(writes)
}
