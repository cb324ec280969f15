//! How much of two dumps in key order a thread holds, and so how many threads find room, and how long their ranges may be.

use super::ScanOptions;
use super::columns::PAGES_BYTES_MIN;
use super::dumps::DumpPair;
use super::plan::RANGE_ROW_GROUPS_MAX;
use super::shared_groups::KEPT_PER_THREAD;
use crate::foreign::ForeignTable;

/// Row groups whose keys a thread holds where nothing else is compared: on each side one being compared, one ahead, and the stored
/// bytes of one being decoded; and those that are kept.
const KEY_RUNS: u64 = 6 + KEPT_PER_THREAD as u64;

/// Of a thread's share of the memory, what part one side's keys of a range may take. Where row groups are large that is what makes ranges
/// short: with longer ones fewer threads would find room, and with shorter ones more row groups would be read for two ranges.
const KEYS_PART: u64 = 8;

/// How many threads there may be, and how many row groups in a range.
pub(super) fn room(pair: &DumpPair<'_>, options: &ScanOptions) -> (usize, usize) {
    let keys =
        pair.sides().into_iter().map(|table| key_bytes(table, &pair.dumps.key)).max().unwrap_or(0).max(1);
    if pair.values.is_empty() {
        return (options.affordable_threads(KEY_RUNS * keys), RANGE_ROW_GROUPS_MAX);
    }
    let share = options.memory_bytes_max / options.threads.get() as u64;
    let groups =
        usize::try_from(share / KEYS_PART / keys).unwrap_or(usize::MAX).clamp(1, RANGE_ROW_GROUPS_MAX);
    let columns = pair.sides().into_iter().map(|table| value_bytes(table, &pair.values)).sum::<u64>();
    // On each side a range's row groups, and what of others is in it at its end. Those that are kept for a range beside it
    // are among them.
    let runs = 2 * (groups as u64 + 1);
    (options.affordable_threads(runs * keys + columns), groups)
}

/// How many bytes the keys of a table's row group take at most.
fn key_bytes(table: &ForeignTable, names: &[String]) -> u64 {
    let bytes = |group: usize| {
        let (file, index) = (table.file(group), table.groups()[group].index);
        table.positions(group, names).into_iter().map(|root| file.column_bytes(index, root)).sum()
    };
    (0..table.groups().len()).map(bytes).max().unwrap_or(0)
}

/// How many bytes a column of a table takes at most while it is compared: stored and plain, of the pages in hand or of
/// a row group where it is read as a whole.
fn value_bytes(table: &ForeignTable, names: &[String]) -> u64 {
    let largest = |name: &String| {
        let places = (0..table.groups().len()).filter_map(|group| {
            let (file, index) = (table.file(group), table.groups()[group].index);
            let (root, _) = file.field(name)?;
            Some((file.stored_bytes(index, root) + file.column_bytes(index, root), file, index, root))
        });
        let (whole, file, index, root) = places.max_by_key(|(bytes, ..)| *bytes)?;
        let pages = file.page_bytes(index, root).map(|page| page + PAGES_BYTES_MIN as u64);
        Some(pages.map_or(whole, |pages| pages.min(whole)))
    };
    names.iter().filter_map(largest).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::path::Path;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use parquet::basic::Compression;

    use super::*;
    use crate::scan::dump_tests::{Writing, write_file};
    use crate::scan::{Compared, DumpOrder, DumpOrigin, Dumps};

    /// Rows of a table, in one row group; a key is 8 bytes, and a value 64.
    const ROWS: i64 = 4096;

    /// For eight threads with 2.5 times the values of a row group, and its keys twice over.
    const MEMORY_BYTES: u64 = 8 * (ROWS as u64) * (64 * 5 / 2 + 8 * 2);

    fn written(folder: &Path, page_rows: usize) -> Dumps {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..ROWS));
        let texts: ArrayRef =
            Arc::new(StringArray::from_iter_values((0..ROWS).map(|id| format!("{id:060}"))));
        let rows = RecordBatch::try_from_iter([("id", ids), ("note", texts)]).unwrap();
        let row_group_rows = ROWS as usize;
        let compression = Compression::UNCOMPRESSED;
        let writing =
            Writing { compression, dictionary: false, page_rows, row_group_rows, ..Writing::default() };
        for side in ["old.parquet", "new.parquet"] {
            write_file(&folder.join(side), &rows, &writing);
        }
        Dumps {
            old: folder.join("old.parquet"),
            new: folder.join("new.parquet"),
            key: vec!["id".into()],
            scope_columns: 1,
            compared: Compared::AllColumns,
            order: DumpOrder::Ordered,
            origin: DumpOrigin::default(),
        }
    }

    #[test]
    fn threads_hold_pages_and_not_row_groups_where_these_have_many() {
        let options = ScanOptions {
            threads: NonZeroUsize::new(8).unwrap(),
            memory_bytes_max: MEMORY_BYTES,
            ..ScanOptions::default()
        };
        let threads = |page_rows| {
            let folder = tempfile::tempdir().unwrap();
            let dumps = written(folder.path(), page_rows);
            room(&DumpPair::open(&dumps).unwrap(), &options).0
        };
        assert_eq!(threads(64), 8);
        assert_eq!(threads(ROWS as usize), 4, "of each side stored bytes and plain ones");
    }

    #[test]
    fn ranges_are_short_where_the_keys_of_a_row_group_are_much_of_a_threads_memory() {
        let folder = tempfile::tempdir().unwrap();
        let dumps = written(folder.path(), 64);
        let groups = |memory_bytes_max| {
            let options = ScanOptions {
                threads: NonZeroUsize::new(2).unwrap(),
                memory_bytes_max,
                ..ScanOptions::default()
            };
            room(&DumpPair::open(&dumps).unwrap(), &options).1
        };
        let keys = 2 * KEYS_PART * ROWS as u64 * 9;
        assert_eq!(groups(1), 1);
        assert_eq!(groups(3 * keys), 3);
        assert_eq!(groups(1 << 40), RANGE_ROW_GROUPS_MAX);
    }
}
