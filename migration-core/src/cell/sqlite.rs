//! Values of SQLite, whose columns prefer a type but hold any.
//!
//! Two values are equal here exactly when the column would hold the same after storing them. So the
//! projection's values go through what storing does to them ([`as_stored`]) before they are read.

use std::borrow::Cow;
use std::fmt::Write as _;

use sqlx::sqlite::{SqliteRow, SqliteValueRef};
use sqlx::{Decode, Row, Sqlite, TypeInfo, Value, ValueRef};

use crate::catalog::{ColumnKind, ColumnSchema};
use crate::error::{Error, Result};
use crate::key::KeyValue;
use crate::phase::Side;
use crate::plan::Plan;

/// The type of a column that has none: it keeps every value as it is.
pub(crate) const UNTYPED: &str = "";

/// How many characters of a value an error shows.
const SHOWN_MAX: usize = 60;

/// The type that a column turns values into when it can, by SQLite's rules on its declared type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Affinity {
    Integer,
    Text,
    Blob,
    Real,
    Numeric,
}

impl Affinity {
    /// The affinity of a declared type.
    pub(crate) fn of(declared: &str) -> Affinity {
        let declared = declared.to_ascii_uppercase();
        let has = |words: &[&str]| words.iter().any(|word| declared.contains(word));
        if has(&["INT"]) {
            Affinity::Integer
        } else if has(&["CHAR", "CLOB", "TEXT"]) {
            Affinity::Text
        } else if has(&["BLOB"]) || declared == UNTYPED {
            Affinity::Blob
        } else if has(&["REAL", "FLOA", "DOUB"]) {
            Affinity::Real
        } else {
            Affinity::Numeric
        }
    }
}

/// A value, in the form in which its column's values are compared.
#[derive(Debug, Clone)]
pub(crate) enum Cell<'r> {
    Null,
    Int(i64),
    Real(f64),
    Text(Cow<'r, str>),
    Bytes(Cow<'r, [u8]>),
}

impl Cell<'_> {
    /// The same value, owning what it holds.
    pub(crate) fn into_owned(self) -> Cell<'static> {
        match self {
            Cell::Null => Cell::Null,
            Cell::Int(number) => Cell::Int(number),
            Cell::Real(number) => Cell::Real(number),
            Cell::Text(text) => Cell::Text(Cow::Owned(text.into_owned())),
            Cell::Bytes(bytes) => Cell::Bytes(Cow::Owned(bytes.into_owned())),
        }
    }

    /// The value as part of a key; `None` for NULL, which no key holds.
    pub(crate) fn key_value(&self) -> Option<KeyValue> {
        Some(match self {
            Cell::Null => return None,
            Cell::Int(number) => KeyValue::Int(*number),
            Cell::Real(number) => KeyValue::Text(spell_real(*number)),
            Cell::Text(text) => KeyValue::Text(text.clone().into_owned()),
            Cell::Bytes(bytes) => KeyValue::Bytes(bytes.clone().into_owned()),
        })
    }

    /// The value in SQLite's notation, shortened.
    pub(crate) fn show(&self) -> String {
        let literal = literal(self);
        match literal.char_indices().nth(SHOWN_MAX) {
            Some((end, _)) => format!("{}…", &literal[..end]),
            None => literal,
        }
    }
}

impl PartialEq for Cell<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Cell<'_> {}

impl PartialOrd for Cell<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Cell<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let rank = |cell: &Cell<'_>| match cell {
            Cell::Null => 0,
            Cell::Int(_) => 1,
            Cell::Real(_) => 2,
            Cell::Text(_) => 3,
            Cell::Bytes(_) => 4,
        };
        match (self, other) {
            (Cell::Int(a), Cell::Int(b)) => a.cmp(b),
            // SQLite keeps no NaN, and holds both zeros equal.
            (Cell::Real(a), Cell::Real(b)) => a.partial_cmp(b).unwrap_or_else(|| a.total_cmp(b)),
            (Cell::Text(a), Cell::Text(b)) => a.cmp(b),
            (Cell::Bytes(a), Cell::Bytes(b)) => a.cmp(b),
            _ => rank(self).cmp(&rank(other)),
        }
    }
}

/// The SQL of `expression` after what storing it in the column does to it.
///
/// SQLite itself does the converting, so that not even the last digit of a number can come out
/// differently: comparing with a number turns a text into one exactly where storing would.
pub(crate) fn as_stored(expression: &str, column: &ColumnSchema) -> String {
    let x = expression;
    match Affinity::of(&column.sql_type) {
        Affinity::Blob => x.to_owned(),
        Affinity::Text => {
            format!("case when typeof({x}) in ('integer', 'real') then cast({x} as text) else {x} end")
        }
        Affinity::Real => numeric(x, x),
        // A real without a fraction is stored as an integer.
        Affinity::Integer | Affinity::Numeric => numeric(
            x,
            &format!(
                "case when typeof({x}) = 'real' and {x} = cast({x} as integer) then cast({x} as integer) else {x} end"
            ),
        ),
    }
}

