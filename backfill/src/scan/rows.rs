//! Findings as the rows that are written.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListBuilder, RecordBatch, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Field, SchemaRef};

use crate::error::{Error, Result};
use crate::findings::FindingKind;

/// Findings as rows. `columns` gives the positions of the columns that differ for each of the rows in `mismatched`, which
/// ascend; `names` are the columns' names.
pub(super) fn findings_rows(
    schema: &SchemaRef,
    names: &[String],
    kinds: &[FindingKind],
    keys: Vec<ArrayRef>,
    mismatched: impl IntoIterator<Item = usize>,
    columns: impl IntoIterator<Item = Vec<usize>>,
) -> Result<RecordBatch> {
    let item = Field::new("item", DataType::Utf8, false);
    let mut differing = ListBuilder::new(StringBuilder::new()).with_field(item);
    let mut explained = mismatched.into_iter().zip(columns).peekable();
    for row in 0..kinds.len() {
        if let Some((_, positions)) = explained.next_if(|(at, _)| *at == row) {
            for position in positions {
                differing.values().append_value(&names[position]);
            }
        }
        differing.append(true);
    }
    let kinds = StringArray::from_iter_values(kinds.iter().map(|kind| kind.name()));
    let mut arrays: Vec<ArrayRef> = vec![Arc::new(kinds)];
    arrays.extend(keys);
    arrays.push(Arc::new(differing.finish()));
    RecordBatch::try_new(schema.clone(), arrays).map_err(Error::arrow("gather findings"))
}
