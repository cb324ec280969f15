//! The whole tutorial, played by its own script: with fewer rows, and gates that open sooner.

use std::fs;
use std::path::Path;

use crossfade_test_harness::{Postgres, Program};

const TUTORIAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tutorial");

/// What makes the replay quick, in whichever file it stands.
const SHORTER: &[(&str, &str, &str)] = &[
    ("rentals.toml", "soak_min = \"10s\"", "soak_min = \"1s\""),
    ("rentals.toml", "old_path_quiet_min = \"10s\"", "old_path_quiet_min = \"1s\""),
    ("rentals.toml", "comparisons_min = 1_000", "comparisons_min = 100"),
    ("rentals.toml", "mismatch_rate_max = 0.01", "mismatch_rate_max = 0.1"),
    ("run.sh", "\nsleep 8\n", "\nsleep 1\n"),
];

/// Enough for a backfill that is killed while it copies.
const CUSTOMERS: u32 = 600;

fn copy_tutorial(to: &Path) {
    for name in ["run.sh", "load.sh", "rentals.toml"] {
        let mut text = fs::read_to_string(Path::new(TUTORIAL).join(name)).unwrap();
        for (_, long, short) in SHORTER.iter().filter(|(file, ..)| *file == name) {
            assert!(text.contains(long), "{name} has no {long:?} any more");
            text = text.replace(long, short);
        }
        fs::write(to.join(name), text).unwrap();
    }
}

/// Rows of the data's shape: customers with none to six rentals, some of which are still out.
fn write_tables(to: &Path) {
    let mut customers =
        "customer_id,store_id,first_name,last_name,email,address_id,active,create_date,last_update\n"
            .to_owned();
    let mut rentals =
        "rental_id,rental_date,inventory_id,customer_id,return_date,staff_id,last_update\n".to_owned();
    let moment = "2006-02-15 04:57:20";
    for customer in 1..=CUSTOMERS {
        customers.push_str(&format!("{customer},1,FIRST,LAST,,{customer},1,{moment},{moment}\n"));
        for number in 0..customer % 7 {
            let returned = if number == 5 { "" } else { "2005-06-03 12:00:37" };
            rentals.push_str(&format!(
                "{},2005-05-25 11:30:37,{},{customer},{returned},1,{moment}\n",
                customer * 10 + number,
                customer + number
            ));
        }
    }
    fs::write(to.join("customer.csv"), customers).unwrap();
    fs::write(to.join("rental.csv"), rentals).unwrap();
}

#[tokio::test]
async fn the_tutorial_can_be_followed_to_its_end() {
    let programs = Path::new(env!("CARGO_BIN_EXE_crossfade")).parent().expect("a binary has a folder");
    let examples = programs.join("examples");
    assert!(examples.join("rentals").exists(), "build it first: cargo build --example rentals");
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    let path = [programs.to_owned(), examples].into_iter().chain(std::env::split_paths(&inherited));
    let database = Postgres::shared().database().await;
    let folder = tempfile::tempdir().unwrap();
    copy_tutorial(folder.path());
    write_tables(folder.path());

    let finished = Program::at("/bin/sh")
        .arg(folder.path().join("run.sh"))
        .arg(folder.path())
        .env("DATABASE_URL", database.url())
        .env("PATH", std::env::join_paths(path).unwrap())
        .run();
    assert_eq!(finished.code(), Some(0), "{finished}");
    for line in ["job 1 copy: running", "complete; nothing is left to do"] {
        assert!(finished.stdout.contains(line), "no {line:?} in\n{finished}");
    }
    // Both stores when the flawed release is closed, the new one at the end.
    assert_eq!(finished.stdout.matches(" 0 customers differ").count(), 3, "{finished}");
    assert!(!finished.stdout.contains("1 wrong answers"), "{finished}");
}
