//! Rows in Postgres' binary format, into Arrow record batches.

use std::iter::once;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;

use super::block::Block;
use super::values::{Fault, Form, Values};
use crate::catalog::{ColumnKind, ColumnSchema};
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::rows::BATCH_ROWS;

/// A batch is closed at this size even if it has few rows, so that batches in flight stay within a few
/// megabytes. Far below the 2 GiB where Arrow's offsets end, which one more block cannot reach either:
/// it is small, but for its last row, and a row of Postgres' is 1 GiB at most.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// Collects rows of a plan's columns.
pub(super) struct Batch {
    schema: SchemaRef,
    what: String,
    form: Form,
    columns: Vec<Column>,
    rows: usize,
}

struct Column {
    name: String,
    sql_type: String,
    is_key: bool,
    kind: ColumnKind,
    values: Values,
}

impl Batch {
    /// An empty batch; `what` says in errors where the rows come from.
    pub(super) fn new(plan: &Plan, what: String, form: Form) -> Batch {
        let column = |column: &ColumnSchema| Column {
            name: column.name.clone(),
            sql_type: column.sql_type.clone(),
            is_key: plan.order().contains(&column.name),
            kind: column.kind,
            values: Values::with_room(column.kind, form, 0, 0),
        };
        let columns = plan.columns().iter().map(column).collect();
        Batch { schema: plan.schema(), what, form, columns, rows: 0 }
    }

    /// Adds a value of the present row; NULL is `None`.
    pub(super) fn push(&mut self, column: usize, value: Option<&[u8]>) -> Result<()> {
        let Some(column) = self.columns.get_mut(column) else {
            return Err(malformed("a row has more values than the projection has columns"));
        };
        column.extend(once(value)).map_err(|fault| column.refusal(&self.what, fault))
    }

    /// Ends the present row.
    pub(super) fn end_row(&mut self) {
        self.rows += 1;
    }

    /// Adds the rows of a block, column by column.
    pub(super) fn push_block(&mut self, block: &Block) -> Result<()> {
        for (position, column) in self.columns.iter_mut().enumerate() {
            column.extend(block.column(position)).map_err(|fault| column.refusal(&self.what, fault))?;
        }
        self.rows += block.rows();
        Ok(())
    }

    /// How many rows it holds.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// How many columns a row has.
    pub(super) fn width(&self) -> usize {
        self.columns.len()
    }

    /// For how many rows there is still room, unless they are large.
    pub(super) fn room(&self) -> usize {
        BATCH_ROWS.saturating_sub(self.rows)
    }

    /// Whether no further row should go in.
    pub(super) fn is_full(&self) -> bool {
        self.room() == 0 || self.bytes() >= BATCH_BYTES_MAX
    }

    /// Whether all its values surely fit into one record batch, whose offsets are 32-bit numbers.
    pub(super) fn fits(&self) -> bool {
        self.bytes() <= i32::MAX as usize
    }

    /// How many bytes its values have together, where their types have no width.
    fn bytes(&self) -> usize {
        self.columns.iter().map(|column| column.values.bytes()).sum()
    }

    /// Takes the rows out, and leaves it empty, with room for as many of the same kind: growing step by step costs more than
    /// filling does.
    pub(super) fn take(&mut self) -> Result<RecordBatch> {
        // Rows that travel already come in one batch, after which there is no next.
        let rows = std::mem::take(&mut self.rows) * usize::from(self.form == Form::Raw);
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
        for (column, field) in self.columns.iter_mut().zip(self.schema.fields()) {
            let bytes = if rows == 0 { 0 } else { column.values.bytes() };
            let next = Values::with_room(column.kind, self.form, rows, bytes + bytes / 8);
            let full = std::mem::replace(&mut column.values, next);
            arrays.push(full.finish(field.data_type()).map_err(|fault| column.refusal(&self.what, fault))?);
        }
        RecordBatch::try_new(Arc::clone(&self.schema), arrays).map_err(|source| Error::Arrow {
            doing: format!("putting rows of {} into Arrow", self.what),
            source,
        })
    }
}

impl Column {
    fn extend<'a>(&mut self, values: impl Iterator<Item = Option<&'a [u8]>>) -> Result<(), Fault> {
        self.values.extend(values)?;
        if self.is_key && self.values.has_nulls() {
            return Err(Fault::Unfit("NULL, though it is part of the key"));
        }
        Ok(())
    }

    fn refusal(&self, what: &str, fault: Fault) -> Error {
        match fault {
            Fault::Malformed => malformed("a value is longer or shorter than its type"),
            Fault::Unfit(value) => Error::Value {
                what: what.to_owned(),
                column: self.name.clone(),
                value: value.to_owned(),
                sql_type: self.sql_type.clone(),
            },
        }
    }
}

/// What Postgres sent is not what its binary format says.
pub(super) fn malformed(what: &str) -> Error {
    Error::Database {
        doing: "reading rows in binary".to_owned(),
        source: sqlx::Error::Protocol(what.to_owned()),
    }
}
