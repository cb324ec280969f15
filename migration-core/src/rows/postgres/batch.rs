//! Values in Postgres' binary format, into Arrow arrays.

use std::sync::Arc;

use arrow::array::builder::{
    BinaryBuilder, BooleanBuilder, Date32Builder, FixedSizeBinaryBuilder, Float64Builder, Int64Builder,
    StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, SchemaRef};

use super::copy::{Field, field};
use super::numeric::{Decimal, decimal};
use crate::catalog::{ColumnKind, ColumnSchema};
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::rows::BATCH_ROWS;

/// Postgres counts days from 2000-01-01, Arrow from 1970-01-01.
const EPOCH_DAYS: i32 = 10_957;

/// The same in microseconds.
const EPOCH_MICROSECONDS: i64 = EPOCH_DAYS as i64 * 86_400 * 1_000_000;

/// What stands before the text of JSON in binary.
const JSONB_VERSION: u8 = 1;

/// A batch is closed at this size even if it has few rows, so that batches in flight stay within a few
/// megabytes. Far below the 2 GiB where Arrow's offsets end, which one more row cannot reach either:
/// a value of Postgres' is 1 GiB at most.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// In which form values arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// In the form in which they travel on: the server has turned them into it.
    Travelling,
    /// In their own type's binary form, which costs the server least; they are turned here.
    Raw,
}

/// Collects rows of a plan's columns.
pub(super) struct Batch {
    schema: SchemaRef,
    what: String,
    form: Form,
    columns: Vec<Column>,
    rows: usize,
    bytes: usize,
}

struct Column {
    name: String,
    sql_type: String,
    is_key: bool,
    kind: ColumnKind,
    values: Values,
}

enum Values {
    Bool(BooleanBuilder),
    Int(Int64Builder),
    Float(Float64Builder),
    /// Text, of which a whole batch is checked at once: many times faster than value by value.
    Text(BinaryBuilder),
    /// An exact number in binary, which becomes text.
    Numeric(StringBuilder),
    /// JSON in binary, which is text behind a version.
    Json(BinaryBuilder),
    Bytes(BinaryBuilder),
    Uuid(FixedSizeBinaryBuilder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
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
        Batch { schema: plan.schema(), what, form, columns, rows: 0, bytes: 0 }
    }

    /// Adds a value of the present row; NULL is `None`.
    #[inline]
    pub(super) fn push(&mut self, column: usize, value: Option<&[u8]>) -> Result<()> {
        let Some(column) = self.columns.get_mut(column) else {
            return Err(malformed("a row has more values than the projection has columns"));
        };
        let outcome = match value {
            None => column.push_null(),
            Some(bytes) => {
                self.bytes += bytes.len();
                column.values.push(bytes)
            }
        };
        outcome.map_err(|fault| column.refusal(&self.what, fault))
    }

    /// Adds a row: the fields of all columns, each behind its length.
    pub(super) fn push_row(&mut self, mut fields: &[u8]) -> Result<()> {
        let mut bytes = 0;
        for column in &mut self.columns {
            let outcome = match field(fields) {
                Field::Value(value, rest) => {
                    fields = rest;
                    bytes += value.len();
                    column.values.push(value)
                }
                Field::Null(rest) => {
                    fields = rest;
                    column.push_null()
                }
                Field::Partial | Field::Malformed => Err(Fault::Malformed),
            };
            if let Err(fault) = outcome {
                return Err(column.refusal(&self.what, fault));
            }
        }
        self.bytes += bytes;
        self.rows += 1;
        Ok(())
    }

    /// Ends the present row.
    pub(super) fn end_row(&mut self) {
        self.rows += 1;
    }

    /// How many rows it holds.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// How many columns a row has.
    pub(super) fn width(&self) -> usize {
        self.columns.len()
    }

    /// Whether no further row should go in.
    pub(super) fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES_MAX
    }

    /// Whether all its values surely fit into one record batch, whose offsets are 32-bit numbers.
    pub(super) fn fits(&self) -> bool {
        self.bytes <= i32::MAX as usize
    }

    /// Takes the rows out, and leaves it empty, with room for as many of the same kind: growing step by step costs more than
    /// filling does.
    pub(super) fn take(&mut self) -> Result<RecordBatch> {
        // Rows that travel already come in one batch, after which there is no next.
        let rows = std::mem::take(&mut self.rows) * usize::from(self.form == Form::Raw);
        self.bytes = 0;
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
        for (column, field) in self.columns.iter_mut().zip(self.schema.fields()) {
            let bytes = if rows == 0 { 0 } else { column.values.bytes() };
            let next = Values::with_room(column.kind, self.form, rows, bytes + bytes / 8);
            let mut full = std::mem::replace(&mut column.values, next);
            arrays.push(full.take(field.data_type()).map_err(|fault| column.refusal(&self.what, fault))?);
        }
        RecordBatch::try_new(Arc::clone(&self.schema), arrays).map_err(|source| Error::Arrow {
            doing: format!("putting rows of {} into Arrow", self.what),
            source,
        })
    }
}

