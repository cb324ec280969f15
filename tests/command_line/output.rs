//! What people read: help, standings, gates, reports and errors, word for word.

use insta::assert_snapshot;

use crate::world::{NAME, World, binary};

/// What differs from run to run, and what to write in its place.
const FILTERS: &[(&str, &str)] = &[
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", "[moment]"),
    (r"sqlite:///\S+", "[url]"),
    (r"/\S*/crossfade-world-\w+", "[folder]"),
    (r"at most \S+ ms", "at most [time]"),
    (r"after \S+ ms", "after [time]"),
    (r"(faults?), .+? ago", "$1, [time] ago"),
    (r"soak: .+? of", "soak: [time] of"),
    (r"wait [^;]+;", "wait [time];"),
    (r", for \d.*", ", for [time]"),
    (r"in \d+\.\d s", "in [time]"),
    (r"  [\d,]+/s(, \S+ left)?", "  [rate]"),
];

/// Runs commands and gives what each printed, with its exit status.
fn transcript(world: &World, commands: &[&[&str]]) -> String {
    let mut text = String::new();
    for arguments in commands {
        let finished = world.crossfade(*arguments).run();
        text.push_str(&format!("$ crossfade {}\n{}", arguments.join(" "), finished.stdout));
        for line in finished.stderr.lines().filter(|line| !is_halfway(line)) {
            text.push_str(&format!("| {line}\n"));
        }
        if let Some(code) = finished.code().filter(|code| *code != 0) {
            text.push_str(&format!("[exit status {code}]\n"));
        }
        text.push('\n');
    }
    text
}

/// Whether this is progress between beginning and end, which a fast run may never show.
fn is_halfway(line: &str) -> bool {
    let Some((done, rest)) = line.split_once(": ").and_then(|(_, counts)| counts.split_once(" of ")) else {
        return false;
    };
    let total = rest.trim_start_matches("about ").split(' ').next().unwrap_or_default();
    let is_count = |text: &str| text.chars().all(|digit| digit.is_ascii_digit() || digit == ',');
    is_count(done) && is_count(total) && rest.contains("/s") && done != "0" && done != total
}

#[test]
fn help() {
    let mut text = binary().arg("--help").run().stdout;
    let commands: Vec<String> = text
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        // Further lines of a command's description are indented more.
        .filter_map(|line| line.strip_prefix("  ")?.split_once(' ').map(|(command, _)| command.to_owned()))
        .filter(|command| !command.is_empty() && command != "help")
        .collect();
    assert!(commands.len() > 15, "{text}");
    for command in commands {
        let help = binary().args([&command, "--help"]).run().stdout;
        assert!(help.contains("Example"), "{command} shows no example:\n{help}");
        text.push_str(&format!("\n$ crossfade {command} --help\n{help}"));
    }
    assert_snapshot!(text);
}

#[tokio::test]
async fn a_migration_from_end_to_end() {
    let world = World::sqlite().await;
    world.fill(30).await;
    let text = transcript(
        &world,
        &[
            &["check", "contacts.toml"],
            &["init", "contacts.toml"],
            &["init", "contacts.toml"],
            &["status"],
            &["status", NAME],
            &["plan", NAME],
            &["jobs", NAME],
            &["advance", NAME, "--ramp", "5"],
            &["status", NAME],
            &["ramp", NAME, "100"],
            &["snapshot", NAME, "--out", "snapshot"],
            &["scan", NAME, "--snapshot", "snapshot", "--out", "findings"],
            &["copy", NAME, "--findings", "findings", "--workers", "1"],
            &["backfill", NAME],
            &["jobs", NAME],
            &["advance", NAME, "--dry-run"],
            &["advance", NAME],
            &["experiments", NAME],
            &["report", NAME],
            &["advance", NAME],
            &["rollback", NAME, "--reason", "p99 of reads doubled", "--as", "mary"],
            &["advance", NAME],
            &["status", NAME],
            &["advance", NAME],
            &["verify", NAME],
            &["advance", NAME, "--confirm", NAME],
            &["cleanup", NAME],
            &["advance", NAME],
            &["status", NAME],
            &["plan", NAME],
            &["history", NAME],
        ],
    );
    insta::with_settings!({ filters => FILTERS.to_vec() }, { assert_snapshot!(text) });
}

#[tokio::test]
async fn refusals_and_differences() {
    let world = World::sqlite().await;
    world.fill(30).await;
    let production = crate::world::Manifest { gates: "", ..crate::world::Manifest::default() };
    std::fs::write(world.manifest_path(), production.text()).unwrap();
    world.init();
    let mut text = transcript(
        &world,
        &[
            &["advance", NAME, "--ramp", "5"],
            &["advance", NAME],
            &["advance", NAME, "--force", "--reason", "a rehearsal"],
            &["plan", NAME],
            &["verify", NAME],
            &["status", NAME],
            &["advance", NAME, "--force", "--reason", "a rehearsal"],
            &["status", NAME],
            &["advance", NAME, "--force", "--reason", "a rehearsal"],
            &["advance", NAME, "--force", "--reason", "a rehearsal"],
            &["advance", NAME, "--force", "--reason", "a rehearsal", "--confirm", NAME],
        ],
    );
    world.database.execute("update customers set email = 'late@example.org' where id = 3").await;
    text.push_str(&transcript(&world, &[&["cleanup", NAME], &["status", NAME], &["history", NAME]]));
    insta::with_settings!({ filters => FILTERS.to_vec() }, { assert_snapshot!(text) });
}

#[tokio::test]
async fn errors() {
    let world = World::sqlite().await;
    world.fill(30).await;
    let unknown_key = crate::world::Manifest::default().text().replace("scope =", "scopes =");
    std::fs::write(world.path("unknown_key.toml"), unknown_key).unwrap();
    let nulls = crate::world::Manifest::default().text().replace(" where email is not null and", " where");
    std::fs::write(world.path("nulls.toml"), nulls).unwrap();
    let mut text = transcript(
        &world,
        &[
            &["status", NAME],
            &["check", "absent.toml"],
            &["check", "unknown_key.toml"],
            &["check", "nulls.toml"],
            &["init", "nulls.toml"],
            &["init", "contacts.toml"],
            &["status", "orders"],
            &["ramp", NAME, "50"],
            &["rollback", NAME],
            &["backfill", NAME],
            &["verify", NAME],
            &["cleanup", NAME],
            &["pause", NAME],
            &["scan", NAME, "--snapshot", "nowhere", "--out", "findings"],
            &["copy", NAME, "--findings", "nowhere"],
            &["advance", NAME, "--force"],
            &["status", NAME, "--control", "mysql://localhost/app"],
            &["status", NAME, "--control", "sqlite:missing.db"],
            &["status", "orders", "--json"],
        ],
    );
    let unnamed = world.bare(["status"]).run();
    text.push_str(&format!("$ crossfade status # without DATABASE_URL\n{}", unnamed.stderr));
    insta::with_settings!({ filters => FILTERS.to_vec() }, { assert_snapshot!(text) });
}
