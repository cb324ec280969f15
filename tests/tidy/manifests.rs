//! Which crate may know which, and on what versions.

use std::{collections::BTreeSet, path::Path};

use toml::{Table, Value};

use super::{assert_tidy, read};

/// The crates in the order in which they may import: each only those above it.
const CRATES: &[(&str, &str)] = &[
    ("crossfade-experiment-derive", "experiment/derive/Cargo.toml"),
    ("crossfade-experiment", "experiment/Cargo.toml"),
    ("crossfade-migration-core", "migration-core/Cargo.toml"),
    ("crossfade-backfill", "backfill/Cargo.toml"),
    ("crossfade-distributed", "backfill/distributed/Cargo.toml"),
    ("crossfade", "Cargo.toml"),
];

/// What tests may use besides; it knows none of the crates that it serves.
const HARNESS: (&str, &str) = ("crossfade-test-harness", "tests/harness/Cargo.toml");

/// The major version of Arrow and Parquet that the current DataFusion and Ballista use.
const ARROW_MAJOR: &str = "59";

/// What would let a database into the crate that knows none.
const DATABASE_CRATES: &[&str] = &["sqlx", "arrow", "parquet"];

#[test]
fn imports_run_one_way() {
    let mut complaints = Vec::new();
    for (position, (name, path)) in CRATES.iter().enumerate() {
        let allowed: BTreeSet<&str> = CRATES[..position].iter().map(|(name, _)| *name).collect();
        let manifest = manifest(path);
        for kind in ["dependencies", "build-dependencies", "dev-dependencies"] {
            for import in own_imports(&manifest, kind) {
                let for_tests = kind == "dev-dependencies" && import == HARNESS.0;
                if !allowed.contains(import.as_str()) && !for_tests {
                    complaints.push(format!("{path}: {name} may not import {import} ({kind})"));
                }
            }
        }
    }
    assert_tidy(&complaints);
}

#[test]
fn the_test_harness_knows_none_of_the_crates() {
    let manifest = manifest(HARNESS.1);
    assert_eq!(own_imports(&manifest, "dependencies"), Vec::<String>::new());
}

#[test]
fn experiments_know_no_database() {
    let manifest = manifest("experiment/Cargo.toml");
    let complaints: Vec<String> = dependencies(&manifest, "dependencies")
        .filter(|(name, _)| DATABASE_CRATES.iter().any(|database| name.starts_with(database)))
        .map(|(name, _)| format!("experiment/Cargo.toml: {name}"))
        .collect();
    assert_tidy(&complaints);
}

#[test]
fn versions_stand_in_the_workspace_alone() {
    let mut complaints = Vec::new();
    for (_, path) in CRATES.iter().chain([&HARNESS]) {
        let manifest = manifest(path);
        for kind in ["dependencies", "build-dependencies", "dev-dependencies"] {
            for (name, value) in dependencies(&manifest, kind) {
                if value.get("workspace").and_then(Value::as_bool) != Some(true) {
                    complaints
                        .push(format!("{path}: {name} takes its version from [workspace.dependencies]"));
                }
            }
        }
    }
    assert_tidy(&complaints);
}

#[test]
fn arrow_and_parquet_stay_on_the_major_of_datafusion() {
    let lock: Table = read(Path::new("Cargo.lock")).parse().expect("the lock file is TOML");
    let packages = lock["package"].as_array().expect("the lock file lists packages");
    let mut found = 0;
    let mut complaints = Vec::new();
    for package in packages {
        let (name, version) = (text(package, "name"), text(package, "version"));
        if name == "parquet" || name == "arrow" || name.starts_with("arrow-") {
            found += 1;
            if version.split('.').next() != Some(ARROW_MAJOR) {
                complaints.push(format!("Cargo.lock: {name} {version}, not {ARROW_MAJOR}"));
            }
        }
    }
    assert_tidy(&complaints);
    assert!(found >= 2, "the lock file has arrow and parquet");
}

fn manifest(path: &str) -> Table {
    read(Path::new(path)).parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn text<'a>(package: &'a Value, key: &str) -> &'a str {
    package.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn dependencies<'a>(manifest: &'a Table, kind: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    manifest.get(kind).and_then(Value::as_table).into_iter().flatten()
}

/// The crates of this workspace among the dependencies of one kind.
fn own_imports(manifest: &Table, kind: &str) -> Vec<String> {
    dependencies(manifest, kind)
        .map(|(name, _)| name.clone())
        .filter(|name| name.starts_with("crossfade"))
        .collect()
}
