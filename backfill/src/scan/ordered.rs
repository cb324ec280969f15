//! Two dumps in key order: merged by their keys, and then compared column by column.
//!
//! Within a key range the keys of both sides are merged first, which gives runs of rows that belong together. Each column
//! is then read over the whole range and compared run by run, so that only one column of one row group of each side is in
//! memory, and in the processor's cache when it is compared.

use std::cell::RefCell;
use std::path::PathBuf;

use arrow::array::{Array, ArrayData, ArrayRef, make_array};
use arrow::buffer::Buffer;
use arrow::compute::{cast, concat};
use arrow::datatypes::DataType;

use super::ScanOptions;
use super::columns::{Columns, Differing};
use super::cursor::Cursor;
use super::dumps::DumpPair;
use super::engine::{self, Comparer, Found, Meter, ProgressFn};
use super::merge::{FROM_OLD, Segment, merge};
use super::plan::{KeyRange, Plan, Shares};
use super::room::room;
use super::rows::findings_rows;
use super::shared_groups::SharedGroups;
use crate::error::{Error, Result};
use crate::findings::{FindingKind, FindingsWriter, ScanSummary};
use crate::foreign::{Decompressor, ForeignFile, ForeignTable, RawColumn};
use crate::keys::{Ascent, KeyedGroups, Keys};
use crate::snapshot::Pooled;

/// Enough that threads end at about the same time. Each range's end reads a row group's columns twice.
const RANGES_PER_THREAD: usize = 4;

/// Where only keys are compared nothing is read twice.
const KEY_RANGES_PER_THREAD: usize = 16;

pub(super) fn run(
    pair: &DumpPair<'_>,
    folder: PathBuf,
    options: &ScanOptions,
    progress: ProgressFn<'_>,
) -> Result<ScanSummary> {
    let mut summary = pair.empty_summary(options);
    let schema = pair.findings_schema.clone();
    let (mut writer, done) = FindingsWriter::resume(folder, schema, pair.scope(), &mut summary)?;
    let key = &pair.dumps.key;
    let [old, new] = pair.sides().map(|table| ForeignGroups::new(table, key, &pair.key_types));
    let ranges_per_thread = if pair.values.is_empty() { KEY_RANGES_PER_THREAD } else { RANGES_PER_THREAD };
    let (threads, range_groups_max) = room(pair, options);
    let (old, new) = (SharedGroups::new(old, threads), SharedGroups::new(new, threads));
    let plan = Plan::new(&old, &new, Shares { threads, ranges_per_thread, range_groups_max }, done);
    let meter = Meter::new(pair.rows(), done.rows(), progress);
    let comparer = Ordered { pair, old: &old, new: &new, columns: Columns::of(pair) };
    engine::run(&comparer, &plan, threads, &meter, options, &mut writer, &mut summary)?;
    writer.finish(summary)
}

struct Ordered<'a> {
    pair: &'a DumpPair<'a>,
    old: &'a SharedGroups<ForeignGroups<'a>>,
    new: &'a SharedGroups<ForeignGroups<'a>>,
    columns: Columns<'a>,
}

impl Comparer for Ordered<'_> {
    type Worker = Decompressor;

    fn worker(&self) -> Decompressor {
        Decompressor::default()
    }

    fn compare(
        &self,
        decompressor: &mut Decompressor,
        range: &KeyRange,
        found: &mut dyn FnMut(Found) -> Result<()>,
        compared: &dyn Fn(u64) -> Result<()>,
    ) -> Result<()> {
        let old = Cursor::new(self.old, range.old.clone());
        let new = Cursor::new(self.new, range.new.clone());
        if self.columns.len() == 0 {
            let tell = |segment: Segment| {
                if segment.kinds.is_empty() { Ok(()) } else { found(self.found(&segment, &[])?) }
            };
            return merge(old, new, tell, compared);
        }
        let mut segments = Vec::new();
        merge(
            old,
            new,
            |segment| {
                segments.push(segment);
                Ok(())
            },
            compared,
        )?;
        let differing = self.columns.differing(&segments, decompressor)?;
        let mut rest = differing.as_slice();
        for (number, segment) in segments.iter().enumerate() {
            let (here, later) = rest.split_at(rest.partition_point(|found| found.segment <= number));
            rest = later;
            if !here.is_empty() || !segment.kinds.is_empty() {
                found(self.found(segment, here)?)?;
            }
        }
        Ok(())
    }
}

impl Ordered<'_> {
    /// A segment's findings: its differences by key, and between them the rows whose values differ.
    fn found(&self, segment: &Segment, differing: &[Differing]) -> Result<Found> {
        let mut kinds = Vec::with_capacity(segment.kinds.len());
        let mut places = Vec::with_capacity(segment.kinds.len());
        let mut mismatched = Vec::new();
        let mut columns: Vec<Vec<usize>> = Vec::new();
        let mut taken = 0;
        let mut last = None;
        for found in differing {
            let run = &segment.aligned[found.run];
            kinds.extend_from_slice(&segment.kinds[taken..run.at]);
            places.extend_from_slice(&segment.places[taken..run.at]);
            taken = run.at;
            if last != Some((found.run, found.offset)) {
                last = Some((found.run, found.offset));
                mismatched.push(kinds.len());
                columns.push(Vec::new());
                kinds.push(FindingKind::Mismatched);
                places.push((FROM_OLD, run.old_index + found.offset));
            }
            if let Some(columns) = columns.last_mut() {
                columns.push(found.column);
            }
        }
        kinds.extend_from_slice(&segment.kinds[taken..]);
        places.extend_from_slice(&segment.places[taken..]);
        let keys = segment.keys(&places)?;
        let names = &self.pair.values;
        let rows = findings_rows(&self.pair.findings_schema, names, &kinds, keys, mismatched, columns)?;
        Ok(Found { kinds, rows })
    }
}

