//! The files of the tutorial do what the tutorial says, on rows of the same shape as its data.

mod replay;

use std::{fs, path::Path};

use crossfade_migration_core::manifest::Manifest;
use crossfade_test_harness::{Finished, Postgres, Program, TestDatabase};
use sqlx::AssertSqlSafe;
use tempfile::TempDir;

const LOAD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tutorial/load.sh");
const MANIFEST: &str = include_str!("../../docs/tutorial/rentals.toml");

/// Customers with two rentals, one that is not returned yet, and none.
const CUSTOMERS: &str = "\
customer_id,store_id,first_name,last_name,email,address_id,active,create_date,last_update
1,1,MARY,SMITH,MARY.SMITH@example.org,5,1,2006-02-14 22:04:36,2006-02-15 04:57:20
2,1,PATRICIA,JOHNSON,,6,0,2006-02-14 22:04:36,2006-02-15 04:57:20
3,2,LINDA,WILLIAMS,LINDA.WILLIAMS@example.org,7,1,2006-02-14 22:04:36,2006-02-15 04:57:20
";
const RENTALS: &str = "\
rental_id,rental_date,inventory_id,customer_id,return_date,staff_id,last_update
76,2005-05-25 11:30:37,3021,1,2005-06-03 12:00:37,2,2006-02-15 21:30:53
11,2005-05-24 23:54:33,1711,1,2005-06-02 04:33:33,1,2006-02-15 21:30:53
99,2006-02-14 15:16:03,4567,2,,1,2006-02-15 21:30:53
";

/// All keys, as a query of one column of the key's type.
const ALL: &str = "select customer_id from customer";

/// Customer, rental, rented, returned.
type Rental = (i32, i32, String, Option<String>);

fn load(database: &TestDatabase<sqlx::Postgres>, folder: &Path) -> Finished {
    Program::at(LOAD).arg(folder).env("DATABASE_URL", database.url()).run()
}

fn tables() -> TempDir {
    let folder = tempfile::Builder::new().prefix("it's here ").tempdir().unwrap();
    fs::write(folder.path().join("customer.csv"), CUSTOMERS).unwrap();
    fs::write(folder.path().join("rental.csv"), RENTALS).unwrap();
    folder
}

/// The old model, loaded.
async fn loaded() -> TestDatabase<sqlx::Postgres> {
    let database = Postgres::shared().database().await;
    let finished = load(&database, tables().path());
    assert_eq!(finished.code(), Some(0), "{finished}");
    database
}

async fn execute(database: &TestDatabase<sqlx::Postgres>, statement: String) {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(database.pool()).await.unwrap();
}

/// The rows of a query, as seen from a place that is not in UTC.
async fn rentals(database: &TestDatabase<sqlx::Postgres>, query: &str) -> Vec<Rental> {
    let mut connection = database.pool().acquire().await.unwrap();
    sqlx::query("set timezone to 'Asia/Tokyo'").execute(&mut *connection).await.unwrap();
    let statement = format!(
        "select customer_id, rental_id, rental_date::text as rented, return_date::text as returned
         from ({query}) q order by customer_id, rental_id"
    );
    let rows = sqlx::query_as(AssertSqlSafe(statement)).fetch_all(&mut *connection).await.unwrap();
    // The pool's next user is not in Tokyo.
    connection.close().await.unwrap();
    rows
}

async fn arrays(database: &TestDatabase<sqlx::Postgres>) -> Vec<String> {
    let query = "select rentals::text from customer order by customer_id";
    sqlx::query_scalar(query).fetch_all(database.pool()).await.unwrap()
}

fn rental(customer_id: i32, rental_id: i32, rented: &str, returned: Option<&str>) -> Rental {
    (customer_id, rental_id, rented.to_owned(), returned.map(str::to_owned))
}

#[tokio::test]
async fn the_projection_gives_the_rentals_at_the_times_of_the_files() {
    let database = loaded().await;
    let manifest = Manifest::parse(MANIFEST, "rentals.toml").unwrap();
    let rows = rentals(&database, &manifest.mapping().projection.render(ALL)).await;
    // Nine hours later, on the clocks of Tokyo.
    assert_eq!(
        rows,
        [
            rental(1, 11, "2005-05-25 08:54:33+09", Some("2005-06-02 13:33:33+09")),
            rental(1, 76, "2005-05-25 20:30:37+09", Some("2005-06-03 21:00:37+09")),
            rental(2, 99, "2006-02-15 00:16:03+09", None),
        ]
    );
}

#[tokio::test]
async fn the_reverse_of_the_projection_leaves_the_arrays_as_they_were() {
    let database = loaded().await;
    let manifest = Manifest::parse(MANIFEST, "rentals.toml").unwrap();
    let before = arrays(&database).await;
    execute(&database, format!("insert into rental {}", manifest.mapping().projection.render(ALL))).await;
    for statement in &manifest.mapping().reverse {
        execute(&database, statement.render(ALL)).await;
    }
    assert_eq!(arrays(&database).await, before);
    assert_eq!(before[2], "[]");
}

#[tokio::test]
async fn the_reverse_brings_what_only_the_new_table_knows() {
    let database = loaded().await;
    let manifest = Manifest::parse(MANIFEST, "rentals.toml").unwrap();
    let new_rental = "insert into rental select 3, nextval('rental_number'), '2006-03-01 00:00:00.000001+00', 1, null, 1, now()";
    execute(&database, new_rental.to_owned()).await;
    for statement in &manifest.mapping().reverse {
        execute(&database, statement.render(ALL)).await;
    }
    // The other customers had no rows in the new table: their arrays are empty now.
    let rows = rentals(&database, &manifest.mapping().projection.render(ALL)).await;
    assert_eq!(rows, [rental(3, 100, "2006-03-01 09:00:00.000001+09", None)]);
}

#[tokio::test]
async fn a_retired_customer_has_nothing_left_to_project() {
    let database = loaded().await;
    let manifest = Manifest::parse(MANIFEST, "rentals.toml").unwrap();
    for statement in &manifest.mapping().retire {
        execute(&database, statement.render("1")).await;
    }
    let rows = rentals(&database, &manifest.mapping().projection.render(ALL)).await;
    assert_eq!(rows, [rental(2, 99, "2006-02-15 00:16:03+09", None)]);
}

#[tokio::test]
async fn loading_twice_changes_nothing() {
    let database = loaded().await;
    execute(&database, "update customer set rentals = '[]'".to_owned()).await;
    let finished = load(&database, tables().path());
    assert_ne!(finished.code(), Some(0));
    assert!(finished.stderr.contains("\"customer\" already exists"), "{finished}");
    assert_eq!(arrays(&database).await, ["[]", "[]", "[]"]);
}

#[tokio::test]
async fn loading_from_a_folder_without_the_tables_says_what_is_missing() {
    let database = Postgres::shared().database().await;
    let folder = tempfile::tempdir().unwrap();
    let finished = load(&database, folder.path());
    assert_eq!(finished.code(), Some(1));
    assert!(finished.stderr.contains("customer.csv\nhint: "), "{finished}");
}
