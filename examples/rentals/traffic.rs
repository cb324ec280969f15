//! The callers: a few tasks, each with customers of its own. A task sends one request after the other, notes what was
//! acknowledged, and judges every answer by that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crossfade::{Phase, Side};

use crate::shop::{Change, Error, Rental, Result, Shop};
use crate::{new, old};

/// Tasks that rent, return and read; each has the customers whose number leaves its own as a remainder.
pub(crate) const TASKS: i32 = 4;
/// How long a task rests between two requests: the shop is busy, the machine is not.
const REST: Duration = Duration::from_millis(10);
/// Customers from this number on, which is a multiple of the tasks', are the traffic's own: they come and go.
const FIRST_VISITOR: i32 = 10_000;

/// The rentals that each customer must have, by the writes that were acknowledged.
pub(crate) type Ledger = BTreeMap<i32, Vec<Rental>>;

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) writes: AtomicU64,
    pub(crate) reads: AtomicU64,
    pub(crate) wrong: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) is_closing: AtomicBool,
}

/// Sends requests for the customers in the ledger, one after the other, until the shop closes.
pub(crate) async fn serve(shop: Arc<Shop>, counts: Arc<Counts>, mut ledger: Ledger) -> Result<Ledger> {
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
pub(crate) async fn read_all(shop: &Shop, side: Side, known: &Ledger) -> Result<Ledger> {
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
pub(crate) async fn check(shop: &Shop, ledger: &Ledger) -> Result<usize> {
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