fn numeric(x: &str, otherwise: &str) -> String {
    format!(
        "case when typeof({x}) = 'text' then case when cast({x} as numeric) = {x} then cast({x} as numeric) else {x} end else {otherwise} end"
    )
}

/// The SQL that orders by a stored value as Arrow orders what it is decoded to.
pub(crate) fn sort_key(stored: &str, column: &ColumnSchema) -> String {
    match column.kind {
        ColumnKind::Int | ColumnKind::Float | ColumnKind::Bytes => stored.to_owned(),
        _ if Affinity::of(&column.sql_type) == Affinity::Text => format!("{stored} collate binary"),
        _ => format!("cast({stored} as text) collate binary"),
    }
}

/// How the rows of one side are read: the plan's columns, and what to call them in errors.
#[derive(Debug)]
pub(crate) struct Layout<'p> {
    what: String,
    columns: Vec<(&'p ColumnSchema, bool)>,
}

impl<'p> Layout<'p> {
    /// The layout of the plan's columns, in their order, as rows of `side`.
    pub(crate) fn new(plan: &'p Plan, side: Side) -> Layout<'p> {
        let what = match side {
            Side::Old => format!("the projection of {}", plan.old()),
            Side::New => format!("table {}", plan.new_table()),
        };
        let is_key = |column: &ColumnSchema| plan.order().contains(&column.name);
        Layout { what, columns: plan.columns().iter().map(|column| (column, is_key(column))).collect() }
    }

    /// The layout of the old key's columns, as rows of the old table.
    pub(crate) fn of_key(plan: &'p Plan) -> Layout<'p> {
        let columns = plan.key().iter().map(|column| (column, true)).collect();
        Layout { what: format!("table {}", plan.old()), columns }
    }

    /// The value of the column at `index`, which stands at the same place in the row.
    ///
    /// # Errors
    /// [`Error::Value`] when it does not fit the column, or is a NULL in a key.
    pub(crate) fn cell<'r>(&self, row: &'r SqliteRow, index: usize) -> Result<Cell<'r>> {
        let (column, is_key) = self.columns[index];
        let raw = raw(row, index)?;
        decode(raw, column, is_key).map_err(|misfit| Error::Value {
            what: self.what.clone(),
            column: column.name.clone(),
            value: misfit.show(),
            sql_type: match column.sql_type.as_str() {
                UNTYPED => "(none)".to_owned(),
                sql_type => sql_type.to_owned(),
            },
        })
    }

    /// The whole row.
    ///
    /// # Errors
    /// As [`Self::cell`].
    pub(crate) fn row(&self, row: &SqliteRow) -> Result<Vec<Cell<'static>>> {
        (0..self.columns.len()).map(|index| self.cell(row, index).map(Cell::into_owned)).collect()
    }
}

/// A value as SQLite holds it.
pub(crate) fn raw(row: &SqliteRow, index: usize) -> Result<Cell<'_>> {
    let value = row.try_get_raw(index).map_err(Error::database("reading a value"))?;
    unpack(value).map_err(|source| Error::Database {
        doing: "reading a value".to_owned(),
        source: sqlx::Error::Decode(source),
    })
}

