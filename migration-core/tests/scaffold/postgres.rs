use crossfade_test_harness::{Postgres as Server, TestDatabase};
use sqlx::{AssertSqlSafe, Postgres};

use super::{assert_clean, draft, wide};

async fn database(setup: &str) -> TestDatabase<Postgres> {
    let database = Server::shared().database().await;
    run(&database, setup).await;
    database
}

async fn run(database: &TestDatabase<Postgres>, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(database.pool())
        .await
        .unwrap_or_else(|error| panic!("{error}\n{sql}"));
}

async fn lines(database: &TestDatabase<Postgres>, sql: &str) -> Vec<String> {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_all(database.pool()).await.unwrap()
}

const CUSTOMERS: &str = r#"
    create type mood as enum ('sad', 'happy');
    create table customers (id bigint primary key, name text not null, subscriptions jsonb not null default '[]');
    create table subscriptions (
        customer_id bigint not null references customers, id uuid not null, plan varchar(20) not null, seats smallint,
        price numeric(9, 2), active boolean, extra jsonb, plain json, secret bytea, tags text[], numbers integer[],
        mood mood, day date, since timestamptz, "odd 'name'" text,
        total numeric generated always as (price * seats) stored,
        primary key (customer_id, id));
    insert into customers values
        (1, 'Ada', '[{"id": "00000000-0000-0000-0000-00000000000a", "plan": "solo", "seats": 3, "price": 9.50,
                      "active": true, "extra": {"x": [1]}, "plain": [1, "a"], "secret": "00ff", "tags": ["a", "b c"],
                      "numbers": [1, 2], "mood": "happy", "day": "2024-02-29", "since": "2024-01-02T03:04:05+00:00",
                      "odd ''name''": "é"},
                     {"id": "00000000-0000-0000-0000-00000000000b", "plan": "it''s", "seats": null, "price": null,
                      "active": null, "extra": null, "plain": null, "secret": null, "tags": null, "numbers": [],
                      "mood": null, "day": null, "since": null, "odd ''name''": null}]'),
        (2, 'Bob', '[]');
"#;

#[tokio::test]
async fn an_array_becomes_rows_and_an_array_again() {
    let database = database(CUSTOMERS).await;
    let draft = draft(database.url(), "customers", "subscriptions").await;
    assert_clean(&draft.check().await, 2, 2);
    assert_clean(&draft.check_reverse().await, 2, 2);

    let manifest = draft.manifest();
    let keys = "select unnest(array[1, 2])";
    let projection = manifest.mapping().projection.render(keys);
    run(
        &database,
        &format!(
            "insert into subscriptions (customer_id, id, plan, seats, price, active, extra, plain, secret, tags, numbers,
                 mood, day, since, \"odd 'name'\")
             {projection}"
        ),
    )
    .await;
    let rows = "select concat_ws(',', customer_id, right(id::text, 1), plan, seats, price, active, extra, plain, secret,
                    tags, numbers, mood, day, since at time zone 'UTC', \"odd 'name'\", total)
                from subscriptions order by id";
    assert_eq!(
        lines(&database, rows).await,
        [
            r#"1,a,solo,3,9.50,t,{"x": [1]},[1, "a"],\x00ff,{a,"b c"},{1,2},happy,2024-02-29,2024-01-02 03:04:05,é,28.50"#,
            "1,b,it's,{}",
        ]
    );
    let arrays = "select subscriptions::text from customers order by id";
    let before = lines(&database, arrays).await;
    run(&database, "update customers set subscriptions = '[1]'").await;
    let reverse = manifest.mapping().reverse[0].render(keys);
    run(&database, &format!("set timezone to 'UTC'; {reverse}")).await;
    assert_eq!(lines(&database, arrays).await, before);

    run(&database, &manifest.mapping().retire[0].render("1")).await;
    assert!(lines(&database, &format!("select id::text from ({projection}) as p")).await.is_empty());
}

#[tokio::test]
async fn json_and_keys_of_several_columns_work_alike() {
    let database = database(
        r#"create table orders (tenant text, id integer, lines json, primary key (tenant, id));
           create table order_lines (
               tenant text, order_id integer, line integer, item text not null, primary key (tenant, order_id, line));
           insert into orders values ('x', 1, '[{"line":2,"item":"b"},{"line":1,"item":"a"}]'), ('x', 2, '[]'),
               ('y', 1, null)"#,
    )
    .await;
    let draft = draft(database.url(), "orders", "order_lines").await;
    assert_eq!(draft.manifest().new_table().scope, ["tenant", "order_id"]);
    assert_clean(&draft.check().await, 3, 2);
    assert_clean(&draft.check_reverse().await, 3, 2);
}

