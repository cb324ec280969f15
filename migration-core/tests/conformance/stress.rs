//! Writers, a copier, an operator and readers at once, judged by a ledger of what was acknowledged.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crossfade_migration_core::Error;
use crossfade_migration_core::connect::Store;
use crossfade_migration_core::key::Key;
use crossfade_migration_core::migration::Migration;
use crossfade_migration_core::mirror::Subject;
use crossfade_migration_core::operate::{Operator, Order};
use crossfade_migration_core::phase::{Phase, Ramp, Side};
use crossfade_migration_core::read::Reader;
use crossfade_migration_core::transition::Request;
use crossfade_migration_core::write::WriteTransaction;
use sqlx::Pool;
use tokio::sync::RwLock;

use super::engine::TestEngine;
use super::world::{Model, PATIENCE, World};

/// Few, so that everybody meets at the same ones all the time.
const KEYS: i32 = 8;

/// How many writes are acknowledged between two steps of the operator.
const WRITES_PER_STEP: u64 = 25;

/// The two columns of an old row, and of its up to two new rows. Each slot of each key has one writer, so that
/// the ledger knows the order of its writes; the two slots of a key have two, who meet at its row.
const SLOTS: [&str; 2] = ["a", "b"];

/// Rows with two optional columns, which become up to two rows; a row without either need not exist.
fn model() -> Model {
    Model {
        tables: "create table source (id integer primary key, a text, b text);
                 create table target (
                     id integer not null, slot text not null, v text not null, primary key (id, slot));"
            .to_owned(),
        old: "table = \"source\"\nkey = [\"id\"]".to_owned(),
        new: "table = \"target\"\nscope = [\"id\"]\nkey = [\"id\", \"slot\"]".to_owned(),
        mapping: r#"projection = """
            select id, 'a' as slot, a as v from source where id in (:keys) and a is not null
            union all
            select id, 'b', b from source where id in (:keys) and b is not null"""
            reverse = [
            """insert into source (id) select distinct id from target where id in (:keys)
               on conflict (id) do nothing""",
            """update source set
                   a = (select v from target t where t.id = source.id and slot = 'a'),
                   b = (select v from target t where t.id = source.id and slot = 'b')
               where id in (:keys)"""]"#
            .to_owned(),
    }
}

/// What a slot holds after its write number `number`: every fourth clears it.
fn value(number: u64) -> Option<String> {
    (!number.is_multiple_of(4)).then(|| number.to_string())
}

/// The statements of one write, in the store that is primary.
fn statements(primary: Side, id: i32, slot: &str, value: Option<&str>) -> String {
    match (primary, value) {
        (Side::Old, Some(value)) => format!(
            "insert into source (id, {slot}) values ({id}, '{value}')
             on conflict (id) do update set {slot} = excluded.{slot}"
        ),
        (Side::Old, None) => format!(
            "update source set {slot} = null where id = {id};
             delete from source where id = {id} and a is null and b is null"
        ),
        (Side::New, Some(value)) => format!(
            "insert into target (id, slot, v) values ({id}, '{slot}', '{value}')
             on conflict (id, slot) do update set v = excluded.v"
        ),
        (Side::New, None) => format!("delete from target where id = {id} and slot = '{slot}'"),
    }
}

/// One slot of one key: how many writes were begun, and how many acknowledged.
#[derive(Debug, Default)]
struct Entry {
    begun: AtomicU64,
    acknowledged: AtomicU64,
}

#[derive(Debug)]
struct Bench<E: TestEngine> {
    pool: Pool<E>,
    migration: Migration<E>,
    ledger: BTreeMap<(i32, &'static str), Entry>,
    acknowledged: AtomicU64,
    refused: AtomicU64,
    wrong_reads: Mutex<Vec<String>>,
    is_over: AtomicBool,
    /// Held shared by each write, alone by who wants a quiet moment.
    quiet: RwLock<()>,
}

impl<E: TestEngine> Bench<E> {
    /// One acknowledged write, in one of the three ways, however often it has to be tried.
    async fn write(&self, id: i32, slot: &'static str) {
        let entry = &self.ledger[&(id, slot)];
        let number = entry.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let value = value(number);
        loop {
            let tried = match (number + u64::from(id.unsigned_abs())) % 3 {
                0 => self.write_late(id, slot, value.as_deref(), number).await,
                1 => self.write_early(id, slot, value.as_deref(), number).await,
                _ => self.write_by_closure(id, slot, value.clone()).await,
            };
            match tried {
                Ok(()) => break,
                Err(error) => {
                    assert!(error.is_retryable(), "{error:?}");
                    self.refused.fetch_add(1, Ordering::SeqCst);
                    self.migration.refresh().await.unwrap();
                }
            }
        }
        entry.acknowledged.store(number, Ordering::SeqCst);
        self.acknowledged.fetch_add(1, Ordering::SeqCst);
    }

    /// In a transaction of the application's, with the fence on the mirror.
    async fn write_late(&self, id: i32, slot: &str, value: Option<&str>, turn: u64) -> Result<(), Error> {
        let write = self.migration.pin();
        let mut transaction = E::begin(&self.pool, turn).await.map_err(Error::database("beginning"))?;
        E::run(&mut transaction, statements(write.primary(), id, slot, value))
            .await
            .map_err(Error::database("writing"))?;
        write.mirror(&mut transaction, id).await?;
        transaction.commit().await.map_err(Error::database("committing"))
    }

    /// In a transaction of the application's, with the fence first.
    async fn write_early(&self, id: i32, slot: &str, value: Option<&str>, turn: u64) -> Result<(), Error> {
        let mut transaction = E::begin(&self.pool, turn).await.map_err(Error::database("beginning"))?;
        let write = self.migration.fence(&mut transaction).await?;
        E::run(&mut transaction, statements(write.primary(), id, slot, value))
            .await
            .map_err(Error::database("writing"))?;
        write.mirror(&mut transaction, id).await?;
        transaction.commit().await.map_err(Error::database("committing"))
    }

    async fn write_by_closure(&self, id: i32, slot: &str, value: Option<String>) -> Result<(), Error> {
        let slot = slot.to_owned();
        let work = async move |transaction: &mut WriteTransaction<E>| {
            let sql = statements(transaction.primary(), id, &slot, value.as_deref());
            E::run(transaction, sql).await.map_err(Error::database("writing"))?;
            transaction.mirror(id).await?;
            Ok(())
        };
        self.migration.write(work).await
    }

    /// Reads a slot, and holds it against what was acknowledged before and begun until after.
    async fn read(&self, reader: &Reader<E, Vec<String>, Error>, id: i32, slot: &'static str) {
        let entry = &self.ledger[&(id, slot)];
        let before = entry.acknowledged.load(Ordering::SeqCst);
        let select = |sql: String| {
            let pool = self.pool.clone();
            move || {
                let (pool, sql) = (pool.clone(), sql.clone());
                async move {
                    let mut connection = pool.acquire().await.map_err(Error::database("reading"))?;
                    Ok(E::lines(&mut connection, sql).await)
                }
            }
        };
        let old = select(format!("select {slot} from source where id = {id} and {slot} is not null"));
        let new = select(format!("select v from target where id = {id} and slot = '{slot}'"));
        let answer = reader.read(id, old, new).await.unwrap();
        let after = entry.begun.load(Ordering::SeqCst);
        if !(before..=after).any(|number| answer.first() == value(number).as_ref()) {
            let line = format!(
                "{id} {slot}: {answer:?} with writes {before}..={after}, {}",
                self.migration.standing()
            );
            self.wrong_reads.lock().unwrap().push(line);
        }
    }

    /// What the acknowledged writes amount to, as rows of the new table.
    fn expected(&self) -> Vec<String> {
        let row = |((id, slot), entry): (&(i32, &str), &Entry)| {
            value(entry.acknowledged.load(Ordering::SeqCst)).map(|value| format!("{id},{slot},{value}"))
        };
        self.ledger.iter().filter_map(row).collect()
    }
}

/// Copies and repairs, a few keys at a time, until all is over.
async fn copy<E: TestEngine>(bench: Arc<Bench<E>>, store: Arc<dyn Store>, subject: Subject) {
    let keys: Vec<Key> = (1..=KEYS).map(|id| subject.plan.coerce(&id.into()).unwrap()).collect();
    let mut turn = 0;
    while !bench.is_over.load(Ordering::SeqCst) {
        turn += 1;
        let standing = store.standing(&subject).await.unwrap();
        // Not in key order, and overlapping with the batch before.
        let batch: Vec<Key> = (0..3).map(|index| keys[(turn * 2 + index * 3) % keys.len()].clone()).collect();
        // Without the mirror nobody would keep fresh what is copied.
        let done = match standing.phase {
            Phase::OldOnly => Ok(()),
            _ if turn.is_multiple_of(3) => store.repair(&subject, standing.epoch, &batch).await.map(drop),
            _ => store.copy(&subject, standing.epoch, &batch).await.map(drop),
        };
        if let Err(error) = done {
            assert!(error.is_retryable(), "{error:?}");
        }
        tokio::task::yield_now().await;
    }
}

/// Waits until so many more writes were acknowledged.
async fn let_them_write<E: TestEngine>(bench: &Bench<E>) {
    let enough = bench.acknowledged.load(Ordering::SeqCst) + WRITES_PER_STEP;
    while bench.acknowledged.load(Ordering::SeqCst) < enough {
        bench.migration.refresh().await.unwrap();
    }
}

/// Repairs what differs until nothing does, as a backfill does before the gate opens.
async fn backfill<E: TestEngine>(world: &World<E>) {
    let keys = world.coerce(&(1..=KEYS).collect::<Vec<_>>());
    let epoch = world.epoch().await;
    loop {
        let differing = match world.store.recheck(&world.subject, epoch, &keys).await {
            Ok(differing) => differing,
            Err(error) if error.is_retryable() => continue,
            Err(error) => panic!("{error:?}"),
        };
        if differing.is_empty() {
            return;
        }
        if let Err(error) = world.store.repair(&world.subject, epoch, &differing).await {
            assert!(error.is_retryable(), "{error:?}");
        }
    }
}

/// Holds both stores against the ledger while nobody writes.
async fn judge<E: TestEngine>(world: &World<E>, bench: &Bench<E>) {
    let _quiet = bench.quiet.write().await;
    let standing = world.registered().await.standing;
    let expected = bench.expected();
    assert_eq!(world.read(standing.phase.primary()).await.unwrap(), expected, "the primary in {standing}");
    if standing.phase >= Phase::ShadowRead {
        assert_eq!(world.read(Side::Old).await.unwrap(), expected, "the old store in {standing}");
        assert_eq!(world.read(Side::New).await.unwrap(), expected, "the new store in {standing}");
    }
}

pub(crate) async fn nothing_is_lost_while_everybody_is_at_work<E: TestEngine>() {
    let world = World::<E>::new(model()).await;
    let pool = world.connected.pool.clone();
    let migration = Migration::<E>::join(pool.clone(), "moving").await.unwrap();
    let slots = (1..=KEYS).flat_map(|id| SLOTS.map(|slot| ((id, slot), Entry::default())));
    let bench = Arc::new(Bench {
        pool: pool.clone(),
        migration: migration.clone(),
        ledger: slots.collect(),
        acknowledged: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        wrong_reads: Mutex::default(),
        is_over: AtomicBool::new(false),
        quiet: RwLock::new(()),
    });
    let mut tasks = tokio::task::JoinSet::new();
    for (slot, half) in [("a", 0), ("a", 1), ("b", 0), ("b", 1)] {
        let bench = bench.clone();
        tasks.spawn(async move {
            let mut id = half;
            while !bench.is_over.load(Ordering::SeqCst) {
                let _loud = bench.quiet.read().await;
                id = (id + 2) % KEYS;
                bench.write(id + 1, slot).await;
            }
        });
    }
    tasks.spawn(copy(bench.clone(), world.store.clone(), world.subject.clone()));
    let reader = migration.reader::<Vec<String>, Error>("slot").unwrap();
    tasks.spawn({
        let bench = bench.clone();
        async move {
            let mut turn = 0;
            while !bench.is_over.load(Ordering::SeqCst) {
                turn += 1;
                bench.read(&reader, turn % KEYS + 1, SLOTS[(turn / KEYS % 2) as usize]).await;
            }
        }
    });

    operate(&world, &bench, &Operator::new(E::database(pool))).await;
    bench.is_over.store(true, Ordering::SeqCst);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    judge(&world, &bench).await;
    assert_eq!(*bench.wrong_reads.lock().unwrap(), [""; 0]);
    assert!(bench.acknowledged.load(Ordering::SeqCst) >= WRITES_PER_STEP * 14);
}

/// Up the phases, back and up again, with a quiet look at each.
async fn operate<E: TestEngine>(world: &World<E>, bench: &Bench<E>, operator: &Operator) {
    let advance = |ppm| Request::Advance { ramp: Ramp::from_ppm(ppm) };
    let ramp = |ppm| Request::Ramp(Ramp::from_ppm(ppm));
    let full = Ramp::FULL.ppm();
    let_them_write(bench).await;
    for request in [
        advance(300_000),
        ramp(700_000),
        ramp(200_000),
        Request::Rollback,
        advance(500_000),
        ramp(full),
        advance(full),
        Request::Rollback,
        advance(full),
        advance(500_000),
        ramp(full),
        advance(full),
        Request::Rollback,
        advance(full),
    ] {
        let from = world.registered().await.standing;
        // What the gate of `shadow_read` asks for: everything equal at this epoch, at full ramp.
        if from.phase == Phase::DualWrite && matches!(request, Request::Advance { .. }) {
            backfill(world).await;
        }
        let order = Order {
            request,
            decided_at: None,
            actor: "tester".to_owned(),
            reason: Some("there is no time to soak".to_owned()),
            force: true,
            dry_run: false,
            patience: PATIENCE,
        };
        let moved = operator.carry_out("moving", &order).await.unwrap();
        assert_eq!(moved.from, from);
        let_them_write(bench).await;
        judge(world, bench).await;
    }
    assert_eq!(world.registered().await.standing.phase, Phase::NewPrimary);
}
