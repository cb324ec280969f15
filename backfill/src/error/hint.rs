//! What to do about an error.

use std::io;

use super::Error;
use crate::queue::JobKind;

impl Error {
    /// What the caller can do next, where there is something.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::DiskFull { .. } => {
                "free some space or choose another folder, then run the command again".into()
            }
            Self::SnapshotAbsent { .. } => {
                "a snapshot that was interrupted leaves no manifest; take it again with `crossfade snapshot`"
                    .into()
            }
            Self::SnapshotPresent { .. } => "choose an empty folder, or delete the old snapshot first".into(),
            Self::SnapshotVersion { found, supported, .. } if found > supported => {
                "it was written by a newer crossfade: upgrade this one, or take the snapshot again".into()
            }
            Self::SnapshotManifest { .. }
            | Self::SnapshotVersion { .. }
            | Self::SnapshotInconsistent { .. }
            | Self::FileAbsent { .. }
            | Self::FileLength { .. }
            | Self::FileCorrupt { .. }
            | Self::FileSchema { .. } => {
                "copy the folder again from where it was taken, or take the snapshot again".into()
            }
            Self::OtherMigration { expected, .. } => {
                format!("point at a snapshot that was taken with `crossfade snapshot {expected}`")
            }
            Self::OtherManifest { .. } => {
                "the projection may have changed since: take the snapshot again".into()
            }
            Self::OtherStore { .. } | Self::OtherColumns { .. } => {
                "take a full snapshot, without --since; later ones can be taken since that one".into()
            }
            Self::OlderEpoch { .. } => {
                "the phase or the ramp has changed since it was taken: take the snapshot again; crossfade scan --stale looks \
                 at it all the same"
                    .into()
            }
            Self::SidesDiffer { .. } => "take both sides in one run of `crossfade snapshot`".into(),
            Self::KeyColumnAbsent { column, .. } => format!("add {column} to what the projection selects"),
            Self::KeyType { column, .. } => {
                format!("cast {column} to an integer, text, uuid, bytes, decimal, date or timestamp")
            }
            Self::ColumnType { column, .. } => format!("cast {column} to text in the projection"),
            Self::KeyNull { column, .. } => {
                format!("let the projection filter out rows whose {column} is null, or give them a value")
            }
            Self::KeyOrder { .. } => {
                "order by all key columns, text bytewise (in Postgres: collate \"C\")".into()
            }
            Self::FolderTaken { .. } => "choose an empty folder".into(),
            Self::DumpAbsent { .. } => {
                "point at a Parquet file, or at a folder that directly holds some".into()
            }
            Self::DumpKeyNull { column, .. } => {
                format!("leave rows whose {column} is null out of the dump: nothing can be said of a row without a key")
            }
            Self::DumpKeyOrder { .. } => {
                "scan it as unordered, or write it again ordered by all key columns, text bytewise".into()
            }
            Self::DumpsDiffer { .. } => {
                "name the columns that both dumps have, or write one of the dumps again with the other's types".into()
            }
            Self::DumpUnreadable { .. } => "leave the column out with --columns, or write the dump again".into(),
            Self::DumpColumns { .. } => "name the columns that both dumps have, or write the dump again".into(),
            Self::KeyText { .. } => "give the key's columns one by one, as `inspect` shows them".into(),
            Self::FindingsPresent { .. } => {
                "choose an empty folder, or delete the old findings first".into()
            }
            Self::FindingsAbsent { .. } => {
                "a scan that was interrupted leaves no summary; run `crossfade scan` again".into()
            }
            Self::FindingsSummary { .. } | Self::FindingsVersion { .. } | Self::ChunkAbsent { .. } => {
                "run `crossfade scan` again".into()
            }
            Self::Core(error) => return error.hint(),
            Self::Key { source, .. } => return source.hint(),
            Self::OtherEpoch { .. } => "the phase or the ramp has changed since: run `crossfade backfill`, or take a new snapshot and scan it".into(),
            Self::MovedOn { .. } => "run the same command again: it starts with fresh snapshots".into(),
            Self::WrongPhase { hint, .. } => hint.clone(),
            Self::NotRetirable { old, .. } => format!(
                "write the statements that take the moved data out of {old} for a set of keys as mapping.retire, with :keys \
                 where the key filter goes; afterwards the projection must give no rows for these keys"
            ),
            Self::Baseline { .. } => {
                "give the folder of the verification that opened new_only, or leave --baseline out".into()
            }
            Self::UnknownJob { .. } => "`crossfade jobs` lists a migration's".into(),
            Self::JobInTheWay { migration, kind, source_path, job, .. } => {
                let finish = match kind {
                    JobKind::Copy => format!("crossfade copy {migration} --findings {}", source_path.display()),
                    JobKind::Cleanup => format!("crossfade cleanup {migration}"),
                };
                format!("finish it with `{finish}`, or give it up with `crossfade cancel {migration} --job {job}`")
            }
            Self::JobFailed { .. } => "mend what it names, then run the same command again: done work is not done twice".into(),
            Self::Answer { .. } => {
                "do the snapshots change meanwhile, or do the executors see other files? If not, scan with `--engine local`"
                    .into()
            }
            Self::JobCancelled { .. } | Self::Stopped { .. } => "run the same command again to go on".into(),
            Self::SnapshotTooOld { .. } => {
                "while it is held, the database cannot remove dead rows: export with more connections, without a limit of \
                 the rate, or from a replica; or allow more time, if its tables bear it"
                    .into()
            }
            Self::SnapshotLost { .. } => {
                "the moment is gone with its session, so run the command again; see that no timeout and nobody ends \
                 long transactions meanwhile"
                    .into()
            }
            Self::ReplicaBehind { .. } => {
                "run the command again when the replica has caught up (pg_last_wal_replay_lsn), or leave the replica out".into()
            }
            Self::ObjectStoreUrl { .. } => {
                "write s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or file:///folder; the first three need a \
                 crossfade that was built with the feature s3, gcs or azure"
                    .into()
            }
            Self::ObjectStoreFeature { feature, .. } => {
                format!("build one that can: cargo install crossfade --features {feature}")
            }
            Self::BucketAbsent { .. } => {
                "is its name right, and the endpoint in the environment (AWS_ENDPOINT for stores that are not Amazon's)? Buckets \
                 are not made by crossfade"
                    .into()
            }
            Self::ObjectStore { source, .. } => store_hint(source).into(),
            Self::ObjectStalled { .. } => "run the command again when the store answers at its usual speed".into(),
            Self::FolderInUse { .. } => "wait for it, or choose another folder".into(),
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    "choose a folder that may be written, or grant the rights".into()
                }
                io::ErrorKind::NotFound => "is the path right?".into(),
                io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => "a file is in the way: choose another folder".into(),
                _ => "look at the disk, then run the same command again".into(),
            },
            Self::Arrow { .. }
            | Self::ParquetWrite { .. }
            | Self::Encode { .. }
            | Self::BatchSchema { .. }
            | Self::Cancelled { .. }
            | Self::WorkerLost => return None,
        };
        Some(hint)
    }
}

fn store_hint(error: &object_store::Error) -> &'static str {
    use object_store::Error as Store;
    let text = error.to_string();
    let is_refused =
        ["403 Forbidden", "401 Unauthorized", "credential", "169.254.169.254", "metadata.google"];
    match error {
        Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => CREDENTIALS_HINT,
        _ if is_refused.iter().any(|sign| text.contains(sign)) => CREDENTIALS_HINT,
        Store::Precondition { .. } => {
            "the object was written again meanwhile: run the command again when nobody writes there any more"
        }
        _ => {
            "see that the store is up and that its endpoint in the environment is right (AWS_ENDPOINT, and AWS_ALLOW_HTTP=true \
             for http), then run the same command again: what has arrived is kept, and what is there without its manifest is \
             no snapshot"
        }
    }
}

/// Where no key is named, Amazon's and Google's clients ask the machine that they run on, by the addresses above.
const CREDENTIALS_HINT: &str = "put credentials that may read and write there into the environment: AWS_ACCESS_KEY_ID and \
     AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS, or what Azure's tools read (AZURE_STORAGE_…)";
