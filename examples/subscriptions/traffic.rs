//! The traffic: tasks that create, change, cancel, delete and read all the time, and judge each answer.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fastrand::Rng;
use sqlx::SqlitePool;
use tokio::sync::RwLock;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::ledger::{Change, Fault, Intent, Ledger};
use crate::service::{Release, Service};
use crate::subscription::Result;

/// Tasks that write, and tasks that read, on each instance.
const TASKS: usize = 2;

/// A task writes, or reads, at most this often: SQLite has one writer at a time, and the show leaves
/// some of the machine to the backfill.
const WRITE_EVERY: Duration = Duration::from_millis(5);
const READ_EVERY: Duration = Duration::from_millis(1);

/// One request in ten is for one of the first few customers, so that requests for one customer meet.
const POPULAR_CUSTOMERS: i64 = 10;

/// How many faults are shown at the end; all are counted.
const EXAMPLES_MAX: usize = 10;

/// The running tasks.
pub(crate) struct Traffic {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

/// What the tasks have seen.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) writes: u64,
    pub(crate) reads: u64,
    pub(crate) reads_wrong: u64,
    pub(crate) requests_failed: u64,
}

struct Shared {
    ledger: Arc<Ledger>,
    instances: Vec<RwLock<Service>>,
    is_stopping: AtomicBool,
    reads: AtomicU64,
    reads_wrong: AtomicU64,
    requests_failed: AtomicU64,
    write_slowest_ns: AtomicU64,
    examples: Mutex<VecDeque<String>>,
}

impl Traffic {
    /// Sends requests to these instances.
    pub(crate) fn start(ledger: Arc<Ledger>, instances: Vec<Service>, seed: u64) -> Traffic {
        let shared = Arc::new(Shared {
            ledger,
            instances: instances.into_iter().map(RwLock::new).collect(),
            is_stopping: AtomicBool::new(false),
            reads: AtomicU64::new(0),
            reads_wrong: AtomicU64::new(0),
            requests_failed: AtomicU64::new(0),
            write_slowest_ns: AtomicU64::new(0),
            examples: Mutex::default(),
        });
        let mut rng = Rng::with_seed(seed);
        let mut tasks = JoinSet::new();
        for instance in 0..shared.instances.len() {
            for _ in 0..TASKS {
                tasks.spawn(write(shared.clone(), instance, rng.fork()));
                tasks.spawn(read(shared.clone(), instance, rng.fork()));
            }
        }
        Traffic { shared, tasks }
    }

    /// What has been seen so far.
    pub(crate) fn seen(&self) -> Seen {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let shared = &self.shared;
        Seen {
            writes: shared.ledger.acknowledged(),
            reads: load(&shared.reads),
            reads_wrong: load(&shared.reads_wrong),
            requests_failed: load(&shared.requests_failed),
        }
    }

    /// The slowest write since this was asked before.
    pub(crate) fn take_slowest_write(&self) -> Duration {
        Duration::from_nanos(self.shared.write_slowest_ns.swap(0, Ordering::Relaxed))
    }

    /// Some of what went wrong.
    pub(crate) fn examples(&self) -> Vec<String> {
        self.shared.examples.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Puts a release in the place of the running one, an instance after the other; each finishes the
    /// requests that it has.
    pub(crate) async fn deploy(&self, pool: &SqlitePool, release: Release) -> Result<()> {
        for instance in &self.shared.instances {
            let next = Service::start(pool.clone(), release).await?;
            let previous = std::mem::replace(&mut *instance.write().await, next);
            previous.stop().await?;
        }
        Ok(())
    }

    /// Sends a request of its own to the first instance, to the report that reads the old store.
    pub(crate) async fn forgotten_report(&self) -> Result<()> {
        let Some(instance) = self.shared.instances.first() else { return Ok(()) };
        instance.read().await.forgotten_report(1).await.map(|_| ())
    }

    /// Lets the requests in flight finish, and sends no more.
    pub(crate) async fn stop(&mut self) -> Result<(), tokio::task::JoinError> {
        self.shared.is_stopping.store(true, Ordering::Relaxed);
        while let Some(task) = self.tasks.join_next().await {
            task?;
        }
        Ok(())
    }
}

async fn write(shared: Arc<Shared>, instance: usize, mut rng: Rng) {
    let mut ticks = interval(WRITE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !shared.is_stopping.load(Ordering::Relaxed) {
        ticks.tick().await;
        let intent = shared.ledger.begin(shared.customer(&mut rng), &mut rng);
        let begun = Instant::now();
        let service = shared.instances[instance].read().await;
        match send(&service, &intent).await {
            Ok(()) => shared.ledger.acknowledge(&intent),
            Err(error) => {
                shared.fail(format!("{:?} to customer {}: {error}", intent.change, intent.customer));
            }
        }
        shared.write_slowest_ns.fetch_max(begun.elapsed().as_nanos() as u64, Ordering::Relaxed);
    }
}

async fn send(service: &Service, intent: &Intent) -> Result<()> {
    let Intent { customer, id, change } = intent;
    match change {
        Change::Create(subscription) => service.create(*customer, subscription.clone()).await,
        Change::Price(cents) => service.change_price(*customer, *id, *cents).await,
        Change::Cancel => service.cancel(*customer, *id).await,
        Change::Delete => service.delete(*customer, *id).await,
    }
}

async fn read(shared: Arc<Shared>, instance: usize, mut rng: Rng) {
    let mut ticks = interval(READ_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !shared.is_stopping.load(Ordering::Relaxed) {
        ticks.tick().await;
        let customer = shared.customer(&mut rng);
        let from = shared.ledger.now();
        let answer = shared.instances[instance].read().await.list(customer).await;
        let to = shared.ledger.now();
        match answer {
            Ok(answer) => shared.judge(&shared.ledger.judge(customer, &answer, from, to)),
            Err(error) => shared.fail(format!("reading customer {customer}: {error}")),
        }
    }
}

impl Shared {
    fn customer(&self, rng: &mut Rng) -> i64 {
        let all = self.ledger.customers();
        if rng.u8(..10) == 0 { rng.i64(1..=all.min(POPULAR_CUSTOMERS)) } else { rng.i64(1..=all) }
    }

    fn judge(&self, faults: &[Fault]) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if let Some(fault) = faults.first() {
            self.reads_wrong.fetch_add(1, Ordering::Relaxed);
            self.show(format!("wrong read: {fault:?}"));
        }
    }

    fn fail(&self, what: String) {
        self.requests_failed.fetch_add(1, Ordering::Relaxed);
        self.show(format!("failed: {what}"));
    }

    fn show(&self, example: String) {
        let mut examples = self.examples.lock().unwrap_or_else(PoisonError::into_inner);
        if examples.len() < EXAMPLES_MAX {
            examples.push_back(example);
        }
    }
}
