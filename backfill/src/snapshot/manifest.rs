//! `snapshot.json`: what a snapshot is of, when it was taken and which files it consists of.

use std::fs;
use std::ops::Range;
use std::path::Path;

use arrow::datatypes::Schema;
use crossfade_migration_core::rows::{Horizon, ScopeRange};
use serde::{Deserialize, Serialize};

use super::{MANIFEST_FILE, ROW_HASH_COLUMN, Side};
use crate::durable::read_through;
use crate::error::{Error, Result};
use crate::row_hash::ROW_HASH_VERSION;

/// The manifest's format. It changes when an older reader would misunderstand it.
pub(super) const FORMAT_VERSION: u32 = 1;

/// How this version signs what it writes.
pub(super) const WRITER: &str = concat!("crossfade ", env!("CARGO_PKG_VERSION"));

/// What a snapshot is of, when it was taken and which files it consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotManifest {
    /// The version of this format.
    pub format_version: u32,
    /// The version of the row hash's definition.
    pub row_hash_version: u32,
    /// The program that wrote it, with its version.
    pub writer: String,
    /// The migration it was taken for.
    pub migration: String,
    /// Hash of the migration's manifest when it was taken.
    pub manifest_hash: String,
    /// Which side of the migration.
    pub side: Side,
    /// The store it was taken from, with its secrets masked.
    pub store: String,
    /// The point in the store's time that it shows, in the store's own words. Equal on both sides when one exported
    /// snapshot served both.
    pub consistent_point: String,
    /// The migration's epoch when the snapshot began.
    pub epoch: u64,
    /// The migration's phase when the snapshot began.
    pub phase: String,
    /// When it began, by the database's clock, as RFC 3339.
    pub started_at: String,
    /// The projection's columns, in order. The files have the row hash after them.
    pub columns: Vec<SnapshotColumn>,
    /// The columns that the rows are sorted by, and that identify a row: scope first, then the rest of the key.
    pub key: Vec<String>,
    /// The columns that say whose row it is: the first ones of the key.
    pub scope: Vec<String>,
    /// How many rows it has.
    pub rows: u64,
    /// How many keys more than one row has.
    pub duplicate_keys: u64,
    /// Its files, in key order.
    pub files: Vec<SnapshotFile>,
    /// The ranges of scopes that it was read in, in key order. Snapshots of before there were any have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<SnapshotRange>,
    /// What a later export is held against to find out which ranges have not changed; absent where nothing would prove it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub horizon: Option<Horizon>,
}

/// A range of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRange {
    /// Where it begins and ends.
    #[serde(flatten)]
    pub bounds: ScopeRange,
    /// How many of the snapshot's files are its own: the next ones.
    pub files: usize,
    /// How many rows it has.
    pub rows: u64,
    /// How many of its keys more than one row has.
    pub duplicate_keys: u64,
}

/// A column of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotColumn {
    /// Its name.
    pub name: String,
    /// Its Arrow type, as Arrow writes it.
    #[serde(rename = "type")]
    pub data_type: String,
    /// Whether it may hold NULL.
    pub nullable: bool,
}

/// A file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotFile {
    /// Its name in the snapshot's folder.
    pub name: String,
    /// How many rows it has.
    pub rows: u64,
    /// How many bytes it has.
    pub bytes: u64,
    /// XXH3-64 of all its bytes, as 16 hexadecimal digits.
    pub checksum: String,
    /// How many bytes at its end are not rows: the places of pages, and the footer.
    pub footer_bytes: u64,
    /// XXH3-64 of these. Checked before they are decoded.
    pub footer_checksum: String,
    /// XXH3-64 of the stored bytes of the columns that a scan's counts rest on (key and row hash), per row group.
    pub scan_checksums: Vec<String>,
}

impl SnapshotFile {
    /// Reads the whole file, and compares its length and its checksum.
    ///
    /// # Errors
    ///
    /// [`Error::FileAbsent`], [`Error::FileLength`] or [`Error::FileCorrupt`].
    pub(crate) fn verify(&self, folder: &Path) -> Result<()> {
        let path = folder.join(&self.name);
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::FileAbsent { path });
            }
            Err(error) => return Err(Error::io("open", path)(error)),
        };
        let found = read_through(file).map_err(Error::io("read", &path))?;
        if found.bytes != self.bytes {
            return Err(Error::FileLength { path, expected: self.bytes, found: found.bytes });
        }
        if checksum_text(found.checksum) != self.checksum {
            return Err(Error::corrupt(&path, None)("its checksum is not its manifest's".into()));
        }
        Ok(())
    }
}

