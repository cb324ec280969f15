//! How files are named, and how long they are.

use std::{collections::BTreeMap, path::Path};

use super::{assert_tidy, files_below, is_rust, read};

/// Above this a file holds more than one idea. Most are far below it.
const LINES_MAX: usize = 600;

/// Names that say nothing of what is inside.
const VAGUE_NAMES: &[&str] = &["util", "utils", "helper", "helpers", "misc", "common"];

/// The engines that may have migrations.
const ENGINES: &[&str] = &["postgres", "mysql", "sqlite"];

#[test]
fn no_source_file_is_too_long() {
    let complaints: Vec<String> = files_below("")
        .iter()
        .filter(|path| is_rust(path))
        .filter_map(|path| {
            let lines = read(path).lines().count();
            (lines > LINES_MAX)
                .then(|| format!("{}: {lines} lines, {LINES_MAX} at most: split it by noun", path.display()))
        })
        .collect();
    assert_tidy(&complaints);
}

#[test]
fn no_source_file_has_a_vague_name() {
    let complaints: Vec<String> = files_below("")
        .iter()
        .filter(|path| is_rust(path) && is_vague(path))
        .map(|path| format!("{}: name it after the noun that it is about", path.display()))
        .collect();
    assert_tidy(&complaints);
}

#[test]
fn migrations_are_numbered_and_named() {
    let mut complaints = Vec::new();
    let mut numbers: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for path in files_below("") {
        let Some(folder) = path.parent() else { continue };
        if !path.components().any(|component| component.as_os_str() == "migrations") {
            continue;
        }
        let engine = folder.file_name().unwrap_or_default().to_string_lossy();
        if !ENGINES.contains(&&*engine) {
            complaints.push(format!("{}: migrations stand in migrations/<engine>/", path.display()));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match migration_number(&name) {
            Some(number) => numbers.entry(folder.display().to_string()).or_default().push(number),
            None => complaints.push(format!("{}: a migration is named NNNN_name.sql", path.display())),
        }
    }
    for (folder, mut numbers) in numbers {
        numbers.sort_unstable();
        if !numbers.iter().copied().eq(1..=u32::try_from(numbers.len()).unwrap_or(u32::MAX)) {
            complaints.push(format!("{folder}: its migrations are numbered {numbers:?}, not 1, 2, 3, …"));
        }
    }
    assert_tidy(&complaints);
}

fn is_vague(path: &Path) -> bool {
    path.with_extension("")
        .components()
        .any(|component| VAGUE_NAMES.iter().any(|vague| component.as_os_str() == *vague))
}

/// The number of a migration's file, where it is named `NNNN_name.sql` in lower case.
fn migration_number(name: &str) -> Option<u32> {
    let (number, title) = name.strip_suffix(".sql")?.split_once('_')?;
    let titled =
        !title.is_empty() && title.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let numbered = number.len() == 4 && number.chars().all(|c| c.is_ascii_digit());
    if titled && numbered { number.parse().ok() } else { None }
}

#[test]
fn only_well_named_migrations_have_a_number() {
    assert_eq!(migration_number("0012_outbox.sql"), Some(12));
    for name in ["12_outbox.sql", "0012.sql", "0012_.sql", "0012_Outbox.sql", "0012_outbox.txt", "+012_a.sql"]
    {
        assert_eq!(migration_number(name), None, "{name}");
    }
}

#[test]
fn vague_names_are_found_in_files_and_folders() {
    assert!(is_vague(Path::new("src/utils.rs")));
    assert!(is_vague(Path::new("src/helpers/quote.rs")));
    assert!(!is_vague(Path::new("src/utilisation.rs")));
}
