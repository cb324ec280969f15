//! A manifest set against the two live tables: everything that statements are derived from.
//!
//! [`Plan::new`] is a pure function of the manifest, both schemas and the columns that the
//! projection gives. It reports every fault at once.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};

use crate::catalog::{Catalog, ColumnKind, ColumnSchema, TableSchema};
use crate::error::{Error, Result};
use crate::key::{Key, KeyValue};
use crate::manifest::{Manifest, TableName};
use crate::phase::Ramp;
use crate::template::Template;

/// What the statements of a migration are derived from.
#[derive(Debug, Clone)]
pub struct Plan {
    name: String,
    fingerprint: String,
    old: TableName,
    new: TableName,
    key: Vec<ColumnSchema>,
    columns: Vec<ColumnSchema>,
    scope: Vec<String>,
    row_key: Vec<String>,
    order: Vec<String>,
    projection: Template,
    reverse: Vec<Template>,
    retire: Vec<Template>,
}

/// A way in which manifest and tables do not fit.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Misfit {
    /// What does not fit.
    pub message: String,
    /// What would mend it.
    pub hint: String,
}

impl Plan {
    /// Derives a plan, or says everything that does not fit.
    ///
    /// `projected` are the names of the columns that the projection gives.
    ///
    /// # Errors
    /// Every misfit between manifest and tables.
    pub fn new(
        manifest: &Manifest,
        old: &TableSchema,
        new: &TableSchema,
        projected: &[String],
    ) -> std::result::Result<Plan, Vec<Misfit>> {
        let mut misfits = table_misfits(manifest, old, new);
        misfits.extend(projection_misfits(manifest, new, projected));
        if !misfits.is_empty() {
            return Err(misfits);
        }
        let pick = |schema: &TableSchema, names: &[String]| -> Vec<ColumnSchema> {
            names.iter().filter_map(|name| schema.column(name).cloned()).collect()
        };
        let new_table = manifest.new_table();
        let mut order = new_table.scope.clone();
        order.extend(new_table.key.iter().filter(|column| !new_table.scope.contains(column)).cloned());
        Ok(Plan {
            name: manifest.name().to_owned(),
            fingerprint: manifest.fingerprint(),
            old: manifest.old().table.clone(),
            new: new_table.table.clone(),
            key: pick(old, &manifest.old().key),
            columns: pick(new, projected),
            scope: new_table.scope.clone(),
            row_key: new_table.key.clone(),
            order,
            projection: manifest.mapping().projection.clone(),
            reverse: manifest.mapping().reverse.clone(),
            retire: manifest.mapping().retire.clone(),
        })
    }

    /// Reads both tables and derives the plan.
    ///
    /// # Errors
    /// When a table is missing, the projection is no query, or something does not fit.
    pub async fn read(manifest: &Manifest, catalog: &dyn Catalog) -> Result<Plan> {
        let old = catalog.table(&manifest.old().table).await?;
        let new = catalog.table(&manifest.new_table().table).await?;
        let misfit = |misfits| Error::Misfit { migration: manifest.name().to_owned(), misfits };
        // Without its key columns the projection cannot be asked, and the tables' own faults say more
        // than the database's words about a column that is not there.
        let key: Option<Vec<_>> = manifest.old().key.iter().map(|name| old.column(name)).collect();
        let key = key.ok_or_else(|| misfit(table_misfits(manifest, &old, &new)))?;
        let query = manifest.mapping().projection.render(&catalog.no_keys(&key));
        let projected = catalog.columns_of(&query).await?;
        Plan::new(manifest, &old, &new, &projected).map_err(misfit)
    }

    /// The migration's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The manifest's fingerprint.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The old table.
    pub fn old(&self) -> &TableName {
        &self.old
    }

    /// The new table.
    pub fn new_table(&self) -> &TableName {
        &self.new
    }

    /// The old key's columns, with the old table's types.
    pub fn key(&self) -> &[ColumnSchema] {
        &self.key
    }

    /// The columns that the projection gives, in its order, with the new table's types.
    pub fn columns(&self) -> &[ColumnSchema] {
        &self.columns
    }

    /// The new table's columns that hold the old key, in the old key's order.
    pub fn scope(&self) -> &[String] {
        &self.scope
    }

    /// The new table's key columns, as the manifest lists them.
    pub fn row_key(&self) -> &[String] {
        &self.row_key
    }

    /// The order of exported rows: the scope, then the rest of the new key.
    pub fn order(&self) -> &[String] {
        &self.order
    }

    /// The projection.
    pub fn projection(&self) -> &Template {
        &self.projection
    }

    /// The statements that bring the old store up to date with the new one.
    pub fn reverse(&self) -> &[Template] {
        &self.reverse
    }

    /// The statements that take the moved data out of the old store.
    pub fn retire(&self) -> &[Template] {
        &self.retire
    }

