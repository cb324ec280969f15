//! Any bytes as `snapshot.json`.

#![no_main]

use std::path::Path;

use crossfade_backfill::snapshot::SnapshotManifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let path = Path::new("snapshot.json");
    if let Ok(manifest) = SnapshotManifest::decode(data, path) {
        let text = serde_json::to_vec(&manifest).expect("a decoded manifest can be encoded");
        assert_eq!(SnapshotManifest::decode(&text, path).expect("its own encoding is valid"), manifest);
    }
});
