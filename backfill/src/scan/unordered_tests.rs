use std::fs;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::dump_tests::{Writing, dumps, shuffled};
use super::tests::{Rows, files, naive, options, plain, quiet, read};
use super::*;
use crate::error::Error;
use crate::findings::{FindingKind, Findings};
use crate::testing::{Key, Values};

/// Budgets from nothing to plenty: partitions on the disk, partitions in memory, and sums at their keys' places.
const BUDGETS: [u64; 5] = [1, 4 * 1024, 64 * 1024, 1024 * 1024, 1 << 30];

/// Scans in no order within a budget, and gives the folder of what was found.
fn found(dumps: &Dumps, folder: &Path, threads: usize, budget: u64) -> PathBuf {
    let path = folder.join(format!("found-{threads}-{budget}"));
    let mut options = options(threads, 7);
    options.unordered_bytes_max = budget;
    let unordered = Dumps { order: DumpOrder::Unordered, ..dumps.clone() };
    scan_dumps(&unordered, &path, &options, &quiet).unwrap();
    path
}

/// Whatever the order on each side, the budget and the threads: what a naive comparison finds, and the same bytes.
fn check(old: &Rows, new: &Rows) {
    let expected = naive(old, new);
    assert!(!expected.is_empty());
    let writing = Writing { row_group_rows: 50, ..Writing::default() };
    for (old, new) in [
        (old.clone(), new.clone()),
        (old.clone(), shuffled(new, 1)),
        (shuffled(old, 2), new.clone()),
        (shuffled(old, 3), shuffled(new, 4)),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let dumps = dumps(folder.path(), &old, &new, [&writing, &writing], DumpOrder::Detect);
        let first = found(&dumps, folder.path(), 1, BUDGETS[0]);
        assert_eq!(read(&Findings::open(&first).unwrap()), expected);
        for budget in BUDGETS {
            for threads in [1, 4] {
                if (threads, budget) != (1, BUDGETS[0]) {
                    let other = found(&dumps, folder.path(), threads, budget);
                    assert_eq!(files(&first), files(&other), "{threads} threads, {budget} bytes");
                }
            }
        }
        let detected = folder.path().join("detected");
        scan_dumps(&dumps, &detected, &options(2, 7), &quiet).unwrap();
        assert_eq!(files(&first), files(&detected));
    }
}

/// Of old's rows new lacks some, has others with another value, or with two, and has some twice.
fn altered(old: &Rows) -> Rows {
    let mut new = Rows::new();
    for (number, (key, values)) in old.iter().enumerate() {
        let changed = match number % 23 {
            3 => continue,
            5 => Values { quantity: values.quantity + 1, ..values.clone() },
            7 => Values { plan: None, ..values.clone() },
            9 => Values { plan: None, amount: Some(2.5), ..values.clone() },
            // Both zeros are one number, and so a match.
            11 => Values { amount: values.amount.map(|_| -0.0), ..values.clone() },
            _ => values.clone(),
        };
        new.push((key.clone(), changed));
        if number % 23 == 13 {
            new.push((key.clone(), values.clone()));
            new.push((key.clone(), Values { quantity: 99, ..values.clone() }));
        }
    }
    new
}

fn rows(ids: impl IntoIterator<Item = i64>) -> Rows {
    let mut rows = plain(ids);
    for (number, (_, values)) in rows.iter_mut().enumerate() {
        values.quantity = number as i32;
        values.amount = Some(if number % 23 == 11 { 0.0 } else { number as f64 });
    }
    rows
}

#[test]
fn close_keys_at_the_ends_of_their_type_and_around_zero() {
    for first in [i64::MIN, -400, i64::MAX - 3 * 300] {
        let old = rows((0..300).map(|number| first + number * 3));
        let mut new = altered(&old);
        new.push((Key::Int(first + 1), new[0].1.clone()));
        new.push((Key::Int(first + 2), new[0].1.clone()));
        new.push((Key::Int(first + 2), new[0].1.clone()));
        new.sort_by(|left, right| left.0.cmp(&right.0));
        check(&old, &new);
    }
}

/// Bits that a thread sets in a word in which another sets some at the same moment: whether threads share them, where there is
/// room for one copy alone, or have some of their own.
#[test]
fn close_keys_alone_in_bits_that_threads_share_or_have_of_their_own() {
    const KEYS: i64 = 40_000;
    const BITS_OF_BOTH_SIDES: u64 = KEYS as u64 / 64 * 4 * 8;
    let (old, new) = (plain(0..KEYS), plain((0..KEYS).filter(|id| id % 97 != 5)));
    let writing = Writing { row_group_rows: 500, ..Writing::default() };
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (shuffled(&old, 1), shuffled(&new, 2));
    let dumps = dumps(folder.path(), &old, &new, [&writing; 2], DumpOrder::Unordered);
    let dumps = Dumps { compared: Compared::Keys, ..dumps };
    let first = found(&dumps, folder.path(), 1, BITS_OF_BOTH_SIDES);
    let missing = Findings::open(&first).unwrap().summary().missing;
    assert_eq!(missing, KEYS.unsigned_abs().div_ceil(97));
    for budget in [BITS_OF_BOTH_SIDES, 3 * BITS_OF_BOTH_SIDES, 4 * BITS_OF_BOTH_SIDES] {
        let other = found(&dumps, folder.path(), 4, budget);
        assert_eq!(files(&first), files(&other), "{budget} bytes");
    }
}