fn unpack(value: SqliteValueRef<'_>) -> Result<Cell<'_>, sqlx::error::BoxDynError> {
    if value.is_null() {
        return Ok(Cell::Null);
    }
    let storage = value.type_info();
    Ok(match storage.name() {
        "INTEGER" => Cell::Int(<i64 as Decode<'_, Sqlite>>::decode(value)?),
        "REAL" => Cell::Real(<f64 as Decode<'_, Sqlite>>::decode(value)?),
        "TEXT" => {
            // A text that is not UTF-8 is bytes, and fits no text column then.
            let owned = value.to_owned();
            match <&str as Decode<'_, Sqlite>>::decode(value) {
                Ok(text) => Cell::Text(Cow::Borrowed(text)),
                Err(_) => Cell::Bytes(Cow::Owned(<Vec<u8> as Decode<'_, Sqlite>>::decode(owned.as_ref())?)),
            }
        }
        _ => Cell::Bytes(Cow::Borrowed(<&[u8] as Decode<'_, Sqlite>>::decode(value)?)),
    })
}

/// The value in its column's form, or the value itself when it does not fit.
pub(crate) fn decode<'r>(
    value: Cell<'r>,
    column: &ColumnSchema,
    is_key: bool,
) -> std::result::Result<Cell<'r>, Cell<'r>> {
    if let Cell::Null = value {
        return if is_key { Err(value) } else { Ok(value) };
    }
    match (column.kind, value) {
        (ColumnKind::Int, Cell::Real(number)) => integral(number).map(Cell::Int).ok_or(Cell::Real(number)),
        (ColumnKind::Float, Cell::Int(number)) if (number as f64) as i128 == i128::from(number) => {
            Ok(Cell::Real(number as f64))
        }
        (ColumnKind::Int, value @ Cell::Int(_))
        | (ColumnKind::Float, value @ Cell::Real(_))
        | (ColumnKind::Bytes, value @ Cell::Bytes(_))
        | (ColumnKind::Text | ColumnKind::Numeric, value @ Cell::Text(_)) => Ok(value),
        (ColumnKind::Text | ColumnKind::Numeric, Cell::Int(number)) => {
            Ok(Cell::Text(Cow::Owned(number.to_string())))
        }
        // As a key, a fraction would be ordered by the database otherwise than by its digits.
        (ColumnKind::Text | ColumnKind::Numeric, Cell::Real(number))
            if !is_key || integral(number).is_some() =>
        {
            Ok(Cell::Text(Cow::Owned(spell_real(number))))
        }
        // Without a type, 1 and '1' are different values: the notation keeps them apart. As a key
        // they would have to be told apart by whoever names it.
        (ColumnKind::Other, value) if !is_key => Ok(Cell::Text(Cow::Owned(literal(&value)))),
        (_, value) => Err(value),
    }
}

fn integral(number: f64) -> Option<i64> {
    // 2^63 itself is one too many, and -2^63 fits.
    let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&number);
    (fits && number.fract() == 0.0).then_some(number as i64)
}

/// A number's shortest digits: those of an integer where it is one.
pub(crate) fn spell_real(number: f64) -> String {
    match integral(number) {
        Some(integer) => integer.to_string(),
        None => format!("{number:?}"),
    }
}

fn literal(value: &Cell<'_>) -> String {
    match value {
        Cell::Null => "NULL".to_owned(),
        Cell::Int(number) => number.to_string(),
        Cell::Real(number) => format!("{number:?}"),
        Cell::Text(text) => format!("'{}'", text.replace('\'', "''")),
        Cell::Bytes(bytes) => {
            let mut hex = String::with_capacity(2 * bytes.len() + 3);
            hex.push_str("x'");
            for byte in bytes.iter() {
                // Writing to a string cannot fail.
                let _ = write!(hex, "{byte:02x}");
            }
            hex.push('\'');
            hex
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(kind: ColumnKind, sql_type: &str) -> ColumnSchema {
        ColumnSchema {
            name: "c".to_owned(),
            sql_type: sql_type.to_owned(),
            kind,
            nullable: true,
            has_default: false,
            generated: false,
        }
    }

    #[test]
    fn affinities_follow_the_declared_type() {
        for (declared, affinity) in [
            ("INTEGER", Affinity::Integer),
            ("bigint", Affinity::Integer),
            ("POINT", Affinity::Integer),
            ("varchar(20)", Affinity::Text),
            ("TEXT", Affinity::Text),
            ("blob", Affinity::Blob),
            ("double precision", Affinity::Real),
            ("decimal(10, 2)", Affinity::Numeric),
            ("datetime", Affinity::Numeric),
            ("BOOLEAN", Affinity::Numeric),
            ("uuid", Affinity::Numeric),
            (UNTYPED, Affinity::Blob),
        ] {
            assert_eq!(Affinity::of(declared), affinity, "{declared}");
        }
    }

    #[test]
    fn numbers_are_spelt_by_value() {
        for (number, text) in [(1.0, "1"), (-0.0, "0"), (0.1, "0.1"), (1e300, "1e300"), (-2.5, "-2.5")] {
            assert_eq!(spell_real(number), text);
        }
        assert_eq!(spell_real(9_223_372_036_854_775_808.0), "9.223372036854776e18");
    }

    #[test]
    fn what_would_lose_something_does_not_fit() {
        let int = column(ColumnKind::Int, "INTEGER");
        assert_eq!(decode(Cell::Real(2.0), &int, false), Ok(Cell::Int(2)));
        assert!(decode(Cell::Real(2.5), &int, false).is_err());
        assert!(decode(Cell::Text("abc".into()), &int, false).is_err());
        let float = column(ColumnKind::Float, "REAL");
        assert_eq!(decode(Cell::Int(3), &float, false), Ok(Cell::Real(3.0)));
        assert!(decode(Cell::Int((1 << 53) + 1), &float, false).is_err());
        assert!(decode(Cell::Int(i64::MAX), &float, false).is_err());
        let text = column(ColumnKind::Text, "TEXT");
        assert!(decode(Cell::Bytes(vec![1].into()), &text, false).is_err());
        assert!(decode(Cell::Null, &text, true).is_err());
        let numeric = column(ColumnKind::Numeric, "DECIMAL");
        assert_eq!(decode(Cell::Real(1.5), &numeric, false), Ok(Cell::Text("1.5".into())));
        assert!(decode(Cell::Real(1.5), &numeric, true).is_err());
    }

    #[test]
    fn values_without_a_type_stay_apart() {
        let untyped = column(ColumnKind::Other, UNTYPED);
        let one = decode(Cell::Int(1), &untyped, false).unwrap();
        assert_ne!(one, decode(Cell::Text("1".into()), &untyped, false).unwrap());
        assert_ne!(one, decode(Cell::Real(1.0), &untyped, false).unwrap());
    }
}
