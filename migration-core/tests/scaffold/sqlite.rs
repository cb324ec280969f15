use crossfade_test_harness::{TestDatabase, sqlite};
use sqlx::{AssertSqlSafe, Sqlite};

use super::{assert_clean, draft, wide};

/// SQLite's list of keywords.
const KEYWORDS: &str = "abort action add after all alter always analyze and as asc attach autoincrement before begin
    between by cascade case cast check collate column commit conflict constraint create cross current current_date
    current_time current_timestamp database default deferrable deferred delete desc detach distinct do drop each else
    end escape except exclude exclusive exists explain fail filter first following for foreign from full generated
    glob group groups having if ignore immediate in index indexed initially inner insert instead intersect into is
    isnull join key last left like limit match materialized natural no not nothing notnull null nulls of offset on or
    order others outer over partition plan pragma preceding primary query raise range recursive references regexp
    reindex release rename replace restrict returning right rollback row rows savepoint select set table temp
    temporary then ties to transaction trigger unbounded union unique update using vacuum values view virtual when
    where window with within without";

async fn database(setup: &str) -> TestDatabase<Sqlite> {
    let database = sqlite().await;
    run(&database, setup).await;
    database
}

async fn run(database: &TestDatabase<Sqlite>, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(database.pool())
        .await
        .unwrap_or_else(|error| panic!("{error}\n{sql}"));
}

async fn lines(database: &TestDatabase<Sqlite>, sql: &str) -> Vec<String> {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_all(database.pool()).await.unwrap()
}

const CUSTOMERS: &str = r#"
    create table customers (id integer primary key, name text not null, subscriptions text not null default '[]');
    create table subscriptions (
        customer_id integer not null references customers, id text not null, plan text not null, seats integer,
        price real, active boolean, extra json, secret blob, "odd 'name'" text,
        primary key (customer_id, id));
    insert into customers values
        (1, 'Ada', '[{"id":"a","plan":"solo","seats":3,"price":9.5,"active":true,"extra":{"x":[1]},"secret":"00FF","odd ''name''":"é"},'
                || '{"id":"b","plan":"it''s","seats":null,"price":null,"active":false,"extra":null,"secret":null,"odd ''name''":null}]'),
        (2, 'Bob', '[]'),
        (3, 'Cyd', '[{"id":"a","plan":"team","seats":1,"price":0.1,"active":null,"extra":"text","secret":"","odd ''name''":""}]');
"#;

#[tokio::test]
async fn an_array_becomes_rows_and_an_array_again() {
    let database = database(CUSTOMERS).await;
    let draft = draft(database.url(), "customers", "subscriptions").await;
    assert_clean(&draft.check().await, 3, 3);
    assert_clean(&draft.check_reverse().await, 3, 3);

    let manifest = draft.manifest();
    let keys = "values (1), (2), (3)";
    let projection = manifest.mapping().projection.render(keys);
    run(&database, &format!("insert into subscriptions {projection}")).await;
    let rows =
        "select json_array(customer_id, id, plan, seats, price, active, extra, hex(secret), \"odd 'name'\")
                from subscriptions order by customer_id, id";
    assert_eq!(
        lines(&database, rows).await,
        [
            r#"[1,"a","solo",3,9.5,1,"{\"x\":[1]}","00FF","é"]"#,
            r#"[1,"b","it's",null,null,0,null,"",null]"#,
            r#"[3,"a","team",1,0.1,null,"\"text\"","",""]"#,
        ]
    );
    let arrays = "select subscriptions from customers order by id";
    let before = lines(&database, arrays).await;
    run(&database, "update customers set subscriptions = '[1]'").await;
    run(&database, &manifest.mapping().reverse[0].render(keys)).await;
    assert_eq!(lines(&database, arrays).await, before);

    run(&database, &manifest.mapping().retire[0].render("values (1)")).await;
    let left = format!("select customer_id || id from ({projection})");
    assert_eq!(lines(&database, &left).await, ["3a"]);
}

