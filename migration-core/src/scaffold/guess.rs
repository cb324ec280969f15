//! What two tables suggest about how the rows of one become the rows of the other.

use super::Scaffold;
use super::names::{alike, forms, holds_rows_of, is_plural, same, singular};
use crate::catalog::{ColumnKind, ColumnSchema, TableSchema};
use crate::url::EngineKind;

/// A reading of the two tables.
#[derive(Debug)]
pub(super) struct Guess<'a> {
    pub(super) old: &'a TableSchema,
    pub(super) new: &'a TableSchema,
    pub(super) shape: Shape<'a>,
    /// The old table's key.
    pub(super) key: Vec<String>,
    /// For each column of the old key the new table's column that holds it: one of the new table's, or the name
    /// that it might have.
    pub(super) scope: Vec<String>,
    /// The new table's key.
    pub(super) row_key: Vec<String>,
    /// The new table's other columns that are to be filled.
    pub(super) fields: Vec<Field<'a>>,
    /// The new table's columns that stay NULL or keep their defaults.
    pub(super) left_out: Vec<&'a ColumnSchema>,
    /// The old table's columns that go nowhere.
    pub(super) left_behind: Vec<&'a ColumnSchema>,
}

/// How many new rows an old row becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape<'a> {
    /// One, from its own columns.
    Row,
    /// One for each element of the array in this column.
    Array(&'a ColumnSchema),
}

/// A column of the new table, and where its value comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a> {
    pub(super) column: &'a ColumnSchema,
    pub(super) source: Source<'a>,
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    /// A column of the old table.
    Column(&'a ColumnSchema),
    /// The field of the array's element that has the new column's name.
    Element,
    /// Nobody knows.
    Unknown,
}

/// How new rows find their way back into old ones of the same shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WayBack {
    /// As old rows, which are made where there are none.
    Upsert,
    /// Into old rows that are there: the new table does not know all that a new one would need.
    Update,
    /// Not at all: nothing is shared, or several new rows would meet in one old row.
    None,
}

impl<'a> Guess<'a> {
    pub(super) fn of(request: &Scaffold<'a>) -> Guess<'a> {
        let (old, new) = (request.old, request.new);
        let key = known_key(old);
        let scope = scope(old, &key, new);
        let row_key = row_key(new, &scope);
        let is_beyond_scope = row_key.iter().any(|column| !scope.contains(column));
        let array = if is_beyond_scope { array(request, &key) } else { None };
        let mut guess = Guess {
            old,
            new,
            shape: array.map_or(Shape::Row, Shape::Array),
            key,
            scope,
            row_key,
            fields: Vec::new(),
            left_out: Vec::new(),
            left_behind: Vec::new(),
        };
        guess.match_columns();
        guess
    }

    fn match_columns(&mut self) {
        for column in &self.new.columns {
            if column.generated || self.scope.contains(&column.name) {
                continue;
            }
            let source = match self.shape {
                Shape::Array(_) => Source::Element,
                Shape::Row => self.source_of(column),
            };
            let may_be_absent =
                (column.nullable || column.has_default) && !self.row_key.contains(&column.name);
            match source {
                Source::Unknown if may_be_absent => self.left_out.push(column),
                source => self.fields.push(Field { column, source }),
            }
        }
        let goes = |column: &ColumnSchema| {
            self.key.contains(&column.name)
                || self.shape == Shape::Array(column)
                || self
                    .fields
                    .iter()
                    .any(|field| matches!(field.source, Source::Column(old) if old == column))
        };
        self.left_behind = self.old.columns.iter().filter(|column| !goes(column)).collect();
    }

    fn source_of(&self, column: &ColumnSchema) -> Source<'a> {
        let free = || self.old.columns.iter().filter(|old| !self.key.contains(&old.name));
        free()
            .find(|old| old.name == column.name)
            .or_else(|| free().find(|old| same(&old.name, &column.name)))
            .map_or(Source::Unknown, Source::Column)
    }

    /// What is to be settled by somebody who knows the data.
    pub(super) fn doubt(&self, field: &Field<'_>) -> Option<String> {
        let Field { column, source } = field;
        match source {
            Source::Unknown => Some(format!("{} has no such column, and it may not be NULL", self.old.name)),
            Source::Element if column.kind == ColumnKind::Bytes => {
                Some("read as hexadecimal text".to_owned())
            }
            Source::Element => None,
            Source::Column(old) => match (old.kind, column.kind) {
                (ColumnKind::Timestamp, ColumnKind::TimestampTz)
                | (ColumnKind::TimestampTz, ColumnKind::Timestamp) => {
                    Some("times without a zone are taken as UTC".to_owned())
                }
                (from, to) if from == to => None,
                _ => Some(format!("{} in {}, {} here", old.sql_type, self.old.name, column.sql_type)),
            },
        }
    }