impl SnapshotManifest {
    /// Reads the manifest of the snapshot in `folder`, and checks it against itself.
    ///
    /// # Errors
    ///
    /// [`Error::SnapshotAbsent`], [`Error::SnapshotManifest`], [`Error::SnapshotVersion`] or
    /// [`Error::SnapshotInconsistent`].
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST_FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::SnapshotAbsent { path: folder.to_owned() });
            }
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        Self::decode(&text, &path)
    }

    /// Bytes of all its files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Decodes a manifest; `path` is for messages.
    ///
    /// # Errors
    ///
    /// [`Error::SnapshotManifest`], [`Error::SnapshotVersion`] or [`Error::SnapshotInconsistent`].
    pub fn decode(text: &[u8], path: &Path) -> Result<Self> {
        // The version first: a later format need not have any other field of this one.
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let unreadable = |source| Error::SnapshotManifest { path: path.to_owned(), source };
        let version: Version = serde_json::from_slice(text).map_err(unreadable)?;
        if version.format_version != FORMAT_VERSION {
            return Err(Error::SnapshotVersion {
                path: path.to_owned(),
                found: version.format_version,
                supported: FORMAT_VERSION,
            });
        }
        let manifest: Self = serde_json::from_slice(text).map_err(unreadable)?;
        match manifest.contradiction() {
            None => Ok(manifest),
            Some(detail) => Err(Error::SnapshotInconsistent { path: path.to_owned(), detail }),
        }
    }

    /// Whether this version would write the same rows into the same bytes.
    pub(crate) fn is_of_this_version(&self) -> bool {
        self.writer == WRITER && self.row_hash_version == ROW_HASH_VERSION
    }

    /// The snapshot's content as one number: the same for the same rows written by the same version.
    pub fn content_checksum(&self) -> String {
        let mut text = String::new();
        for file in &self.files {
            text.push_str(&file.checksum);
        }
        checksum_text(xxhash_rust::xxh3::xxh3_64(text.as_bytes()))
    }

    /// The manifest's view of a stored schema, without its row hash.
    pub(crate) fn columns_of(stored: &Schema) -> Vec<SnapshotColumn> {
        stored
            .fields()
            .iter()
            .filter(|field| field.name() != ROW_HASH_COLUMN)
            .map(|field| SnapshotColumn {
                name: field.name().clone(),
                data_type: field.data_type().to_string(),
                nullable: field.is_nullable(),
            })
            .collect()
    }

    fn contradiction(&self) -> Option<String> {
        if self.key.is_empty() {
            return Some("it has no key".into());
        }
        if self.scope.is_empty() || !self.key.starts_with(&self.scope) {
            return Some(format!(
                "its scope {:?} is not the beginning of its key {:?}",
                self.scope, self.key
            ));
        }
        if let Some(name) =
            self.key.iter().find(|name| !self.columns.iter().any(|column| column.name == **name))
        {
            return Some(format!("its key column {name} is not among its columns"));
        }
        // A sum that does not fit is a contradiction too, not an overflow.
        let rows = self.files.iter().try_fold(0_u64, |sum, file| sum.checked_add(file.rows));
        if rows != Some(self.rows) {
            return Some(format!("it has {} rows, its files do not", self.rows));
        }
        if let Some(file) = self.files.iter().find(|file| !is_plain_name(&file.name)) {
            return Some(format!("{:?} is not a file in its folder", file.name));
        }
        if !self.ranges.is_empty() && self.files_of_ranges().is_none() {
            return Some("its ranges do not have the files or rows that it has".into());
        }
        None
    }

    /// The files of each range, if the ranges have all files and these their rows. A snapshot without rows has a file that belongs
    /// to no range.
    pub(crate) fn files_of_ranges(&self) -> Option<Vec<Range<usize>>> {
        let mut end = 0_usize;
        let mut found = Vec::with_capacity(self.ranges.len());
        for range in &self.ranges {
            let next = end.checked_add(range.files)?;
            // All files together have no more rows than fit: that was looked at before.
            let rows: u64 = self.files.get(end..next)?.iter().map(|file| file.rows).sum();
            if rows != range.rows {
                return None;
            }
            found.push(end..next);
            end = next;
        }
        (end == self.files.len() || self.rows == 0).then_some(found)
    }
}

/// A manifest must not lead its reader out of the folder.
pub(super) fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!((components.next(), components.next()), (Some(std::path::Component::Normal(_)), None))
}

