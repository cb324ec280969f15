//! What fence and mirror cost a write, and what a change of phase costs the writers, on a Postgres of its own.
//!
//! `cargo run --release -p crossfade-bench-live --bin fence`
//!
//! Three ways to write one customer take turns, round by round, with the same number of clients on the
//! same tables: crossfade's late fence and mirror; the same delete and upsert written by hand, without
//! a fence; and the same in one statement. Then phases change under crossfade's load.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use crossfade::{Migration, Ramp, Request};
use crossfade_bench_live::{Fault, create_tables, enter_dual_write, median, order, quantile};
use crossfade_test_harness::Postgres;
use futures::future::try_join_all;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

const UPDATE: &str = "update customers set subscriptions = jsonb_set(subscriptions, '{0,quantity}', to_jsonb($2::integer)) where id = $1";
const DELETE_REST: &str = "delete from subscriptions t where t.customer_id = $1 and not exists (
    select 1 from customers c, jsonb_array_elements(c.subscriptions) s(value)
    where c.id = $1 and (s.value->>'id')::bigint = t.id)";
const UPSERT: &str = "insert into subscriptions as t (customer_id, id, plan, quantity)
    select c.id, (s.value->>'id')::bigint, s.value->>'plan', (s.value->>'quantity')::integer
    from customers c, jsonb_array_elements(c.subscriptions) s(value) where c.id = $1
    on conflict (customer_id, id) do update set plan = excluded.plan, quantity = excluded.quantity
    where t.plan is distinct from excluded.plan or t.quantity is distinct from excluded.quantity";
const ONE_STATEMENT: &str = "with p as materialized (
        select c.id as customer_id, (s.value->>'id')::bigint as id, s.value->>'plan' as plan, (s.value->>'quantity')::integer as quantity
        from customers c, jsonb_array_elements(c.subscriptions) s(value) where c.id = $1),
    gone as (delete from subscriptions t where t.customer_id = $1 and not exists (select 1 from p where p.id = t.id))
    insert into subscriptions as t (customer_id, id, plan, quantity) select * from p
    on conflict (customer_id, id) do update set plan = excluded.plan, quantity = excluded.quantity
    where t.plan is distinct from excluded.plan or t.quantity is distinct from excluded.quantity";

/// Fence and mirror against the same statements by hand; changes of phase under load.
#[derive(Debug, Parser)]
struct Arguments {
    /// Concurrent writers.
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// Rounds of each way.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each round.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Changes of phase.
    #[arg(long, default_value_t = 100)]
    changes: usize,
    /// Customers.
    #[arg(long, default_value_t = 20_000)]
    customers: i64,
}

#[derive(Debug, Clone, Copy)]
enum Way {
    Crossfade,
    TwoStatements,
    OneStatement,
}

#[derive(Debug, Default)]
struct Counts {
    retried: AtomicU64,
    failed: AtomicU64,
    next: AtomicI64,
}

#[tokio::main]
async fn main() -> Result<(), Fault> {
    let arguments = Arguments::parse();
    let server = Postgres::start();
    let database = server.database().await;
    create_tables(database.pool(), arguments.customers, 3).await?;
    let operator = enter_dual_write(database.url()).await?;
    let pool = PgPoolOptions::new()
        .max_connections(u32::try_from(arguments.clients)?)
        .connect(database.url())
        .await?;
    // The handle has connections of its own for leases, so that all clients write.
    let migration: Migration<sqlx::Postgres> =
        Migration::join(database.pool().clone(), "subscriptions").await?;
    let counts = Arc::new(Counts::default());
    let bench = Bench { pool, migration, counts, customers: arguments.customers, clients: arguments.clients };

    let length = Duration::from_secs(arguments.seconds);
    let ways = [Way::Crossfade, Way::TwoStatements, Way::OneStatement];
    let mut rates: [Vec<f64>; 3] = Default::default();
    for way in ways {
        bench.round(way, Duration::from_secs(1)).await?;
    }
    for _ in 0..arguments.rounds {
        for (way, rates) in ways.into_iter().zip(&mut rates) {
            let latencies = bench.round(way, length).await?;
            rates.push(latencies.len() as f64 / length.as_secs_f64());
        }
    }
    let mut ratios: [Vec<f64>; 2] =
        [1, 2].map(|other| rates[0].iter().zip(&rates[other]).map(|(a, b)| a / b).collect());
    let [crossfade, two, one] = &mut rates;
    println!(
        "{} clients, {} rounds of {} s, writes per second (median)",
        arguments.clients, arguments.rounds, arguments.seconds
    );
    println!("  crossfade, fence late      {:>8.0}", median(crossfade));
    println!("  by hand, delete + upsert   {:>8.0}   ratio {:.3}", median(two), median(&mut ratios[0]));
    println!("  by hand, one statement     {:>8.0}   ratio {:.3}", median(one), median(&mut ratios[1]));
    println!("  bar: 0.88");

    let mut quiet = bench.round(Way::Crossfade, length).await?;
    let (changes, mut under) = bench.changes(&operator, arguments.changes).await?;
    let mut pauses: Vec<f64> = changes.iter().map(|(_, pause)| *pause).collect();
    let mut whole: Vec<f64> = changes.iter().map(|(whole, _)| *whole).collect();
    println!("{} changes of phase under that load", arguments.changes);
    println!(
        "  change, ms                 p50 {:>6.2}  p99 {:>6.2}   bar: p99 50",
        median(&mut whole),
        quantile(&mut whole, 0.99)
    );
    println!(
        "  writers held up, ms        p50 {:>6.2}  p99 {:>6.2}",
        median(&mut pauses),
        quantile(&mut pauses, 0.99)
    );
    println!(
        "  a write's p99, ms          {:.2} without, {:.2} with   ratio {:.2}   bar: 2.0",
        quantile(&mut quiet, 0.99),
        quantile(&mut under, 0.99),
        quantile(&mut under, 0.99) / quantile(&mut quiet, 0.99)
    );
    println!(
        "  writes run again {}, writes failed {}   bar: 0",
        bench.counts.retried.load(Ordering::Relaxed),
        bench.counts.failed.load(Ordering::Relaxed)
    );
    Ok(())
}

