//! The control store.

use std::time::{Duration, Instant};

use crossfade_migration_core::Error;
use crossfade_migration_core::catalog::Catalog;
use crossfade_migration_core::comparisons::{ComparisonLog, Mismatch, Tally};
use crossfade_migration_core::control::{EvidenceLog, MigrationId, Registration, Registry, StandingStore};
use crossfade_migration_core::fence::Fence;
use crossfade_migration_core::fleet::{Fleet, LEASE_TTL};
use crossfade_migration_core::gate::{Evidence, EvidenceKind};
use crossfade_migration_core::manifest::Manifest;
use crossfade_migration_core::phase::{Epoch, Phase, Ramp, Standing};
use crossfade_migration_core::plan::Plan;
use sqlx::Postgres;

use super::{Fixture, account, manifest};

const TABLES: &str = "create table old (id integer primary key, v text);
     create table new (id integer primary key, v text)";

fn simple() -> Manifest {
    manifest("old", "new", "select id, v from old where id in (:keys)", "")
}

fn after(from: Standing, phase: Phase) -> Standing {
    Standing { phase, ramp: Ramp::from_ppm(250_000), epoch: from.epoch.next() }
}

#[tokio::test]
async fn installing_twice_or_at_once_is_installing_once() {
    let fixture = Fixture::new("").await;
    let installs = futures::future::join_all((0..4).map(|_| fixture.store.install())).await;
    for install in installs {
        install.unwrap();
    }
    fixture.store.install().await.unwrap();
    assert!(fixture.store.names().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_schema_of_somebody_else_is_left_alone() {
    let fixture = Fixture::new("create schema crossfade; create table crossfade.migration (mine text)").await;
    let error = fixture.store.install().await.unwrap_err();
    assert!(matches!(error, Error::ControlStore { .. }), "{error}");
    assert!(error.hint().unwrap().contains("rename or drop"), "{error}");
    let tables: i64 = sqlx::query_scalar("select count(*) from pg_tables where schemaname = 'crossfade'")
        .fetch_one(&fixture.store.pool)
        .await
        .unwrap();
    assert_eq!(tables, 1);
}

#[tokio::test]
async fn without_its_tables_the_control_store_says_how_to_make_them() {
    let fixture = Fixture::new("").await;
    let store = &fixture.store;
    let id = crossfade_migration_core::control::MigrationId(1);
    let errors = [
        store.migration("moved").await.unwrap_err(),
        store.names().await.unwrap_err(),
        store.standing(id).await.unwrap_err(),
        store.history(id).await.unwrap_err(),
        store.evidence(id).await.unwrap_err(),
        store.renew(id, "a", Epoch::FIRST, LEASE_TTL).await.unwrap_err(),
        store.instances(id).await.unwrap_err(),
        store.tallies(id, Epoch::FIRST).await.unwrap_err(),
        store.mismatches(id, 1).await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, Error::ControlStore { .. }), "{error:?}");
        assert_eq!(error.hint().as_deref(), Some("crossfade init MANIFEST creates them"));
    }
}