    /// The Arrow schema of exported rows: the projection's columns, in its order.
    pub fn schema(&self) -> SchemaRef {
        let field = |column: &ColumnSchema| {
            let is_key = self.order.contains(&column.name);
            Field::new(&column.name, column.kind.arrow(), !is_key)
        };
        Arc::new(Schema::new(self.columns.iter().map(field).collect::<Vec<_>>()))
    }

    /// The key in its column's own types, so that the same key always hashes alike.
    ///
    /// # Errors
    /// [`Error::Key`] when it has another number of columns, or a value that its column cannot hold.
    pub fn coerce(&self, key: &Key) -> Result<Key> {
        let wrong =
            |reason: String| Error::Key { migration: self.name.clone(), key: key.to_string(), reason };
        if key.values().len() != self.key.len() {
            return Err(wrong(format!("the key has {} columns", self.key.len())));
        }
        let coerced = key.values().iter().zip(&self.key).map(|(value, column)| {
            coerce(value, column.kind)
                .ok_or_else(|| wrong(format!("column {} is of type {}", column.name, column.sql_type)))
        });
        Ok(Key::new(coerced.collect::<Result<Vec<_>>>()?))
    }

    /// Whether a key is in the ramped share. Sticky, and monotone in the ramp.
    pub fn is_in_ramp(&self, key: &Key, ramp: Ramp) -> bool {
        crate::ramp::is_in(&self.name, key, ramp)
    }
}

fn coerce(value: &KeyValue, kind: ColumnKind) -> Option<KeyValue> {
    match (value, kind) {
        (KeyValue::Int(_), ColumnKind::Int)
        | (KeyValue::Uuid(_), ColumnKind::Uuid)
        | (KeyValue::Bytes(_), ColumnKind::Bytes) => Some(value.clone()),
        (KeyValue::Text(text), ColumnKind::Int) => text.trim().parse().ok().map(KeyValue::Int),
        (KeyValue::Text(text), ColumnKind::Uuid) => text.parse().ok().map(KeyValue::Uuid),
        (KeyValue::Bytes(bytes), ColumnKind::Uuid) => uuid::Uuid::from_slice(bytes).ok().map(KeyValue::Uuid),
        (KeyValue::Uuid(uuid), ColumnKind::Bytes) => Some(KeyValue::Bytes(uuid.as_bytes().to_vec())),
        (KeyValue::Bytes(_), _) | (_, ColumnKind::Int | ColumnKind::Uuid | ColumnKind::Bytes) => None,
        (KeyValue::Text(_), _) => Some(value.clone()),
        (KeyValue::Int(_) | KeyValue::Uuid(_), _) => Some(KeyValue::Text(value.to_string())),
    }
}

/// How the tables do not fit what the manifest says of them, whatever its statements.
fn table_misfits(manifest: &Manifest, old: &TableSchema, new: &TableSchema) -> Vec<Misfit> {
    let mut found = Vec::new();
    let mut misfit = |message: String, hint: &str| found.push(Misfit { message, hint: hint.to_owned() });
    let (old_table, new_table) = (manifest.old(), manifest.new_table());

    let missing = |schema: &TableSchema, names: &[String]| -> Vec<String> {
        names.iter().filter(|name| schema.column(name).is_none()).cloned().collect()
    };
    for column in missing(old, &old_table.key) {
        misfit(format!("old.key: table {} has no column {column}", old.name), &columns_hint(old));
    }
    for column in missing(new, &new_table.scope).iter().chain(&missing(new, &new_table.key)) {
        misfit(format!("new: table {} has no column {column}", new.name), &columns_hint(new));
    }
    if old.primary_key.is_empty() && old.unique_keys.is_empty() {
        misfit(
            format!("table {} has neither a primary key nor a unique index without NULLs", old.name),
            "give it one: without it no row can be named, locked or compared",
        );
    } else if !old.is_key(&old_table.key) && missing(old, &old_table.key).is_empty() {
        misfit(
            format!("old.key ({}) is not a key of table {}", old_table.key.join(", "), old.name),
            &format!("its primary key is ({})", old.primary_key.join(", ")),
        );
    }
    if new.primary_key.is_empty() && new.unique_keys.is_empty() {
        misfit(
            format!("table {} has neither a primary key nor a unique index without NULLs", new.name),
            "give it one: without it a row cannot be inserted if absent, nor compared",
        );
    } else if !new.is_key(&new_table.key) && missing(new, &new_table.key).is_empty() {
        misfit(
            format!("new.key ({}) is not a key of table {}", new_table.key.join(", "), new.name),
            &format!("its primary key is ({})", new.primary_key.join(", ")),
        );
    }

    for (old_name, new_name) in old_table.key.iter().zip(&new_table.scope) {
        let (Some(old_column), Some(new_column)) = (old.column(old_name), new.column(new_name)) else {
            continue;
        };
        if old_column.kind != new_column.kind {
            misfit(
                format!(
                    "{}.{old_name} is {} and {}.{new_name}, which should hold it, is {}",
                    old.name, old_column.sql_type, new.name, new_column.sql_type
                ),
                "give the scope column the old key's type",
            );
        }
    }
    found
}

