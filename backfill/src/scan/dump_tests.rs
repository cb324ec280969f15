use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, ListArray, RecordBatch, StringArray, StructArray};
use arrow::datatypes::{Field, Fields, Int32Type, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use parquet::file::properties::{WriterProperties, WriterVersion};
use proptest::prelude::*;

use super::tests::{Rows, files, naive, options, plain, quiet, read, sides};
use super::*;
use crate::error::Error;
use crate::findings::{FindingKind, Findings};
use crate::snapshot::Side;
use crate::testing::{Key, Values, batch};

/// How another tool may have written a dump.
#[derive(Debug, Clone)]
pub(super) struct Writing {
    pub(super) compression: Compression,
    pub(super) version: WriterVersion,
    pub(super) dictionary: bool,
    /// Dictionaries that become larger than this are given up: pages with codes are followed by such with plain values.
    pub(super) dictionary_bytes: usize,
    pub(super) page_rows: usize,
    pub(super) row_group_rows: usize,
    pub(super) statistics: bool,
    pub(super) files: usize,
}

impl Default for Writing {
    fn default() -> Self {
        Self {
            compression: Compression::SNAPPY,
            version: WriterVersion::PARQUET_1_0,
            dictionary: true,
            dictionary_bytes: 1024 * 1024,
            page_rows: 1000,
            row_group_rows: 16,
            statistics: true,
            files: 1,
        }
    }
}

fn writing() -> impl Strategy<Value = Writing> {
    let compression = prop_oneof![
        Just(Compression::UNCOMPRESSED),
        Just(Compression::SNAPPY),
        Just(Compression::ZSTD(ZstdLevel::default())),
        Just(Compression::LZ4_RAW),
        Just(Compression::GZIP(GzipLevel::default())),
        Just(Compression::BROTLI(BrotliLevel::default())),
    ];
    let version = prop_oneof![Just(WriterVersion::PARQUET_1_0), Just(WriterVersion::PARQUET_2_0)];
    let dictionary = (any::<bool>(), prop_oneof![Just(1024 * 1024), 1..80_usize]);
    (compression, version, dictionary, 1..60_usize, 1..80_usize, any::<bool>(), 1..4_usize).prop_map(
        |(compression, version, dictionary, page_rows, row_group_rows, statistics, files)| Writing {
            compression,
            version,
            dictionary: dictionary.0,
            dictionary_bytes: dictionary.1,
            page_rows,
            row_group_rows,
            statistics,
            files,
        },
    )
}

pub(super) fn write_file(path: &Path, rows: &RecordBatch, writing: &Writing) {
    use parquet::file::properties::EnabledStatistics;
    let properties = WriterProperties::builder()
        .set_compression(writing.compression)
        .set_writer_version(writing.version)
        .set_dictionary_enabled(writing.dictionary)
        .set_dictionary_page_size_limit(writing.dictionary_bytes)
        .set_data_page_row_count_limit(writing.page_rows)
        .set_write_batch_size(writing.page_rows)
        .set_max_row_group_row_count(Some(writing.row_group_rows))
        .set_statistics_enabled(if writing.statistics {
            EnabledStatistics::Chunk
        } else {
            EnabledStatistics::None
        })
        .build();
    let mut writer =
        ArrowWriter::try_new(File::create(path).unwrap(), rows.schema(), Some(properties)).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
}

/// Writes a side as another tool would, and gives the folder. Files are named against the order of their keys.
fn dump(folder: &Path, side: Side, rows: &Rows, writing: &Writing) -> PathBuf {
    let path = side.folder(folder);
    fs::create_dir_all(&path).unwrap();
    let whole = batch(rows, side);
    let length = whole.num_rows().div_ceil(writing.files).max(1);
    for file in 0..writing.files {
        let start = (file * length).min(whole.num_rows());
        let rows = whole.slice(start, length.min(whole.num_rows() - start));
        write_file(&path.join(format!("{}.parquet", writing.files - file)), &rows, writing);
    }
    path
}

pub(super) fn dumps(
    folder: &Path,
    old: &Rows,
    new: &Rows,
    writings: [&Writing; 2],
    order: DumpOrder,
) -> Dumps {
    let key: Vec<String> = batch(old, Side::Old)
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .take_while(|name| name != "plan")
        .collect();
    Dumps {
        old: dump(folder, Side::Old, old, writings[0]),
        new: dump(folder, Side::New, new, writings[1]),
        key,
        scope_columns: 1,
        compared: Compared::AllColumns,
        order,
        origin: DumpOrigin::default(),
    }
}

pub(super) fn shuffled(rows: &Rows, seed: u64) -> Rows {
    let mut rows = rows.clone();
    fastrand::Rng::with_seed(seed).shuffle(&mut rows);
    rows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever wrote the files, in key order or in none, in one thread or three, within any memory.
    #[test]
    fn dumps_of_any_kind_give_what_a_naive_comparison_gives(
        (old, new) in sides(),
        (old_writing, new_writing) in (writing(), writing()),
        chunk_keys_max in 1..6_u64,
        seed in any::<u64>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let expected = naive(&old, &new);
        let writings = [&old_writing, &new_writing];
        let single = [&old_writing, &new_writing].map(|writing| Writing { files: 1, ..writing.clone() });
        let ordered = dumps(folder.path(), &old, &new, if old_writing.statistics && new_writing.statistics {
            writings
        } else {
            // Without bounds nothing tells in which order files come.
            [&single[0], &single[1]]
        }, DumpOrder::Ordered);
        let result = folder.path().join("ordered");
        let summary = scan_dumps(&ordered, &result, &options(1, chunk_keys_max), &quiet).unwrap();
        prop_assert_eq!(read(&Findings::open(&result).unwrap()), expected.clone());
        prop_assert_eq!(summary.found(), expected.len() as u64);
        let three = folder.path().join("three");
        scan_dumps(&ordered, &three, &options(3, chunk_keys_max), &quiet).unwrap();
        prop_assert_eq!(files(&result), files(&three));

        // In no order, with memory for nothing and for everything.
        let unordered = Dumps { order: DumpOrder::Unordered, ..ordered.clone() };
        for budget in [1, 1 << 30] {
            let third = folder.path().join(format!("unordered-{budget}"));
            let mut options = options(2, chunk_keys_max);
            options.unordered_bytes_max = budget;
            scan_dumps(&unordered, &third, &options, &quiet).unwrap();
            prop_assert_eq!(files(&result), files(&third));
        }

        let other = tempfile::tempdir().unwrap();
        let (old, new) = (shuffled(&old, seed), shuffled(&new, !seed));
        let mixed = dumps(other.path(), &old, &new, writings, DumpOrder::Detect);
        let found = other.path().join("found");
        scan_dumps(&mixed, &found, &options(2, chunk_keys_max), &quiet).unwrap();
        prop_assert_eq!(read(&Findings::open(&found).unwrap()), expected.clone());

        // Keys alone: the same without what differs in values.
        let keys = Dumps { compared: Compared::Keys, ..mixed };
        let keys_only: Vec<_> =
            expected.into_iter().filter(|(_, kind, _)| *kind != FindingKind::Mismatched).collect();
        for (name, dumps) in [("keys", keys), ("ordered keys", Dumps { compared: Compared::Keys, ..ordered })] {
            let found = other.path().join(name);
            let summary = scan_dumps(&dumps, &found, &options(2, chunk_keys_max), &quiet).unwrap();
            prop_assert_eq!(summary.columns, Some(Vec::new()));
            prop_assert_eq!(read(&Findings::open(&found).unwrap()), keys_only.clone(), "{}", name);
        }
    }
}

/// Ranges end inside the other side's row groups, which were read for the cut and then by both ranges.
#[test]
fn no_row_group_of_keys_is_read_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (plain(0..6000), plain((0..6000).filter(|id| id % 97 != 5)));
    let writing = Writing { row_group_rows: 100, ..Writing::default() };
    let dumps = dumps(folder.path(), &old, &new, [&writing; 2], DumpOrder::Ordered);
    let dumps = Dumps { compared: Compared::Keys, ..dumps };
    for threads in [1, 2, 3] {
        let pair = dumps::DumpPair::open(&dumps).unwrap();
        let read = || pair.sides().map(|table| table.files()[0].bytes_read("id"));
        let footers = read().map(|[footer, _]| footer);
        let result = folder.path().join(format!("{threads}"));
        let summary = ordered::run(&pair, result, &options(threads, 10), &quiet).unwrap();
        assert_eq!(summary.missing, 62);
        let keys = read().map(|[read, keys]| (read, keys));
        for ((read, keys), footer) in keys.into_iter().zip(footers) {
            assert_eq!(read - footer, keys, "{threads} threads");
        }
    }
}