#[tokio::test]
async fn an_array_of_bytes_stays_one() {
    let database = database(
        "create table users (id integer primary key, emails blob);
         create table emails (user_id integer not null, email text not null, primary key (user_id, email));
         insert into users values (1, jsonb('[{\"email\":\"a@x\"},{\"email\":\"b@x\"}]')), (2, null)",
    )
    .await;
    let draft = draft(database.url(), "users", "emails").await;
    assert_clean(&draft.check().await, 2, 2);
    assert_clean(&draft.check_reverse().await, 2, 2);
    run(&database, "insert into emails values (2, 'c@x')").await;
    run(&database, &draft.manifest().mapping().reverse[0].render("values (2)")).await;
    let kept = lines(&database, "select typeof(emails) || json(emails) from users where id = 2").await;
    assert_eq!(kept, [r#"blob[{"email":"c@x"}]"#]);
}

#[tokio::test]
async fn keys_of_several_columns_stay_together() {
    let database = database(
        r#"create table orders (tenant text not null, id integer not null, lines json, primary key (tenant, id));
           create table order_lines (
               tenant text not null, order_id integer not null, line integer not null, item text not null,
               primary key (tenant, order_id, line));
           insert into orders values ('x', 1, '[{"line":2,"item":"b"},{"line":1,"item":"a"}]'), ('x', 2, '[]'),
               ('y', 1, '[{"line":1,"item":"c"}]')"#,
    )
    .await;
    let draft = draft(database.url(), "orders", "order_lines").await;
    assert_eq!(draft.manifest().new_table().scope, ["tenant", "order_id"]);
    assert_clean(&draft.check().await, 3, 3);
    assert_clean(&draft.check_reverse().await, 3, 3);
}

#[tokio::test]
async fn a_row_becomes_a_row_and_comes_back() {
    let database = database(
        "create table users (id integer primary key, email text not null, bio text, legacy text);
         create table accounts (user_id integer primary key, email text not null, bio text, created text default 'now');
         insert into users values (1, 'a@x', 'A', 'old'), (2, 'b@x', null, null)",
    )
    .await;
    let mut draft = draft(database.url(), "users", "accounts").await;
    assert_clean(&draft.check().await, 2, 2);
    // A row that is deleted in the new table stays, and the proof says so.
    let report = draft.check_reverse().await;
    assert_eq!(report.faults.len(), 1, "{:?}", report.faults);

    run(&database, "insert into accounts values (1, 'new@x', 'A', 'now'), (3, 'c@x', 'C', 'now')").await;
    let keys = "values (1), (2), (3)";
    run(&database, &draft.manifest().mapping().reverse[0].render(keys)).await;
    let users = "select json_array(id, email, bio, legacy) from users order by id";
    assert_eq!(
        lines(&database, users).await,
        [r#"[1,"new@x","A","old"]"#, r#"[2,"b@x",null,null]"#, r#"[3,"c@x","C",null]"#]
    );

    draft.accept("# \"\"\"");
    assert_eq!(draft.manifest().mapping().reverse.len(), 2, "{}", draft.text);
    assert_clean(&draft.check_reverse().await, 3, 3);
    run(&database, &draft.manifest().mapping().reverse[1].render(keys)).await;
    assert_eq!(lines(&database, "select email from users order by id").await, ["new@x", "c@x"]);

    draft.accept("# retire");
    run(&database, &draft.manifest().mapping().retire[0].render("values (1)")).await;
    assert_eq!(lines(&database, "select email from users order by id").await, ["c@x"]);
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
    assert!(report.faults[0].message.contains("NULL in column region"), "{:?}", report.faults);
}

#[tokio::test]
async fn every_keyword_may_be_a_name() {
    for word in KEYWORDS.split_whitespace() {
        let database = database(&format!(
            "create table \"{word}\" (\"{word}\" integer primary key, b text, \"x{word}\" integer);
             create table new_table (\"{word}\" integer primary key, b text, \"x{word}\" integer);
             create table parent (id integer primary key, \"{word}s\" json);
             insert into \"{word}\" values (1, 'b', 2);
             insert into parent values (1, '[{{\"{word}\": 5}}]')"
        ))
        .await;
        let mut rows = draft(database.url(), word, "new_table").await;
        rows.accept("# \"\"\"");
        rows.accept("# retire");
        assert_clean(&rows.check().await, 1, 1);
        assert_clean(&rows.check_reverse().await, 1, 1);
        run(&database, &rows.manifest().mapping().retire[0].render("values (1)")).await;
        let back = draft(database.url(), "new_table", word).await;
        run(&database, &back.manifest().mapping().reverse[0].render("values (1)")).await;

        run(
            &database,
            &format!(
                "drop table \"{word}\";
                 create table \"{word}\" (parent_id integer, \"{word}\" integer, primary key (parent_id, \"{word}\"))"
            ),
        )
        .await;
        let array = draft(database.url(), "parent", word).await;
        let mapping = array.manifest().mapping().clone();
        let projected = format!(
            "select json_array(parent_id, \"{word}\") from ({})",
            mapping.projection.render("values (1)")
        );
        assert_eq!(lines(&database, &projected).await, ["[1,5]"], "{}", array.text);
        run(&database, &mapping.reverse[0].render("values (1)")).await;
        run(&database, &mapping.retire[0].render("values (1)")).await;
        assert_eq!(lines(&database, &format!("select \"{word}s\" from parent")).await, ["[]"]);
    }
}

#[tokio::test]
async fn more_columns_than_a_function_takes_arguments_come_back() {
    let (columns, array) = wide(120);
    let database = database(&format!(
        "create table owners (id integer primary key, things json);
         create table things (owner_id integer, id integer, {columns}, primary key (owner_id, id));
         insert into owners values (1, '{array}')"
    ))
    .await;
    let draft = draft(database.url(), "owners", "things").await;
    let manifest = draft.manifest();
    run(&database, &format!("insert into things {}", manifest.mapping().projection.render("values (1)")))
        .await;
    run(&database, "update owners set things = '[]'").await;
    run(&database, &manifest.mapping().reverse[0].render("values (1)")).await;
    assert_eq!(
        lines(&database, "select things from owners").await,
        [array.replace(": ", ":").replace(", ", ",")]
    );
}
