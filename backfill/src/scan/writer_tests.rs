//! Dumps as other tools really write them: see `tests/writers/write.py`, which has written them all.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use arrow::datatypes::{DataType, Field, SchemaRef, TimeUnit};
use parquet::basic::Compression;
use parquet::file::metadata::{ParquetMetaDataReader, ParquetMetaDataWriter};

use super::tests::{options, quiet, read};
use super::*;
use crate::error::Error;
use crate::findings::{FindingKind, Findings};
use crate::foreign::ForeignTable;
use crate::row_hash::comparable;
use crate::snapshot::Side;

/// What differs between `old` and `new`, whoever wrote them: the same as in `write.py`.
const MISMATCHED: &[(u64, &[&str])] = &[
    (3, &["name"]),
    (11, &["amount", "price"]),
    (12, &["note"]),
    (20, &["day", "at", "moment"]),
    (21, &["tags"]),
    (22, &["address"]),
    (23, &["props"]),
    (40, &["flag", "small"]),
    (41, &["ident", "payload", "big", "wide"]),
    (59, &["doc"]),
];
const MISSING: [u64; 2] = [7, 33];
const ORPHANED: u64 = 1000;

/// The writers, and what else their files have that others' have not.
const WRITERS: [&str; 13] = [
    // Pages of version 1, dictionaries, Snappy.
    "pyarrow_snappy",
    // Pages of version 2, delta and split encodings, Zstandard, no statistics.
    "pyarrow_delta",
    // Gzip; wider numbers, other units of time, another scale.
    "pyarrow_gzip",
    // Brotli; decimals as integers.
    "pyarrow_brotli",
    // LZ4 without frames.
    "pyarrow_lz4",
    // Nothing compressed; timestamps as INT96.
    "pyarrow_int96",
    // UUID and JSON as types of their own; Snappy.
    "duckdb_default",
    // Delta encodings, Zstandard; in no order.
    "duckdb_v2",
    "polars",
    // A folder with `_metadata` beside the files.
    "fastparquet",
    // A folder with `_SUCCESS` and three files, in no order; Snappy.
    "spark_default",
    // Pages of version 2, delta encodings, Gzip.
    "spark_v2",
    // Lists, maps and decimals as before 2.0; timestamps as INT96; nothing compressed.
    "spark_legacy",
];

fn fixture(writer: &str, side: Side) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/writers").join(writer).join(side.to_string())
}

fn dumps(writers: [&str; 2], compared: Compared, order: DumpOrder) -> Dumps {
    Dumps {
        old: fixture(writers[0], Side::Old),
        new: fixture(writers[1], Side::New),
        key: vec!["id".into()],
        scope_columns: 1,
        compared,
        order,
        origin: DumpOrigin::default(),
    }
}

fn schema(writer: &str) -> SchemaRef {
    ForeignTable::open(&fixture(writer, Side::Old)).unwrap().schema().clone()
}

/// The columns that both have, and which of them have no common notion of equal.
fn columns(old: &SchemaRef, new: &SchemaRef) -> (Vec<String>, Vec<String>) {
    let both = old.fields().iter().filter_map(|old| Some((old, new.field_with_name(old.name()).ok()?)));
    let (like, unlike): (Vec<_>, Vec<_>) = both
        .filter(|(old, _)| old.name() != "id")
        .partition(|(old, new)| comparable(old.data_type(), new.data_type()) || is_adopted(old, new));
    let names = |fields: Vec<(&arrow::datatypes::FieldRef, &arrow::datatypes::Field)>| {
        fields.into_iter().map(|(old, _)| old.name().clone()).collect()
    };
    (names(like), names(unlike))
}

/// Timestamps as INT96, which are what the other side's are.
fn is_adopted(old: &Field, new: &Field) -> bool {
    let int96 = DataType::Timestamp(TimeUnit::Nanosecond, None);
    [(old, new), (new, old)].into_iter().any(|(one, other)| {
        *one.data_type() == int96 && matches!(other.data_type(), DataType::Timestamp(_, Some(_)))
    })
}

