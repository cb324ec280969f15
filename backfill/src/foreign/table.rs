//! All files of one side as one table: its row groups, in key order where that is known.

use std::fs;
use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef};
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use xxhash_rust::xxh3::Xxh3Default;

use super::file::ForeignFile;
use crate::error::{Error, Result};
use crate::keys::{Keys, key_type};
use crate::snapshot::{MANIFEST_FILE, ROW_HASH_COLUMN, SnapshotManifest, checksum_text};

/// One side of a comparison: a dump by another tool, or a snapshot of ours.
#[derive(Debug)]
pub(crate) struct ForeignTable {
    path: PathBuf,
    files: Vec<ForeignFile>,
    groups: Vec<Group>,
    rows: u64,
    /// The columns that are compared, in the order in which findings name them.
    schema: SchemaRef,
    manifest: Option<SnapshotManifest>,
}

/// A row group that has rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group {
    /// Which of the files.
    pub(crate) file: usize,
    /// Which of the file's row groups.
    pub(crate) index: usize,
    /// Its first row, counted over the table.
    pub(crate) first_row: u64,
    pub(crate) rows: u64,
    /// How many rows of its file are before it.
    pub(crate) first_row_of_file: u64,
}

/// What is known of the order of a table's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ordering {
    /// Somebody says that rows come in key order: the file, a snapshot's manifest. If they do not, something is wrong.
    Claimed,
    /// Row groups come in key order by their bounds. Their rows probably do as well.
    Likely,
    /// Rows come in no order, or in one that nobody tells.
    Unknown,
}

