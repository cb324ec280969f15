//! The work of a cleanup on disk: which keys the old store has data of, and what that must look like to be removed.
//!
//! A folder of `work-NNNNN.parquet`, one per chunk, with the columns `key` (as [`Key::to_bytes`] writes it), `baseline`
//! and `new`: hashes of the key's rows, NULL where there are none. `work.json` is written last, and makes it whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::types::UInt64Type;
use arrow::array::{Array, ArrayRef, BinaryArray, RecordBatch, UInt64Array};
use bytes::Bytes;
use crossfade_migration_core::key::{Key, KeyValue};
use crossfade_migration_core::plan::Plan;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::baseline::Baseline;
use super::key_hashes::KeyHashes;
use crate::cancel::Cancel;
use crate::durable::{DurableFile, remove_leftovers, write_json};
use crate::error::{Error, Result};
use crate::snapshot::{Snapshot, SnapshotPair, checksum_text};

/// The file that makes a folder a cleanup's work.
const WORK_FILE: &str = "work.json";

/// What chunks' names begin with.
const FILE_PREFIX: &str = "work-";

/// Keys per chunk: as many as a chunk of findings has.
const CHUNK_KEYS: usize = 10_000;

/// The chunks of a cleanup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WorkPlan {
    /// What old data is compared with, and why.
    pub(super) baseline: String,
    /// What tells this work from any other.
    pub(super) digest: String,
    pub(super) chunks: Vec<WorkFile>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WorkFile {
    pub(super) name: String,
    pub(super) keys: u64,
    pub(super) checksum: String,
}

/// A key that the old store has data of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) key: Key,
    /// The hash of its old rows, as they were vouched for.
    pub(super) baseline: Option<u64>,
    /// The hash of its new rows, when the cleanup began.
    pub(super) new: Option<u64>,
}

impl Candidate {
    /// Whether old data with this hash may be removed.
    pub(super) fn permits(&self, hash: u64) -> bool {
        [self.baseline, self.new].contains(&Some(hash))
    }
}

impl WorkPlan {
    pub(super) fn read(folder: &Path) -> Result<WorkPlan> {
        let path = folder.join(WORK_FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::FindingsAbsent { path: folder.to_owned() });
            }
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        serde_json::from_slice(&text).map_err(|source| Error::FindingsSummary { path, source })
    }

    /// The candidates of a chunk, in key order.
    pub(super) fn load(&self, folder: &Path, number: usize) -> Result<Vec<Candidate>> {
        let chunks = self.chunks.len();
        let file = self.chunks.get(number).ok_or_else(|| Error::ChunkAbsent {
            path: folder.to_owned(),
            asked: number,
            chunks,
        })?;
        let path = folder.join(&file.name);
        let corrupt = |detail: String| Error::corrupt(&path, None)(detail);
        let bytes = match fs::read(&path) {
            Ok(bytes) => Bytes::from(bytes),
            // Told apart from a disk that fails: it will not be there the next time either.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::FileAbsent { path });
            }
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        if checksum_text(xxh3_64(&bytes)) != file.checksum {
            return Err(corrupt("its checksum is not its summary's".into()));
        }
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
            .and_then(ParquetRecordBatchReaderBuilder::build)
            .map_err(|error| corrupt(error.to_string()))?;
        let mut candidates = Vec::new();
        for batch in reader {
            let batch = batch.map_err(|error| corrupt(error.to_string()))?;
            candidates
                .extend(decode(&batch).ok_or_else(|| corrupt("it is not what a cleanup writes".into()))?);
        }
        Ok(candidates)
    }
}