struct Bench {
    pool: PgPool,
    migration: Migration<sqlx::Postgres>,
    counts: Arc<Counts>,
    customers: i64,
    clients: usize,
}

impl Bench {
    /// Writes for a while with all clients; gives each write's latency in milliseconds.
    async fn round(&self, way: Way, length: Duration) -> Result<Vec<f64>, Fault> {
        let stop = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> =
            (0..self.clients).map(|_| tokio::spawn(self.client(way, stop.clone()))).collect();
        tokio::time::sleep(length).await;
        stop.store(true, Ordering::Relaxed);
        self.gather(clients).await
    }

    /// Changes the ramp to and fro under load; gives each change's milliseconds in all and of pause, and the
    /// writes' latencies.
    async fn changes(
        &self,
        operator: &crossfade::Operator,
        count: usize,
    ) -> Result<(Vec<(f64, f64)>, Vec<f64>), Fault> {
        let stop = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> =
            (0..self.clients).map(|_| tokio::spawn(self.client(Way::Crossfade, stop.clone()))).collect();
        let control = &operator.database().control;
        let mut changes = Vec::with_capacity(count);
        for index in 0..count {
            let registered = control.migration("subscriptions").await?;
            let ramp = if index % 2 == 0 { Ramp::from_ppm(990_000) } else { Ramp::FULL };
            let to =
                crossfade::core::transition::next_standing(registered.standing, Request::Ramp(ramp), false)?;
            let account = crossfade::core::control::Account {
                actor: order(Request::Ramp(ramp)).actor,
                reason: None,
                forced: false,
                evidence: Default::default(),
            };
            let begun = Instant::now();
            let changed = control.change(&registered, to, &account, Duration::from_secs(30)).await?;
            changes.push((begun.elapsed().as_secs_f64() * 1e3, changed.pause.as_secs_f64() * 1e3));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        stop.store(true, Ordering::Relaxed);
        Ok((changes, self.gather(clients).await?))
    }

    async fn gather(
        &self,
        clients: Vec<tokio::task::JoinHandle<Result<Vec<f64>, Fault>>>,
    ) -> Result<Vec<f64>, Fault> {
        let mut all = Vec::new();
        for latencies in try_join_all(clients).await? {
            all.extend(latencies?);
        }
        Ok(all)
    }

    fn client(
        &self,
        way: Way,
        stop: Arc<AtomicBool>,
    ) -> impl Future<Output = Result<Vec<f64>, Fault>> + Send + use<> {
        let (pool, migration, counts, customers) =
            (self.pool.clone(), self.migration.clone(), self.counts.clone(), self.customers);
        async move {
            let mut latencies = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let number = counts.next.fetch_add(1, Ordering::Relaxed);
                // A large odd stride visits every customer without two clients meeting on one.
                let customer = number.wrapping_mul(7_919).rem_euclid(customers) + 1;
                let quantity = i32::try_from(number % 1_000)?;
                let begun = Instant::now();
                match way {
                    Way::Crossfade => {
                        while let Err(error) = mirrored(&pool, &migration, customer, quantity).await {
                            if !crossfade::core::write::is_retryable(error.as_ref()) {
                                counts.failed.fetch_add(1, Ordering::Relaxed);
                                return Err(error);
                            }
                            counts.retried.fetch_add(1, Ordering::Relaxed);
                            migration.refresh().await?;
                        }
                    }
                    Way::TwoStatements => by_hand(&pool, &[DELETE_REST, UPSERT], customer, quantity).await?,
                    Way::OneStatement => by_hand(&pool, &[ONE_STATEMENT], customer, quantity).await?,
                }
                latencies.push(begun.elapsed().as_secs_f64() * 1e3);
            }
            Ok(latencies)
        }
    }
}

async fn mirrored(
    pool: &PgPool,
    migration: &Migration<sqlx::Postgres>,
    customer: i64,
    quantity: i32,
) -> Result<(), Fault> {
    let write = migration.pin();
    let mut transaction = pool.begin().await?;
    sqlx::query(UPDATE).bind(customer).bind(quantity).execute(&mut *transaction).await?;
    write.mirror(&mut transaction, customer).await?;
    transaction.commit().await?;
    Ok(())
}

async fn by_hand(pool: &PgPool, mirror: &[&'static str], customer: i64, quantity: i32) -> Result<(), Fault> {
    let mut transaction = pool.begin().await?;
    sqlx::query(UPDATE).bind(customer).bind(quantity).execute(&mut *transaction).await?;
    for statement in mirror {
        sqlx::query(*statement).bind(customer).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}
