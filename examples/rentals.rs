//! A video shop that rents and returns all the time, while an operator migrates its rentals from an array on the
//! customer to a table of their own: the service of `docs/tutorial`.
//!
//! ```text
//! DATABASE_URL=postgres://… cargo run --example rentals
//! ```
//!
//! What you would copy is [`Shop`], with the two modules at the end. The rest plays the callers: each of a few tasks has
//! customers of its own, knows what was acknowledged for them, and judges every answer. At Ctrl-C all of it is
//! compared with the stores once more, and any difference makes the exit status 1.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is a command-line program")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use clap::Parser;
use crossfade::core::write::is_retryable;
use crossfade::{Migration, Phase, Reader, Side};
use serde::Serialize;
use sqlx::{PgConnection, PgPool, Postgres};

/// Tasks that rent, return and read; each has the customers whose number leaves its own as a remainder.
const TASKS: i32 = 4;
/// How long a task rests between two requests: the shop is busy, the machine is not.
const REST: Duration = Duration::from_millis(10);
/// How often a line is printed.
const LINE_EVERY: Duration = Duration::from_secs(2);
/// Customers from this number on, which is a multiple of the tasks', are the traffic's own: they come and go.
const FIRST_VISITOR: i32 = 10_000;

/// Rent and return DVDs, through the migration `rentals`, until Ctrl-C; then check that nothing was lost.
#[derive(Debug, Clone, Copy, Parser)]
#[command(name = "rentals")]
struct Arguments {
    /// Stop by itself after so many seconds.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Read the new table with a bug: it forgets when a DVD came back.
    #[arg(long)]
    bug: bool,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("customer {0} or the rental is not there")]
    Missing(i32),
    #[error("the migration: {0}")]
    Migration(#[from] crossfade::Error),
    #[error("the experiment: {0}")]
    Experiment(#[from] crossfade::experiment::Error),
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
}

type Result<T, E = Error> = std::result::Result<T, E>;

/// A rental as callers see it; times in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Rental {
    rental_id: i32,
    rental_date: i64,
    inventory_id: i32,
    return_date: Option<i64>,
}

type Row = (i32, i64, i32, Option<i64>);

impl From<Row> for Rental {
    fn from((rental_id, rental_date, inventory_id, return_date): Row) -> Rental {
        Rental { rental_id, rental_date, inventory_id, return_date }
    }
}

/// What a request changes about one customer.
enum Change {
    Join,
    Leave,
    Rent(Rental),
    Return { rental_id: i32, at: i64 },
}

/// The service.
struct Shop {
    pool: PgPool,
    migration: Migration<Postgres>,
    reader: Reader<Postgres, Vec<Rental>, Error>,
    bug: bool,
}

impl Shop {
    async fn open(bug: bool) -> Result<Shop> {
        let url = std::env::var("DATABASE_URL").unwrap_or_else(|_| "postgres:///sakila".to_owned());
        let pool = PgPool::connect(&url).await?;
        let migration = Migration::join(pool.clone(), "rentals").await?;
        let reader = migration.reader("rentals.list")?;
        Ok(Shop { pool, migration, reader, bug })
    }

    /// A read gives one function for each store; the migration knows which of them answers.
    async fn list(&self, customer: i32) -> Result<Vec<Rental>> {
        let (old, new, bug) = (self.pool.clone(), self.pool.clone(), self.bug);
        self.reader
            .read(
                customer,
                move || old::list(old.clone(), customer),
                move || new::list(new.clone(), customer, bug),
            )
            .await
    }

    /// A write runs again where it lost a race: against another write, or against a change of phase.
    async fn write(&self, customer: i32, change: &Change) -> Result<()> {
        while let Err(error) = self.try_write(customer, change).await {
            if !is_retryable(&error) {
                return Err(error);
            }
            self.migration.refresh().await?;
        }
        Ok(())
    }