/// An element of a list: a name and a number.
type Item<'a> = (&'a str, Option<i64>);

/// A dump of ids and of a list of structs, as a nested array is exported.
fn nested(path: &Path, rows: &[(i64, &[Item<'_>])]) {
    let ids: ArrayRef = Arc::new(rows.iter().map(|(id, _)| *id).collect::<Int64Array>());
    let items: Vec<&Item<'_>> = rows.iter().flat_map(|(_, items)| *items).collect();
    let names: ArrayRef = Arc::new(items.iter().map(|(name, _)| Some(*name)).collect::<StringArray>());
    let numbers: ArrayRef = Arc::new(items.iter().map(|(_, number)| *number).collect::<Int64Array>());
    let fields = Fields::from(vec![
        Field::new("name", names.data_type().clone(), true),
        Field::new("number", numbers.data_type().clone(), true),
    ]);
    let structs: ArrayRef = Arc::new(StructArray::new(fields, vec![names, numbers], None));
    let offsets = arrow::buffer::OffsetBuffer::from_lengths(rows.iter().map(|(_, items)| items.len()));
    let item = Arc::new(Field::new("item", structs.data_type().clone(), true));
    let list: ArrayRef = Arc::new(ListArray::new(item, offsets, structs, None));
    let tags = rows.iter().map(|(id, _)| Some(vec![Some(*id as i32), None]));
    let tags: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(tags));
    let batch = RecordBatch::try_from_iter([("id", ids), ("items", list), ("tags", tags)]).unwrap();
    write_file(path, &batch, &Writing::default());
}

fn of_files(folder: &Path, key: &[&str]) -> Dumps {
    Dumps {
        old: folder.join("old.parquet"),
        new: folder.join("new.parquet"),
        key: key.iter().map(|name| (*name).to_owned()).collect(),
        scope_columns: 1,
        compared: Compared::AllColumns,
        order: DumpOrder::Detect,
        origin: DumpOrigin::default(),
    }
}

#[test]
fn nested_columns_are_compared_by_value() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b): (&[_], &[_]) = (&[("a", Some(1)), ("b", None)], &[("a", Some(1)), ("b", Some(2))]);
    nested(&folder.path().join("old.parquet"), &[(1, a), (2, a), (3, &[]), (4, b)]);
    nested(&folder.path().join("new.parquet"), &[(1, a), (2, b), (3, &[]), (4, &a[..1])]);
    for (name, order) in [("ordered", DumpOrder::Ordered), ("unordered", DumpOrder::Unordered)] {
        let dumps = Dumps { order, ..of_files(folder.path(), &["id"]) };
        let found = folder.path().join(name);
        scan_dumps(&dumps, &found, &options(2, 10), &quiet).unwrap();
        let row = |id: &str| (id.to_owned(), FindingKind::Mismatched, vec!["items".to_owned()]);
        assert_eq!(read(&Findings::open(&found).unwrap()), [row("2"), row("4")]);
    }
}

