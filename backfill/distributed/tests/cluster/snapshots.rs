//! Snapshots of ours: the same findings as from the local engine, byte by byte.

use std::ops::ControlFlow;
use std::path::Path;

use crossfade_backfill::Cancel;
use crossfade_backfill::findings::ScanSummary;
use crossfade_backfill::scan::{self, ScanOptions};
use crossfade_backfill::snapshot::SnapshotPair;

use crate::processes::Processes;
use crate::rows::{Row, SHAPES, Shape, files, planted, write_pair};

/// What the local engine finds.
pub(crate) fn local(pair: &SnapshotPair, findings: &Path) -> ScanSummary {
    scan::scan(pair, findings, &ScanOptions::default(), &|_| ControlFlow::Continue(())).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn findings_are_those_of_the_local_engine_for_keys_of_all_shapes() {
    let processes = Processes::start();
    for shape in SHAPES {
        let folder = tempfile::tempdir().unwrap();
        write_pair(folder.path(), shape, &planted(20_000));
        let pair = SnapshotPair::open(folder.path()).unwrap();
        let (here, there) = (folder.path().join("local"), folder.path().join("distributed"));
        let expected = local(&pair, &here);
        assert!(
            expected.missing > 0
                && expected.orphaned > 0
                && expected.mismatched > 0
                && expected.duplicated > 0
        );
        let options = ScanOptions::default();
        let found = crossfade_distributed::scan(&processes.cluster, &pair, &there, &options, &Cancel::new())
            .await
            .unwrap();
        assert_eq!(
            ScanSummary { findings: None, ..found },
            ScanSummary { findings: None, ..expected },
            "{shape:?}"
        );
        assert_eq!(files(&there), files(&here), "{shape:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sides_that_are_equal_or_empty_are_compared_too() {
    let processes = Processes::start();
    let rows: Vec<Row> = (0..500).map(|number| Row { number, version: 0 }).collect();
    for sides in [[rows.clone(), rows.clone()], [rows.clone(), vec![]], [vec![], rows], [vec![], vec![]]] {
        let folder = tempfile::tempdir().unwrap();
        write_pair(folder.path(), Shape::IntAndText, &sides);
        let pair = SnapshotPair::open(folder.path()).unwrap();
        let (here, there) = (folder.path().join("local"), folder.path().join("distributed"));
        local(&pair, &here);
        let options = ScanOptions::default();
        crossfade_distributed::scan(&processes.cluster, &pair, &there, &options, &Cancel::new())
            .await
            .unwrap();
        assert_eq!(files(&there), files(&here), "{} old and {} new rows", sides[0].len(), sides[1].len());
    }
}
