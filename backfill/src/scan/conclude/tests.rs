use std::ops::ControlFlow;
use std::path::Path;

use arrow::array::{Int64Array, UInt64Array};

use super::*;
use crate::scan::scan;
use crate::snapshot::{Layout, Side};
use crate::testing::{Key, Values, write_side};

/// Old has the keys 0 to 9, new lacks 3, has another 5, has 8 twice, and 20 besides.
fn pair(folder: &Path) -> SnapshotPair {
    let row = |key: i64, quantity| (Key::Int(key), Values { plan: None, quantity, amount: Some(0.5) });
    let old: Vec<_> = (0..10).map(|key| row(key, 1)).collect();
    let mut new = old.clone();
    new[5].1.quantity = 2;
    new.insert(8, row(8, 1));
    new.remove(3);
    new.push(row(20, 1));
    let layout = Layout { row_group_rows_max: 3, file_rows_max: 6 };
    write_side(folder, Side::Old, &old, layout);
    write_side(folder, Side::New, &new, layout);
    SnapshotPair::open(folder).unwrap()
}

/// The right answer about that pair, out of order.
const ANSWER: [(i64, u64, u64); 4] = [(20, 0, 1), (5, 1, 1), (8, 1, 2), (3, 1, 0)];

fn batch(comparison: &Comparison, answer: &[(i64, u64, u64)]) -> Result<RecordBatch> {
    let item = Field::new("item", DataType::Utf8, false);
    let mut columns = ListBuilder::new(StringBuilder::new()).with_field(item);
    answer.iter().for_each(|(_, old, new)| columns.append((*old, *new) != (1, 1)));
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(answer.iter().map(|answer| answer.0).collect::<Int64Array>()),
        Arc::new(answer.iter().map(|answer| answer.1).collect::<UInt64Array>()),
        Arc::new(answer.iter().map(|answer| answer.2).collect::<UInt64Array>()),
        Arc::new(columns.finish()),
    ];
    Ok(RecordBatch::try_new(comparison.answer_schema(), arrays).unwrap())
}

fn concluded(batches: &[&[(i64, u64, u64)]]) -> (tempfile::TempDir, Result<ScanSummary>) {
    let folder = tempfile::tempdir().unwrap();
    let pair = pair(folder.path());
    let comparison = Comparison::from(&pair);
    let answer: Vec<_> = batches.iter().map(|answer| batch(&comparison, answer)).collect();
    let findings = folder.path().join("concluded");
    let summary = conclude(&comparison, Some(&pair), answer, &findings, &ScanOptions::default());
    assert_eq!(findings.join("scan.json").exists(), summary.is_ok(), "only a right answer becomes findings");
    (folder, summary)
}

fn refused(batches: &[&[(i64, u64, u64)]]) -> String {
    let (_folder, concluded) = concluded(batches);
    match concluded {
        Err(Error::Answer { detail }) => detail,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_right_answer_gives_the_bytes_of_a_scan_here() {
    // Once in two batches, and once with what was lost on the way said again.
    for batches in [&[&ANSWER[..2], &ANSWER[2..]][..], &[&ANSWER, &[], &ANSWER[1..3]]] {
        let (folder, summary) = concluded(batches);
        let summary = summary.unwrap();
        assert_eq!((summary.missing, summary.mismatched, summary.orphaned, summary.duplicated), (1, 1, 1, 1));
        let pair = SnapshotPair::open(folder.path()).unwrap();
        let here = folder.path().join("scanned");
        scan(&pair, &here, &ScanOptions::default(), &|_| ControlFlow::Continue(())).unwrap();
        for name in ["scan.json", "findings-00000.parquet"] {
            let read = |folder: &str| std::fs::read(pair.folder().join(folder).join(name)).unwrap();
            assert!(read("concluded") == read("scanned"), "{name}");
        }
    }
}

#[test]
fn an_answer_that_cannot_be_true_is_refused() {
    let lost = refused(&[&ANSWER[..3]]);
    assert!(lost.contains("leaves 8 of 10 old rows and 7 of 11 new ones"), "a finding is lost: {lost}");
    assert!(refused(&[&[]]).contains("leaves 10 of 10 old rows"), "all are lost");
    assert!(refused(&[&ANSWER, &[(8, 1, 1)]]).contains("answered twice"), "in two ways");
    assert!(refused(&[&ANSWER, &[(4, 1, 1)]]).contains("does not"), "equal rows are said to differ");
    assert!(refused(&[&ANSWER, &[(30, 1, 1)]]).contains("not on both sides"), "a key that is nowhere");
    assert!(refused(&[&ANSWER, &[(4, 0, 0)]]).contains("on neither side"), "no rows at all");
    assert!(refused(&[&ANSWER, &[(4, 99, 0)]]).contains("fewer than none"), "more rows than there are");
}