    /// The shop's own transaction, on the store that decides; the mirror makes the other one follow.
    async fn try_write(&self, customer: i32, change: &Change) -> Result<()> {
        let write = self.migration.pin();
        let mut transaction = self.pool.begin().await?;
        let changed = match write.primary() {
            Side::Old => old::apply(&mut transaction, customer, change).await?,
            Side::New => new::apply(&mut transaction, customer, change).await?,
        };
        if changed == 0 {
            return Err(Error::Missing(customer));
        }
        write.mirror(&mut transaction, customer).await?;
        Ok(transaction.commit().await?)
    }
}

/// The rentals that each customer must have, by the writes that were acknowledged.
type Ledger = BTreeMap<i32, Vec<Rental>>;

#[derive(Default)]
struct Counts {
    writes: AtomicU64,
    reads: AtomicU64,
    wrong: AtomicU64,
    errors: AtomicU64,
    is_closing: AtomicBool,
}

/// Sends requests for the customers in the ledger, one after the other, until the shop closes.
async fn serve(shop: Arc<Shop>, counts: Arc<Counts>, mut ledger: Ledger) -> Result<Ledger> {
    while !counts.is_closing.load(Relaxed) {
        let ids: Vec<i32> = ledger.keys().copied().collect();
        let customer = ids[fastrand::usize(..ids.len())];
        let outcome = match fastrand::u8(..5) {
            0 => write(&shop, &mut ledger, customer).await.map(|()| counts.writes.fetch_add(1, Relaxed)),
            _ => shop.list(customer).await.map(|answer| {
                if ledger.get(&customer) != Some(&answer) {
                    counts.wrong.fetch_add(1, Relaxed);
                }
                counts.reads.fetch_add(1, Relaxed)
            }),
        };
        if let Err(error) = outcome {
            eprintln!("customer {customer}: {error}");
            counts.errors.fetch_add(1, Relaxed);
        }
        tokio::time::sleep(REST).await;
    }
    Ok(ledger)
}

/// Makes a change, and notes it when it is acknowledged.
async fn write(shop: &Shop, ledger: &mut Ledger, customer: i32) -> Result<()> {
    let now = sqlx::query_scalar("select extract(epoch from now())::bigint").fetch_one(&shop.pool).await?;
    let last = ledger.keys().next_back().copied().unwrap_or_default();
    let visitor = (last + TASKS).max(FIRST_VISITOR + last % TASKS);
    let rentals = ledger.get_mut(&customer).ok_or(Error::Missing(customer))?;
    match rentals.iter_mut().find(|rental| rental.return_date.is_none()) {
        _ if fastrand::u8(..20) == 0 => {
            shop.write(visitor, &Change::Join).await?;
            ledger.insert(visitor, Vec::new());
        }
        _ if customer >= FIRST_VISITOR && fastrand::u8(..4) == 0 => {
            shop.write(customer, &Change::Leave).await?;
            ledger.remove(&customer);
        }
        Some(rental) => {
            shop.write(customer, &Change::Return { rental_id: rental.rental_id, at: now }).await?;
            rental.return_date = Some(now);
        }
        None => {
            let number = sqlx::query_scalar("select nextval('rental_number')::integer");
            let rental_id = number.fetch_one(&shop.pool).await?;
            let rental = Rental {
                rental_id,
                rental_date: now,
                inventory_id: fastrand::i32(1..=4_581),
                return_date: None,
            };
            shop.write(customer, &Change::Rent(rental.clone())).await?;
            rentals.push(rental);
        }
    }
    Ok(())
}

/// Everything that a store holds, for customers that the shop has or the ledger knows.
async fn read_all(shop: &Shop, side: Side, known: &Ledger) -> Result<Ledger> {
    let customers = match side {
        Side::Old => "select customer_id from customer",
        Side::New => "select customer_id from customer union select customer_id from rental",
    };
    let mut customers: Vec<i32> = sqlx::query_scalar(customers).fetch_all(&shop.pool).await?;
    customers.extend(known.keys());
    let mut all = Ledger::new();
    for customer in customers {
        let rentals = match side {
            Side::Old => old::list(shop.pool.clone(), customer).await?,
            Side::New => new::list(shop.pool.clone(), customer, false).await?,
        };
        all.insert(customer, rentals);
    }
    Ok(all)
}

