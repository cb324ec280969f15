//! A database with two tables and a registered migration between them.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::util::display::array_value_to_string;
use crossfade_migration_core::connect::{AnyDatabase, Connected, Control, Store};
use crossfade_migration_core::control::{Account, Changed, Registered};
use crossfade_migration_core::fence::Fence;
use crossfade_migration_core::key::Key;
use crossfade_migration_core::manifest::Manifest;
use crossfade_migration_core::mirror::{Direction, Mirrored, Subject};
use crossfade_migration_core::phase::{Epoch, Phase, Ramp, Side, Standing};
use crossfade_migration_core::plan::Plan;
use crossfade_migration_core::url::DatabaseUrl;
use crossfade_migration_core::{Error, Result};
use crossfade_test_harness::TestDatabase;
use tokio::sync::mpsc;

use super::engine::TestEngine;

/// Long enough for any test machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Two tables, and the manifest between them without its name and URLs.
pub(crate) struct Model {
    pub(crate) tables: String,
    pub(crate) old: String,
    pub(crate) new: String,
    pub(crate) mapping: String,
}

/// Customers with up to two subscriptions in columns of theirs, which move into rows.
pub(crate) fn subscriptions() -> Model {
    Model {
        tables: "create table customers (id integer primary key, name text, plan_a text, plan_b text);
                 create table subscriptions (
                     customer_id integer not null, slot text not null, plan text not null, note text,
                     primary key (customer_id, slot));"
            .to_owned(),
        old: "table = \"customers\"\nkey = [\"id\"]".to_owned(),
        new: "table = \"subscriptions\"\nscope = [\"customer_id\"]\nkey = [\"customer_id\", \"slot\"]"
            .to_owned(),
        mapping: r#"projection = """
            select id as customer_id, 'a' as slot, plan_a as plan from customers
            where id in (:keys) and plan_a is not null
            union all
            select id, 'b', plan_b from customers where id in (:keys) and plan_b is not null"""
            reverse = """update customers set
                plan_a = (select plan from subscriptions s where s.customer_id = customers.id and slot = 'a'),
                plan_b = (select plan from subscriptions s where s.customer_id = customers.id and slot = 'b')
                where id in (:keys)"""
            retire = "update customers set plan_a = null, plan_b = null where id in (:keys)""#
            .to_owned(),
    }
}

impl Model {
    /// The same with another mapping.
    pub(crate) fn mapped(self, mapping: &str) -> Model {
        Model { mapping: mapping.to_owned(), ..self }
    }

    pub(crate) fn manifest(&self, url: &str, gates: &str) -> Manifest {
        let text = format!(
            "name = \"moving\"\n[old]\nurl = \"{url}\"\n{}\n[new]\nurl = \"{url}\"\n{}\n[mapping]\n{}\n{gates}\n",
            self.old, self.new, self.mapping
        );
        Manifest::parse(&text, "test.toml").unwrap()
    }
}

pub(crate) struct World<E: TestEngine> {
    pub(crate) connected: Connected<E>,
    pub(crate) control: Arc<dyn Control>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) subject: Subject,
    pub(crate) url: String,
    _database: TestDatabase<E>,
}

/// A database with nothing of crossfade's in it.
pub(crate) async fn bare<E: TestEngine>() -> (TestDatabase<E>, Connected<E>) {
    let database = E::fresh().await;
    let url = DatabaseUrl::parse(database.url()).unwrap();
    let pool = E::connect(&url).await.unwrap();
    (database, Connected { pool, url })
}

impl<E: TestEngine> World<E> {
    pub(crate) async fn new(model: Model) -> World<E> {
        let (database, connected) = bare::<E>().await;
        let AnyDatabase { control, store, .. } = E::database(connected.pool.clone());
        let mut connection = connected.pool.acquire().await.unwrap();
        E::run(&mut connection, model.tables.clone()).await.unwrap();
        drop(connection);
        let manifest = model.manifest(database.url(), "");
        let plan = Plan::read(&manifest, &*store).await.unwrap();
        control.install().await.unwrap();
        control.register(&manifest, &plan, &account("registering")).await.unwrap();
        let id = control.migration("moving").await.unwrap().id;
        let url = database.url().to_owned();
        World { connected, control, store, subject: Subject { id, plan }, url, _database: database }
    }

    pub(crate) async fn run(&self, sql: impl Into<String>) {
        let mut connection = self.connected.pool.acquire().await.unwrap();
        E::run(&mut connection, sql.into()).await.unwrap();
    }

    pub(crate) async fn lines(&self, sql: impl Into<String>) -> Vec<String> {
        let mut connection = self.connected.pool.acquire().await.unwrap();
        E::lines(&mut connection, sql.into()).await
    }

    /// The new rows of the subscriptions model.
    pub(crate) async fn subscriptions(&self) -> Vec<String> {
        self.lines(
            "select customer_id || ' ' || slot || ' ' || plan from subscriptions order by customer_id, slot",
        )
        .await
    }

    pub(crate) async fn registered(&self) -> Registered {
        self.control.migration("moving").await.unwrap()
    }

    pub(crate) async fn epoch(&self) -> Epoch {
        self.registered().await.standing.epoch
    }

    /// Moves to the phase at full ramp.
    pub(crate) async fn enter(&self, phase: Phase) -> Changed {
        self.try_enter(phase, PATIENCE).await.unwrap()
    }

    pub(crate) async fn try_enter(&self, phase: Phase, patience: Duration) -> Result<Changed> {
        let registered = self.registered().await;
        let to = Standing { phase, ramp: Ramp::FULL, epoch: registered.standing.epoch.next() };
        self.control.change(&registered, to, &account("testing"), patience).await
    }

    pub(crate) fn coerce<K: Clone + Into<Key>>(&self, keys: &[K]) -> Vec<Key> {
        keys.iter().map(|key| self.subject.plan.coerce(&key.clone().into()).unwrap()).collect()
    }

    /// Mirrors in a transaction of its own, at the present epoch.
    pub(crate) async fn mirror<K: Clone + Into<Key>>(&self, direction: Direction, keys: &[K]) -> Mirrored {
        let keys = self.coerce(keys);
        let epoch = self.epoch().await;
        let mut transaction = E::begin_write(&self.connected.pool).await.unwrap();
        let mirrored = E::mirror(&mut transaction, &self.subject, direction, &keys, epoch).await.unwrap();
        transaction.commit().await.unwrap();
        mirrored
    }

    /// The keys that differ, in a transaction of its own.
    pub(crate) async fn differing<K: Clone + Into<Key>>(&self, keys: &[K]) -> Vec<Key> {
        self.store.recheck(&self.subject, self.epoch().await, &self.coerce(keys)).await.unwrap()
    }

    /// Fences a transaction at an epoch.
    pub(crate) async fn fence(
        &self,
        connection: &mut E::Connection,
        expected: Option<Epoch>,
    ) -> Result<Standing> {
        <E as Fence>::fence(connection, self.subject.id, "moving", expected).await
    }

    /// All rows of a side, spelt out.
    pub(crate) async fn read(&self, side: Side) -> Result<Vec<String>> {
        Ok(spelt(&self.batches(side).await?))
    }

    pub(crate) async fn batches(&self, side: Side) -> Result<Vec<RecordBatch>> {
        let read = self.store.read_both(&self.subject).await?;
        let (sender, mut receiver) = mpsc::channel(1);
        let collect = async {
            let mut batches = Vec::new();
            while let Some(batch) = receiver.recv().await {
                batches.push(batch);
            }
            batches
        };
        let (count, batches) = tokio::join!(
            read.read(side, &crossfade_migration_core::rows::ScopeRange::WHOLE, sender),
            collect
        );
        let count = count?;
        assert_eq!(count, batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>());
        Ok(batches)
    }
}

/// The rows of batches, values parted by commas, NULL as nothing.
pub(crate) fn spelt(batches: &[RecordBatch]) -> Vec<String> {
    batches
        .iter()
        .flat_map(|batch| {
            (0..batch.num_rows()).map(|row| {
                let values = batch.columns().iter().map(|column| array_value_to_string(column, row).unwrap());
                values.collect::<Vec<_>>().join(",")
            })
        })
        .collect()
}

pub(crate) fn account(reason: &str) -> Account {
    Account {
        actor: "tester".to_owned(),
        reason: Some(reason.to_owned()),
        forced: false,
        evidence: serde_json::json!({ "seen": 1 }),
    }
}

pub(crate) fn is_stale(error: &Error) -> bool {
    matches!(error, Error::StaleEpoch { .. })
}