fn ids(path: &Path, ids: &[Option<i64>], writing: &Writing) {
    let ids: ArrayRef = Arc::new(ids.iter().copied().collect::<Int64Array>());
    let schema = Schema::new(vec![Field::new("id", ids.data_type().clone(), true)]);
    write_file(path, &RecordBatch::try_new(Arc::new(schema), vec![ids]).unwrap(), writing);
}

fn numbers(numbers: impl IntoIterator<Item = i64>) -> Vec<Option<i64>> {
    numbers.into_iter().map(Some).collect()
}

#[test]
fn a_null_key_is_an_error_that_names_file_and_row_group() {
    let folder = tempfile::tempdir().unwrap();
    let mut with_null = numbers(0..40);
    with_null[20] = None;
    let path = folder.path().join("old.parquet");
    ids(&path, &with_null, &Writing::default());
    ids(&folder.path().join("new.parquet"), &numbers(0..40), &Writing::default());
    for order in [DumpOrder::Ordered, DumpOrder::Unordered] {
        for compared in [Compared::AllColumns, Compared::Keys] {
            let dumps = Dumps { order, compared, ..of_files(folder.path(), &["id"]) };
            let error = scan_dumps(&dumps, folder.path().join("found"), &options(2, 10), &quiet).unwrap_err();
            let is_it = matches!(
                &error,
                Error::DumpKeyNull { path: found, row_group: 1, row: 20, column } if *found == path && column == "id"
            );
            assert!(is_it, "{error:?}");
            assert!(error.to_string().contains("row group 1") && error.hint().is_some(), "{error}");
            assert!(Findings::open(folder.path().join("found")).is_err());
        }
    }
}