/// Writes the work for all keys that the projection gives rows for, in `today`'s old side.
pub(super) fn write(
    plan: &Plan,
    today: &SnapshotPair,
    baseline: &Baseline,
    out: PathBuf,
    cancel: &Cancel,
) -> Result<WorkPlan> {
    fs::create_dir_all(&out).map_err(Error::io("create", &out))?;
    remove_leftovers(&out, FILE_PREFIX)?;
    let mut vouched = Vouched::new(plan, baseline);
    let mut new = Seeker::new(plan, today.new_side());
    let mut files = Vec::new();
    let mut chunk = Vec::with_capacity(CHUNK_KEYS);
    for entry in KeyHashes::new(plan, today.old()) {
        let (key, _) = entry?;
        if cancel.is_cancelled() {
            return Err(Error::Stopped { what: "cleanup" });
        }
        let was = vouched.seek(&key)?;
        let is = new.seek(&key)?;
        chunk.push(Candidate { key, baseline: was, new: is });
        if chunk.len() == CHUNK_KEYS {
            files.push(write_chunk(&out, files.len(), &chunk)?);
            chunk.clear();
        }
    }
    if !chunk.is_empty() {
        files.push(write_chunk(&out, files.len(), &chunk)?);
    }
    let checksums: String = files.iter().map(|file| file.checksum.as_str()).collect();
    let digest = checksum_text(xxh3_64(checksums.as_bytes()));
    let work = WorkPlan { baseline: baseline.explanation.clone(), digest, chunks: files };
    write_json(&out.join(WORK_FILE), &work)?;
    Ok(work)
}

/// What crossfade has vouched for, key by key in ascending order.
struct Vouched<'a> {
    closing: Option<[Seeker<'a>; 2]>,
    verified: Option<Seeker<'a>>,
}

impl<'a> Vouched<'a> {
    fn new(plan: &'a Plan, baseline: &'a Baseline) -> Self {
        let pair = baseline.closing.as_ref();
        Vouched {
            closing: pair.map(|pair| [pair.old(), pair.new_side()].map(|side| Seeker::new(plan, side))),
            verified: baseline.snapshot.as_ref().map(|snapshot| Seeker::new(plan, snapshot)),
        }
    }

    /// The hash of the rows that the old store may hold of a key. The moment in which it was closed goes before any
    /// verification; where the two stores did not agree in it, the verification before it is all there is.
    fn seek(&mut self, key: &Key) -> Result<Option<u64>> {
        let verified = self.verified.as_mut().map(|verified| verified.seek(key)).transpose()?.flatten();
        let Some([old, new]) = &mut self.closing else { return Ok(verified) };
        let (old, new) = (old.seek(key)?, new.seek(key)?);
        Ok(old.filter(|_| old == new).or(verified))
    }
}

/// A snapshot's keys, one of them already read.
struct Seeker<'a> {
    hashes: KeyHashes<'a>,
    pending: Option<(Key, u64)>,
}

impl<'a> Seeker<'a> {
    fn new(plan: &'a Plan, snapshot: &'a Snapshot) -> Self {
        Seeker { hashes: KeyHashes::new(plan, snapshot), pending: None }
    }

    fn seek(&mut self, key: &Key) -> Result<Option<u64>> {
        self.hashes.seek(&mut self.pending, key)
    }
}

fn write_chunk(out: &Path, index: usize, candidates: &[Candidate]) -> Result<WorkFile> {
    let name = format!("{FILE_PREFIX}{index:05}.parquet");
    let path = out.join(&name);
    let keys: BinaryArray = candidates.iter().map(|candidate| Some(candidate.key.to_bytes())).collect();
    let baseline: UInt64Array = candidates.iter().map(|candidate| candidate.baseline).collect();
    let new: UInt64Array = candidates.iter().map(|candidate| candidate.new).collect();
    let columns: [(&str, ArrayRef, bool); 3] = [
        ("key", Arc::new(keys), false),
        ("baseline", Arc::new(baseline), true),
        ("new", Arc::new(new), true),
    ];
    let batch =
        RecordBatch::try_from_iter_with_nullable(columns).map_err(Error::arrow("write a cleanup's work"))?;
    let file = DurableFile::create(path.clone())?;
    let mut writer =
        ArrowWriter::try_new(file, batch.schema(), None).map_err(Error::parquet_write(path.clone()))?;
    writer.write(&batch).map_err(Error::parquet_write(path.clone()))?;
    writer.finish().map_err(Error::parquet_write(path))?;
    let written = writer.inner_mut().finish()?;
    Ok(WorkFile { name, keys: candidates.len() as u64, checksum: checksum_text(written.checksum) })
}