#[test]
fn keys_at_both_ends_of_their_type_and_keys_far_apart() {
    let ends = [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX];
    let mut old = rows(ends.into_iter().chain((1..200).map(|number| number * 1_000_000_007)));
    old.sort_by(|left, right| left.0.cmp(&right.0));
    check(&old, &altered(&old));
}

/// Numbers that are all there is to a row, in partitions in memory and on the disk.
#[test]
fn keys_alone_that_are_far_apart() {
    let ids = |absent: i64, twice: i64| {
        let far = (0..5000).map(|number| (number - 2500) * 1_000_000_007).enumerate();
        let far = far.filter(move |(number, _)| *number as i64 % absent != 3);
        let far = far.flat_map(move |(number, id)| vec![id; 1 + usize::from(number as i64 % twice == 7)]);
        [i64::MIN].into_iter().chain(far).chain([i64::MAX - absent, i64::MAX])
    };
    let (old, new) = (plain(ids(89, 97)), plain(ids(101, 83)));
    let expected = naive(&old, &new);
    let writing = Writing { row_group_rows: 700, ..Writing::default() };
    for (old, new) in [(old.clone(), shuffled(&new, 1)), (shuffled(&old, 2), shuffled(&new, 3))] {
        let folder = tempfile::tempdir().unwrap();
        let dumps = dumps(folder.path(), &old, &new, [&writing; 2], DumpOrder::Unordered);
        let dumps = Dumps { compared: Compared::Keys, ..dumps };
        for (budget, threads) in BUDGETS.into_iter().flat_map(|budget| [(budget, 1), (budget, 4)]) {
            let found = found(&dumps, folder.path(), threads, budget);
            let found = read(&Findings::open(&found).unwrap());
            assert_eq!(found, expected, "{threads} threads, {budget} bytes");
        }
    }
}

#[test]
fn row_groups_with_more_rows_than_are_put_together() {
    const ROWS: usize = 140_000;
    let old = rows(0..ROWS as i64);
    let mut new = old.clone();
    for number in [0, ROWS / 2, ROWS - 1] {
        new[number].1.quantity += 1;
    }
    new.remove(5);
    let expected = naive(&old, &new);
    let writing = Writing { row_group_rows: 2 * ROWS, ..Writing::default() };
    let folder = tempfile::tempdir().unwrap();
    let dumps = dumps(folder.path(), &old, &shuffled(&new, 1), [&writing; 2], DumpOrder::Unordered);
    let found = found(&dumps, folder.path(), 2, 1 << 30);
    assert_eq!(read(&Findings::open(&found).unwrap()), expected);
}

/// Threads meet the two rows of such a key in any order, and at once.
#[test]
fn keys_that_either_side_has_twice() {
    let twice = |rows: &Rows, every: usize| -> Rows {
        let copies = rows
            .iter()
            .step_by(every)
            .map(|(key, values)| (key.clone(), Values { quantity: values.quantity % 2, ..values.clone() }));
        let mut all: Rows = rows.iter().cloned().chain(copies).collect();
        all.sort_by(|left, right| left.0.cmp(&right.0));
        all
    };
    let whole = rows((0..2000).map(|number| number * 2));
    check(&twice(&whole, 3), &whole);
    check(&whole, &twice(&whole, 3));
    check(&twice(&whole, 2), &twice(&altered(&whole), 5));
}

