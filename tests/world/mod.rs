//! A migration to try the command line on: two tables in a database of its own, a manifest, and the binary.
//!
//! Customers have an e-mail address and a telephone number, either of which may be absent; they become rows of a table
//! of contacts: nothing, one row or two for each customer. The statements mean the same on both engines, so that one
//! test serves both: see [`on_both_engines`].

mod database;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crossfade_test_harness::{Finished, Program};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) use database::Database;

/// The migration's name.
pub(crate) const NAME: &str = "contacts";

/// A password that must never be printed.
pub(crate) const PASSWORD: &str = "s3cr3t-pa55";

const TABLES: &str = "
create table customers (id bigint primary key, email text, phone text);
create table contacts (
    customer_id bigint not null, kind text not null, value text not null, primary key (customer_id, kind)
)";

/// A migration in a database and a folder of its own.
pub(crate) struct World {
    pub(crate) database: Database,
    folder: TempDir,
}

/// Makes one test for each engine of each function, which takes a [`World`].
macro_rules! on_both_engines {
    ($($name:ident),+ $(,)?) => {
        mod postgres {
            $(#[tokio::test]
            async fn $name() {
                super::$name(crate::world::World::postgres().await).await;
            })+
        }

        mod sqlite {
            $(#[tokio::test]
            async fn $name() {
                super::$name(crate::world::World::sqlite().await).await;
            })+
        }
    };
}
pub(crate) use on_both_engines;

impl World {
    /// Tables without rows in a Postgres database.
    pub(crate) async fn postgres() -> World {
        World::of(Database::postgres().await).await
    }

    /// Tables without rows in an SQLite database.
    pub(crate) async fn sqlite() -> World {
        World::of(Database::sqlite().await).await
    }

    /// Tables without rows in this database.
    pub(crate) async fn of(database: Database) -> World {
        let folder = tempfile::Builder::new().prefix("crossfade-world-").tempdir().unwrap();
        let world = World { database, folder };
        world.database.execute(TABLES).await;
        fs::write(world.manifest_path(), Manifest::default().text()).unwrap();
        world
    }

    /// Adds customers with the keys 1 to `count`. Every third has no telephone, every fifth no address.
    pub(crate) async fn fill(&self, count: u32) {
        self.fill_more(1, count).await;
    }

    /// Adds the customers from one key to another.
    pub(crate) async fn fill_more(&self, first: u32, last: u32) {
        self.database
            .execute(&format!(
                "insert into customers
                 with recursive numbers (id) as (select {first} union all select id + 1 from numbers where id < {last})
                 select id, case when id % 5 > 0 then 'c' || id || '@example.org' end,
                        case when id % 3 > 0 then '+' || (1000000 + id) end
                 from numbers"
            ))
            .await;
    }

    /// Plants differences in the new table behind crossfade's back: two rows missing, three wrong, two of nobody's.
    /// Customers 1, 2 and 4 have both kinds of contact.
    pub(crate) async fn plant(&self) {
        self.database
            .execute(
                "delete from contacts where customer_id in (1, 2) and kind = 'email';
                 update contacts set value = 'wrong' where customer_id in (2, 4, 8) and kind = 'phone';
                 insert into contacts values (4, 'fax', 'an orphan'), (1000, 'email', 'of nobody')",
            )
            .await;
    }

    /// Registers the migration with gates that a quiet table passes.
    pub(crate) fn init(&self) {
        self.succeed(["init", "contacts.toml"]);
    }

    /// Registers the migration and goes forward to a phase, backfilling on the way.
    pub(crate) fn advance_to(&self, phase: &str) {
        self.init();
        for _ in 0..6 {
            let status = self.json(["status", NAME]);
            if status["phase"] == phase {
                return;
            }
            if status["gate"]["missing"].to_string().contains("verification") {
                self.succeed(["backfill", NAME]);
            }
            self.succeed(["advance", NAME, "--confirm", NAME]);
        }
        assert_eq!(self.json(["status", NAME])["phase"], phase);
    }

