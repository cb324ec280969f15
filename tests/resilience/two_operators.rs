//! Two operators at once: one step is made, and the other one hears of it.

use sqlx::{Connection, PgConnection};

use crate::world::{NAME, World, assert_one_error, on_both_engines};

on_both_engines!(
    of_many_who_advance_at_once_each_step_is_made_once,
    of_two_who_register_at_once_both_succeed
);

async fn of_many_who_advance_at_once_each_step_is_made_once(world: World) {
    world.fill(20).await;
    world.init();
    // The gate behind dual_write is shut, so that a second step would be a wrong one.
    let operators: Vec<_> = (0..4).map(|_| world.crossfade(["advance", NAME]).spawn()).collect();
    let finished: Vec<_> = operators.into_iter().map(crossfade_test_harness::Running::wait).collect();
    let winners = finished.iter().filter(|finished| finished.code() == Some(0)).count();
    assert_eq!(winners, 1, "{finished:?}");
    for loser in finished.iter().filter(|finished| finished.code() != Some(0)) {
        match loser.code() {
            Some(1) => assert_one_error(loser, "has moved to dual_write", "crossfade status contacts"),
            Some(3) => assert_one_error(loser, "may not enter shadow_read", "crossfade backfill contacts"),
            _ => panic!("{loser}"),
        }
    }
    assert_eq!(world.json(["status", NAME])["phase"], "dual_write");
    assert_eq!(world.json(["history", NAME]).as_array().unwrap().len(), 2);
}

async fn of_two_who_register_at_once_both_succeed(world: World) {
    world.fill(20).await;
    let operators: Vec<_> = (0..4).map(|_| world.crossfade(["init", "contacts.toml"]).spawn()).collect();
    for operator in operators {
        let finished = operator.wait();
        assert_eq!(finished.code(), Some(0), "{finished}");
    }
    assert_eq!(world.json(["history", NAME]).as_array().unwrap().len(), 1, "one of them has registered it");
}

/// Both gates ahead are open, so that nothing but the epoch that was read keeps the second operator, who confirmed the
/// same step as the first, from making another one.
#[tokio::test]
async fn a_step_is_never_made_from_another_phase_than_the_one_it_was_decided_in() {
    let world = World::postgres().await;
    world.fill(20).await;
    world.advance_to("shadow_read");
    let mut write = PgConnection::connect(world.database.url()).await.unwrap();
    sqlx::raw_sql("begin; select crossfade.fence((select id from crossfade.migration), null)")
        .execute(&mut write)
        .await
        .unwrap();
    let mut operators = Vec::new();
    for name in ["first", "second"] {
        let control = format!("{}&application_name={name}", world.database.url());
        operators.push(world.bare(["advance", NAME, "--control", &control]).spawn());
        let waiting = format!(
            "select count(*) from pg_stat_activity
             where datname = current_database() and application_name = '{name}' and wait_event = 'advisory'"
        );
        world.database.wait_for(&waiting, 1).await;
    }
    write.close().await.unwrap();
    let mut codes: Vec<_> = operators.into_iter().map(|operator| operator.wait().code()).collect();
    codes.sort_unstable();
    assert_eq!(codes, [Some(0), Some(1)]);
    assert_eq!(world.json(["status", NAME])["phase"], "read_new");
}