/// Before anything was kept: nothing that was left behind gets into what is found.
#[test]
fn an_unordered_scan_that_was_stopped_at_once_begins_again() {
    let folder = tempfile::tempdir().unwrap();
    let old = rows(0..1000);
    let writing = Writing { row_group_rows: 50, ..Writing::default() };
    let dumps =
        dumps(folder.path(), &old, &shuffled(&altered(&old), 5), [&writing, &writing], DumpOrder::Detect);
    let whole = found(&dumps, folder.path(), 1, 1 << 30);
    for budget in [1, 1 << 30] {
        let path = folder.path().join(format!("stopped-{budget}"));
        let mut options = options(2, 7);
        options.unordered_bytes_max = budget;
        for stop_at in [200, 1500] {
            let stop = |progress: Progress| {
                if progress.rows_done > stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            assert!(matches!(scan_dumps(&dumps, &path, &options, &stop), Err(Error::Cancelled { .. })));
            assert!(Findings::open(&path).is_err());
        }
        let summary = scan_dumps(&dumps, &path, &options, &quiet).unwrap();
        assert!(summary.count(FindingKind::Mismatched) > 0);
        assert_eq!(files(&whole), files(&path));
    }
}

/// Dumps in no order whose keys have no places of their own, and so go into partitions.
fn partitioned(folder: &Path) -> Dumps {
    let old: Rows = plain((0..3000).map(|id| id * 1_000_003));
    let new = altered(&old);
    let writing = Writing { row_group_rows: 50, ..Writing::default() };
    let sides = (shuffled(&old, 5), shuffled(&new, 6));
    dumps(folder, &sides.0, &sides.1, [&writing, &writing], DumpOrder::Unordered)
}

/// Scans until so many rows are compared.
fn stopped(dumps: &Dumps, found: &Path, options: &ScanOptions, rows: u64) {
    let stop = |progress: Progress| {
        if progress.rows_done > rows { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    assert!(matches!(scan_dumps(dumps, found, options, &stop), Err(Error::Cancelled { .. })));
    assert!(Findings::open(found).is_err());
}

/// Scans to the end, and says with how many rows it began.
fn finished(dumps: &Dumps, found: &Path, options: &ScanOptions) -> u64 {
    let first = AtomicU64::new(u64::MAX);
    let watch = |progress: Progress| {
        let _ = first.compare_exchange(u64::MAX, progress.rows_done, Ordering::Relaxed, Ordering::Relaxed);
        ControlFlow::Continue(())
    };
    scan_dumps(dumps, found, options, &watch).unwrap();
    first.into_inner()
}

#[test]
fn a_scan_in_no_order_that_was_stopped_goes_on_and_finds_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let dumps = partitioned(folder.path());
    let whole = found(&dumps, folder.path(), 1, 1 << 30);
    // With everything in memory until it is kept, and with everything on the disk at once.
    for budget in [1 << 30, 1] {
        let mut options = options(1, 7);
        options.unordered_bytes_max = budget;
        options.checkpoint_every = Duration::ZERO;
        // On the old side, on the new one, and where partitions are compared, more than once.
        for stops in [&[200][..], &[3500], &[400, 1200, 4000], &[5_990]] {
            let path = folder.path().join(format!("stopped-{budget}-{}-{}", stops.len(), stops[0]));
            for rows in stops {
                stopped(&dumps, &path, &options, *rows);
            }
            // With other threads than before.
            options.threads = NonZeroUsize::new(3).unwrap();
            let began = finished(&dumps, &path, &options);
            options.threads = NonZeroUsize::MIN;
            let last = stops[stops.len() - 1];
            assert!(began + 100 > last, "it began again at {began}, and was stopped at {last}");
            assert_eq!(files(&whole), files(&path), "stopped at {stops:?} with {budget} bytes");
            let left: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".tmp")), "{left:?}");
        }
    }
}

/// A killed process may have written more than it has kept; a disk may have lost or changed what was kept.
#[test]
fn partitions_that_are_not_what_was_kept_are_cut_begun_again_or_refused_and_never_believed() {
    let folder = tempfile::tempdir().unwrap();
    let dumps = partitioned(folder.path());
    let whole = found(&dumps, folder.path(), 1, 1 << 30);
    let mut options = options(1, 7);
    options.checkpoint_every = Duration::ZERO;
    let partition = |path: &Path| path.join("partitions.tmp").join("0-0003");
    let change = |path: &Path, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = fs::read(partition(path)).unwrap();
        change(&mut bytes);
        fs::write(partition(path), bytes).unwrap();
    };

    let longer = folder.path().join("longer");
    stopped(&dumps, &longer, &options, 4000);
    change(&longer, &|bytes| bytes.extend([7; 50]));
    assert!(finished(&dumps, &longer, &options) > 3000);
    assert_eq!(files(&whole), files(&longer));

    let shorter = folder.path().join("shorter");
    stopped(&dumps, &shorter, &options, 4000);
    change(&shorter, &|bytes| bytes.truncate(bytes.len() - 1));
    assert!(finished(&dumps, &shorter, &options) < 100);
    assert_eq!(files(&whole), files(&shorter));

    let changed = folder.path().join("changed");
    stopped(&dumps, &changed, &options, 4000);
    change(&changed, &|bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    let error = scan_dumps(&dumps, &changed, &options, &quiet).unwrap_err();
    assert!(matches!(error, Error::FileCorrupt { .. }), "{error}");
    assert!(error.to_string().contains("0-0003"), "{error}");
    assert!(finished(&dumps, &changed, &options) < 100);
    assert_eq!(files(&whole), files(&changed));

    // Nobody goes on with other dumps' rows.
    let other = folder.path().join("other");
    stopped(&dumps, &other, &options, 4000);
    let fewer = Dumps { compared: Compared::Keys, ..dumps.clone() };
    assert!(finished(&fewer, &other, &options) < 100);
}
