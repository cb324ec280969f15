//! Jobs and chunks out of the rows of any engine: the queries give the same columns everywhere.

use crossfade_migration_core::phase::Epoch;
use sqlx::{ColumnIndex, Database, Decode, Row, Type};

use super::decide::ChunkCounts;
use super::{Checkpoint, Job, JobId, JobKind, JobState, Lease, Owner, Request};
use crate::error::{Error, Result};

/// An engine whose rows can be read here.
pub(super) trait Readable: Database
where
    for<'r> i64: Decode<'r, Self> + Type<Self>,
    for<'r> String: Decode<'r, Self> + Type<Self>,
    for<'r> &'r str: ColumnIndex<Self::Row>,
{
}

impl Readable for sqlx::Postgres {}
impl Readable for sqlx::Sqlite {}

macro_rules! reads {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($row:ident $(, $arg:ident: $type:ty)*) -> $result:ty $body:block) => {
        $(#[$meta])*
        $vis fn $name<DB: Readable>($row: &DB::Row $(, $arg: $type)*) -> Result<$result>
        where
            for<'r> i64: Decode<'r, DB> + Type<DB>,
            for<'r> String: Decode<'r, DB> + Type<DB>,
            for<'r> &'r str: ColumnIndex<DB::Row>,
        $body
    };
}

reads! {
    pub(super) fn job(row) -> Job {
        let kind = text::<DB>(row, "kind")?;
        let state = text::<DB>(row, "state")?;
        let requested = text::<DB>(row, "requested")?;
        let params = text::<DB>(row, "params")?;
        Ok(Job {
            id: JobId(number::<DB>(row, "id")?),
            kind: JobKind::parse(&kind).ok_or_else(|| unreadable("kind", &kind))?,
            state: JobState::parse(&state).ok_or_else(|| unreadable("state", &state))?,
            requested: Request::parse(&requested).ok_or_else(|| unreadable("request", &requested))?,
            epoch: Epoch(number::<DB>(row, "epoch")?),
            source: text::<DB>(row, "source")?.into(),
            digest: text::<DB>(row, "digest")?,
            tunables: serde_json::from_str(&params).map_err(|_| unreadable("settings", &params))?,
            error: row.try_get("error").map_err(Error::database("reading a job"))?,
            created_at: text::<DB>(row, "created_at")?,
            chunks: count::<DB>(row, "chunks")?,
            chunks_done: count::<DB>(row, "chunks_done")?,
            chunks_leased: count::<DB>(row, "chunks_leased")?,
            chunks_failed: count::<DB>(row, "chunks_failed")?,
            keys: count::<DB>(row, "keys")?,
            done: checkpoint::<DB>(row)?,
        })
    }
}

reads! {
    pub(super) fn lease(row, job: JobId, owner: &Owner) -> Lease {
        let narrow = |what: &str, number: u64| u32::try_from(number).map_err(|_| unreadable(what, &number.to_string()));
        Ok(Lease {
            job,
            number: narrow("chunk", count::<DB>(row, "number")?)?,
            owner: owner.clone(),
            attempts: narrow("attempts", count::<DB>(row, "attempts")?)?,
            checkpoint: checkpoint::<DB>(row)?,
        })
    }
}

reads! {
    /// What is wanted of a job, where it stands, and how its chunks do.
    pub(super) fn situation(row) -> (JobState, Request, ChunkCounts) {
        let state = text::<DB>(row, "state")?;
        let requested = text::<DB>(row, "requested")?;
        let chunks = ChunkCounts {
            open: count::<DB>(row, "chunks_open")?,
            leased: count::<DB>(row, "chunks_leased")?,
            done: count::<DB>(row, "chunks_done")?,
            failed: count::<DB>(row, "chunks_failed")?,
        };
        Ok((
            JobState::parse(&state).ok_or_else(|| unreadable("state", &state))?,
            Request::parse(&requested).ok_or_else(|| unreadable("request", &requested))?,
            chunks,
        ))
    }
}

reads! {
    fn checkpoint(row) -> Checkpoint {
        Ok(Checkpoint {
            keys_done: count::<DB>(row, "keys_done")?,
            copied: count::<DB>(row, "copied")?,
            repaired: count::<DB>(row, "repaired")?,
            removed: count::<DB>(row, "removed")?,
            retired: count::<DB>(row, "retired")?,
            kept: count::<DB>(row, "kept")?,
        })
    }
}

reads! {
    fn text(row, column: &str) -> String {
        row.try_get(column).map_err(Error::database("reading a job"))
    }
}

reads! {
    fn number(row, column: &str) -> i64 {
        row.try_get(column).map_err(Error::database("reading a job"))
    }
}

reads! {
    fn count(row, column: &str) -> u64 {
        let number = number::<DB>(row, column)?;
        u64::try_from(number).map_err(|_| unreadable(column, &number.to_string()))
    }
}

/// Something that this version did not write.
fn unreadable(what: &str, found: &str) -> Error {
    crossfade_migration_core::Error::Unreadable { what: format!("a job with the {what} {found:?}") }.into()
}
