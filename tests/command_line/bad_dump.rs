//! Dumps that are not whole, not Parquet, not readable or not what is asked for: one error that names the file, one hint, and
//! nothing that looks like a result. The files are real ones: `backfill/tests/writers/write.py` has written them.

use std::fs;
use std::path::{Path, PathBuf};

use crossfade_test_harness::Finished;
use tempfile::TempDir;

use crate::world::{assert_one_error, binary};

/// The folder of a writer's files.
fn written_by(writer: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("backfill/tests/writers").join(writer)
}

/// A folder with one old and one new dump, of which a test may spoil the new one.
struct Bad {
    folder: TempDir,
}

impl Bad {
    fn begin() -> Bad {
        let bad = Bad { folder: tempfile::tempdir().unwrap() };
        bad.put("old.parquet", &written_by("pyarrow_snappy").join("old/data.parquet"));
        bad.put("new.parquet", &written_by("pyarrow_snappy").join("new/data.parquet"));
        bad
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn put(&self, name: &str, from: &Path) {
        fs::copy(from, self.path(name)).unwrap();
    }

    fn spoil(&self, spoil: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.path("new.parquet")).unwrap();
        spoil(&mut bytes);
        fs::write(self.path("new.parquet"), bytes).unwrap();
    }

    fn scan(&self, arguments: &[&str]) -> Finished {
        let scan = ["scan", "--old", "old.parquet", "--new", "new.parquet", "--out", "findings"];
        let key: &[&str] = if arguments.contains(&"--key") { &[] } else { &["--key", "id"] };
        binary().args(scan).args(key).args(arguments).current_dir(self.folder.path()).run()
    }

    fn fail(&self, arguments: &[&str], message: &[&str], hint: &str) {
        let finished = self.scan(arguments);
        assert_eq!(finished.code(), Some(1), "{finished}");
        for part in message {
            assert_one_error(&finished, part, hint);
        }
        assert_eq!(finished.stdout, "", "{finished}");
        assert!(!self.path("findings/scan.json").exists(), "a summary makes findings a result");
    }
}

#[test]
fn a_file_that_is_cut_short_or_none_is_named() {
    for (cut, says) in [
        (0, "it is too short"),
        (4, "it is too short"),
        (1_000, "it does not end as a Parquet file does: it is truncated, or none"),
    ] {
        let bad = Bad::begin();
        bad.spoil(|bytes| bytes.truncate(cut));
        bad.fail(&[], &["new.parquet", says], "again");
    }
    let bad = Bad::begin();
    fs::write(bad.path("new.parquet"), "customer,plan\n1,basic\n2,pro\n").unwrap();
    bad.fail(&[], &["new.parquet", "truncated, or none"], "again");
}

#[test]
fn a_page_that_is_corrupt_is_named_with_its_row_group() {
    for order in ["key", "none"] {
        let bad = Bad::begin();
        // Into the first pages, whose heads and compressed bodies are nonsense then.
        bad.spoil(|bytes| bytes[4..400].fill(0xa5));
        bad.fail(&["--order", order], &["new.parquet", "row group 0", "is corrupt"], "again");
    }
}

#[test]
fn a_file_without_a_row_group_is_a_table_without_rows() {
    let bad = Bad::begin();
    bad.put("new.parquet", &written_by("nothing").join("data.parquet"));
    let finished = bad.scan(&["--keys-only", "--json"]);
    assert_eq!(finished.code(), Some(4), "{finished}");
    let found: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!((&found["missing"], &found["rows_new"]), (&60.into(), &0.into()), "{found}");
}

#[test]
fn what_is_encrypted_is_not_called_corrupt() {
    let bad = Bad::begin();
    bad.put("new.parquet", &written_by("encrypted").join("footer.parquet"));
    bad.fail(&["--columns", "name"], &["new.parquet", "it is encrypted, and there is no key for it"], "");
    bad.put("new.parquet", &written_by("encrypted").join("columns.parquet"));
    let column = ["new.parquet, row group 0", "column name is encrypted"];
    bad.fail(&["--columns", "name"], &column, "leave the column out");
}

#[test]
fn other_columns_and_other_types_are_named() {
    let bad = Bad::begin();
    bad.fail(&["--key", "uid"], &["old.parquet", "it has no column uid"], "name the columns that both");
    bad.fail(
        &["--columns", "id,price,colour"],
        &["old.parquet", "no column colour"],
        "name the columns that both",
    );
    bad.put("new.parquet", &written_by("fastparquet").join("new/part.0.parquet"));
    bad.fail(&[], &["the set of columns is id, small", "wide"], "name the columns that both");
    bad.put("new.parquet", &written_by("pyarrow_snappy").join("new/data.parquet"));
    bad.fail(
        &["--key", "tags", "--columns", "price"],
        &["column tags of type List", "cannot be a key"],
        "cast tags",
    );
}

#[test]
fn a_key_that_is_null_is_named_with_its_row() {
    for order in ["detect", "none"] {
        let bad = Bad::begin();
        // By one thread: of several, the first to come upon such a row says so. It may be of either side.
        let arguments = ["--key", "note", "--order", order, "--threads", "1"];
        let message = ["row 0 of ", ".parquet, row group 0, has NULL in key column note"];
        bad.fail(&arguments, &message, "leave rows whose note is null out");
    }
}

#[test]
fn a_row_out_of_order_is_named_where_order_is_claimed() {
    let bad = Bad::begin();
    bad.put("new.parquet", &written_by("duckdb_v2").join("new/data.parquet"));
    let message = ["new.parquet, row group 0", "is out of order"];
    bad.fail(&["--order", "key", "--columns", "price"], &message, "scan it as unordered");
    let finished = bad.scan(&["--columns", "price"]);
    assert_eq!(finished.code(), Some(4), "{finished}");
}