#[tokio::test]
async fn a_row_becomes_a_row_and_comes_back() {
    let database = database(
        "create table users (id integer primary key, email text not null, seen timestamp, score text, legacy text);
         create table accounts (id bigint generated always as identity primary key, user_id integer not null unique,
             email text not null, seen timestamptz, score integer, created timestamptz not null default now());
         insert into users values (1, 'a@x', '2024-01-02 03:04:05', '7', 'old'), (2, 'b@x', null, null, null)",
    )
    .await;
    let mut draft = draft(database.url(), "users", "accounts").await;
    assert_eq!(draft.manifest().new_table().key, ["user_id"]);
    assert_clean(&draft.check().await, 2, 2);

    run(
        &database,
        "insert into accounts (user_id, email, seen, score)
         values (1, 'new@x', '2024-01-02 03:04:05+00', 7), (3, 'c@x', null, 9)",
    )
    .await;
    let keys = "select unnest(array[1, 2, 3])";
    run(&database, &draft.manifest().mapping().reverse[0].render(keys)).await;
    let users = "select concat_ws(',', id, email, seen, score, legacy) from users order by id";
    assert_eq!(lines(&database, users).await, ["1,new@x,2024-01-02 03:04:05,7,old", "2,b@x", "3,c@x,9"]);

    draft.accept("# \"\"\"");
    assert_clean(&draft.check_reverse().await, 3, 3);
    run(&database, &draft.manifest().mapping().reverse[1].render(keys)).await;
    assert_eq!(lines(&database, "select email from users order by id").await, ["new@x", "c@x"]);

    draft.accept("# retire");
    run(&database, &draft.manifest().mapping().retire[0].render("1")).await;
    assert_eq!(lines(&database, "select email from users order by id").await, ["c@x"]);
}

#[tokio::test]
async fn an_old_row_that_needs_more_than_the_new_one_knows_is_only_updated() {
    let database = database(
        "create table users (id integer primary key, email text, password text not null);
         create table contacts (user_id integer primary key, email text);
         insert into users values (1, 'a@x', 'secret');
         insert into contacts values (1, 'new@x'), (2, 'b@x')",
    )
    .await;
    let draft = draft(database.url(), "users", "contacts").await;
    run(&database, &draft.manifest().mapping().reverse[0].render("select unnest(array[1, 2])")).await;
    assert_eq!(lines(&database, "select concat(id, email, password) from users").await, ["1new@xsecret"]);
}

#[tokio::test]
async fn what_the_old_table_does_not_have_is_named_by_the_check() {
    let database = database(
        "create table users (id integer primary key, email text);
         create table accounts (user_id integer primary key, email text, region text not null);
         insert into users values (1, 'a@x')",
    )
    .await;
    let report = draft(database.url(), "users", "accounts").await.check().await;
    assert_eq!(report.faults.len(), 1, "{:?}", report.faults);
    assert!(report.faults[0].message.contains("region"), "{:?}", report.faults);
}

/// All that the server calls a keyword, as names of columns, and those that it reserves, as names of tables too.
#[tokio::test]
async fn every_keyword_may_be_a_name() {
    let database = database("select 1").await;
    let words = lines(&database, "select word from pg_get_keywords() order by word").await;
    let reserved =
        lines(&database, "select word from pg_get_keywords() where catcode in ('R', 'T') order by word")
            .await;
    assert!(words.len() > 400 && reserved.len() > 90, "{} {}", words.len(), reserved.len());
    // The proof asks for each column several times over, and a query gives so many columns and no more.
    for chunk in words.chunks(100) {
        let columns = chunk.iter().map(|word| format!("\"{word}\" integer")).collect::<Vec<_>>().join(", ");
        let first = &chunk[0];
        run(
            &database,
            &format!(
                "create table ancients (crossfade_id integer primary key, {columns}, news jsonb);
             create table rows (crossfade_id integer primary key, {columns});
             create table news (ancient_crossfade_id integer, crossfade_id integer, {columns},
                 primary key (ancient_crossfade_id, crossfade_id));
             insert into ancients (crossfade_id, \"{first}\", news)
                 values (1, 2, '[{{\"crossfade_id\": 3, \"{first}\": 4}}]')"
            ),
        )
        .await;
        let mut rows = draft(database.url(), "ancients", "rows").await;
        rows.accept("# \"\"\"");
        assert_clean(&rows.check().await, 1, 1);
        assert_clean(&rows.check_reverse().await, 1, 1);
        let array = draft(database.url(), "ancients", "news").await;
        assert_clean(&array.check().await, 1, 1);
        run(&database, &array.manifest().mapping().reverse[0].render("1")).await;
        run(&database, "drop table ancients, rows, news; drop schema crossfade cascade").await;
    }

    for word in &reserved {
        run(
            &database,
            &format!(
                "create table \"{word}\" (\"{word}\" integer primary key, b text);
                 create table new_table (\"{word}\" integer primary key, b text);"
            ),
        )
        .await;
        for (old, new) in [(word.as_str(), "new_table"), ("new_table", word.as_str())] {
            let mut draft = draft(database.url(), old, new).await;
            draft.accept("# \"\"\"");
            draft.accept("# retire");
            assert_clean(&draft.check().await, 0, 0);
            let mapping = draft.manifest().mapping().clone();
            for statement in mapping.reverse.iter().chain(&mapping.retire) {
                run(&database, &statement.render("1")).await;
            }
        }
        run(&database, &format!("drop table \"{word}\", new_table")).await;
    }
}

#[tokio::test]
async fn more_columns_than_a_function_takes_arguments_come_back() {
    let (columns, array) = wide(120);
    let database = database(&format!(
        "create table owners (id integer primary key, things jsonb);
         create table things (owner_id integer, id integer, {columns}, primary key (owner_id, id));
         insert into owners values (1, '{array}')"
    ))
    .await;
    let draft = draft(database.url(), "owners", "things").await;
    assert_clean(&draft.check().await, 1, 1);
    assert_clean(&draft.check_reverse().await, 1, 1);
}
