//! Keys of the old table, out of the scope columns of rows.

use arrow::array::cast::AsArray;
use arrow::array::types::Int64Type;
use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use crossfade_migration_core::key::{Key, KeyValue};
use crossfade_migration_core::plan::Plan;
use uuid::Uuid;

use crate::error::{Error, Result};

/// The key that each row belongs to, in the old table's own types.
///
/// # Errors
/// When the rows have no such columns, or values that cannot be keys of the plan's old table.
pub(crate) fn scope_keys(plan: &Plan, rows: &RecordBatch) -> Result<Vec<Key>> {
    let columns = plan.scope().iter().map(|name| {
        let column = rows.column_by_name(name).ok_or_else(|| Error::KeyColumnAbsent {
            side: crate::snapshot::Side::New,
            column: name.clone(),
            found: rows
                .schema_ref()
                .fields()
                .iter()
                .map(|field| field.name().as_str())
                .collect::<Vec<_>>()
                .join(", "),
        })?;
        values(column)
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    (0..rows.num_rows())
        .map(|row| Ok(plan.coerce(&Key::new(columns.iter().map(|column| column[row].clone())))?))
        .collect()
}

fn values(column: &ArrayRef) -> Result<Vec<KeyValue>> {
    let rows = column.len();
    Ok(match column.data_type() {
        data_type if data_type.is_integer() => {
            let column = cast(column, &DataType::Int64).map_err(Error::arrow("read keys"))?;
            column.as_primitive::<Int64Type>().values().iter().copied().map(KeyValue::Int).collect()
        }
        DataType::FixedSizeBinary(16) => {
            let column = column.as_fixed_size_binary();
            (0..rows)
                .map(|row| {
                    Uuid::from_slice(column.value(row))
                        .map_or_else(|_| KeyValue::Bytes(column.value(row).to_vec()), KeyValue::Uuid)
                })
                .collect()
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            let column = cast(column, &DataType::Binary).map_err(Error::arrow("read keys"))?;
            let column = column.as_binary::<i32>();
            (0..rows).map(|row| KeyValue::Bytes(column.value(row).to_vec())).collect()
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let column = cast(column, &DataType::Utf8).map_err(Error::arrow("read keys"))?;
            let column = column.as_string::<i32>();
            (0..rows).map(|row| KeyValue::Text(column.value(row).to_owned())).collect()
        }
        _ => {
            // As databases write them: a blank between date and time, and the zone as an offset.
            let options = FormatOptions::default()
                .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"))
                .with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.f+00"));
            let text = ArrayFormatter::try_new(column, &options).map_err(Error::arrow("read keys"))?;
            (0..rows)
                .map(|row| {
                    text.value(row).try_to_string().map(KeyValue::Text).map_err(Error::arrow("read keys"))
                })
                .collect::<Result<_>>()?
        }
    })
}
