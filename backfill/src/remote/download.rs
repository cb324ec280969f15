//! One object into one file.

use std::io::Write;
use std::path::Path;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path as ObjectPath;
use object_store::{GetOptions, GetRange};

use super::Remote;
use crate::durable::{DurableFile, Written};
use crate::error::{Error, Result};
use crate::progress::Meter;

/// Bytes that one request asks for: long enough that asking costs nothing, short enough that little is asked for again
/// where a connection breaks.
const PIECE_BYTES: u64 = 8 << 20;

/// Pieces on their way at once: a store sends several as fast as one. They bound the memory.
const PIECES_IN_FLIGHT: usize = 4;

/// How often a piece is asked for whose body broke off or stalled. The store's client asks again by itself where a
/// request fails at once.
const ATTEMPTS_MAX: u32 = 3;

/// An object that is wanted.
#[derive(Debug, Clone)]
pub(super) struct Wanted<'a> {
    pub(super) object: &'a ObjectPath,
    /// Its name for messages.
    pub(super) named: &'a str,
    pub(super) bytes: u64,
    /// What the store calls this state of it: another must not be mixed in.
    pub(super) e_tag: Option<&'a str>,
}

impl Remote {
    /// Brings what `target` does not have yet of the object to the disk, under the file's own name.
    pub(super) async fn download(
        &self,
        wanted: &Wanted<'_>,
        mut target: DurableFile,
        meter: &Meter<'_>,
    ) -> Result<Written> {
        let starts = (target.len()..wanted.bytes).step_by(PIECE_BYTES as usize);
        let pieces = stream::iter(starts).map(|start| self.piece(wanted, start));
        let mut pieces = pieces.buffered(PIECES_IN_FLIGHT);
        while let Some(piece) = pieces.try_next().await? {
            target.write_all(&piece).map_err(Error::io("write", target.path()))?;
            meter.add(piece.len() as u64);
        }
        target.finish()
    }

    async fn piece(&self, wanted: &Wanted<'_>, start: u64) -> Result<Bytes> {
        let range = start..wanted.bytes.min(start + PIECE_BYTES);
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.attempt(wanted, range.clone()).await {
                Err(error) if attempts < ATTEMPTS_MAX && may_pass(&error) => {
                    tracing::warn!(object = %wanted.named, %error, "a piece of an object is fetched again");
                }
                outcome => return outcome,
            }
        }
    }

    async fn attempt(&self, wanted: &Wanted<'_>, range: std::ops::Range<u64>) -> Result<Bytes> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            if_match: wanted.e_tag.map(str::to_owned),
            ..GetOptions::default()
        };
        let answer = self.timely(wanted.named, self.store.get_opts(wanted.object, options)).await?;
        let answer = answer.map_err(self.failed("read", wanted.named))?;
        let length = |found| Error::FileLength { path: wanted.named.into(), expected: wanted.bytes, found };
        if answer.meta.size != wanted.bytes {
            return Err(length(answer.meta.size));
        }
        let expected = range.end - range.start;
        let mut piece = Vec::with_capacity(usize::try_from(expected).unwrap_or(0));
        let mut body = answer.into_stream();
        loop {
            let more = tokio::time::timeout(self.patience, body.next()).await;
            let Some(more) = more.map_err(|_| self.stalled_for(wanted.named, self.patience))? else { break };
            piece.extend_from_slice(&more.map_err(self.failed("read", wanted.named))?);
            if piece.len() as u64 > expected {
                break;
            }
        }
        if piece.len() as u64 != expected {
            return Err(length(range.start + piece.len() as u64));
        }
        Ok(piece.into())
    }
}

/// Neither an object that is not there nor a refusal gets better by asking again.
fn may_pass(error: &Error) -> bool {
    match error {
        Error::ObjectStore { source, .. } => matches!(**source, object_store::Error::Generic { .. }),
        Error::ObjectStalled { .. } | Error::FileLength { .. } => true,
        _ => false,
    }
}

/// The XXH3-64 and the length of a file, if it is there.
pub(super) fn written(path: &Path) -> Result<Option<Written>> {
    match std::fs::File::open(path) {
        Ok(file) => crate::durable::read_through(file).map(Some).map_err(Error::io("read", path)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("open", path)(error)),
    }
}
