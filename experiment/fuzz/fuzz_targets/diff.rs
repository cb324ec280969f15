//! Differences of any two JSON values, and sketches of any bytes: no input panics, equal values have no
//! difference, different ones have one, both directions report the same paths, and values that serialise differ as their
//! trees do.
//!
//! `cargo +nightly fuzz run diff`, in the folder of the crate.
#![no_main]

use crossfade_experiment::{LatencySketch, Reveal, diff_json, diff_serialized};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|input: &[u8]| {
    if let Ok(sketch) = LatencySketch::from_bytes(input) {
        let again = LatencySketch::from_bytes(&sketch.to_bytes()).expect("what was written is read");
        assert_eq!(again, sketch);
        let _ = (sketch.quantile(0.5), sketch.quantile(f64::NAN), sketch.count());
    }
    // The two values stand on either side of the first zero byte.
    let mut sides = input.splitn(2, |&byte| byte == 0);
    let (Some(old), Some(new)) = (sides.next(), sides.next()) else {
        return;
    };
    let (Ok(old), Ok(new)) = (serde_json::from_slice::<Value>(old), serde_json::from_slice::<Value>(new)) else {
        return;
    };
    assert!(diff_json(&old, &old, Reveal::Values).is_empty());
    let forth = diff_json(&old, &new, Reveal::Values);
    assert_eq!(forth.is_empty(), old == new);
    assert_eq!(diff_serialized(&old, &new, Reveal::Values), forth, "one notion of a difference");
    let paths = |differences: Vec<crossfade_experiment::FieldDiff>| {
        let mut paths: Vec<_> = differences.into_iter().map(|difference| difference.path).collect();
        paths.sort();
        paths
    };
    assert_eq!(paths(forth), paths(diff_json(&new, &old, Reveal::Paths)));
});
