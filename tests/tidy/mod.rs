//! What must hold of the code itself.

mod files;
mod literals;
mod manifests;
mod sql;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The folders that hold what is shipped.
const SOURCES: &[&str] =
    &["src", "experiment/src", "migration-core/src", "backfill/src", "backfill/distributed/src"];

/// Folders that are not ours to judge: what builds leave behind, and git's own.
const FOREIGN: &[&str] = &["target", ".git"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder of the repository, as paths from its root, in order.
fn files_below(folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for entry in entries {
            let path = entry.expect("the folder can be listed").path();
            if !path.is_dir() {
                files.push(path.strip_prefix(root()).expect("it is below the root").to_owned());
            } else if !FOREIGN.iter().any(|foreign| path.ends_with(foreign)) {
                folders.push(path);
            }
        }
    }
    files.sort();
    files
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rs")
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Fails with all complaints at once, so that one run shows everything there is to repair.
fn assert_tidy(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}
