//! Findings: what a scan found, as Parquet cut into chunks of work, with a summary in JSON.
//!
//! Owns the format on disk, and what a chunk means for whoever works it off: which scope keys, and whether a key only
//! lacks rows or must be repaired. Each chunk is a file `findings-NNNNN.parquet` with the columns
//!
//! - `kind`: `missing`, `mismatched`, `orphaned` or `duplicated`;
//! - the key columns, with their own names and types (`key.kind` and `key.columns`, should a key be called so);
//! - `columns`: for a mismatched row the names of the columns that differ, else an empty list.
//!
//! Findings are in key order, and no two chunks share a scope key.

mod checkpoint;
mod reader;
mod summary;
mod writer;

pub use reader::{Findings, FindingsChunk, Need};
pub use summary::{FindingsFile, ScanInput, ScanSummary};

pub(crate) use checkpoint::Cut;
pub(crate) use summary::FORMAT_VERSION;
pub(crate) use writer::FindingsWriter;

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};

/// The file that makes a folder a scan's result. It is written last.
pub const SUMMARY_FILE: &str = "scan.json";

const KIND_COLUMN: &str = "kind";
const COLUMNS_COLUMN: &str = "columns";

/// What is wrong with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Old has the row, new does not.
    Missing,
    /// Both have the row, with different values.
    Mismatched,
    /// New has the row, old does not.
    Orphaned,
    /// On one side more than one row has the key, whatever the other side has.
    Duplicated,
}

impl FindingKind {
    /// As it is written in findings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Mismatched => "mismatched",
            Self::Orphaned => "orphaned",
            Self::Duplicated => "duplicated",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Missing, Self::Mismatched, Self::Orphaned, Self::Duplicated]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The columns of findings about keys with these columns.
pub(crate) fn findings_schema(key: impl IntoIterator<Item = (String, DataType)>) -> SchemaRef {
    let item = Arc::new(Field::new("item", DataType::Utf8, false));
    let mut fields = vec![Field::new(KIND_COLUMN, DataType::Utf8, false)];
    fields.extend(key.into_iter().map(|(name, data_type)| {
        let taken = name == KIND_COLUMN || name == COLUMNS_COLUMN;
        Field::new(if taken { format!("key.{name}") } else { name }, data_type, false)
    }));
    fields.push(Field::new(COLUMNS_COLUMN, DataType::List(item), false));
    Arc::new(Schema::new(fields))
}