    /// Old columns that can be written, each with the new column that holds its value.
    pub(super) fn shared(&self) -> impl Iterator<Item = (&'a ColumnSchema, &'a ColumnSchema)> {
        self.fields.iter().filter_map(|field| match field.source {
            Source::Column(old) if !old.generated => Some((old, field.column)),
            _ => None,
        })
    }

    /// Columns that tell the rows of one old key apart.
    pub(super) fn beyond_scope(&self) -> Vec<&String> {
        self.row_key.iter().filter(|column| !self.scope.contains(column)).collect()
    }

    pub(super) fn way_back(&self) -> WayBack {
        let is_shared = self.shared().next().is_some();
        let is_covered = |column: &ColumnSchema| {
            column.nullable
                || column.has_default
                || column.generated
                || self.key.contains(&column.name)
                || self.shared().any(|(old, _)| old == column)
        };
        let is_key_writable =
            self.key.iter().all(|name| self.old.column(name).is_some_and(|key| !key.generated));
        if !self.beyond_scope().is_empty() {
            WayBack::None
        } else if is_key_writable && self.old.is_key(&self.key) && self.old.columns.iter().all(is_covered) {
            WayBack::Upsert
        } else if is_shared {
            WayBack::Update
        } else {
            WayBack::None
        }
    }
}

/// The primary key; without one a unique index; without any, something to put there.
fn known_key(table: &TableSchema) -> Vec<String> {
    if !table.primary_key.is_empty() {
        return table.primary_key.clone();
    }
    let unique = table.unique_keys.iter().find(|key| !key.is_empty()).cloned();
    unique.unwrap_or_else(|| vec![table.columns.first().map_or("id", |column| &column.name).to_owned()])
}

fn scope(old: &TableSchema, key: &[String], new: &TableSchema) -> Vec<String> {
    let owner = &old.name.table;
    let mut scope: Vec<String> = Vec::new();
    for name in key {
        let kind = old.column(name).map(|column| column.kind);
        let fits = |column: &&ColumnSchema| {
            kind.is_none_or(|kind| kind == column.kind) && !scope.contains(&column.name)
        };
        let mut candidates: Vec<String> = forms(owner).iter().map(|form| format!("{form}_{name}")).collect();
        // `subscriptions.customer` rather than `subscriptions.id`, which is its own.
        candidates.extend(forms(owner));
        candidates.push(name.clone());
        let found = candidates.iter().find_map(|candidate| {
            new.columns.iter().filter(fits).find(|column| same(&column.name, candidate))
        });
        let owner = singular(owner);
        let might_be = || {
            if alike(&owner, name) || name.starts_with(&owner) {
                name.clone()
            } else {
                format!("{owner}_{name}")
            }
        };
        let found = found.map_or_else(might_be, |column| column.name.clone());
        scope.push(found);
    }
    scope
}

fn row_key(new: &TableSchema, scope: &[String]) -> Vec<String> {
    let is_own = new.primary_key.iter().any(|column| !scope.contains(column));
    // A number of its own says nothing where the old key already tells the rows apart.
    if (new.primary_key.is_empty() || is_own) && new.is_key(scope) {
        return scope.to_vec();
    }
    if new.primary_key.is_empty() && new.unique_keys.is_empty() { scope.to_vec() } else { known_key(new) }
}

/// The old table's column that holds the new rows, as far as names and types tell.
fn array<'a>(request: &Scaffold<'a>, key: &[String]) -> Option<&'a ColumnSchema> {
    let (old, new) = (request.old, request.new);
    let rank = |column: &ColumnSchema| {
        let is_declared =
            column.kind == ColumnKind::Json || column.sql_type.to_ascii_lowercase().contains("json");
        let may_hold = request.engine == EngineKind::Sqlite
            && matches!(column.kind, ColumnKind::Text | ColumnKind::Bytes | ColumnKind::Other);
        if column.generated || key.contains(&column.name) {
            return None;
        }
        // A text named in the singular is more likely the thing itself than an array of it.
        (is_declared || (may_hold && is_plural(&column.name)))
            .then(|| holds_rows_of(&column.name, &new.name.table, &old.name.table))
            .flatten()
            .map(|rank| (rank, is_declared))
    };
    let ranked = old.columns.iter().filter_map(|column| Some((rank(column)?, column)));
    // Of equals the first: `max_by_key` would give the last.
    ranked.rev().max_by_key(|(rank, _)| *rank).map(|(_, column)| column)
}
