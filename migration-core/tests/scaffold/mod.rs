//! Scaffolded manifests, proven on the databases that they were derived from.

mod postgres;
mod sqlite;

use std::fmt::Write as _;

use crossfade_migration_core::check::CheckReport;
use crossfade_migration_core::connect::AnyDatabase;
use crossfade_migration_core::manifest::{Manifest, TableName};
use crossfade_migration_core::operate::Operator;
use crossfade_migration_core::scaffold::{Scaffold, scaffold};
use crossfade_migration_core::url::DatabaseUrl;

/// A manifest as an operator gets it, with the operator.
struct Draft {
    operator: Operator,
    text: String,
}

/// What `crossfade new` writes for two tables of a database.
async fn draft(url: &str, old: &str, new: &str) -> Draft {
    let database = DatabaseUrl::parse(url).unwrap();
    let operator = Operator::new(AnyDatabase::connect(&database).await.unwrap());
    let store = &operator.database().store;
    let text = scaffold(&Scaffold {
        name: "moved",
        engine: database.engine(),
        old: &store.table(&TableName::parse(old).unwrap()).await.unwrap(),
        new: &store.table(&TableName::parse(new).unwrap()).await.unwrap(),
        old_url: url,
        new_url: url,
    });
    Draft { operator, text }
}

impl Draft {
    fn manifest(&self) -> Manifest {
        Manifest::parse(&self.text, "moved.toml").unwrap_or_else(|error| panic!("{error}\n{}", self.text))
    }

    /// What `crossfade check` says.
    async fn check(&self) -> CheckReport {
        self.operator
            .check(&self.manifest())
            .await
            .unwrap_or_else(|error| panic!("{error}: {:?}\n{}", std::error::Error::source(&error), self.text))
    }

    /// What the proof of the reverse path says.
    async fn check_reverse(&self) -> CheckReport {
        let manifest = self.manifest();
        self.operator
            .init(&manifest, "tester")
            .await
            .unwrap_or_else(|error| panic!("{error}\n{}", self.text));
        let database = self.operator.database();
        let registered = database.control.migration(manifest.name()).await.unwrap();
        let subject = self.operator.subject(&registered).await.unwrap();
        let keys = database.store.sample_keys(&subject, 100).await.unwrap();
        database.store.check_reverse(&subject, &keys).await.unwrap()
    }

    /// The proposals between `from` and the next line without a comment sign, taken in.
    fn accept(&mut self, from: &str) {
        let mut is_inside = false;
        let mut text = String::new();
        for line in self.text.lines() {
            is_inside = line.starts_with(from) || (is_inside && line.starts_with('#'));
            let line = if is_inside { line.strip_prefix("# ").unwrap_or(line) } else { line };
            writeln!(text, "{line}").unwrap();
        }
        assert_ne!(self.text, text, "there is no {from:?}");
        self.text = text;
    }
}

/// A report without faults, over so many keys and rows.
#[track_caller]
fn assert_clean(report: &CheckReport, keys: u64, rows: u64) {
    assert!(report.faults.is_empty(), "{:#?}", report.faults);
    assert_eq!((report.keys, report.rows), (keys, rows));
}

/// Fifty columns and more, so that objects have to be put together from parts.
fn wide(count: usize) -> (String, String) {
    let names: Vec<_> = (0..count).map(|number| format!("c{number}")).collect();
    let columns = names.iter().map(|name| format!("{name} integer")).collect::<Vec<_>>().join(", ");
    let fields = names.iter().enumerate().map(|(number, name)| format!("\"{name}\": {number}"));
    (columns, format!("[{{\"id\": 7, {}}}]", fields.collect::<Vec<_>>().join(", ")))
}
