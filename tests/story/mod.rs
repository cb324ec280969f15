//! The example that tells the whole story, run as a reader of the README would run it.

use std::path::{Path, PathBuf};

use crossfade_test_harness::Program;

/// `cargo test` builds the examples before it runs the tests.
fn subscriptions() -> PathBuf {
    let binary = Path::new(env!("CARGO_BIN_EXE_crossfade"));
    let example = binary.parent().expect("a binary has a folder").join("examples/subscriptions");
    assert!(example.exists(), "build it first: cargo build --example subscriptions");
    example
}

#[test]
fn every_acknowledged_write_survives_the_whole_story() {
    let finished =
        Program::at(subscriptions()).args(["--customers", "300", "--seconds", "2", "--seed", "11"]).run();
    assert_eq!(finished.code(), Some(0), "{}\n{}", finished.stdout, finished.stderr);
    for line in ["writes lost", "resurrected", "reads wrong"] {
        let row = finished.stdout.lines().find(|row| row.starts_with(line)).unwrap_or_default();
        assert_eq!(row.split_whitespace().last(), Some("0"), "{line}: {row:?}");
    }
}

#[test]
fn a_wrong_argument_is_a_wrong_usage() {
    let finished = Program::at(subscriptions()).args(["--customers", "many"]).run();
    assert_eq!(finished.code(), Some(2), "{}", finished.stderr);
}