#[test]
fn a_row_out_of_order_is_an_error_where_order_is_claimed_and_none_where_it_was_guessed() {
    let folder = tempfile::tempdir().unwrap();
    let mut swapped = numbers(0..40);
    // Inside a row group, where its bounds do not show it.
    swapped.swap(20, 21);
    ids(&folder.path().join("old.parquet"), &swapped, &Writing::default());
    ids(&folder.path().join("new.parquet"), &numbers(0..39), &Writing::default());
    let claimed = Dumps { order: DumpOrder::Ordered, ..of_files(folder.path(), &["id"]) };
    let error = scan_dumps(&claimed, folder.path().join("claimed"), &options(1, 10), &quiet).unwrap_err();
    assert!(matches!(&error, Error::DumpKeyOrder { row_group: 1, row: 21, .. }), "{error:?}");
    assert!(Findings::open(folder.path().join("claimed")).is_err());

    let guessed = of_files(folder.path(), &["id"]);
    let summary = scan_dumps(&guessed, folder.path().join("guessed"), &options(1, 10), &quiet).unwrap();
    assert_eq!((summary.missing, summary.found()), (1, 1));
}

#[test]
fn files_that_are_none_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old.parquet"), folder.path().join("new.parquet"));
    ids(&old, &numbers(0..40), &Writing::default());
    ids(&new, &numbers(0..40), &Writing::default());
    let whole = fs::read(&new).unwrap();
    let scan = || {
        let found = folder.path().join("found");
        let error =
            scan_dumps(&of_files(folder.path(), &["id"]), &found, &options(1, 10), &quiet).unwrap_err();
        assert!(Findings::open(&found).is_err());
        error
    };
    let damages: [(&[u8], &str); 3] = [
        (b"", "too short"),
        (b"no Parquet at all", "truncated, or none"),
        (&whole[..whole.len() / 2], "truncated, or none"),
    ];
    for (bytes, says) in damages {
        fs::write(&new, bytes).unwrap();
        let error = scan();
        assert!(matches!(&error, Error::FileCorrupt { path, .. } if *path == new), "{error:?}");
        assert!(error.to_string().contains(says) && error.hint().is_some(), "{error}");
    }
    fs::remove_file(&new).unwrap();
    assert!(matches!(scan(), Error::DumpAbsent { path } if path == new));
    fs::create_dir(&new).unwrap();
    assert!(matches!(scan(), Error::DumpAbsent { path } if path == new));
}

#[test]
fn dumps_without_rows_or_with_other_columns() {
    let folder = tempfile::tempdir().unwrap();
    ids(&folder.path().join("old.parquet"), &numbers(0..5), &Writing::default());
    ids(&folder.path().join("new.parquet"), &[], &Writing::default());
    for (name, order) in [("ordered", DumpOrder::Ordered), ("unordered", DumpOrder::Unordered)] {
        let dumps = Dumps { order, ..of_files(folder.path(), &["id"]) };
        let summary = scan_dumps(&dumps, folder.path().join(name), &options(2, 10), &quiet).unwrap();
        assert_eq!((summary.missing, summary.rows_new), (5, 0));
    }
    let scan =
        |dumps: &Dumps| scan_dumps(dumps, folder.path().join("bad"), &options(1, 10), &quiet).unwrap_err();
    let error = scan(&of_files(folder.path(), &["uid"]));
    assert!(
        matches!(&error, Error::DumpColumns { detail, .. } if detail.contains("no column uid")),
        "{error:?}"
    );
    nested(&folder.path().join("new.parquet"), &[(1, &[])]);
    let error = scan(&of_files(folder.path(), &["id"]));
    assert!(matches!(&error, Error::DumpsDiffer { what: "the set of columns", .. }), "{error:?}");
    let text: ArrayRef = Arc::new(StringArray::from(vec!["1"]));
    let batch = RecordBatch::try_from_iter([("id", text)]).unwrap();
    write_file(&folder.path().join("new.parquet"), &batch, &Writing::default());
    let error = scan(&of_files(folder.path(), &["id"]));
    assert!(matches!(&error, Error::DumpsDiffer { what: "the type of a key column", .. }), "{error:?}");
    // Files of one dump that do not fit one another.
    let new = folder.path().join("both");
    fs::create_dir(&new).unwrap();
    write_file(&new.join("1.parquet"), &batch, &Writing::default());
    ids(&new.join("2.parquet"), &numbers(0..5), &Writing::default());
    let error = scan(&Dumps { new: new.clone(), ..of_files(folder.path(), &["id"]) });
    assert!(matches!(&error, Error::DumpColumns { path, .. } if path.starts_with(&new)), "{error:?}");
}