impl ForeignTable {
    /// Opens a Parquet file, or all files of a folder.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let manifest = match SnapshotManifest::read(path) {
            Ok(manifest) => Some(manifest),
            Err(Error::SnapshotAbsent { .. }) => None,
            Err(_) if !path.join(MANIFEST_FILE).exists() => None,
            Err(error) => return Err(error),
        };
        let paths = match &manifest {
            Some(manifest) => manifest.files.iter().map(|file| path.join(&file.name)).collect(),
            None => parquet_files(path)?,
        };
        let files = paths.into_iter().map(ForeignFile::open).collect::<Result<Vec<_>>>()?;
        let Some(first) = files.first() else { return Err(Error::DumpAbsent { path: path.to_owned() }) };
        let fields: Vec<Field> =
            first.fields().filter(|field| field.name() != ROW_HASH_COLUMN).cloned().collect();
        let mut table = Self {
            path: path.to_owned(),
            files,
            groups: Vec::new(),
            rows: 0,
            schema: Schema::new(fields).into(),
            manifest,
        };
        table.number_rows();
        Ok(table)
    }

    /// Keeps these columns only, in this order, and checks that all files have them with the same types.
    pub(crate) fn choose(&mut self, columns: &[String]) -> Result<()> {
        let first = &self.files[0];
        let mut fields = Vec::with_capacity(columns.len());
        for name in columns {
            let Some((_, field)) = first.field(name) else {
                return Err(misfit(first, format!("it has no column {name}")));
            };
            for file in &self.files {
                file.field(name).map_or(Ok(()), |(root, _)| file.check_readable(root))?;
            }
            // Files of one dump may differ in it.
            fields.push(field.clone().with_nullable(true));
        }
        for file in &self.files[1..] {
            for expected in &fields {
                match file.field(expected.name()) {
                    Some((_, found)) if found.data_type() == expected.data_type() => {}
                    Some((_, found)) => {
                        let (name, found, of) = (found.name(), found.data_type(), first.path().display());
                        let expected = expected.data_type();
                        return Err(misfit(file, format!("{name} is {found} where {of} has {expected}")));
                    }
                    None => return Err(misfit(file, format!("it has no column {}", expected.name()))),
                }
            }
        }
        self.schema = Schema::new(fields).into();
        Ok(())
    }

    /// Whether a column holds timestamps with neither a unit nor a zone.
    pub(crate) fn is_int96(&self, name: &str) -> bool {
        self.files.iter().all(|file| file.is_int96(name))
    }

    /// Reads such a column as this type of timestamps from now on.
    pub(crate) fn read_int96_as(&mut self, name: &str, data_type: &DataType) -> Result<()> {
        self.files.iter_mut().try_for_each(|file| file.read_int96_as(name, data_type))?;
        let fields = self.schema.fields().iter().map(|field| {
            let field = field.as_ref().clone();
            if field.name() == name { field.with_data_type(data_type.clone()) } else { field }
        });
        self.schema = Schema::new(fields.collect::<Vec<_>>()).into();
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(crate) fn manifest(&self) -> Option<&SnapshotManifest> {
        self.manifest.as_ref()
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    pub(crate) fn groups(&self) -> &[Group] {
        &self.groups
    }

    pub(crate) fn files(&self) -> &[ForeignFile] {
        &self.files
    }

    pub(crate) fn file(&self, group: usize) -> &ForeignFile {
        &self.files[self.groups[group].file]
    }

    /// The row group that holds a row.
    pub(crate) fn at_row(&self, row: u64) -> usize {
        self.groups.partition_point(|group| group.first_row + group.rows <= row)
    }

    /// Puts the files in key order, as far as their bounds tell it, and says what is known of the order now.
    pub(crate) fn arrange(&mut self, key: &[String]) -> Ordering {
        if self.manifest.as_ref().is_some_and(|manifest| manifest.key.starts_with(key)) {
            return Ordering::Claimed;
        }
        let is_claimed = self.files.iter().all(|file| file.claims_order(key));
        let sorted = self.sort_files(&key[0]);
        match (is_claimed, sorted) {
            (true, Some(true)) => Ordering::Claimed,
            // One file that says it is sorted needs no bounds.
            (true, None) if self.files.len() == 1 => Ordering::Claimed,
            (false, Some(true)) => Ordering::Likely,
            _ => Ordering::Unknown,
        }
    }

    /// One number for what is in all files, by their footers: lengths, places, bounds and counts of all their parts.
    pub(crate) fn checksum(&self) -> String {
        let mut hasher = Xxh3Default::new();
        for file in &self.files {
            hasher.update(&file.footer_hash().to_le_bytes());
        }
        checksum_text(hasher.digest())
    }

    /// Positions of these columns in a file.
    pub(crate) fn positions(&self, group: usize, names: &[String]) -> Vec<usize> {
        let file = self.file(group);
        names.iter().filter_map(|name| Some(file.field(name)?.0)).collect()
    }

    /// The keys of a row group, brought to these types.
    pub(crate) fn keys(&self, group: usize, names: &[String], key_types: &[DataType]) -> Result<Keys> {
        let file = self.file(group);
        let found = &self.groups[group];
        let arrays = file.arrays(found.index, &self.positions(group, names))?;
        self.keys_of(group, arrays, names, key_types)
    }

    /// Makes keys of key columns, none of which may be NULL.
    pub(crate) fn keys_of(
        &self,
        group: usize,
        arrays: Vec<ArrayRef>,
        names: &[String],
        key_types: &[DataType],
    ) -> Result<Keys> {
        let rows = arrays.first().map_or(0, arrow::array::Array::len);
        let mut brought = Vec::with_capacity(arrays.len());
        for ((array, name), key_type) in arrays.into_iter().zip(names).zip(key_types) {
            if let Some(row) = first_null(&array) {
                return Err(self.key_null(group, row, name));
            }
            brought.push(if array.data_type() == key_type {
                array
            } else {
                cast(&array, key_type).map_err(Error::arrow("bring keys to a common type"))?
            });
        }
        Keys::new(brought, rows, names)
    }

    fn key_null(&self, group: usize, row: usize, column: &str) -> Error {
        let found = &self.groups[group];
        Error::DumpKeyNull {
            path: self.file(group).path().to_owned(),
            row_group: found.index,
            row: found.first_row_of_file + row as u64,
            column: column.to_owned(),
        }
    }

    /// Whether the row groups come in the order of this column once the files are sorted by it; nothing where not all
    /// footers say.
    fn sort_files(&mut self, column: &str) -> Option<bool> {
        let (_, field) = self.schema.column_with_name(column)?;
        let compared_as = key_type(field.data_type())?;
        let mut smallest: Vec<ArrayRef> = Vec::new();
        let mut largest: Vec<ArrayRef> = Vec::new();
        for file in &self.files {
            let (low, high) = file.bounds(column)?;
            smallest.push(cast(&low, &compared_as).ok()?);
            largest.push(cast(&high, &compared_as).ok()?);
        }
        let keys = |arrays: &[ArrayRef]| -> Option<Keys> {
            let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
            let all = concat(&arrays).ok()?;
            let rows = all.len();
            Keys::new(vec![all], rows, &[column.to_owned()]).ok()
        };
        let (low, high) = (keys(&smallest)?, keys(&largest)?);

        // Files by their first row groups; those without rows come first, which is as good as any place.
        let mut starts = vec![0];
        for file in &self.files {
            starts.push(starts[starts.len() - 1] + file.row_groups());
        }
        let mut order: Vec<usize> = (0..self.files.len()).collect();
        order.sort_by(|left, right| {
            let is_empty = |file: &usize| starts[*file] == starts[*file + 1];
            match (is_empty(left), is_empty(right)) {
                (false, false) => low.compare(starts[*left], &low, starts[*right]),
                (left, right) => right.cmp(&left),
            }
        });
        let groups: Vec<usize> = order.iter().flat_map(|file| starts[*file]..starts[*file + 1]).collect();
        let is_sorted = groups.windows(2).all(|pair| high.compare(pair[0], &low, pair[1]).is_le());
        if is_sorted {
            let mut files: Vec<Option<ForeignFile>> =
                std::mem::take(&mut self.files).into_iter().map(Some).collect();
            self.files = order.into_iter().filter_map(|file| files[file].take()).collect();
            self.number_rows();
        }
        Some(is_sorted)
    }

    fn number_rows(&mut self) {
        self.groups.clear();
        self.rows = 0;
        for (number, file) in self.files.iter().enumerate() {
            let mut first_row_of_file = 0;
            for index in 0..file.row_groups() {
                let rows = file.rows(index);
                if rows > 0 {
                    self.groups.push(Group {
                        file: number,
                        index,
                        first_row: self.rows,
                        rows,
                        first_row_of_file,
                    });
                }
                first_row_of_file += rows;
                self.rows += rows;
            }
        }
    }

    /// The smallest and largest values of each file's row groups, where the footers say.
    pub(crate) fn key_bounds(
        &self,
        column: &str,
        compared_as: &DataType,
    ) -> Option<Vec<(ArrayRef, ArrayRef)>> {
        self.files
            .iter()
            .filter(|file| file.row_groups() > 0)
            .map(|file| {
                let (low, high) = file.bounds(column)?;
                Some((cast(&low, compared_as).ok()?, cast(&high, compared_as).ok()?))
            })
            .collect()
    }

    /// Tells that a row is out of order, by its number in its file.
    pub(crate) fn out_of_order(&self, row: u64, key: String, previous: String) -> Error {
        let group = &self.groups[self.at_row(row)];
        Error::DumpKeyOrder {
            path: self.files[group.file].path().to_owned(),
            row_group: group.index,
            row: row - group.first_row + group.first_row_of_file,
            key,
            previous,
        }
    }
}

fn first_null(array: &ArrayRef) -> Option<usize> {
    if array.logical_null_count() == 0 {
        return None;
    }
    array.logical_nulls()?.iter().position(|valid| !valid)
}

fn misfit(file: &ForeignFile, detail: String) -> Error {
    Error::DumpColumns { path: file.path().to_owned(), detail }
}

/// A dump's files by name, so that the same dump is always read in the same order.
pub(crate) fn parquet_files(path: &Path) -> Result<Vec<PathBuf>> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::DumpAbsent { path: path.to_owned() });
        }
        Err(error) => return Err(Error::io("open", path)(error)),
    };
    if metadata.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(Error::io("list", path))? {
        let path = entry.map_err(Error::io("list", path))?.path();
        if path.extension().is_some_and(|extension| extension == "parquet") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