fn decode(batch: &RecordBatch) -> Option<Vec<Candidate>> {
    let keys = batch.column_by_name("key")?.as_binary_opt::<i32>()?;
    let baseline = batch.column_by_name("baseline")?.as_primitive_opt::<UInt64Type>()?;
    let new = batch.column_by_name("new")?.as_primitive_opt::<UInt64Type>()?;
    let hash = |column: &UInt64Array, row: usize| column.is_valid(row).then(|| column.value(row));
    (0..batch.num_rows())
        .map(|row| {
            let key = decode_key(keys.value(row))?;
            Some(Candidate { key, baseline: hash(baseline, row), new: hash(new, row) })
        })
        .collect()
}

/// Reads what [`Key::to_bytes`] wrote; `None` for anything else.
fn decode_key(mut bytes: &[u8]) -> Option<Key> {
    let mut values = Vec::new();
    while let Some((&tag, rest)) = bytes.split_first() {
        let (length, rest) = rest.split_first_chunk::<8>()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let (content, rest) = rest.split_at_checked(length)?;
        values.push(match tag {
            1 => KeyValue::Int(i64::from_le_bytes(content.try_into().ok()?)),
            2 => KeyValue::Text(String::from_utf8(content.to_vec()).ok()?),
            3 => KeyValue::Uuid(uuid::Uuid::from_slice(content).ok()?),
            4 => KeyValue::Bytes(content.to_vec()),
            _ => return None,
        });
        bytes = rest;
    }
    Some(Key::new(values))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = KeyValue> {
        prop_oneof![
            any::<i64>().prop_map(KeyValue::Int),
            any::<String>().prop_map(KeyValue::Text),
            any::<u128>().prop_map(|number| KeyValue::Uuid(uuid::Uuid::from_u128(number))),
            any::<Vec<u8>>().prop_map(KeyValue::Bytes),
        ]
    }

    proptest! {
        #[test]
        fn keys_survive_a_round_trip(values in proptest::collection::vec(value(), 1..4)) {
            let key = Key::new(values);
            prop_assert_eq!(decode_key(&key.to_bytes()), Some(key));
        }

        #[test]
        fn strange_bytes_are_no_panic(bytes in any::<Vec<u8>>()) {
            let _ = decode_key(&bytes);
        }
    }

    fn candidate(key: i64, baseline: Option<u64>, new: Option<u64>) -> Candidate {
        Candidate { key: Key::from(key), baseline, new }
    }

    #[test]
    fn only_vouched_for_data_is_permitted() {
        assert!(candidate(1, Some(5), None).permits(5));
        assert!(candidate(1, Some(5), Some(6)).permits(6));
        assert!(!candidate(1, Some(5), Some(6)).permits(7));
        assert!(
            !candidate(1, None, None).permits(0),
            "a key that nobody vouched for is left, whatever its hash"
        );
    }

    #[test]
    fn chunks_survive_a_round_trip_and_damage_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let candidates = vec![candidate(1, Some(5), None), candidate(2, None, Some(0))];
        let file = write_chunk(folder.path(), 0, &candidates).unwrap();
        let plan = WorkPlan { baseline: String::new(), digest: String::new(), chunks: vec![file] };
        assert_eq!(plan.load(folder.path(), 0).unwrap(), candidates);
        assert!(matches!(plan.load(folder.path(), 1), Err(Error::ChunkAbsent { .. })));
        let path = folder.path().join("work-00000.parquet");
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(matches!(plan.load(folder.path(), 0), Err(Error::FileCorrupt { .. })));
    }
}
