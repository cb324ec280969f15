//! The one error of this crate: what was being done, to what, why it failed and what to do next.

mod hint;
mod make;

use std::io;
use std::path::PathBuf;

use arrow::error::ArrowError;
use parquet::errors::ParquetError;

use crate::queue::{JobId, JobKind, JobState};
use crate::snapshot::Side;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong with snapshots, scans and findings.
///
/// "Absent", "unreadable" and "does not belong here" are different variants, because a caller decides
/// differently on each of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something.
    #[error("could not {action} {}: {source}", path.display())]
    Io {
        /// What was being done, as a verb ("read", "rename").
        action: &'static str,
        /// The file or folder it was done to.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The volume filled up while a file was being written. What was written so far is under a temporary
    /// name and is never taken for a result.
    #[error("no space is left for {}: {source}", path.display())]
    DiskFull {
        /// The file that did not fit.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A folder to be written to holds a file of someone else's, with a name like ours.
    #[error("{} is in the way", path.display())]
    FolderTaken {
        /// The file.
        path: PathBuf,
    },
    /// Arrow refused a computation on columns.
    #[error("could not {action}: {source}")]
    Arrow {
        /// What was being done, as a verb.
        action: &'static str,
        /// Arrow's answer.
        source: ArrowError,
    },
    /// Parquet could not be written.
    #[error("could not write {}: {source}", path.display())]
    ParquetWrite {
        /// The file being written.
        path: PathBuf,
        /// Parquet's answer.
        source: ParquetError,
    },
    /// A JSON document of ours could not be written.
    #[error("could not encode {}: {source}", path.display())]
    Encode {
        /// The document.
        path: PathBuf,
        /// The encoder's answer.
        source: serde_json::Error,
    },

    /// There is no finished snapshot in the folder.
    #[error("no snapshot in {}: it has no {}", path.display(), crate::snapshot::MANIFEST_FILE)]
    SnapshotAbsent {
        /// The folder.
        path: PathBuf,
    },
    /// A snapshot is of another store.
    #[error("the snapshot in {} is of {found}, the migration's store is {expected}", path.display())]
    OtherStore {
        /// The pair's folder.
        path: PathBuf,
        /// The store, with its secrets masked.
        expected: String,
        /// The snapshot's, with its secrets masked.
        found: String,
    },
    /// A snapshot has other columns than the migration gives now.
    #[error("the snapshot in {} has other columns than the migration now: {detail}", path.display())]
    OtherColumns {
        /// The side's folder.
        path: PathBuf,
        /// The first that differs.
        detail: String,
    },
    /// The folder holds a finished snapshot already.
    #[error("{} already holds a snapshot", path.display())]
    SnapshotPresent {
        /// The folder.
        path: PathBuf,
    },
    /// The snapshot's manifest is not what this version writes.
    #[error("{} is not a snapshot manifest: {source}", path.display())]
    SnapshotManifest {
        /// The manifest.
        path: PathBuf,
        /// Why it could not be decoded.
        source: serde_json::Error,
    },
    /// The snapshot was written in a format that this version does not know.
    #[error("{} has format version {found}, this version reads {supported}", path.display())]
    SnapshotVersion {
        /// The manifest.
        path: PathBuf,
        /// The version it names.
        found: u32,
        /// The version this crate reads and writes.
        supported: u32,
    },
    /// The manifest contradicts itself.
    #[error("{} contradicts itself: {detail}", path.display())]
    SnapshotInconsistent {
        /// The manifest.
        path: PathBuf,
        /// What does not fit.
        detail: String,
    },
    /// A file that the manifest names is not there.
    #[error("{} is named by its snapshot's manifest, but absent", path.display())]
    FileAbsent {
        /// The file.
        path: PathBuf,
    },
    /// A file is not as long as its manifest says.
    #[error("{} is truncated or has grown: {found} bytes, its manifest says {expected}", path.display())]
    FileLength {
        /// The file.
        path: PathBuf,
        /// Bytes that the manifest promises.
        expected: u64,
        /// Bytes found.
        found: u64,
    },
    /// A file's content is not what was written.
    #[error("{}{} is corrupt: {detail}", path.display(), row_group_text(*row_group))]
    FileCorrupt {
        /// The file.
        path: PathBuf,
        /// The row group, where the damage can be placed that closely.
        row_group: Option<usize>,
        /// What showed it.
        detail: String,
    },
    /// A file has other columns than its manifest says.
    #[error("{} does not have the columns its snapshot's manifest names: {detail}", path.display())]
    FileSchema {
        /// The file.
        path: PathBuf,
        /// The first difference.
        detail: String,
    },

    /// The snapshot belongs to another migration.
    #[error("{} belongs to migration {found}, not {expected}", path.display())]
    OtherMigration {
        /// The snapshot's folder.
        path: PathBuf,
        /// The migration asked for.
        expected: String,
        /// The migration it was taken for.
        found: String,
    },
    /// The snapshot was taken under another version of the migration's manifest.
    #[error("{} was taken under manifest {found}, the migration now has {expected}", path.display())]
    OtherManifest {
        /// The snapshot's folder.
        path: PathBuf,
        /// Hash of the manifest in force.
        expected: String,
        /// Hash of the manifest it was taken under.
        found: String,
    },
    /// The snapshot began in an epoch that is too old to count.
    #[error("{} began in epoch {found}, but epoch {expected} or later is needed", path.display())]
    OlderEpoch {
        /// The snapshot's folder.
        path: PathBuf,
        /// The oldest epoch that counts.
        expected: u64,
        /// The epoch at its start.
        found: u64,
    },
    /// The two halves of a pair cannot be compared.
    #[error("the two snapshots in {} do not belong together: {what} is {old} in old and {new} in new", path.display())]
    SidesDiffer {
        /// The pair's folder.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// Old's value.
        old: String,
        /// New's value.
        new: String,
    },

    /// A key column that a header names is not among the columns.
    #[error("key column {column} is not in the {side} projection, which has {found}")]
    KeyColumnAbsent {
        /// Whose columns.
        side: Side,
        /// The key column.
        column: String,
        /// The columns there are.
        found: String,
    },
    /// A column's type has no order that is the same everywhere, so that it cannot be a key.
    #[error("column {column} of type {data_type} cannot be a key")]
    KeyType {
        /// The key column.
        column: String,
        /// Its Arrow type.
        data_type: String,
    },
    /// A column's type has no canonical encoding, so that rows with it cannot be compared.
    #[error("column {column} of type {data_type} cannot be compared")]
    ColumnType {
        /// The column.
        column: String,
        /// Its Arrow type.
        data_type: String,
    },
    /// A batch does not have the columns that the snapshot was begun with.
    #[error("a batch for {} does not have the snapshot's columns: {detail}", path.display())]
    BatchSchema {
        /// The snapshot's folder.
        path: PathBuf,
        /// The first difference.
        detail: String,
    },
    /// A key is NULL.
    #[error("row {row} of {} has NULL in key column {column}", path.display())]
    KeyNull {
        /// The snapshot's folder or file.
        path: PathBuf,
        /// The row, counted from 0.
        row: u64,
        /// The key column.
        column: String,
    },
    /// Rows are not in ascending key order.
    #[error("row {row} of {} is out of order: its key {key} comes after {previous}", path.display())]
    KeyOrder {
        /// The snapshot's folder or file.
        path: PathBuf,
        /// The row, counted from 0.
        row: u64,
        /// Its key.
        key: String,
        /// The key before it.
        previous: String,
    },

    /// A key in a dump is NULL.
    #[error("row {row} of {}, row group {row_group}, has NULL in key column {column}", path.display())]
    DumpKeyNull {
        /// The file.
        path: PathBuf,
        /// The row group, counted from 0.
        row_group: usize,
        /// The row of the file, counted from 0.
        row: u64,
        /// The key column.
        column: String,
    },
    /// Rows of a dump that is said to be in key order are not.
    #[error(
        "row {row} of {}, row group {row_group}, is out of order: its key {key} comes after {previous}", path.display()
    )]
    DumpKeyOrder {
        /// The file.
        path: PathBuf,
        /// The row group, counted from 0.
        row_group: usize,
        /// The row of the file, counted from 0.
        row: u64,
        /// Its key.
        key: String,
        /// The key before it.
        previous: String,
    },
    /// Two dumps that cannot be compared.
    #[error("the two dumps cannot be compared: {what} is {old} in old and {new} in new")]
    DumpsDiffer {
        /// What differs.
        what: &'static str,
        /// Old's value.
        old: String,
        /// New's value.
        new: String,
    },
    /// A file of a dump does not have the columns that are asked for, or not as the other files have them.
    #[error("{} does not fit: {detail}", path.display())]
    DumpColumns {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        detail: String,
    },
    /// A column of a dump that nothing here can read, though nothing is wrong with it.
    #[error("{}, row group {row_group}, cannot be read: {detail}", path.display())]
    DumpUnreadable {
        /// The file.
        path: PathBuf,
        /// The row group, counted from 0.
        row_group: usize,
        /// Which column, and why not.
        detail: String,
    },
    /// There is no dump where one should be.
    #[error("no Parquet files in {}", path.display())]
    DumpAbsent {
        /// The folder or file.
        path: PathBuf,
    },
    /// A text is not a key.
    #[error("{text:?} is not a key: {detail}")]
    KeyText {
        /// The text.
        text: String,
        /// Why not.
        detail: String,
    },

    /// What another engine has found cannot be true. Nothing was written that counts as a result.
    #[error("the other engine's answer cannot be right: {detail}")]
    Answer {
        /// What shows it.
        detail: String,
    },

    /// The scan was stopped by its caller. Nothing it wrote counts as a result.
    #[error("the scan was cancelled after {rows_done} of {rows_total} rows")]
    Cancelled {
        /// Rows of both sides that had been compared.
        rows_done: u64,
        /// Rows of both sides.
        rows_total: u64,
    },
    /// The folder for the findings holds a finished scan already.
    #[error("{} already holds the findings of a scan", path.display())]
    FindingsPresent {
        /// The folder.
        path: PathBuf,
    },
    /// There is no finished scan in the folder.
    #[error("no findings in {}: it has no {}", path.display(), crate::findings::SUMMARY_FILE)]
    FindingsAbsent {
        /// The folder.
        path: PathBuf,
    },
    /// The scan's summary is not what this version writes.
    #[error("{} is not a scan's summary: {source}", path.display())]
    FindingsSummary {
        /// The summary.
        path: PathBuf,
        /// Why it could not be decoded.
        source: serde_json::Error,
    },
    /// The findings were written in a format that this version does not know.
    #[error("{} has format version {found}, this version reads {supported}", path.display())]
    FindingsVersion {
        /// The summary.
        path: PathBuf,
        /// The version it names.
        found: u32,
        /// The version this crate reads and writes.
        supported: u32,
    },
    /// A chunk was asked for that the scan did not write.
    #[error("{} has {chunks} chunks of findings, there is no chunk {asked}", path.display())]
    ChunkAbsent {
        /// The findings' folder.
        path: PathBuf,
        /// The chunk asked for, counted from 0.
        asked: usize,
        /// How many there are.
        chunks: usize,
    },
    /// A worker thread died. This is a bug here, not in the data.
    #[error("a scan thread stopped without a result")]
    WorkerLost,

    /// A database, or what migration-core makes of it.
    #[error(transparent)]
    Core(#[from] crossfade_migration_core::Error),
    /// A key that its database would not take.
    #[error("could not {action} key {key}: {source}")]
    Key {
        /// What was being done, as a verb.
        action: &'static str,
        /// The key.
        key: String,
        /// The database's answer.
        source: Box<crossfade_migration_core::Error>,
    },
    /// Findings were made at another epoch than the migration stands at.
    #[error("{} was made at epoch {found}, and the migration is at epoch {expected}", path.display())]
    OtherEpoch {
        /// The findings' folder.
        path: PathBuf,
        /// The migration's epoch.
        expected: i64,
        /// The findings'.
        found: i64,
    },
    /// The migration moved on while something was under way.
    #[error(
        "migration {migration} has moved on from epoch {from} to {to} during the {what}; nothing was done at the new epoch"
    )]
    MovedOn {
        /// The migration.
        migration: String,
        /// What was under way.
        what: &'static str,
        /// The epoch that it began at.
        from: i64,
        /// The epoch now.
        to: i64,
    },
    /// Something that makes no sense in this phase.
    #[error("migration {migration} is in {phase}: {why}")]
    WrongPhase {
        /// The migration.
        migration: String,
        /// Where it stands.
        phase: crossfade_migration_core::phase::Phase,
        /// Why not.
        why: &'static str,
        /// What to do instead.
        hint: String,
    },
    /// The manifest does not say how old data is removed.
    #[error("migration {migration} has no mapping.retire, so nothing can be removed from the old store")]
    NotRetirable {
        /// The migration.
        migration: String,
        /// The old table.
        old: String,
    },
    /// A baseline that cannot be compared with what the projection gives today.
    #[error("{} is no baseline for migration {migration}: {why}", path.display())]
    Baseline {
        /// The snapshot's folder.
        path: PathBuf,
        /// The migration.
        migration: String,
        /// Why not.
        why: String,
    },
    /// A job that there is not.
    #[error("there is no job {job}")]
    UnknownJob {
        /// Its number.
        job: JobId,
    },
    /// An unfinished job of the same kind works on something else.
    #[error("job {job} of migration {migration} is {state} and works on {}; one {kind} at a time", source_path.display())]
    JobInTheWay {
        /// The migration.
        migration: String,
        /// What both do.
        kind: JobKind,
        /// The job.
        job: JobId,
        /// Where it stands.
        state: JobState,
        /// What it works on.
        source_path: PathBuf,
    },
    /// A job could not be brought to its end.
    #[error("job {job} of migration {migration} failed: {error}")]
    JobFailed {
        /// The migration.
        migration: String,
        /// The job.
        job: JobId,
        /// Why, in the words of the worker that met it.
        error: String,
    },
    /// An operator cancelled the job while it ran.
    #[error("job {job} of migration {migration} was cancelled")]
    JobCancelled {
        /// The migration.
        migration: String,
        /// The job.
        job: JobId,
    },
    /// What was under way was stopped by its caller.
    #[error("the {what} was stopped; what it has done stays done")]
    Stopped {
        /// What was under way.
        what: &'static str,
    },
    /// An export held its moment for as long as it may.
    #[error("the export has held its snapshot of the database open for {} s, which is as long as it may", age_max.as_secs())]
    SnapshotTooOld {
        /// How long it may.
        age_max: std::time::Duration,
    },
    /// The session that held an export's moment is gone, and the moment with it.
    #[error("the database ended the session that held the export's snapshot open: {source}")]
    SnapshotLost {
        /// The database's answer.
        source: Box<crossfade_migration_core::Error>,
    },
    /// A replica does not show yet what an export must show.
    #[error("replica {replica} has not replayed up to {position} within {} s", patience.as_secs())]
    ReplicaBehind {
        /// Its URL, with secrets masked.
        replica: String,
        /// The position of the primary that it has to reach.
        position: String,
        /// How long it was waited for.
        patience: std::time::Duration,
    },
    /// A URL of an object store that cannot be used.
    #[error("{url} is no object store that can be used here: {detail}")]
    ObjectStoreUrl {
        /// The URL.
        url: String,
        /// Why not.
        detail: String,
    },
    /// A store that this build cannot speak to.
    #[error("{url} cannot be reached by this crossfade: it was built without {feature}")]
    ObjectStoreFeature {
        /// The URL.
        url: String,
        /// The feature that brings the store.
        feature: &'static str,
    },
    /// There is no such bucket, or container.
    #[error("{url} cannot be used: there is no such bucket")]
    BucketAbsent {
        /// The URL.
        url: String,
    },
    /// An object store refused something, or broke off.
    #[error("could not {action} {object}: {}", make::store_answer(source))]
    ObjectStore {
        /// What was being done, as a verb.
        action: &'static str,
        /// The object.
        object: String,
        /// The store's answer.
        source: Box<object_store::Error>,
    },
    /// An object store stopped sending in the middle of an object.
    #[error("could not read {object}: nothing has come for {} s", stalled.as_secs_f32())]
    ObjectStalled {
        /// The object.
        object: String,
        /// How long nothing came.
        stalled: std::time::Duration,
    },
    /// The folder belongs to a run that is still going on.
    #[error("{} is in use by another process", path.display())]
    FolderInUse {
        /// The folder.
        path: PathBuf,
    },
}

fn row_group_text(row_group: Option<usize>) -> String {
    row_group.map_or_else(String::new, |group| format!(", row group {group},"))
}
