use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Mutex;

use arrow::array::cast::AsArray;
use arrow::util::display::array_value_to_string;
use proptest::prelude::*;

use super::*;
use crate::error::Error;
use crate::findings::{FindingKind, Findings, Need};
use crate::snapshot::{Layout, MANIFEST_FILE, Side, SnapshotManifest};
use crate::testing::{KEY_SHAPES, Key, Values, key_columns, write_side};

pub(super) type Rows = Vec<(Key, Values)>;

/// A finding as text: key, kind, differing columns.
pub(super) type Finding = (String, FindingKind, Vec<String>);

pub(super) fn quiet(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

pub(super) fn options(threads: usize, chunk_keys_max: u64) -> ScanOptions {
    ScanOptions {
        threads: NonZeroUsize::new(threads).unwrap(),
        chunk_keys_max: NonZeroU64::new(chunk_keys_max).unwrap(),
        ..ScanOptions::default()
    }
}

fn key_text(keys: &[Key]) -> Vec<String> {
    let columns = key_columns(keys, Side::Old);
    (0..keys.len())
        .map(|row| {
            columns
                .iter()
                .map(|(_, column)| array_value_to_string(column, row).unwrap())
                .collect::<Vec<_>>()
                .join("|")
        })
        .collect()
}

/// What a scan should find, found the simplest way there is.
pub(super) fn naive(old: &Rows, new: &Rows) -> Vec<Finding> {
    let mut keys: BTreeMap<&Key, (Vec<&Values>, Vec<&Values>)> = BTreeMap::new();
    for (key, values) in old {
        keys.entry(key).or_default().0.push(values);
    }
    for (key, values) in new {
        keys.entry(key).or_default().1.push(values);
    }
    let differing = |old: &Values, new: &Values| {
        let mut columns = Vec::new();
        let amount =
            |amount: Option<f64>| amount.map(|amount| if amount.is_nan() { None } else { Some(amount) });
        if old.plan != new.plan {
            columns.push("plan".to_owned());
        }
        if old.quantity != new.quantity {
            columns.push("quantity".to_owned());
        }
        if amount(old.amount) != amount(new.amount) {
            columns.push("amount".to_owned());
        }
        columns
    };
    keys.into_iter()
        .filter_map(|(key, (old, new))| {
            let text = key_text(std::slice::from_ref(key)).remove(0);
            match (old.as_slice(), new.as_slice()) {
                ([old], [new]) => match differing(old, new) {
                    columns if columns.is_empty() => None,
                    columns => Some((text, FindingKind::Mismatched, columns)),
                },
                ([_], []) => Some((text, FindingKind::Missing, vec![])),
                ([], [_]) => Some((text, FindingKind::Orphaned, vec![])),
                _ => Some((text, FindingKind::Duplicated, vec![])),
            }
        })
        .collect()
}

pub(super) fn read(findings: &Findings) -> Vec<Finding> {
    let mut all = Vec::new();
    for chunk in 0..findings.chunks() {
        for batch in findings.findings(chunk).unwrap() {
            let batch = batch.unwrap();
            let keys = batch.num_columns() - 2;
            for row in 0..batch.num_rows() {
                let key: Vec<String> = (1..=keys)
                    .map(|column| array_value_to_string(batch.column(column), row).unwrap())
                    .collect();
                let kind = FindingKind::from_name(batch.column(0).as_string::<i32>().value(row)).unwrap();
                let columns = batch.column(keys + 1).as_list::<i32>().value(row);
                let columns = columns.as_string::<i32>().iter().flatten().map(str::to_owned).collect();
                all.push((key.join("|"), kind, columns));
            }
        }
    }
    all
}

pub(super) fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect()
}

fn write_pair(folder: &Path, old: &Rows, new: &Rows, row_group_rows_max: usize) {
    let layout = Layout { row_group_rows_max, file_rows_max: 3 * row_group_rows_max as u64 };
    write_side(folder, Side::Old, old, layout);
    write_side(folder, Side::New, new, layout);
}

/// What each scope key should need, found the simplest way there is.
fn naive_needs(expected: &[Finding]) -> Vec<(String, Need)> {
    let mut needs: Vec<(String, Need)> = Vec::new();
    for (key, kind, _) in expected {
        let scope = key.split('|').next().unwrap().to_owned();
        let need = if *kind == FindingKind::Missing { Need::Copy } else { Need::Repair };
        match needs.last_mut() {
            Some((last, merged)) if *last == scope => {
                if need == Need::Repair {
                    *merged = Need::Repair;
                }
            }
            _ => needs.push((scope, need)),
        }
    }
    needs
}

