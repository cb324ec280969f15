//! The plan: rows of both sides put together, grouped by key, and the groups in which something is wrong.
//!
//! ```text
//! select key, sum(old), sum(new)
//! from (select key, hash, 1 as old, 0 as new … union all select key, hash, 0, 1 …)
//! group by key
//! having sum(old) <> 1 or sum(new) <> 1 or min(hash) <> max(hash)
//! ```
//!
//! Without hashes all other columns take the hash's place, once for each side: the old one's values in columns that
//! are NULL in the new one's rows, and the other way round. There the groups also carry the values that differ, because what
//! is equal is decided by the row hash's definition, after the executors have said what is not the same.

use arrow::datatypes::DataType;
use crossfade_backfill::snapshot::ROW_HASH_COLUMN;
use datafusion::common::ScalarValue;
use datafusion::functions_aggregate::expr_fn::{first_value, max, min, sum};
use datafusion::logical_expr::expr_fn::cast;
use datafusion::logical_expr::{Expr, ExprFunctionExt, Operator, binary_expr, ident, lit};
use datafusion::prelude::{DataFrame, SessionContext};

use crate::error::{Error, Result};
use crate::side::Side;

/// The columns of what executors write that say how many rows of each side have a key.
pub(crate) const OLD_ROWS: &str = "old_rows";
pub(crate) const NEW_ROWS: &str = "new_rows";

/// What is compared, and as what.
pub(crate) struct Question<'a> {
    pub(crate) old: &'a Side,
    pub(crate) new: &'a Side,
    pub(crate) key: &'a [String],
    /// The types by which keys are grouped.
    pub(crate) key_types: &'a [DataType],
    /// The columns outside the key, where rows have no hash.
    pub(crate) columns: &'a [String],
}

impl Question<'_> {
    /// Whether rows are compared by their hash.
    pub(crate) fn is_hashed(&self) -> bool {
        self.old.is_hashed() && self.new.is_hashed()
    }

    /// The groups in which something is wrong: the key as `key_0`, `key_1` and so on, [`OLD_ROWS`], [`NEW_ROWS`], and
    /// without hashes the values of column `i` as `old_i` and `new_i`.
    pub(crate) fn plan(&self, context: &SessionContext) -> Result<DataFrame> {
        let (old, new) = (self.old.table(context)?, self.new.table(context)?);
        self.groups(old, new).map_err(Error::plan("make a plan"))
    }

    fn groups(&self, old: DataFrame, new: DataFrame) -> datafusion::error::Result<DataFrame> {
        let old = old.select(self.side(1, 0, |name| (value(name), null_of(self.new, name))))?;
        let new = new.select(self.side(0, 1, |name| (null_of(self.old, name), value(name))))?;
        let keys: Vec<Expr> = (0..self.key.len()).map(|position| ident(key_name(position))).collect();
        let mut aggregates = vec![sum(ident(OLD_ROWS)).alias(OLD_ROWS), sum(ident(NEW_ROWS)).alias(NEW_ROWS)];
        let differ = if self.is_hashed() {
            aggregates.push(min(ident("hash")).alias("hash_min"));
            aggregates.push(max(ident("hash")).alias("hash_max"));
            ident("hash_min").not_eq(ident("hash_max"))
        } else {
            let mut differ = lit(false);
            for (position, name) in self.columns.iter().enumerate() {
                aggregates.push(only_value(self.old, name, &old_name(position))?);
                aggregates.push(only_value(self.new, name, &new_name(position))?);
                differ = differ.or(self.differs(position, name));
            }
            // One group has all rows whose key is NULL. It would be silent with one row on each side.
            keys.iter().fold(differ, |differ, key| differ.or(key.clone().is_null()))
        };
        let wrong = ident(OLD_ROWS).not_eq(lit(1_i64)).or(ident(NEW_ROWS).not_eq(lit(1_i64))).or(differ);
        let mut kept = keys.clone();
        kept.extend([ident(OLD_ROWS), ident(NEW_ROWS)]);
        if !self.is_hashed() {
            let values = |position| [ident(old_name(position)), ident(new_name(position))];
            kept.extend((0..self.columns.len()).flat_map(values));
        }
        old.union(new)?.aggregate(keys, aggregates)?.filter(wrong)?.select(kept)
    }

    /// One side's columns in the order that the union needs.
    fn side(&self, old_rows: i64, new_rows: i64, values: impl Fn(&str) -> (Expr, Expr)) -> Vec<Expr> {
        let mut columns: Vec<Expr> = self
            .key
            .iter()
            .zip(self.key_types)
            .enumerate()
            .map(|(position, (name, data_type))| {
                cast(ident(name), data_type.clone()).alias(key_name(position))
            })
            .collect();
        columns.extend([lit(old_rows).alias(OLD_ROWS), lit(new_rows).alias(NEW_ROWS)]);
        if self.is_hashed() {
            columns.push(ident(ROW_HASH_COLUMN).alias("hash"));
        } else {
            for (position, name) in self.columns.iter().enumerate() {
                let (old, new) = values(name);
                columns.extend([old.alias(old_name(position)), new.alias(new_name(position))]);
            }
        }
        columns
    }

    /// Whether the values of a column may differ. Saying so of equal ones is allowed, the other way round is not.
    fn differs(&self, position: usize, name: &str) -> Expr {
        let (Some(old), Some(new)) = (self.old.data_type(name), self.new.data_type(name)) else {
            return lit(true);
        };
        let distinct = |old: Expr, new: Expr| binary_expr(old, Operator::IsDistinctFrom, new);
        let (old_value, new_value) = (ident(old_name(position)), ident(new_name(position)));
        if old == new {
            return distinct(old_value, new_value);
        }
        match common_type(old, new) {
            Some(common) => distinct(cast(old_value, common.clone()), cast(new_value, common)),
            // Executors cannot tell, so all rows are looked at here.
            None => lit(true),
        }
    }
}

