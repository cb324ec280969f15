//! Constraints of the new table that sampled rows would violate, as far as reading can tell.

pub(super) mod postgres;
pub(super) mod sqlite;

use super::CheckFault;

/// A row that a check constraint refuses.
fn refused(key: &str, constraint: &str) -> CheckFault {
    CheckFault {
        message: format!("key {key}: the projection gives a row that the new table refuses: {constraint}"),
        hint: "mend the row or the projection, or let the constraint allow it".to_owned(),
    }
}

/// A row that points at nothing.
fn dangling(key: &str, columns: &[String], values: &str, referenced: &str, names: &[String]) -> CheckFault {
    CheckFault {
        message: format!(
            "key {key}: the projection gives a row with ({}) = ({values}), and {referenced} has no such ({})",
            columns.join(", "),
            names.join(", ")
        ),
        hint: "bring the rows that it refers to first, leave such rows out of the projection, or drop the foreign key until \
               then"
            .to_owned(),
    }
}