fn check(old: &Rows, new: &Rows, row_group_rows_max: usize, chunk_keys_max: u64) {
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path(), old, new, row_group_rows_max);
    let pair = SnapshotPair::open(folder.path()).unwrap();
    let expected = naive(old, new);

    let one = folder.path().join("one");
    let summary = scan(&pair, &one, &options(1, chunk_keys_max), &quiet).unwrap();
    let findings = Findings::open(&one).unwrap();
    assert_eq!(read(&findings), expected);
    assert_eq!(findings.summary(), &summary);
    assert_eq!((summary.rows_old, summary.rows_new), (old.len() as u64, new.len() as u64));
    for kind in
        [FindingKind::Missing, FindingKind::Mismatched, FindingKind::Orphaned, FindingKind::Duplicated]
    {
        let count = expected.iter().filter(|(_, found, _)| *found == kind).count() as u64;
        assert_eq!(summary.count(kind), count, "{kind}");
    }

    let mut needs = Vec::new();
    for index in 0..findings.chunks() {
        let chunk = findings.chunk(index).unwrap();
        assert!(chunk.needs().len() as u64 <= chunk_keys_max);
        assert_eq!(chunk.needs().len() as u64, summary.chunks[index].scope_keys);
        assert_eq!(chunk.needs().len(), chunk.keys().num_rows());
        for (row, need) in chunk.needs().iter().enumerate() {
            needs.push((array_value_to_string(chunk.keys().column(0), row).unwrap(), *need));
        }
    }
    assert_eq!(needs, naive_needs(&expected));

    let three = folder.path().join("three");
    scan(&pair, &three, &options(3, chunk_keys_max), &quiet).unwrap();
    assert_eq!(files(&one), files(&three));
}

pub(super) fn values() -> impl Strategy<Value = Values> {
    let amount =
        prop_oneof![Just(None), Just(Some(f64::NAN)), Just(Some(-0.0)), Just(Some(0.0)), Just(Some(1.5))];
    let plan = prop_oneof![Just(None), Just(Some(String::new())), Just(Some("basic".to_owned()))];
    (plan, 0..3_i32, amount).prop_map(|(plan, quantity, amount)| Values { plan, quantity, amount })
}

/// What becomes of a row of old in new.
#[derive(Debug, Clone)]
enum Fate {
    Same,
    Lost,
    Twice,
    Now(Values),
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        20 => Just(Fate::Same),
        2 => Just(Fate::Lost),
        1 => Just(Fate::Twice),
        2 => values().prop_map(Fate::Now),
    ]
}

