//! Values as text, for people.

use arrow::array::Array;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;

/// A value as text. What cannot be shown is a question mark: this is for messages, not for data.
pub(crate) fn value_text(array: &dyn Array, row: usize) -> String {
    let value = array.slice(row, 1);
    let value = match value.data_type() {
        DataType::Timestamp(_, Some(_)) => {
            cast(&value, &DataType::Int64).and_then(|number| cast(&number, &showable(value.data_type())))
        }
        _ => Ok(value),
    };
    value.and_then(|value| array_value_to_string(&value, 0)).unwrap_or_else(|_| "?".into())
}

/// The type that values of this type are shown as and read as: Arrow knows no named zones, and every instant can be
/// written in UTC.
pub(crate) fn showable(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(*unit, Some("+00:00".into())),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::TimestampSecondArray;

    #[test]
    fn instants_in_a_named_zone_are_shown_in_utc() {
        let instants = TimestampSecondArray::from(vec![0, 3_600]).with_timezone("Europe/Berlin");
        assert_eq!(value_text(&instants, 1), "1970-01-01T01:00:00Z");
    }
}