#[tokio::test]
async fn registering_at_once_creates_once() {
    let fixture = Fixture::new(TABLES).await;
    let store = &fixture.store;
    store.install().await.unwrap();
    let manifest = simple();
    let plan = Plan::read(&manifest, store as &dyn Catalog).await.unwrap();
    let (account, manifest, plan) = (&account(), &manifest, &plan);
    let done = futures::future::join_all((0..8).map(|_| store.register(manifest, plan, account))).await;
    let done: Vec<_> = done.into_iter().map(Result::unwrap).collect();
    assert_eq!(done.iter().filter(|registration| **registration == Registration::Created).count(), 1);
    assert_eq!(done.iter().filter(|registration| **registration == Registration::Unchanged).count(), 7);
    let id = store.migration("moved").await.unwrap().id;
    assert_eq!(store.history(id).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_mapping_changes_in_old_only_and_thresholds_anywhere() {
    let fixture = Fixture::new(TABLES).await;
    let store = &fixture.store;
    let first = simple();
    let subject = fixture.register(&first).await;
    let mapped = manifest("old", "new", "select id, upper(v) as v from old where id in (:keys)", "");
    let stricter = manifest(
        "old",
        "new",
        "select id, upper(v) as v from old where id in (:keys)",
        "comparisons_min = 7",
    );
    let register = async |manifest: &Manifest| {
        let plan = Plan::read(manifest, store as &dyn Catalog).await.unwrap();
        store.register(manifest, &plan, &account()).await
    };
    assert_eq!(register(&mapped).await.unwrap(), Registration::Updated);
    let registered = store.migration("moved").await.unwrap();
    let to = after(registered.standing, Phase::DualWrite);
    store.change(&registered, to, &account(), Duration::from_secs(5)).await.unwrap();
    assert_eq!(register(&stricter).await.unwrap(), Registration::Updated);
    assert_eq!(register(&stricter).await.unwrap(), Registration::Unchanged);
    let error = register(&first).await.unwrap_err();
    assert!(matches!(error, Error::Registered { phase: Phase::DualWrite, .. }), "{error}");
    assert_eq!(store.migration("moved").await.unwrap().manifest.thresholds().comparisons_min, 7);

    let history = store.history(subject.id).await.unwrap();
    let seen: Vec<_> = history.iter().map(|line| (line.from.map(|from| from.epoch), line.to.epoch)).collect();
    let [one, two, three] = [1, 2, 3].map(Epoch);
    assert_eq!(seen, [(None, one), (Some(one), two), (Some(two), three), (Some(three), three)]);
    assert_eq!(history[2].to, to);
    assert!(history[0].at.ends_with('Z') && history[0].at.contains('T'), "{}", history[0].at);
}

#[tokio::test]
async fn a_change_waits_for_writers_in_flight_and_lets_others_through_meanwhile() {
    let fixture = Fixture::new(TABLES).await;
    let store = fixture.store.clone();
    let id = fixture.register(&simple()).await.id;
    let registered = store.migration("moved").await.unwrap();
    let to = after(registered.standing, Phase::DualWrite);

    let mut writer = Postgres::begin_write(&store.pool).await.unwrap();
    Postgres::fence(&mut writer, id, "moved", None).await.unwrap();
    let patience = Duration::from_millis(700);
    let error = store.change(&registered, to, &account(), patience).await.unwrap_err();
    let Error::FenceTimeout { waited, .. } = error else { panic!("{error}") };
    assert!(waited >= patience, "{waited:?}");
    assert_eq!(store.standing(id).await.unwrap(), Standing::INITIAL);

    // A second try, while other writers come and go; then the long one ends.
    let change = tokio::spawn({
        let (store, registered) = (store.clone(), registered.clone());
        async move { store.change(&registered, to, &account(), Duration::from_secs(60)).await }
    });
    for _ in 0..20 {
        let mut other = Postgres::begin_write(&store.pool).await.unwrap();
        let begun = Instant::now();
        Postgres::fence(&mut other, id, "moved", Some(Epoch::FIRST)).await.unwrap();
        other.commit().await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(5), "a writer queued for {:?}", begun.elapsed());
    }
    writer.commit().await.unwrap();
    let changed = change.await.unwrap().unwrap();
    assert!(changed.pause <= changed.waited);
    assert_eq!(store.standing(id).await.unwrap(), to);
    let mut late = Postgres::begin_write(&store.pool).await.unwrap();
    let error = Postgres::fence(&mut late, id, "moved", Some(Epoch::FIRST)).await.unwrap_err();
    assert!(matches!(error, Error::StaleEpoch { found: Epoch(2), .. }), "{error}");
}

#[tokio::test]
async fn of_two_changes_at_once_one_wins() {
    let fixture = Fixture::new(TABLES).await;
    let store = &fixture.store;
    let id = fixture.register(&simple()).await.id;
    let registered = store.migration("moved").await.unwrap();
    let to = after(registered.standing, Phase::DualWrite);
    let (who, patience) = (account(), Duration::from_secs(20));
    let changes =
        futures::future::join_all((0..6).map(|_| store.change(&registered, to, &who, patience))).await;
    assert_eq!(changes.iter().filter(|change| change.is_ok()).count(), 1);
    for change in changes.into_iter().filter_map(Result::err) {
        assert!(matches!(change, Error::Conflict { found, .. } if found == to), "{change}");
    }
    assert_eq!(store.history(id).await.unwrap().len(), 2);
}

#[tokio::test]
async fn evidence_is_the_latest_of_its_kind_and_epoch() {
    let fixture = Fixture::new(TABLES).await;
    let id = fixture.register(&simple()).await.id;
    let evidence = |kind, epoch, faults, age| Evidence {
        kind,
        epoch: Epoch(epoch),
        phase: Phase::DualWrite,
        faults,
        age: Duration::from_secs(age),
        details: serde_json::json!({ "text": "a\0b", "list": [1, 2.5, null] }),
    };
    for record in [
        evidence(EvidenceKind::Check, 1, 3, 0),
        evidence(EvidenceKind::Verification, 1, 1, 100),
        evidence(EvidenceKind::Check, 1, 0, 3600),
        evidence(EvidenceKind::Check, 2, 5, 0),
    ] {
        fixture.store.record(id, &record).await.unwrap();
    }
    let found = fixture.store.evidence(id).await.unwrap();
    let seen: Vec<_> = found.iter().map(|found| (found.kind, found.epoch.0, found.faults)).collect();
    use EvidenceKind::{Check, Verification};
    assert_eq!(seen, [(Check, 2, 5), (Check, 1, 0), (Verification, 1, 1)]);
    assert!((3600..3700).contains(&found[1].age.as_secs()), "{:?}", found[1].age);
    assert_eq!(found[0].details, serde_json::json!({ "text": "a\u{fffd}b", "list": [1, 2.5, null] }));
}

#[tokio::test]
async fn leases_run_out_by_the_databases_clock() {
    let fixture = Fixture::new(TABLES).await;
    let store = &fixture.store;
    let id = fixture.register(&simple()).await.id;
    assert_eq!(store.renew(id, "b", Epoch(1), LEASE_TTL).await.unwrap(), Standing::INITIAL);
    store.renew(id, "a", Epoch(1), Duration::ZERO).await.unwrap();
    store.renew(id, "gone", Epoch(1), LEASE_TTL).await.unwrap();
    store.leave(id, "gone").await.unwrap();
    fixture
        .run("insert into crossfade.instance select id, 'ancient', 1, now() - interval '1 day' from crossfade.migration")
        .await;
    let seen: Vec<_> = store
        .instances(id)
        .await
        .unwrap()
        .into_iter()
        .map(|instance| (instance.name, instance.is_live))
        .collect();
    assert_eq!(seen, [("a".to_owned(), false), ("b".to_owned(), true)]);
    let unknown =
        store.renew(crossfade_migration_core::control::MigrationId(99), "a", Epoch(1), LEASE_TTL).await;
    assert!(matches!(unknown, Err(Error::UnknownMigration { .. })), "{unknown:?}");

    assert_eq!(store.old_path_idle(id, Epoch(1)).await.unwrap(), None);
    store.touch_old_path(id, Epoch(1)).await.unwrap();
    store.touch_old_path(id, Epoch(1)).await.unwrap();
    assert!(store.old_path_idle(id, Epoch(1)).await.unwrap().unwrap() < Duration::from_secs(60));
}

#[tokio::test]
async fn a_renewal_waits_for_a_change_in_flight() {
    let fixture = Fixture::new(TABLES).await;
    let store = fixture.store.clone();
    let id = fixture.register(&simple()).await.id;
    // The fence as a change of standing holds it between its decision and its commit.
    let mut change = store.pool.begin().await.unwrap();
    sqlx::query("select pg_advisory_xact_lock(1668834915, $1)")
        .bind(id.0)
        .execute(&mut *change)
        .await
        .unwrap();
    sqlx::query("update crossfade.migration set epoch = 2").execute(&mut *change).await.unwrap();
    let renewal = tokio::spawn({
        let store = store.clone();
        async move { store.renew(id, "a", Epoch(1), LEASE_TTL).await }
    });
    loop {
        let waiting: i64 =
            sqlx::query_scalar("select count(*) from pg_locks where locktype = 'advisory' and not granted")
                .fetch_one(&store.pool)
                .await
                .unwrap();
        if waiting > 0 {
            break;
        }
        assert!(!renewal.is_finished(), "the renewal did not wait");
        tokio::task::yield_now().await;
    }
    change.commit().await.unwrap();
    assert_eq!(renewal.await.unwrap().unwrap().epoch, Epoch(2));
}

#[tokio::test]
async fn tallies_are_replaced_and_mismatches_bounded() {
    let fixture = Fixture::new(TABLES).await;
    let store = &fixture.store;
    let id = fixture.register(&simple()).await.id;
    let tally = |experiment: &str, count: u64| Tally {
        experiment: experiment.to_owned(),
        totals: serde_json::json!({ "compared": count, "share": 0.25 }),
    };
    store.tally(id, "a", Epoch(1), &[tally("x", 1), tally("y", 2)]).await.unwrap();
    store.tally(id, "b", Epoch(1), &[tally("x", 3)]).await.unwrap();
    store.tally(id, "a", Epoch(2), &[tally("x", 9)]).await.unwrap();
    store.tally(id, "a", Epoch(1), &[tally("x", 5)]).await.unwrap();
    assert_eq!(store.tallies(id, Epoch(1)).await.unwrap(), [tally("x", 5), tally("x", 3)]);

    let mismatch = |number: usize| Mismatch {
        at: String::new(),
        epoch: Epoch(1),
        experiment: "x".to_owned(),
        key: format!("{number}\0"),
        differences: serde_json::json!([{ "path": "a", "kind": "changed" }]),
    };
    let many: Vec<_> = (0..1_050).map(mismatch).collect();
    store.mismatch(id, &many).await.unwrap();
    store.mismatch(id, &[mismatch(5_000)]).await.unwrap();
    let latest = store.mismatches(id, 2).await.unwrap();
    assert_eq!((latest[0].key.as_str(), latest[1].key.as_str()), ("5000\u{fffd}", "1049\u{fffd}"));
    assert_eq!(store.mismatches(id, 5_000).await.unwrap().len(), 1_000);
}

#[tokio::test]
async fn a_mapping_with_other_key_columns_leaves_no_functions_of_the_one_before() {
    let fixture = Fixture::new(
        "create table old (id integer, part integer, v text, primary key (id, part));
         create table single (id integer primary key, v text);
         create table new (id integer, part integer, v text, primary key (id, part))",
    )
    .await;
    let mapped = |old: &str, key: &str, scope: &str, columns: &str| {
        Manifest::parse(
            &format!(
                "name = \"moved\"\n[old]\nurl = \"postgres:///unused\"\ntable = \"{old}\"\nkey = [{key}]\n\
                 [new]\nurl = \"postgres:///unused\"\ntable = \"new\"\nscope = [{scope}]\nkey = [\"id\", \"part\"]\n\
                 [mapping]\nprojection = \"select {columns}, v from {old} where {} in (:keys)\"\n",
                if old == "old" { "(id, part)" } else { "id" },
            ),
            "test",
        )
        .unwrap()
    };
    let functions = async || -> Vec<String> {
        sqlx::query_scalar(
            "select oid::regprocedure::text from pg_proc
             where pronamespace = 'crossfade'::regnamespace and proname like '%\\_moved' order by 1",
        )
        .fetch_all(&fixture.store.pool)
        .await
        .unwrap()
    };
    fixture.register(&mapped("single", "\"id\"", "\"id\"", "id, 1 as part")).await;
    let one = functions().await;
    fixture.register(&mapped("old", "\"id\", \"part\"", "\"id\", \"part\"", "id, part")).await;
    let two = functions().await;
    assert_eq!(two.len(), one.len(), "{one:?} {two:?}");
    assert!(two.iter().all(|function| !one.contains(function)), "{one:?} {two:?}");
    // Registered again, all of them stay.
    fixture.register(&mapped("old", "\"id\", \"part\"", "\"id\", \"part\"", "id, part")).await;
    assert_eq!(functions().await, two);
}

#[tokio::test]
async fn functions_of_another_version_give_way_when_a_migration_is_registered_again() {
    let fixture = Fixture::new(
        "create table old (id integer primary key, v text); create table new (id integer primary key, v text)",
    )
    .await;
    let manifest = manifest("old", "new", "select id, v from old where id in (:keys)", "");
    fixture.register(&manifest).await;
    // The same parameters, and another result: it cannot be replaced.
    fixture
        .run(
            "drop function crossfade.mirror_moved(bigint, text[]);
             create function crossfade.mirror_moved(crossfade_epoch bigint, crossfade_k1 text[])
             returns table (written bigint, removed bigint) language sql as 'select 0::bigint, 0::bigint'",
        )
        .await;
    fixture.register(&manifest).await;
    let result: String = sqlx::query_scalar(
        "select pg_get_function_result('crossfade.mirror_moved(bigint, text[])'::regprocedure)",
    )
    .fetch_one(&fixture.store.pool)
    .await
    .unwrap();
    assert_eq!(result, "bigint[]");
}

#[tokio::test]
async fn no_migrations_name_makes_its_functions_anothers() {
    let fixture = Fixture::new(
        "create table old (id integer primary key, v text); create table new (id integer primary key, v text)",
    )
    .await;
    let moved = manifest("old", "new", "select id, v from old where id in (:keys)", "");
    let named = |name: &str| {
        Manifest::parse(&moved.text().replace("\"moved\"", &format!("\"{name}\"")), "test").unwrap()
    };
    let functions = async || -> i64 {
        sqlx::query_scalar(
            "select count(*) from pg_proc
             where pronamespace = 'crossfade'::regnamespace and proname ~ '^(lock|mirror|reverse)'",
        )
        .fetch_one(&fixture.store.pool)
        .await
        .unwrap()
    };
    fixture.register(&moved).await;
    let each = functions().await;
    for (count, name) in (2..).zip(["one_moved", "many_moved", "all_moved"]) {
        fixture.register(&named(name)).await;
        assert_eq!(functions().await, each * count, "{name}");
    }
    // Registered again, it takes nothing from the others.
    fixture.register(&moved).await;
    assert_eq!(functions().await, each * 4);
}

#[tokio::test]
async fn a_write_without_crossfades_tables_is_told_what_makes_them() {
    let fixture = Fixture::new("create table application (id integer)").await;
    let mut transaction = fixture.store.pool.begin().await.unwrap();
    let error = Postgres::fence(&mut transaction, MigrationId(1), "moved", Some(Epoch(1))).await.unwrap_err();
    assert!(matches!(error, Error::ControlStore { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("crossfade init"), "{error}");
}