pub(super) fn sides() -> impl Strategy<Value = (Rows, Rows)> {
    let row = (0..300_u16, values(), fate());
    let orphan = (0..400_u16, values());
    (0..KEY_SHAPES, prop::collection::vec(row, 0..200), prop::collection::vec(orphan, 0..20)).prop_map(
        |(shape, rows, orphans)| {
            let mut old = Rows::new();
            let mut new = Rows::new();
            for (n, values, fate) in rows {
                let key = Key::new(shape, n);
                old.push((key.clone(), values.clone()));
                match fate {
                    Fate::Same => new.push((key, values)),
                    Fate::Lost => {}
                    Fate::Twice => new.extend([(key.clone(), values.clone()), (key, values)]),
                    Fate::Now(changed) => new.push((key, changed)),
                }
            }
            // An empty side has keys of no shape.
            old.push((Key::new(shape, 301), Values { plan: None, quantity: 0, amount: None }));
            new.push((Key::new(shape, 302), Values { plan: None, quantity: 0, amount: None }));
            new.extend(orphans.into_iter().map(|(n, values)| (Key::new(shape, n), values)));
            old.sort_by(|left, right| left.0.cmp(&right.0));
            new.sort_by(|left, right| left.0.cmp(&right.0));
            (old, new)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn it_finds_what_a_naive_comparison_finds(
        (old, new) in sides(),
        row_group_rows_max in 1..40_usize,
        chunk_keys_max in 1..6_u64,
    ) {
        check(&old, &new, row_group_rows_max, chunk_keys_max);
    }
}

pub(super) fn plain(ids: impl IntoIterator<Item = i64>) -> Rows {
    let values = Values { plan: Some("basic".into()), quantity: 1, amount: Some(1.0) };
    ids.into_iter().map(|id| (Key::Int(id), values.clone())).collect()
}

#[test]
fn empty_sides_and_equal_sides() {
    check(&plain([]), &plain([]), 10, 10);
    check(&plain(0..50), &plain([]), 10, 10);
    check(&plain([]), &plain(0..50), 10, 10);
    check(&plain(0..500), &plain(0..500), 64, 10);
}

#[test]
fn sides_that_do_not_overlap() {
    check(&plain(0..100), &plain(100..300), 16, 7);
    check(&plain(200..300), &plain(0..100), 16, 7);
}

#[test]
fn a_key_repeated_over_many_row_groups_is_one_finding() {
    let old = plain([1, 2].into_iter().chain(std::iter::repeat_n(3, 25)).chain([4, 5]));
    check(&old, &old, 4, 10);
    check(&old, &plain(1..6), 4, 10);
}

#[test]
fn progress_reaches_all_rows_and_never_goes_beyond() {
    let folder = tempfile::tempdir().unwrap();
    let old = plain([1, 1, 1, 2].into_iter().chain(5..100));
    write_pair(folder.path(), &old, &plain(0..80), 8);
    let pair = SnapshotPair::open(folder.path()).unwrap();
    let seen = Mutex::new(0);
    let watch = |progress: Progress| {
        assert_eq!(progress.rows_total, 179);
        let mut most = seen.lock().unwrap();
        *most = progress.rows_done.max(*most);
        ControlFlow::Continue(())
    };
    scan(&pair, folder.path().join("findings"), &options(2, 10), &watch).unwrap();
    assert_eq!(seen.into_inner().unwrap(), 179);
}

#[test]
fn a_cancelled_scan_leaves_no_result_and_does_not_stand_in_the_way_of_the_next() {
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path(), &plain(0..500), &plain(0..10), 8);
    let pair = SnapshotPair::open(folder.path()).unwrap();
    let findings = folder.path().join("findings");
    let error = scan(&pair, &findings, &options(2, 3), &|_| ControlFlow::Break(())).unwrap_err();
    assert!(matches!(error, Error::Cancelled { .. }), "{error:?}");
    assert!(matches!(Findings::open(&findings), Err(Error::FindingsAbsent { .. })));

    let summary = scan(&pair, &findings, &options(2, 3), &quiet).unwrap();
    assert_eq!(summary.missing, 490);
    let again = scan(&pair, &findings, &options(2, 3), &quiet).unwrap_err();
    assert!(matches!(again, Error::FindingsPresent { .. }), "{again:?}");
}

#[test]
fn little_memory_means_fewer_threads_not_failure() {
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path(), &plain(0..500), &plain(0..480), 8);
    let pair = SnapshotPair::open(folder.path()).unwrap();
    let options = ScanOptions { memory_bytes_max: 0, ..options(4, 10) };
    assert_eq!(scan(&pair, folder.path().join("findings"), &options, &quiet).unwrap().missing, 20);
}

/// Files that change places are rows out of key order, wherever ranges are cut and whoever reads them.
#[test]
fn files_of_a_snapshot_out_of_key_order_are_an_error_that_names_one() {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout { row_group_rows_max: 8, file_rows_max: 16 };
    for side in [Side::Old, Side::New] {
        write_side(folder.path(), side, &plain(0..120), layout);
    }
    for spoiled in [Side::Old, Side::New] {
        let path = spoiled.folder(folder.path()).join(MANIFEST_FILE);
        let text = fs::read(&path).unwrap();
        let manifest: SnapshotManifest = serde_json::from_slice(&text).unwrap();
        let count = manifest.files.len();
        for (first, second) in
            (0..count).flat_map(|first| (first + 1..count).map(move |second| (first, second)))
        {
            let mut swapped = manifest.clone();
            swapped.files.swap(first, second);
            fs::write(&path, serde_json::to_vec(&swapped).unwrap()).unwrap();
            for threads in [1, 3] {
                let findings = folder.path().join(format!("{spoiled}-{first}-{second}-{threads}"));
                let scanned = SnapshotPair::open(folder.path())
                    .and_then(|pair| scan(&pair, &findings, &options(threads, 10), &quiet));
                let Err(error) = scanned else {
                    panic!("files {first} and {second} of {spoiled} were not missed")
                };
                assert!(
                    matches!(error, Error::KeyOrder { .. } | Error::SnapshotInconsistent { .. }),
                    "{error:?}"
                );
                assert!(error.to_string().contains(&spoiled.to_string()), "{error}");
                assert!(Findings::open(&findings).is_err());
            }
        }
        fs::write(&path, text).unwrap();
    }
}

