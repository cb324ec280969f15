//! SQLite's catalogue.

use std::collections::BTreeMap;

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Column, Executor, Row, SqlSafeStr, Sqlite, Statement};

use super::{Catalog, ColumnKind, ColumnSchema, TableSchema};
use crate::cell::sqlite::{Affinity, UNTYPED};
use crate::connect::Connected;
use crate::error::{Error, Result};
use crate::manifest::TableName;
use crate::quote::sqlite::table;

#[async_trait]
impl Catalog for Connected<Sqlite> {
    async fn table(&self, name: &TableName) -> Result<TableSchema> {
        let doing = || Error::database(format!("reading the columns of {name}"));
        let traits: Option<(bool, bool, bool)> = sqlx::query_as(
            "select strict, wr, type = 'view' from pragma_table_list where name = ?1 collate nocase order by schema = 'main' desc limit 1",
        )
        .bind(&name.table)
        .fetch_optional(&self.pool)
        .await
        .map_err(doing())?;
        let (is_strict, is_without_rowid, is_view) = traits.unwrap_or_default();
        if is_view {
            return Err(Error::NotATable { table: name.clone(), kind: "a view".to_owned() });
        }
        // `hidden` is 2 or 3 for generated columns, and 1 for a virtual table's arguments.
        let rows = sqlx::query(
            "select name, type, \"notnull\", dflt_value is not null, pk, hidden
             from pragma_table_xinfo(?1, ?2) where hidden <> 1 order by cid",
        )
        .bind(&name.table)
        .bind(&name.schema)
        .fetch_all(&self.pool)
        .await
        .map_err(doing())?;
        if rows.is_empty() {
            return Err(Error::NoTable { table: name.clone() });
        }
        let mut columns = Vec::with_capacity(rows.len());
        let mut key = BTreeMap::new();
        for row in &rows {
            let read = || -> Result<_, sqlx::Error> {
                Ok(Declared {
                    name: row.try_get(0)?,
                    sql_type: row.try_get(1)?,
                    not_null: row.try_get(2)?,
                    has_default: row.try_get(3)?,
                    key_position: row.try_get(4)?,
                    generated: row.try_get::<i64, _>(5)? >= 2,
                })
            };
            let declared = read().map_err(doing())?;
            if declared.key_position > 0 {
                key.insert(declared.key_position, declared.name.clone());
            }
            columns.push(declared);
        }
        let is_rowid = |column: &Declared| {
            // Only this very spelling makes the column a name for the rowid, which fills itself in.
            column.key_position > 0
                && key.len() == 1
                && !is_without_rowid
                && column.sql_type.eq_ignore_ascii_case("integer")
        };
        let columns: Vec<_> = columns
            .into_iter()
            .map(|column| {
                // A primary key may hold NULL in SQLite, but for these.
                let is_rowid = is_rowid(&column);
                let fills = is_rowid || (is_without_rowid && column.key_position > 0);
                let is_any = is_strict && column.sql_type.eq_ignore_ascii_case("any");
                let sql_type = if is_any { UNTYPED.to_owned() } else { column.sql_type };
                ColumnSchema {
                    name: column.name,
                    kind: kind(&sql_type),
                    sql_type,
                    nullable: !column.not_null && !fills,
                    has_default: column.has_default || is_rowid || column.generated,
                    generated: column.generated,
                }
            })
            .collect();
        let unique_keys = self.unique_keys(name, &columns).await?;
        let count = format!("select count(*) from {}", table(name));
        let rows: i64 =
            sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(&self.pool).await.map_err(doing())?;
        Ok(TableSchema {
            name: name.clone(),
            columns,
            primary_key: key.into_values().collect(),
            unique_keys,
            rows_estimate: rows.unsigned_abs(),
        })
    }

    fn no_keys(&self, key: &[&ColumnSchema]) -> String {
        // NULL compares with anything here, and a declared type need not be one that a cast understands.
        format!("select {}", vec!["null"; key.len()].join(", "))
    }

    async fn columns_of(&self, query: &str) -> Result<Vec<String>> {
        let refuse = |message: String| Error::Query {
            what: "the projection (mapping.projection)".to_owned(),
            message,
        };
        let mut connection =
            self.pool.acquire().await.map_err(Error::database("reading the projection's columns"))?;
        let statement =
            connection.prepare(AssertSqlSafe(query.to_owned()).into_sql_str()).await.map_err(|error| {
                match error {
                    sqlx::Error::Database(error) => refuse(error.message().to_owned()),
                    error => refuse(error.to_string()),
                }
            })?;
        let names: Vec<_> = statement.columns().iter().map(|column| column.name().to_owned()).collect();
        if names.is_empty() {
            return Err(refuse("it gives no columns".to_owned()));
        }
        Ok(names)
    }
}

impl Connected<Sqlite> {
    async fn unique_keys(&self, name: &TableName, columns: &[ColumnSchema]) -> Result<Vec<Vec<String>>> {
        // An expression in an index has no name.
        let rows: Vec<(String, Option<String>)> = sqlx::query_as(
            "select l.name, i.name
             from pragma_index_list(?1, ?2) l, pragma_index_info(l.name, ?2) i
             where l.\"unique\" and not l.partial and l.origin <> 'pk'
             order by l.seq desc, i.seqno",
        )
        .bind(&name.table)
        .bind(&name.schema)
        .fetch_all(&self.pool)
        .await
        .map_err(Error::database(format!("reading the indexes of {name}")))?;
        let mut indexes: Vec<(String, Option<Vec<String>>)> = Vec::new();
        for (index, column) in rows {
            let column = column.filter(|name| {
                columns.iter().any(|column| column.name.eq_ignore_ascii_case(name) && !column.nullable)
            });
            if indexes.last().is_none_or(|(last, _)| *last != index) {
                indexes.push((index, Some(Vec::new())));
            }
            if let Some((_, names)) = indexes.last_mut() {
                *names = names.take().zip(column).map(|(mut names, column)| {
                    names.push(column);
                    names
                });
            }
        }
        Ok(indexes.into_iter().filter_map(|(_, names)| names).collect())
    }
}

struct Declared {
    name: String,
    sql_type: String,
    not_null: bool,
    has_default: bool,
    key_position: i64,
    generated: bool,
}

/// How a column's values travel: by what it turns them into, and where that is any number or text, by
/// what its name says that it is used for.
fn kind(sql_type: &str) -> ColumnKind {
    let declared = sql_type.to_ascii_lowercase();
    match Affinity::of(sql_type) {
        _ if sql_type == UNTYPED => ColumnKind::Other,
        Affinity::Integer => ColumnKind::Int,
        Affinity::Text => ColumnKind::Text,
        Affinity::Real => ColumnKind::Float,
        Affinity::Blob => ColumnKind::Bytes,
        Affinity::Numeric if declared.contains("bool") => ColumnKind::Int,
        Affinity::Numeric if declared.contains("json") || declared.contains("uuid") => ColumnKind::Text,
        Affinity::Numeric => ColumnKind::Numeric,
    }
}