pub(crate) fn key_name(position: usize) -> String {
    format!("key_{position}")
}

pub(crate) fn old_name(position: usize) -> String {
    format!("old_{position}")
}

pub(crate) fn new_name(position: usize) -> String {
    format!("new_{position}")
}

fn value(name: &str) -> Expr {
    ident(name)
}

fn null_of(side: &Side, name: &str) -> Expr {
    let null = side.data_type(name).and_then(|data_type| ScalarValue::try_from(data_type).ok());
    lit(null.unwrap_or(ScalarValue::Null))
}

/// The value of the only row that has one, in a group with one row of the side. In others it does not matter.
fn only_value(side: &Side, name: &str, alias: &str) -> datafusion::error::Result<Expr> {
    let column = ident(alias);
    let nested = side.data_type(name).is_none_or(DataType::is_nested);
    let value = if nested {
        first_value(column, vec![])
            .null_treatment(datafusion::logical_expr::expr::NullTreatment::IgnoreNulls)
            .build()?
    } else {
        max(column)
    };
    Ok(value.alias(alias))
}

/// A type that holds the values of both, each as it is.
fn common_type(old: &DataType, new: &DataType) -> Option<DataType> {
    use DataType::{Binary, BinaryView, Float64, Int64, LargeBinary, LargeUtf8, Utf8, Utf8View};
    let both = |is: fn(&DataType) -> bool| is(old) && is(new);
    let text: fn(&DataType) -> bool = |data_type| matches!(data_type, Utf8 | LargeUtf8 | Utf8View);
    let bytes: fn(&DataType) -> bool = |data_type| matches!(data_type, Binary | LargeBinary | BinaryView);
    let integer: fn(&DataType) -> bool = |data_type| data_type.is_integer() && *data_type != DataType::UInt64;
    if both(integer) {
        Some(Int64)
    } else if both(DataType::is_integer) {
        Some(DataType::Decimal128(20, 0))
    } else if both(DataType::is_floating) {
        Some(Float64)
    } else if both(text) {
        Some(Utf8)
    } else if both(bytes) {
        Some(Binary)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_common_type_holds_both_or_there_is_none() {
        use DataType::*;
        assert_eq!(common_type(&Int8, &UInt32), Some(Int64));
        assert_eq!(common_type(&Int64, &UInt64), Some(Decimal128(20, 0)));
        assert_eq!(common_type(&Float32, &Float64), Some(Float64));
        assert_eq!(common_type(&Utf8View, &LargeUtf8), Some(Utf8));
        assert_eq!(common_type(&Int64, &Float64), None);
        assert_eq!(common_type(&Decimal128(10, 2), &Decimal128(12, 4)), None);
    }
}
