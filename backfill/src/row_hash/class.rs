//! Which types can be equal at all.

use arrow::datatypes::{DataType, Field, Fields};

/// Whether values of the two types have a common canonical encoding, so that equal ones hash alike.
pub(crate) fn comparable(left: &DataType, right: &DataType) -> bool {
    match (left, right) {
        (DataType::Dictionary(_, left), right) => comparable(left, right),
        (left, DataType::Dictionary(_, right)) => comparable(left, right),
        (DataType::Struct(left), DataType::Struct(right)) => fields_comparable(left, right),
        // The names of a map's entries are the writer's choice, and mean nothing.
        (DataType::Map(left, _), DataType::Map(right, _)) => match (left.data_type(), right.data_type()) {
            (DataType::Struct(left), DataType::Struct(right)) => {
                left.len() == right.len()
                    && left
                        .iter()
                        .zip(right)
                        .all(|(left, right)| comparable(left.data_type(), right.data_type()))
            }
            _ => false,
        },
        (left, right) => match (list_item(left), list_item(right)) {
            (Some(left), Some(right)) => comparable(left.data_type(), right.data_type()),
            (None, None) => class(left).is_some() && class(left) == class(right),
            _ => false,
        },
    }
}

fn fields_comparable(left: &Fields, right: &Fields) -> bool {
    left.len() == right.len()
        && left.iter().zip(right).all(|(left, right)| {
            left.name() == right.name() && comparable(left.data_type(), right.data_type())
        })
}

fn list_item(data_type: &DataType) -> Option<&Field> {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => Some(item),
        _ => None,
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Class {
    Null,
    Boolean,
    Integer,
    Float,
    Decimal,
    Text,
    Bytes,
    Date,
    Time,
    Timestamp { zoned: bool },
    Interval,
    Duration,
}

fn class(data_type: &DataType) -> Option<Class> {
    Some(match data_type {
        DataType::Null => Class::Null,
        DataType::Boolean => Class::Boolean,
        data_type if data_type.is_integer() => Class::Integer,
        data_type if data_type.is_floating() => Class::Float,
        data_type if data_type.is_decimal() => Class::Decimal,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Class::Text,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            Class::Bytes
        }
        DataType::Date32 | DataType::Date64 => Class::Date,
        DataType::Time32(_) | DataType::Time64(_) => Class::Time,
        DataType::Timestamp(_, zone) => Class::Timestamp { zoned: zone.is_some() },
        DataType::Interval(_) => Class::Interval,
        DataType::Duration(_) => Class::Duration,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::TimeUnit;
    use std::sync::Arc;

    #[test]
    fn width_and_layout_do_not_separate_types() {
        assert!(comparable(&DataType::Int32, &DataType::Int64));
        assert!(comparable(&DataType::Utf8, &DataType::Utf8View));
        let dictionary = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
        assert!(comparable(&dictionary, &DataType::LargeUtf8));
        let item = |data_type| Arc::new(Field::new("item", data_type, true));
        assert!(comparable(
            &DataType::List(item(DataType::Int8)),
            &DataType::LargeList(item(DataType::Int64))
        ));
    }

    #[test]
    fn meaning_does() {
        assert!(!comparable(&DataType::Int64, &DataType::Utf8));
        let zoned = DataType::Timestamp(TimeUnit::Second, Some("UTC".into()));
        assert!(!comparable(&zoned, &DataType::Timestamp(TimeUnit::Second, None)));
        let one = DataType::Struct(vec![Field::new("a", DataType::Int8, true)].into());
        let two = DataType::Struct(
            vec![Field::new("a", DataType::Int8, true), Field::new("b", DataType::Int8, true)].into(),
        );
        assert!(comparable(&one, &one));
        assert!(!comparable(&one, &two));
    }
}