/// A dump's row groups by their keys.
pub(super) struct ForeignGroups<'a> {
    table: &'a ForeignTable,
    names: &'a [String],
    key_types: &'a [DataType],
    starts: Vec<u64>,
    /// The first key of each row group, where the footers say it.
    first_keys: Option<Keys>,
    /// No key of a row group is greater than this, where the footers say it.
    bounds: Option<Keys>,
}

impl<'a> ForeignGroups<'a> {
    pub(super) fn new(table: &'a ForeignTable, names: &'a [String], key_types: &'a [DataType]) -> Self {
        let starts = table.groups().iter().map(|group| group.first_row).chain([table.rows()]).collect();
        let keys = |of: &dyn Fn(&ForeignFile, &str) -> Option<ArrayRef>| bounds(table, names, key_types, of);
        let first_keys = keys(&|file, name| file.exact_smallest(name))
            .filter(|keys| !matches!(keys.ascent(), Ascent::BrokenAt(_)));
        let bounds = keys(&|file, name| Some(file.bounds(name)?.1));
        Self { table, names, key_types, starts, first_keys, bounds }
    }
}

impl KeyedGroups for ForeignGroups<'_> {
    type Load = ();

    fn starts(&self) -> &[u64] {
        &self.starts
    }

    fn names(&self) -> &[String] {
        self.names
    }

    fn known_first_key(&self, group: usize) -> Option<Keys> {
        self.first_keys.as_ref().map(|keys| keys.slice(group, 1))
    }

    fn load(&self, group: usize) -> Result<(Keys, ())> {
        let keys = keys(self.table, group, self.names, self.key_types)?;
        // Ranges are cut by what the footers say: were it not so, rows would be looked for in the wrong range.
        let first = self.first_keys.as_ref().is_none_or(|first| first.compare(group, &keys, 0).is_eq());
        let last = self.bounds.as_ref().is_none_or(|last| keys.compare(keys.rows() - 1, last, group).is_le());
        // Where rows do not ascend that is to be said, and not that the bounds are wrong.
        let is_within = first && last;
        if !is_within && !matches!(keys.ascent(), Ascent::BrokenAt(_)) {
            let detail = "its keys are not within the bounds that its footer gives".to_owned();
            return Err(self.table.file(group).corrupt(self.table.groups()[group].index, detail));
        }
        Ok((keys, ()))
    }

    fn begins_anew(&self, group: usize) -> bool {
        match (&self.first_keys, &self.bounds, group.checked_sub(1)) {
            (Some(first_keys), Some(bounds), Some(before)) => {
                bounds.compare(before, first_keys, group).is_lt()
            }
            (_, _, before) => before.is_none(),
        }
    }

    fn out_of_order(&self, row: u64, key: String, previous: String) -> Error {
        self.table.out_of_order(row, key, previous)
    }
}

/// The keys of a row group.
pub(super) fn keys(
    table: &ForeignTable,
    group: usize,
    names: &[String],
    key_types: &[DataType],
) -> Result<Keys> {
    match plain_keys(table, group, names)? {
        Some(array) => table.keys_of(group, vec![array], names, key_types),
        None => table.keys(group, names, key_types),
    }
}

thread_local! {
    /// What a thread reads keys with, over the same memory from row group to row group.
    static READER: RefCell<(Decompressor, RawColumn)> = RefCell::default();
}

/// A key of one number whose values lie in their pages as they lie in an Arrow array: the common case, and by far the
/// fastest.
fn plain_keys(table: &ForeignTable, group: usize, names: &[String]) -> Result<Option<ArrayRef>> {
    let [name] = names else { return Ok(None) };
    let file = table.file(group);
    let Some((root, field)) = file.field(name) else { return Ok(None) };
    let is_plain = field.data_type().is_integer() || field.data_type().is_temporal();
    let Some(reading) = file.reading(root).filter(|_| is_plain) else { return Ok(None) };
    let fixed = READER.with_borrow_mut(|(decompressor, column)| {
        column.over(Pooled::take());
        file.raw_column(table.groups()[group].index, root, reading, decompressor, column)
            .map(|()| column.take_fixed())
    })?;
    let Some((width, bytes)) = fixed else { return Ok(None) };
    if field.data_type().primitive_width() != Some(width) {
        return Ok(None);
    }
    // What stands before the values in their page may put them where numbers do not lie.
    let is_aligned = bytes.as_ptr().addr().is_multiple_of(width);
    let data = ArrayData::builder(field.data_type().clone())
        .len(bytes.len() / width)
        .add_buffer(if is_aligned { Buffer::from(bytes) } else { Buffer::from(bytes.as_ref()) })
        .build()
        .map_err(Error::arrow("gather keys"))?;
    Ok(Some(make_array(data)))
}

/// One key of each row group out of the footers: of a key that is one column, a bound.
fn bounds(
    table: &ForeignTable,
    names: &[String],
    key_types: &[DataType],
    of: &dyn Fn(&ForeignFile, &str) -> Option<ArrayRef>,
) -> Option<Keys> {
    let ([name], [key_type]) = (names, key_types) else { return None };
    // A row group without rows has no bounds, and no place among the groups.
    let files = table.files().iter().filter(|file| file.row_groups() > 0);
    let found: Vec<ArrayRef> = files.map(|file| of(file, name)).collect::<Option<_>>()?;
    let found: Vec<&dyn Array> = found.iter().map(AsRef::as_ref).collect();
    let found = cast(&concat(&found).ok()?, key_type).ok()?;
    let rows = found.len();
    let keys = Keys::new(vec![found], rows, names).ok()?;
    (rows == table.groups().len()).then_some(keys)
}