/// The findings that there are over these columns.
fn expected(columns: &[String]) -> BTreeSet<(String, &'static str, BTreeSet<String>)> {
    let mismatched = MISMATCHED.iter().filter_map(|(id, differing)| {
        let differing: BTreeSet<String> = differing
            .iter()
            .filter(|name| columns.iter().any(|column| column == *name))
            .map(|name| (*name).into())
            .collect();
        (!differing.is_empty()).then(|| (id.to_string(), FindingKind::Mismatched.name(), differing))
    });
    let whole = |id: u64, kind: FindingKind| (id.to_string(), kind.name(), BTreeSet::new());
    mismatched
        .chain(MISSING.map(|id| whole(id, FindingKind::Missing)))
        .chain([whole(ORPHANED, FindingKind::Orphaned)])
        .collect()
}

/// Which of the columns two writers' files can be asked for.
fn compared(writers: [&str; 2], mut columns: Vec<String>) -> Vec<String> {
    // Spark writes a map's entries in an order of its own, and in which order they come counts, as in a list.
    let maps_alike = writers[0].starts_with("spark") == writers[1].starts_with("spark");
    // See below: it is an error.
    let has_wide_deltas = writers.contains(&"duckdb_v2");
    columns.retain(|column| (column != "props" || maps_alike) && (column != "big" || !has_wide_deltas));
    columns
}