impl Column {
    fn push_null(&mut self) -> Result<(), Fault> {
        if self.is_key {
            return Err(Fault::Unfit("NULL, though it is part of the key"));
        }
        self.values.push_null();
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

/// Why a value cannot be taken.
enum Fault {
    /// Arrow has no such value.
    Unfit(&'static str),
    /// It is not of the length that its type has.
    Malformed,
}

impl Values {
    /// Room for no value yet.
    #[cfg(test)]
    fn new(kind: ColumnKind, form: Form) -> Values {
        Values::with_room(kind, form, 0, 0)
    }

    /// Room for so many values, of so many bytes together where their type has no width.
    fn with_room(kind: ColumnKind, form: Form, rows: usize, bytes: usize) -> Values {
        match kind {
            ColumnKind::Numeric if form == Form::Raw => {
                Values::Numeric(StringBuilder::with_capacity(rows, bytes))
            }
            ColumnKind::Json if form == Form::Raw => Values::Json(BinaryBuilder::with_capacity(rows, bytes)),
            ColumnKind::Bool => Values::Bool(BooleanBuilder::with_capacity(rows)),
            ColumnKind::Int => Values::Int(Int64Builder::with_capacity(rows)),
            ColumnKind::Float => Values::Float(Float64Builder::with_capacity(rows)),
            ColumnKind::Bytes => Values::Bytes(BinaryBuilder::with_capacity(rows, bytes)),
            ColumnKind::Uuid => Values::Uuid(FixedSizeBinaryBuilder::with_capacity(rows, 16)),
            ColumnKind::Date => Values::Date(Date32Builder::with_capacity(rows)),
            ColumnKind::Timestamp | ColumnKind::TimestampTz => {
                Values::Timestamp(TimestampMicrosecondBuilder::with_capacity(rows))
            }
            ColumnKind::Text | ColumnKind::Json | ColumnKind::Numeric | ColumnKind::Other => {
                Values::Text(BinaryBuilder::with_capacity(rows, bytes))
            }
        }
    }

    /// How many bytes its values have together, where their type has no width.
    fn bytes(&self) -> usize {
        match self {
            Values::Text(builder) | Values::Json(builder) | Values::Bytes(builder) => {
                builder.values_slice().len()
            }
            Values::Numeric(builder) => builder.values_slice().len(),
            _ => 0,
        }
    }

    #[inline]
    fn push(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        match self {
            Values::Bool(builder) => builder.append_value(fixed::<1>(bytes)? != [0]),
            Values::Int(builder) => builder.append_value(integer(bytes)?),
            Values::Float(builder) => builder.append_value(float(bytes)?),
            Values::Text(builder) => builder.append_value(bytes),
            Values::Json(builder) => match bytes {
                [JSONB_VERSION, json @ ..] => builder.append_value(json),
                _ => return Err(Fault::Malformed),
            },
            Values::Numeric(builder) => match decimal(bytes) {
                Some(Decimal::Short(digits)) => builder.append_value(digits.as_str()),
                Some(Decimal::Long(digits)) => builder.append_value(digits),
                None => return Err(Fault::Malformed),
            },
            Values::Bytes(builder) => builder.append_value(bytes),
            Values::Uuid(builder) => {
                builder.append_value(fixed::<16>(bytes)?).map_err(|_| Fault::Malformed)?;
            }
            Values::Date(builder) => builder.append_value(date(i32::from_be_bytes(fixed(bytes)?))?),
            Values::Timestamp(builder) => {
                builder.append_value(timestamp(i64::from_be_bytes(fixed(bytes)?))?);
            }
        }
        Ok(())
    }

    fn push_null(&mut self) {
        match self {
            Values::Bool(builder) => builder.append_null(),
            Values::Int(builder) => builder.append_null(),
            Values::Float(builder) => builder.append_null(),
            Values::Text(builder) | Values::Json(builder) => builder.append_null(),
            Values::Numeric(builder) => builder.append_null(),
            Values::Bytes(builder) => builder.append_null(),
            Values::Uuid(builder) => builder.append_null(),
            Values::Date(builder) => builder.append_null(),
            Values::Timestamp(builder) => builder.append_null(),
        }
    }

    fn take(&mut self, data_type: &DataType) -> Result<ArrayRef, Fault> {
        Ok(match self {
            Values::Bool(builder) => Arc::new(builder.finish()),
            Values::Int(builder) => Arc::new(builder.finish()),
            Values::Float(builder) => Arc::new(builder.finish()),
            Values::Text(builder) | Values::Json(builder) => Arc::new(text(builder.finish())?),
            Values::Numeric(builder) => Arc::new(builder.finish()),
            Values::Bytes(builder) => Arc::new(builder.finish()),
            Values::Uuid(builder) => Arc::new(builder.finish()),
            Values::Date(builder) => Arc::new(builder.finish()),
            Values::Timestamp(builder) => {
                let zone = match data_type {
                    DataType::Timestamp(_, zone) => zone.clone(),
                    _ => None,
                };
                Arc::new(builder.finish().with_timezone_opt(zone))
            }
        })
    }
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Fault> {
    bytes.try_into().map_err(|_| Fault::Malformed)
}

/// Only a database in SQL_ASCII can send anything else than UTF-8.
fn text(bytes: BinaryArray) -> Result<StringArray, Fault> {
    StringArray::try_from_binary(bytes).map_err(|_| Fault::Unfit("text that is not UTF-8"))
}

/// An integer of two, four or eight bytes.
fn integer(bytes: &[u8]) -> Result<i64, Fault> {
    match bytes.len() {
        8 => Ok(i64::from_be_bytes(fixed(bytes)?)),
        4 => Ok(i32::from_be_bytes(fixed(bytes)?).into()),
        _ => Ok(i16::from_be_bytes(fixed(bytes)?).into()),
    }
}

/// A floating point number of four or eight bytes.
fn float(bytes: &[u8]) -> Result<f64, Fault> {
    match bytes.len() {
        8 => Ok(f64::from_be_bytes(fixed(bytes)?)),
        _ => Ok(f32::from_be_bytes(fixed(bytes)?).into()),
    }
}

/// Days since 1970. The two infinities are the two ends of the range in both formats.
fn date(days: i32) -> Result<i32, Fault> {
    match days {
        i32::MIN | i32::MAX => Ok(days),
        // Postgres' last year is 5874897, so that this cannot overflow with a well-behaved server.
        _ => days.checked_add(EPOCH_DAYS).ok_or(Fault::Malformed),
    }
}

/// Microseconds since 1970. The two infinities are the two ends of the range in both formats.
fn timestamp(microseconds: i64) -> Result<i64, Fault> {
    match microseconds {
        i64::MIN | i64::MAX => Ok(microseconds),
        _ => microseconds.checked_add(EPOCH_MICROSECONDS).ok_or(Fault::Unfit("a time after the year 294246")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn infinities_stay_infinite() {
        for end in [i32::MIN, i32::MAX] {
            assert_eq!(date(end).ok(), Some(end));
        }
        for end in [i64::MIN, i64::MAX] {
            assert_eq!(timestamp(end).ok(), Some(end));
        }
        assert_eq!(date(0).ok(), Some(10_957));
        assert_eq!(timestamp(0).ok(), Some(946_684_800_000_000));
        assert!(matches!(timestamp(i64::MAX - 1), Err(Fault::Unfit(_))));
    }

    #[test]
    fn values_of_a_wrong_length_are_refused() {
        for form in [Form::Travelling, Form::Raw] {
            let push = |kind, bytes: &[u8]| Values::new(kind, form).push(bytes);
            assert!(matches!(push(ColumnKind::Int, &[0; 5]), Err(Fault::Malformed)));
            assert!(matches!(push(ColumnKind::Float, &[0; 2]), Err(Fault::Malformed)));
            assert!(matches!(push(ColumnKind::Uuid, &[0; 15]), Err(Fault::Malformed)));
            let mut text = Values::new(ColumnKind::Text, form);
            assert!(text.push(&[0xff]).is_ok());
            assert!(matches!(text.take(&DataType::Utf8), Err(Fault::Unfit(_))));
        }
        assert!(matches!(Values::new(ColumnKind::Json, Form::Raw).push(b"\x02{}"), Err(Fault::Malformed)));
        assert!(matches!(Values::new(ColumnKind::Numeric, Form::Raw).push(b"12"), Err(Fault::Malformed)));
    }
}