pub(crate) fn checksum_text(checksum: u64) -> String {
    format!("{checksum:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> SnapshotManifest {
        SnapshotManifest {
            format_version: FORMAT_VERSION,
            row_hash_version: 1,
            writer: "crossfade 0.1.0".into(),
            migration: "subscriptions".into(),
            manifest_hash: "00".into(),
            side: Side::Old,
            store: "postgres://app:***@db/app".into(),
            consistent_point: "0/1".into(),
            epoch: 3,
            phase: "dual_write".into(),
            started_at: "2026-01-01T00:00:00Z".into(),
            columns: vec![SnapshotColumn { name: "id".into(), data_type: "Int64".into(), nullable: false }],
            key: vec!["id".into()],
            scope: vec!["id".into()],
            rows: 0,
            duplicate_keys: 0,
            files: vec![],
            ranges: vec![],
            horizon: None,
        }
    }

    fn decode(manifest: &SnapshotManifest) -> Result<SnapshotManifest> {
        SnapshotManifest::decode(&serde_json::to_vec(manifest).unwrap(), Path::new("snapshot.json"))
    }

    #[test]
    fn it_survives_its_own_encoding() {
        assert_eq!(decode(&manifest()).unwrap(), manifest());
    }

    #[test]
    fn one_of_before_there_were_ranges_is_read() {
        let mut document = serde_json::to_value(manifest()).unwrap();
        let fields = document.as_object_mut().unwrap();
        assert!(!fields.contains_key("ranges") && !fields.contains_key("horizon"));
        fields.insert("a field of".into(), "a later version".into());
        assert_eq!(
            SnapshotManifest::decode(document.to_string().as_bytes(), Path::new("s")).unwrap(),
            manifest()
        );
    }

    #[test]
    fn ranges_must_have_the_files_and_rows_that_there_are() {
        let range = |files, rows| SnapshotRange { bounds: ScopeRange::WHOLE, files, rows, duplicate_keys: 0 };
        let with = |ranges: &[(usize, u64)]| {
            let mut manifest = manifest();
            manifest.rows = 7;
            manifest.files = vec![file("a", 2), file("b", 5)];
            manifest.ranges = ranges.iter().map(|(files, rows)| range(*files, *rows)).collect();
            decode(&manifest)
        };
        let right: [&[(usize, u64)]; 3] = [&[(2, 7)], &[(1, 2), (0, 0), (1, 5)], &[]];
        for right in right {
            assert!(with(right).is_ok(), "{right:?}");
        }
        let wrong: [&[(usize, u64)]; 5] =
            [&[(1, 2)], &[(1, 5), (1, 2)], &[(3, 7)], &[(2, 6)], &[(usize::MAX, 7), (2, 7)]];
        for wrong in wrong {
            assert!(matches!(with(wrong), Err(Error::SnapshotInconsistent { .. })), "{wrong:?}");
        }
    }

    #[test]
    fn a_later_version_is_named_before_anything_else_is_read() {
        let text = br#"{"format_version": 9, "everything": "else"}"#;
        let error = SnapshotManifest::decode(text, Path::new("snapshot.json")).unwrap_err();
        assert!(matches!(error, Error::SnapshotVersion { found: 9, .. }), "{error:?}");
        assert!(error.hint().unwrap().contains("newer"));
    }

    fn file(name: &str, rows: u64) -> SnapshotFile {
        SnapshotFile {
            name: name.into(),
            rows,
            bytes: 1,
            checksum: String::new(),
            footer_bytes: 0,
            footer_checksum: String::new(),
            scan_checksums: vec![],
        }
    }

    #[test]
    fn contradictions_are_refused() {
        type Spoil = fn(&mut SnapshotManifest);
        let cases: [(&str, Spoil); 4] = [
            ("no key", |manifest| manifest.key.clear()),
            ("scope beyond the key", |manifest| manifest.scope.push("other".into())),
            ("key without a column", |manifest| manifest.columns.clear()),
            ("rows without a file", |manifest| manifest.rows = 5),
        ];
        for (what, spoil) in cases {
            let mut manifest = manifest();
            spoil(&mut manifest);
            let error = decode(&manifest).unwrap_err();
            assert!(matches!(error, Error::SnapshotInconsistent { .. }), "{what}: {error:?}");
        }
        for name in ["../old/part.parquet", "/etc/passwd", "", "a/b"] {
            let mut manifest = manifest();
            manifest.files.push(file(name, 0));
            assert!(matches!(decode(&manifest), Err(Error::SnapshotInconsistent { .. })), "{name}");
        }
        let mut manifest = manifest();
        manifest.files.extend([file("a", u64::MAX), file("b", 2)]);
        assert!(matches!(decode(&manifest), Err(Error::SnapshotInconsistent { .. })));
    }
}