/// Compares the ledger with every store that must be complete in this phase; answers the number of differences.
async fn check(shop: &Shop, ledger: &Ledger) -> Result<usize> {
    let sides: &[Side] = match shop.migration.refresh().await?.phase {
        Phase::OldOnly | Phase::DualWrite => &[Side::Old],
        Phase::ShadowRead | Phase::ReadNew | Phase::NewPrimary => &[Side::Old, Side::New],
        Phase::NewOnly | Phase::Complete => &[Side::New],
    };
    let mut differences = 0;
    for side in sides {
        let stored = read_all(shop, *side, ledger).await?;
        let differ = |customer: &&i32| stored.get(customer) != ledger.get(customer);
        let differing: Vec<_> = stored.keys().filter(differ).collect();
        let rentals: usize = ledger.values().map(Vec::len).sum();
        println!(
            "{side:?} store: {} customers and {rentals} rentals in the ledger, {} customers differ {:?}",
            ledger.len(),
            differing.len(),
            &differing[..differing.len().min(5)]
        );
        differences += differing.len();
    }
    Ok(differences)
}

async fn run(arguments: Arguments) -> Result<bool> {
    let shop = Arc::new(Shop::open(arguments.bug).await?);
    let counts = Arc::<Counts>::default();
    let start = Instant::now();
    let primary = shop.migration.standing().phase.primary();
    let mut ledgers: Vec<Ledger> = (0..TASKS).map(|_| Ledger::new()).collect();
    for (customer, rentals) in read_all(&shop, primary, &Ledger::new()).await? {
        ledgers[(customer % TASKS) as usize].insert(customer, rentals);
    }
    let tasks: Vec<_> =
        ledgers.into_iter().map(|ledger| tokio::spawn(serve(shop.clone(), counts.clone(), ledger))).collect();

    let line = || {
        let [writes, reads] = [&counts.writes, &counts.reads].map(|count| count.load(Relaxed));
        let [wrong, errors] = [&counts.wrong, &counts.errors].map(|count| count.load(Relaxed));
        let (seconds, standing) = (start.elapsed().as_secs(), shop.migration.standing());
        println!(
            "{seconds:>4} s  {standing}: {writes} writes, {reads} reads, {wrong} wrong answers, {errors} errors"
        );
        wrong + errors
    };
    let end = Duration::from_secs(arguments.seconds.unwrap_or(u64::MAX));
    let mut ticks = tokio::time::interval(LINE_EVERY);
    while start.elapsed() < end {
        tokio::select! {
            _ = ticks.tick() => { line(); }
            _ = tokio::time::sleep(end.saturating_sub(start.elapsed())) => {}
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    counts.is_closing.store(true, Relaxed);
    let mut ledger = Ledger::new();
    for task in tasks {
        ledger.extend(task.await.expect("a task does not panic")?);
    }
    let failed = line();
    let differences = check(&shop, &ledger).await?;
    shop.migration.clone().leave().await?;
    Ok(failed == 0 && differences == 0)
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The array on the customer. Times stand in it in UTC, without saying so.
mod old {
    use super::{Change, PgConnection, PgPool, Rental, Result, Row};

    pub(super) async fn list(pool: PgPool, customer: i32) -> Result<Vec<Rental>> {
        let rows: Vec<Row> = sqlx::query_as(
            "select r.rental_id, extract(epoch from r.rental_date)::bigint, r.inventory_id,
                    extract(epoch from r.return_date)::bigint
             from customer c, jsonb_to_recordset(c.rentals) as r (
                 rental_id integer, rental_date timestamp, inventory_id integer, return_date timestamp)
             where c.customer_id = $1 order by r.rental_id",
        )
        .bind(customer)
        .fetch_all(&pool)
        .await?;
        Ok(rows.into_iter().map(Rental::from).collect())
    }

    /// Answers how many customers it has changed.
    pub(super) async fn apply(connection: &mut PgConnection, customer: i32, change: &Change) -> Result<u64> {
        let query = match change {
            Change::Join => sqlx::query(
                "insert into customer
                     (customer_id, store_id, first_name, last_name, address_id, active, create_date, last_update)
                 values ($1, 1, 'A', 'VISITOR', 1, true, now(), now())",
            )
            .bind(customer),
            Change::Leave => sqlx::query("delete from customer where customer_id = $1").bind(customer),
            Change::Rent(rental) => sqlx::query(
                "update customer set rentals = rentals || jsonb_build_object(
                     'rental_id', $2, 'rental_date', to_timestamp($3) at time zone 'UTC', 'inventory_id', $4,
                     'return_date', null, 'staff_id', 1, 'last_update', to_timestamp($3) at time zone 'UTC')
                 where customer_id = $1",
            )
            .bind(customer)
            .bind(rental.rental_id)
            .bind(rental.rental_date as f64)
            .bind(rental.inventory_id),
            Change::Return { rental_id, at } => sqlx::query(
                "update customer set rentals = (
                     select jsonb_agg(case when r->'rental_id' = to_jsonb($2) then r || jsonb_build_object(
                         'return_date', to_timestamp($3) at time zone 'UTC',
                         'last_update', to_timestamp($3) at time zone 'UTC') else r end order by n)
                     from jsonb_array_elements(rentals) with ordinality as t (r, n))
                 where customer_id = $1",
            )
            .bind(customer)
            .bind(rental_id)
            .bind(*at as f64),
        };
        Ok(query.execute(connection).await?.rows_affected())
    }
}

/// The table of rentals.
mod new {
    use super::{Change, PgConnection, PgPool, Rental, Result, Row, old};

    pub(super) async fn list(pool: PgPool, customer: i32, bug: bool) -> Result<Vec<Rental>> {
        let rows: Vec<Row> = sqlx::query_as(
            "select rental_id, extract(epoch from rental_date)::bigint, inventory_id,
                    case when not $2 then extract(epoch from return_date)::bigint end
             from rental where customer_id = $1 order by rental_id",
        )
        .bind(customer)
        .bind(bug)
        .fetch_all(&pool)
        .await?;
        Ok(rows.into_iter().map(Rental::from).collect())
    }

    /// Answers how many rows it has changed: 0 says that the customer or the rental is not there.
    pub(super) async fn apply(connection: &mut PgConnection, customer: i32, change: &Change) -> Result<u64> {
        // The customer's row is what writers of their rentals wait for, in every phase.
        let lock = sqlx::query("select from customer where customer_id = $1 for update").bind(customer);
        lock.execute(&mut *connection).await?;
        Ok(match change {
            // Customers stay where they were; their rentals are all that moves.
            Change::Join => old::apply(connection, customer, change).await?,
            Change::Leave => {
                let rentals = sqlx::query("delete from rental where customer_id = $1").bind(customer);
                rentals.execute(&mut *connection).await?;
                old::apply(connection, customer, change).await?
            }
            Change::Rent(rental) => sqlx::query(
                "insert into rental (customer_id, rental_id, rental_date, inventory_id, staff_id, last_update)
                 select customer_id, $2, to_timestamp($3), $4, 1, to_timestamp($3)
                 from customer where customer_id = $1",
            )
            .bind(customer)
            .bind(rental.rental_id)
            .bind(rental.rental_date as f64)
            .bind(rental.inventory_id)
            .execute(connection)
            .await?
            .rows_affected(),
            Change::Return { rental_id, at } => sqlx::query(
                "update rental set return_date = to_timestamp($3), last_update = to_timestamp($3)
                 where customer_id = $1 and rental_id = $2",
            )
            .bind(customer)
            .bind(rental_id)
            .bind(*at as f64)
            .execute(connection)
            .await?
            .rows_affected(),
        })
    }
}