/// Scans each writer's old against each writer's new, and says where the findings are not those that were planted.
fn scan_all(order: DumpOrder) {
    let folder = tempfile::tempdir().unwrap();
    let schemas = WRITERS.map(schema);
    let mut wrong = Vec::new();
    for (old, old_schema) in WRITERS.iter().zip(&schemas) {
        for (new, new_schema) in WRITERS.iter().zip(&schemas) {
            let (like, unlike) = columns(old_schema, new_schema);
            assert_eq!(unlike, [""; 0], "{old} and {new}: types that mean different things");
            let like = compared([old, new], like);
            let found = folder.path().join(format!("{old}-{new}"));
            let asked = dumps([old, new], Compared::Columns(like.clone()), order);
            if let Err(error) = scan_dumps(&asked, &found, &options(2, 10), &quiet) {
                wrong.push(format!("{old} {new}: {error}"));
                continue;
            }
            let found: BTreeSet<_> = read(&Findings::open(&found).unwrap())
                .into_iter()
                .map(|(key, kind, columns)| (key, kind.name(), columns.into_iter().collect()))
                .collect();
            let expected = expected(&like);
            if found != expected {
                let more: Vec<_> = found.difference(&expected).take(3).collect();
                let less: Vec<_> = expected.difference(&found).take(3).collect();
                wrong.push(format!("{old} {new}: found {more:?}, not {less:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_writers_old_against_every_writers_new_has_the_planted_differences() {
    scan_all(DumpOrder::Detect);
}

#[test]
fn and_so_it_has_in_no_order() {
    scan_all(DumpOrder::Unordered);
}

/// DuckDB packs differences of unsigned numbers above 2³¹ as if they had 64 bits, which nothing but DuckDB reads: an error,
/// and not another number.
#[test]
fn a_column_that_only_its_writer_can_read_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let asked = dumps(["duckdb_v2", "duckdb_v2"], Compared::Columns(vec!["big".into()]), DumpOrder::Detect);
    let found = folder.path().join("found");
    let error = scan_dumps(&asked, &found, &options(1, 10), &quiet).unwrap_err();
    let is_it = matches!(&error, Error::FileCorrupt { path, row_group: Some(0), .. } if path.ends_with("data.parquet"));
    assert!(is_it && Findings::open(&found).is_err(), "{error:?}");
}

/// Rows in key order are read as such, row group by row group, whoever wrote them.
#[test]
fn rows_in_key_order_may_be_claimed_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let in_order = WRITERS.iter().filter(|writer| !["duckdb_v2", "spark_default"].contains(*writer));
    for writer in in_order {
        let schema = schema(writer);
        let like = compared([writer, writer], columns(&schema, &schema).0);
        let asked = dumps([writer, writer], Compared::Columns(like.clone()), DumpOrder::Ordered);
        let found = folder.path().join(writer);
        let summary = scan_dumps(&asked, &found, &options(2, 10), &quiet).unwrap();
        assert_eq!(summary.found() as usize, expected(&like).len(), "{writer}");
    }
    for writer in ["duckdb_v2", "spark_default"] {
        let asked = dumps([writer, writer], Compared::Keys, DumpOrder::Ordered);
        let error = scan_dumps(&asked, folder.path().join("claimed"), &options(2, 10), &quiet).unwrap_err();
        assert!(matches!(error, Error::DumpKeyOrder { .. }), "{error:?}");
    }
}

fn scan_file(path: &Path, compared: Compared) -> Result<ScanSummary, Error> {
    let folder = tempfile::tempdir().unwrap();
    let new = fixture("pyarrow_snappy", Side::New);
    let dumps = Dumps {
        old: path.to_owned(),
        new,
        compared: compared.clone(),
        ..dumps(["pyarrow_snappy", "pyarrow_snappy"], compared, DumpOrder::Detect)
    };
    let found = folder.path().join("found");
    let scanned = scan_dumps(&dumps, &found, &options(1, 10), &quiet);
    assert_eq!(Findings::open(&found).is_ok(), scanned.is_ok());
    scanned
}

#[test]
fn an_encrypted_file_and_an_encrypted_column_are_told_from_damage() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/writers/encrypted");
    let names = || Compared::Columns(vec!["name".into()]);
    let footer = folder.join("footer.parquet");
    let error = scan_file(&footer, names()).unwrap_err();
    assert!(matches!(&error, Error::FileCorrupt { path, .. } if *path == footer), "{error:?}");
    assert!(error.to_string().contains("it is encrypted"), "{error}");
    // Its footer is in the open, and so are its keys: only what is encrypted cannot be compared.
    let columns = folder.join("columns.parquet");
    let error = scan_file(&columns, names()).unwrap_err();
    let is_it = matches!(&error, Error::DumpUnreadable { path, row_group: 0, .. } if *path == columns);
    assert!(is_it && error.hint().is_some(), "{error:?}");
    assert!(error.to_string().contains("column name is encrypted"), "{error}");
}

/// LZO needs a library under the GPL: nobody here can read it. The codec's name is all that is planted.
#[test]
fn a_codec_that_is_not_known_is_named_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let original = fixture("pyarrow_int96", Side::Old).join("data.parquet");
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&File::open(&original).unwrap()).unwrap();
    let mut builder = metadata.clone().into_builder();
    let groups = metadata.row_groups().iter().map(|group| {
        let columns = group
            .columns()
            .iter()
            .map(|column| column.clone().into_builder().set_compression(Compression::LZO).build().unwrap());
        group.clone().into_builder().set_column_metadata(columns.collect()).build().unwrap()
    });
    builder = builder.set_row_groups(groups.collect());
    let path = folder.path().join("lzo.parquet");
    let mut file = fs::read(&original).unwrap();
    let length = u32::from_le_bytes(*file[file.len() - 8..].first_chunk().unwrap()) as usize;
    file.truncate(file.len() - 8 - length);
    ParquetMetaDataWriter::new(&mut file, &builder.build()).finish().unwrap();
    fs::write(&path, file).unwrap();
    let error = scan_file(&path, Compared::Keys).unwrap_err();
    let is_it = matches!(&error, Error::DumpUnreadable { path: found, .. } if *found == path);
    assert!(is_it && error.to_string().contains("LZO"), "{error:?}");
}