/// Any byte of a foreign file may be wrong, and there are no checksums in it: what can be asked is no panic, no endless
/// loop, and an error wherever the decoder cannot go on.
#[test]
fn damage_to_a_foreign_file_never_panics() {
    let folder = tempfile::tempdir().unwrap();
    let old = plain(0..60);
    let writing = Writing { row_group_rows: 32, ..Writing::default() };
    let dumps = dumps(folder.path(), &old, &old, [&writing, &writing], DumpOrder::Detect);
    let path = dumps.new.join("1.parquet");
    let whole = fs::read(&path).unwrap();
    let mut refused = 0;
    for position in (0..whole.len()).step_by(5) {
        let mut damaged = whole.clone();
        damaged[position] ^= 1 << (position % 8);
        fs::write(&path, &damaged).unwrap();
        let found = folder.path().join(format!("found-{position}"));
        let result = std::panic::catch_unwind(|| scan_dumps(&dumps, &found, &options(1, 10), &quiet));
        match result.unwrap_or_else(|_| panic!("byte {position} made it panic")) {
            Ok(_) => assert!(Findings::open(&found).is_ok()),
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains("1.parquet") || error.hint().is_some(), "{error}");
                assert!(Findings::open(&found).is_err());
            }
        }
    }
    assert!(refused > 20, "only {refused} places mattered");
}

/// Stopped after any range, by an order and not by luck: what is found in the end is the same, byte for byte.
#[test]
fn a_scan_that_was_stopped_goes_on_and_finds_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let old = plain(0..2000);
    let new: Rows = plain((0..2000).filter(|id| id % 7 != 0))
        .into_iter()
        .map(|(key, values)| match key {
            Key::Int(id) if id % 11 == 0 => (key, Values { quantity: 5, ..values }),
            key => (key, values),
        })
        .collect();
    let writing = Writing { row_group_rows: 32, ..Writing::default() };
    let dumps = dumps(folder.path(), &old, &new, [&writing, &writing], DumpOrder::Detect);
    let whole = folder.path().join("whole");
    let mut options = options(1, 40);
    let summary = scan_dumps(&dumps, &whole, &options, &quiet).unwrap();
    assert!(summary.chunks.len() > 5);

    options.checkpoint_every = Duration::ZERO;
    for stop_at in [100, 1500, 3000] {
        let found = folder.path().join(format!("stopped-{stop_at}"));
        let stop = |progress: Progress| {
            if progress.rows_done > stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        assert!(matches!(scan_dumps(&dumps, &found, &options, &stop), Err(Error::Cancelled { .. })));
        assert!(Findings::open(&found).is_err());
        let first = std::sync::Mutex::new(None);
        let watch = |progress: Progress| {
            first.lock().unwrap().get_or_insert(progress.rows_done);
            ControlFlow::Continue(())
        };
        // With other threads than before.
        options.threads = NonZeroUsize::new(2).unwrap();
        scan_dumps(&dumps, &found, &options, &watch).unwrap();
        options.threads = NonZeroUsize::MIN;
        let first = first.into_inner().unwrap().unwrap();
        assert!(
            stop_at < 1000 || first > stop_at / 2,
            "it began again at {first}, and was stopped at {stop_at}"
        );
        assert_eq!(files(&whole), files(&found), "stopped at {stop_at}");
    }
}

/// What was left by a scan of other things is not gone on from.
#[test]
fn a_scan_of_other_dumps_begins_at_the_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let writing = Writing::default();
    let first = dumps(folder.path(), &plain(0..500), &plain(0..400), [&writing, &writing], DumpOrder::Detect);
    let found = folder.path().join("found");
    let mut options = options(1, 10);
    options.checkpoint_every = Duration::ZERO;
    let stop = |progress: Progress| {
        if progress.rows_done > 600 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    scan_dumps(&first, &found, &options, &stop).unwrap_err();
    let second =
        dumps(folder.path(), &plain(1..500), &plain(0..400), [&writing, &writing], DumpOrder::Detect);
    let summary = scan_dumps(&second, &found, &options, &quiet).unwrap();
    assert_eq!((summary.missing, summary.orphaned), (100, 1));
    assert_eq!(read(&Findings::open(&found).unwrap()).len(), 101);
}