    /// The folder that commands run in.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A path in that folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn manifest_path(&self) -> PathBuf {
        self.path("contacts.toml")
    }

    /// The binary, in the world's folder, with `DATABASE_URL` set.
    pub(crate) fn crossfade(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Program {
        self.bare(arguments).env("DATABASE_URL", self.database.url())
    }

    /// The binary, in the world's folder, without a word on where its control store is.
    pub(crate) fn bare(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Program {
        binary().args(arguments).current_dir(self.folder())
    }

    /// Runs a command that must end with this status.
    pub(crate) fn run(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>, code: i32) -> Finished {
        let finished = self.crossfade(arguments).run();
        assert_eq!(finished.code(), Some(code), "{finished}");
        finished
    }

    /// Runs a command that must succeed, and gives what it printed on standard output.
    pub(crate) fn succeed(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
        self.run(arguments, 0).stdout
    }

    /// Runs a command with `--json` that must succeed, and gives its document.
    pub(crate) fn json(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Value {
        self.json_with(arguments, 0)
    }

    /// Runs a command with `--json` that must end with this status, and gives its document.
    pub(crate) fn json_with(
        &self,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        code: i32,
    ) -> Value {
        let finished = self.crossfade(arguments).arg("--json").run();
        assert_eq!(finished.code(), Some(code), "{finished}");
        document(&finished)
    }

    /// Runs a command that must fail with this status, and a message and a hint that hold these words.
    pub(crate) fn fail(
        &self,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        code: i32,
        message: &str,
        hint: &str,
    ) -> Finished {
        let finished = self.run(arguments, code);
        assert_one_error(&finished, message, hint);
        finished
    }

    /// All contacts, in order, as one text.
    pub(crate) async fn contacts(&self) -> String {
        self.database
            .lines(
                "select customer_id || ' ' || kind || ' ' || value from contacts order by customer_id, kind",
            )
            .await
    }

    /// The contacts that there should be, as [`World::contacts`] gives them.
    pub(crate) async fn projected(&self) -> String {
        self.database
            .lines(
                "select id || ' ' || kind || ' ' || value from (
                     select id, 'email' as kind, email as value from customers
                     union all select id, 'phone', phone from customers) as c
                 where value is not null order by id, kind",
            )
            .await
    }

    /// Everything that crossfade has recorded of where the migration stands and stood.
    pub(crate) fn standing(&self) -> Value {
        let status = self.json(["status", NAME]);
        serde_json::json!([
            status["phase"],
            status["ramp_percent"],
            status["epoch"],
            self.json(["history", NAME])
        ])
    }
}

/// The binary.
pub(crate) fn binary() -> Program {
    Program::at(env!("CARGO_BIN_EXE_crossfade")).env("USER", "operator").env("HOSTNAME", "host")
}

/// Standard output as the one JSON document that it must be.
pub(crate) fn document(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished}"))
}

/// The output is one error that holds `message`, then one hint that holds `hint`, and no data.
pub(crate) fn assert_one_error(finished: &Finished, message: &str, hint: &str) {
    let lines = |start: &str| finished.stderr.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!((lines("error: "), lines("hint: ")), (1, 1), "{finished}");
    let (error, advice) = finished.stderr.split_once("\nhint: ").expect("the hint comes last");
    assert!(error.contains(message), "no {message:?} in the error:\n{finished}");
    assert!(advice.contains(hint), "no {hint:?} in the hint:\n{finished}");
    assert!(!advice.contains("NAME"), "the hint does not say which migration:\n{finished}");
    assert!(!finished.stderr.contains("panicked"), "{finished}");
}

/// The text of a manifest, and what a test may want other.
pub(crate) struct Manifest {
    pub(crate) name: &'static str,
    pub(crate) old: &'static str,
    pub(crate) new: &'static str,
    pub(crate) projection: String,
    pub(crate) is_reversible: bool,
    pub(crate) gates: &'static str,
}

/// The rows of contacts of some customers.
pub(crate) const PROJECTION: &str = "
select id as customer_id, 'email' as kind, email as value from customers where email is not null and id in (:keys)
union all
select id, 'phone', phone from customers where phone is not null and id in (:keys)";

const REVERSE: &str = "
reverse = '''
update customers set
    email = (select value from contacts where customer_id = customers.id and kind = 'email'),
    phone = (select value from contacts where customer_id = customers.id and kind = 'phone')
where id in (:keys)'''";

impl Default for Manifest {
    fn default() -> Self {
        Manifest {
            name: NAME,
            old: "customers",
            new: "contacts",
            projection: PROJECTION.to_owned(),
            is_reversible: true,
            gates: "comparisons_min = 0\nsoak_min = \"0s\"\nold_path_quiet_min = \"0s\"\nsample_keys = 20",
        }
    }
}

impl Manifest {
    pub(crate) fn text(&self) -> String {
        let Manifest { name, old, new, projection, is_reversible, gates } = self;
        let reverse = if *is_reversible { REVERSE } else { "" };
        format!(
            "name = \"{name}\"

[old]
url = \"env:DATABASE_URL\"
table = \"{old}\"
key = [\"id\"]

[new]
url = \"env:DATABASE_URL\"
table = \"{new}\"
scope = [\"customer_id\"]
key = [\"customer_id\", \"kind\"]

[mapping]
projection = '''{projection}'''{reverse}
retire = \"update customers set email = null, phone = null where id in (:keys)\"

[gates]
{gates}
"
        )
    }
}