/// How the projection's columns do not fit the new table.
fn projection_misfits(manifest: &Manifest, new: &TableSchema, projected: &[String]) -> Vec<Misfit> {
    let mut found = Vec::new();
    let mut misfit = |message: String, hint: &str| found.push(Misfit { message, hint: hint.to_owned() });
    let new_table = manifest.new_table();
    for (index, column) in projected.iter().enumerate() {
        if projected[..index].contains(column) {
            misfit(format!("the projection gives column {column} twice"), "name each column once, with `as`");
        }
        match new.column(column) {
            None => misfit(
                format!("the projection gives column {column}, which table {} does not have", new.name),
                &columns_hint(new),
            ),
            Some(schema) if schema.generated => misfit(
                format!("the projection gives column {column}, which table {} computes itself", new.name),
                "leave it out of the projection",
            ),
            Some(_) => {}
        }
    }
    for column in new_table.scope.iter().chain(&new_table.key) {
        if !projected.contains(column) && new.column(column).is_some() {
            misfit(
                format!("the projection drops {column}, which is part of the new table's scope or key"),
                "give every column of new.scope and new.key",
            );
        }
    }
    for column in &new.columns {
        let is_key = new_table.scope.contains(&column.name) || new_table.key.contains(&column.name);
        if !column.nullable && !column.has_default && !is_key && !projected.contains(&column.name) {
            misfit(
                format!(
                    "column {} of table {} is not null without a default, and the projection drops it",
                    column.name, new.name
                ),
                "give it in the projection, or give the column a default",
            );
        }
    }
    found
}

fn columns_hint(schema: &TableSchema) -> String {
    let names: Vec<_> = schema.columns.iter().map(|column| column.name.as_str()).collect();
    format!("its columns are {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;

    /// Two tables, and a database that repeats the query it is asked about.
    struct Tables {
        key: &'static [(&'static str, &'static str)],
    }

    fn column(name: &str, sql_type: &str) -> ColumnSchema {
        ColumnSchema {
            name: name.to_owned(),
            sql_type: sql_type.to_owned(),
            kind: ColumnKind::Int,
            nullable: false,
            has_default: false,
            generated: false,
        }
    }

    #[async_trait]
    impl Catalog for Tables {
        async fn table(&self, name: &TableName) -> Result<TableSchema> {
            Ok(TableSchema {
                name: name.clone(),
                columns: self.key.iter().map(|(name, sql_type)| column(name, sql_type)).collect(),
                primary_key: self.key.iter().map(|(name, _)| (*name).to_owned()).collect(),
                unique_keys: Vec::new(),
                rows_estimate: 0,
            })
        }

        fn no_keys(&self, key: &[&ColumnSchema]) -> String {
            let columns: Vec<_> =
                key.iter().map(|column| format!("{} {}", column.name, column.sql_type)).collect();
            format!("no {}", columns.join(" and "))
        }

        async fn columns_of(&self, query: &str) -> Result<Vec<String>> {
            Err(Error::Query { what: "the projection".to_owned(), message: query.trim().to_owned() })
        }
    }

    fn manifest(key: &str) -> Manifest {
        let text = format!(
            r#"
name = "m"
[old]
url = "env:DATABASE_URL"
table = "old"
key = [{key}]
[new]
url = "env:DATABASE_URL"
table = "new"
scope = [{key}]
key = [{key}]
[mapping]
projection = "select * from old where (a, b) in (:keys)"
"#
        );
        Manifest::parse(&text, "m.toml").unwrap()
    }

    async fn refusal(key: &str, columns: &'static [(&'static str, &'static str)]) -> String {
        Plan::read(&manifest(key), &Tables { key: columns }).await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn the_dry_run_asks_for_no_key() {
        let asked = refusal(r#""a", "b""#, &[("a", "bigint"), ("b", "text")]).await;
        assert!(asked.ends_with("in (no a bigint and b text)"), "{asked}");
    }

    #[tokio::test]
    async fn a_key_column_that_is_not_there_is_named_before_the_database_is_asked() {
        let refused = refusal(r#""a", "c""#, &[("a", "bigint"), ("b", "text")]).await;
        assert!(refused.contains("old.key: table old has no column c"), "{refused}");
        assert!(refused.contains("new: table new has no column c"), "{refused}");
        assert!(!refused.contains("select"), "{refused}");
    }
}
