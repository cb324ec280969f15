use std::time::Duration;

use super::*;

const GOOD: &str = r#"name = "subscriptions"

[old]
url = "env:DATABASE_URL"
table = "customers"
key = ["id"]

[new]
url = "env:DATABASE_URL"
table = "public.subscriptions"
scope = ["customer_id"]
key = ["customer_id", "id"]

[mapping]
projection = "select * from customers where id in (:keys)"

[gates]
soak_min = "5m"
"#;

fn fault(from: &str, to: &str) -> ManifestError {
    assert!(GOOD.contains(from));
    Manifest::parse(&GOOD.replace(from, to), "m.toml").unwrap_err()
}

#[test]
fn a_good_manifest_is_read_whole() {
    let manifest = Manifest::parse(GOOD, "m.toml").unwrap();
    assert_eq!(manifest.name(), "subscriptions");
    assert_eq!(manifest.new_table().table.to_string(), "public.subscriptions");
    assert_eq!(manifest.control(), &manifest.new_table().url);
    assert_eq!(manifest.thresholds().soak_min, Duration::from_secs(300));
    assert_eq!(manifest.thresholds().comparisons_min, Thresholds::default().comparisons_min);
    assert!(!manifest.is_reversible());
}

#[test]
fn faults_name_their_line() {
    let cases = [
        ("key = [\"id\"]", "keys = [\"id\"]", 6, "unknown field `keys`"),
        ("name = \"subscriptions\"", "name = \"Subscriptions\"", 1, "no name"),
        ("scope = [\"customer_id\"]", "scope = [\"a\", \"b\"]", 11, "2 columns and old.key 1"),
        ("key = [\"customer_id\", \"id\"]", "key = [\"id\", \"id\"]", 12, "twice"),
        ("(:keys)", "(1)", 15, "no `:keys`"),
        ("env:DATABASE_URL\"\ntable = \"customers", "oracle://x\"\ntable = \"customers", 4, "oracle"),
        ("soak_min = \"5m\"", "soak_min = \"soon\"", 18, "soon"),
        ("soak_min = \"5m\"", "mismatch_rate_max = 2.0", 18, "share from 0 to 1"),
        ("[new]", "[new", 8, ""),
    ];
    for (from, to, line, message) in cases {
        let error = fault(from, to);
        assert_eq!(error.line, line, "{to}: {error}");
        assert!(error.message.contains(message), "{to}: {error}");
    }
}

#[test]
fn a_missing_section_is_named() {
    let error = fault("[mapping]\nprojection = \"select * from customers where id in (:keys)\"", "");
    assert!(error.message.contains("mapping"), "{error}");
}

#[test]
fn thresholds_and_retirement_leave_the_fingerprint() {
    let fingerprint = |text: &str| Manifest::parse(text, "m").unwrap().fingerprint();
    assert_eq!(fingerprint(GOOD), fingerprint(&GOOD.replace("5m", "0s")));
    assert_ne!(fingerprint(GOOD), fingerprint(&GOOD.replace("select *", "select id")));
    let retired =
        GOOD.replace("[gates]", "retire = \"update customers set a = null where id in (:keys)\"\n[gates]");
    assert_eq!(fingerprint(GOOD), fingerprint(&retired));
}
