//! What the databases say about the two tables.

pub(crate) mod postgres;
pub(crate) mod sqlite;

use arrow::datatypes::{DataType, TimeUnit};
use async_trait::async_trait;
use serde::Serialize;

use crate::error::Result;
use crate::manifest::TableName;

/// A live table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSchema {
    /// The name, as it was asked for.
    pub name: TableName,
    /// The columns, in the table's order.
    pub columns: Vec<ColumnSchema>,
    /// The primary key's columns, in key order; empty where there is none.
    pub primary_key: Vec<String>,
    /// The columns of every other unique index that has neither a filter nor a nullable column.
    pub unique_keys: Vec<Vec<String>>,
    /// About how many rows there are.
    pub rows_estimate: u64,
}

/// A column of a live table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ColumnSchema {
    /// The name.
    pub name: String,
    /// The type in the engine's words, without length, precision or scale: a cast to it never
    /// shortens or rounds a value.
    pub sql_type: String,
    /// How its values travel.
    pub kind: ColumnKind,
    /// Whether it may hold NULL.
    pub nullable: bool,
    /// Whether a row may leave it out: it has a default, is an identity, or is generated.
    pub has_default: bool,
    /// Whether the database computes it, so that it can never be written.
    pub generated: bool,
}

/// How a column's values travel between stores and into snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnKind {
    /// True or false.
    Bool,
    /// Integers of up to eight bytes.
    Int,
    /// Binary floating point.
    Float,
    /// Text, compared byte by byte.
    Text,
    /// Bytes.
    Bytes,
    /// A uuid as sixteen bytes.
    Uuid,
    /// Days.
    Date,
    /// Microseconds without a time zone.
    Timestamp,
    /// Microseconds in UTC.
    TimestampTz,
    /// JSON, travelling as the text of its normal form.
    Json,
    /// Exact numbers of any size, travelling as text without trailing zeros.
    Numeric,
    /// Anything else, travelling in the database's own text form.
    Other,
}

impl ColumnKind {
    /// The Arrow type of such a column in a record batch.
    pub fn arrow(self) -> DataType {
        match self {
            ColumnKind::Bool => DataType::Boolean,
            ColumnKind::Int => DataType::Int64,
            ColumnKind::Float => DataType::Float64,
            ColumnKind::Bytes => DataType::Binary,
            ColumnKind::Uuid => DataType::FixedSizeBinary(16),
            ColumnKind::Date => DataType::Date32,
            ColumnKind::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            ColumnKind::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            ColumnKind::Text | ColumnKind::Json | ColumnKind::Numeric | ColumnKind::Other => DataType::Utf8,
        }
    }
}

impl TableSchema {
    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&ColumnSchema> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Whether these columns, in any order, identify a row.
    pub fn is_key(&self, columns: &[String]) -> bool {
        std::iter::once(&self.primary_key).chain(&self.unique_keys).any(|key| {
            !key.is_empty() && key.len() == columns.len() && key.iter().all(|column| columns.contains(column))
        })
    }
}

/// Reads what a database says of its tables and queries.
///
/// # Contract
/// Nothing is written, and nothing is locked beyond what reading a catalogue needs.
#[async_trait]
pub trait Catalog: Send + Sync {
    /// The table of this name.
    ///
    /// # Errors
    /// [`crate::Error::NoTable`] when there is none.
    async fn table(&self, name: &TableName) -> Result<TableSchema>;

    /// A query that gives no key which any row could have, to stand for `:keys` in a dry run: NULL in each of
    /// the key's columns, comparable with them.
    fn no_keys(&self, key: &[&ColumnSchema]) -> String;

    /// The names of the columns that a query gives, in order, without running it.
    ///
    /// # Errors
    /// [`crate::Error::Query`] with the database's words when it is not a query that it understands.
    async fn columns_of(&self, query: &str) -> Result<Vec<String>>;
}