/// Flips one bit of a snapshot, at many places in turn. A scan must give the right findings or an error, and never
/// findings that only look right.
#[test]
fn no_damage_to_a_file_changes_the_findings_unseen() {
    let folder = tempfile::tempdir().unwrap();
    let old = plain(0..60);
    let mut new = plain(5..62);
    new[20].1.plan = Some("pro".into());
    new[40].1.quantity = 9;
    write_pair(folder.path(), &old, &new, 32);
    let expected = naive(&old, &new);
    let path = Side::New.folder(folder.path()).join("part-00000.parquet");
    let whole = fs::read(&path).unwrap();
    let (mut tried, mut refused) = (0, 0);
    // A step that is no divisor of anything in the format, so that all its parts are hit.
    for position in (0..whole.len()).step_by(37) {
        tried += 1;
        let mut damaged = whole.clone();
        damaged[position] ^= 1 << (position % 8);
        fs::write(&path, &damaged).unwrap();
        let findings = folder.path().join(format!("findings-{position}"));
        let result = std::panic::catch_unwind(|| {
            let pair = SnapshotPair::open(folder.path())?;
            scan(&pair, &findings, &options(1, 10), &quiet)
        });
        match result.unwrap_or_else(|_| panic!("byte {position} made it panic")) {
            Ok(_) => assert_eq!(read(&Findings::open(&findings).unwrap()), expected, "byte {position}"),
            Err(_) => {
                refused += 1;
                assert!(Findings::open(&findings).is_err(), "byte {position}");
            }
        }
    }
    assert!(refused > tried / 4, "only {refused} of {tried} places mattered");
}

#[test]
fn damage_to_findings_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path(), &plain(0..50), &plain(10..50), 32);
    let pair = SnapshotPair::open(folder.path()).unwrap();
    let path = folder.path().join("findings");
    scan(&pair, &path, &options(1, 10), &quiet).unwrap();
    let findings = Findings::open(&path).unwrap();
    assert!(matches!(findings.chunk(1).unwrap_err(), Error::ChunkAbsent { asked: 1, chunks: 1, .. }));

    let chunk = path.join("findings-00000.parquet");
    let whole = fs::read(&chunk).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    fs::write(&chunk, &damaged).unwrap();
    assert!(matches!(findings.chunk(0).unwrap_err(), Error::FileCorrupt { .. }));
    fs::write(&chunk, &whole[1..]).unwrap();
    assert!(matches!(Findings::open(&path).unwrap_err(), Error::FileLength { .. }));
    fs::remove_file(&chunk).unwrap();
    assert!(matches!(Findings::open(&path).unwrap_err(), Error::FileAbsent { .. }));
}

#[test]
fn keys_named_like_our_own_columns_do_not_collide() {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};
    use std::sync::Arc;
    let folder = tempfile::tempdir().unwrap();
    for (side, ids) in [(Side::Old, vec![1, 2, 3]), (Side::New, vec![1, 3])] {
        let schema = Arc::new(Schema::new(vec![Field::new("kind", DataType::Int64, false)]));
        let column: ArrayRef = Arc::new(Int64Array::from(ids));
        let batch = RecordBatch::try_new(schema, vec![column]).unwrap();
        let header = crate::testing::header(&batch, side);
        let mut writer = crate::snapshot::SnapshotWriter::create(side.folder(folder.path()), header).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
    }
    let pair = SnapshotPair::open(folder.path()).unwrap();
    let path = folder.path().join("findings");
    scan(&pair, &path, &options(1, 10), &quiet).unwrap();
    let chunk = Findings::open(&path).unwrap().chunk(0).unwrap();
    assert_eq!(chunk.keys().schema().field(0).name(), "kind");
    assert_eq!(chunk.needs(), [Need::Copy]);
}
