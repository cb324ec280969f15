//! What Postgres says of its tables and queries.

use async_trait::async_trait;
use sqlx::postgres::types::Oid;
use sqlx::{AssertSqlSafe, Column, Either, Executor, PgConnection, Postgres, Row, SqlSafeStr, Statement};

use super::{Catalog, ColumnKind, ColumnSchema, TableSchema};
use crate::connect::Connected;
use crate::error::{Error, Result};
use crate::manifest::TableName;
use crate::quote::postgres::table as quoted;

/// Tables up to this size are counted: that takes a millisecond, and the planner's guess at a small
/// table that was never analysed is of no use.
const COUNTED_BYTES_MAX: i64 = 1 << 20;

#[async_trait]
impl Catalog for Connected<Postgres> {
    async fn table(&self, name: &TableName) -> Result<TableSchema> {
        let mut connection = self.pool.acquire().await.map_err(failed(name))?;
        let found: Option<(Oid, String)> = sqlx::query_as(
            "select c.oid, c.relkind::text from pg_catalog.pg_class as c where c.oid = to_regclass($1)",
        )
        .bind(quoted(name))
        .fetch_optional(&mut *connection)
        .await
        .map_err(failed(name))?;
        let (oid, kind) = found.ok_or_else(|| Error::NoTable { table: name.clone() })?;
        if let Some(kind) = other_than_table(&kind) {
            return Err(Error::NotATable { table: name.clone(), kind: kind.to_owned() });
        }
        let (primary_key, unique_keys) = keys(&mut connection, oid).await.map_err(failed(name))?;
        Ok(TableSchema {
            name: name.clone(),
            columns: columns(&mut connection, oid).await.map_err(failed(name))?,
            primary_key,
            unique_keys,
            rows_estimate: rows_estimate(&mut connection, name, &format!("select 1 from {}", quoted(name)))
                .await
                .map_err(failed(name))?,
        })
    }

    fn no_keys(&self, key: &[&ColumnSchema]) -> String {
        // A NULL without a type is text by the time that it leaves a sub-select, which equals no integer.
        let nulls: Vec<_> = key.iter().map(|column| format!("cast(null as {})", column.sql_type)).collect();
        format!("select {}", nulls.join(", "))
    }

    async fn columns_of(&self, query: &str) -> Result<Vec<String>> {
        let what = "the projection";
        let refused = |message: String| Error::Query { what: what.to_owned(), message };
        // The line breaks keep a comment at the query's end from swallowing the bracket.
        let sql = AssertSqlSafe(format!("select * from (\n{query}\n) as p limit 0")).into_sql_str();
        let failed = || Error::database(format!("reading the columns of {what}"));
        let mut connection = self.pool.acquire().await.map_err(failed())?;
        let statement = connection.prepare(sql).await.map_err(|error| match error {
            sqlx::Error::Database(error) => refused(error.message().to_owned()),
            error => failed()(error),
        })?;
        let parameters = match statement.parameters() {
            Some(Either::Left(types)) => types.len(),
            Some(Either::Right(count)) => count,
            None => 0,
        };
        if parameters > 0 {
            return Err(refused("it has parameters such as $1, and only :keys is filled in".to_owned()));
        }
        Ok(statement.columns().iter().map(|column| column.name().to_owned()).collect())
    }
}

/// The number of rows that the planner expects of a query without parameters.
pub(crate) async fn planned_rows(connection: &mut PgConnection, query: &str) -> sqlx::Result<u64> {
    let statement = AssertSqlSafe(format!("explain (format json) {query}"));
    let row = sqlx::query(statement).fetch_one(connection).await?;
    let text: String = row.try_get_unchecked(0)?;
    let plan: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| sqlx::Error::Decode(error.into()))?;
    let rows = plan.pointer("/0/Plan/Plan Rows").and_then(serde_json::Value::as_f64);
    Ok(rows.map_or(0, |rows| rows.max(0.0) as u64))
}

/// About how many rows a query over this table gives; exactly, where the table is small.
pub(crate) async fn rows_estimate(
    connection: &mut PgConnection,
    name: &TableName,
    query: &str,
) -> sqlx::Result<u64> {
    let bytes: i64 = sqlx::query_scalar(
        "select coalesce(sum(pg_relation_size(oid)), 0)::bigint from pg_catalog.pg_class
         where oid = to_regclass($1) or oid in (select relid from pg_partition_tree(to_regclass($1)))",
    )
    .bind(quoted(name))
    .fetch_one(&mut *connection)
    .await?;
    if bytes > COUNTED_BYTES_MAX {
        // The planner scales what was counted last by how much the table has grown since.
        return planned_rows(connection, query).await;
    }
    let count: i64 = sqlx::query_scalar(AssertSqlSafe(format!("select count(*) from ({query}) as q")))
        .fetch_one(connection)
        .await?;
    Ok(count.unsigned_abs())
}

/// A table's columns, in their order.
pub(crate) async fn columns(connection: &mut PgConnection, table: Oid) -> sqlx::Result<Vec<ColumnSchema>> {
    // A cast to a domain over varchar(n) would cut values short, so that a domain stands here as the
    // type below it. With -1 for its modifier a type is spelled such that it means itself without
    // a length: \"bit\" and bpchar rather than bit and character, which mean a length of one.
    let rows = sqlx::query(
        "select a.attname::text as name, base.oid as type, format_type(base.oid, -1) as sql_type,
                not (a.attnotnull or base.is_not_null) as nullable,
                a.atthasdef or a.attidentity <> '' or base.has_default as has_default,
                a.attgenerated <> '' or a.attidentity = 'a' as generated
         from pg_catalog.pg_attribute as a,
              lateral (
                  with recursive t as (
                      select y.oid, y.typtype, y.typbasetype, y.typnotnull, y.typdefault, 0 as depth
                      from pg_catalog.pg_type as y where y.oid = a.atttypid
                      union all
                      select y.oid, y.typtype, y.typbasetype, y.typnotnull, y.typdefault, t.depth + 1
                      from t join pg_catalog.pg_type as y on y.oid = t.typbasetype and t.typtype = 'd'
                  )
                  select (array_agg(t.oid order by t.depth desc))[1] as oid,
                         bool_or(t.typnotnull) as is_not_null,
                         bool_or(t.typdefault is not null) as has_default
                  from t
              ) as base
         where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped
         order by a.attnum",
    )
    .bind(table)
    .fetch_all(connection)
    .await?;
    let column = |row: &sqlx::postgres::PgRow| -> sqlx::Result<ColumnSchema> {
        let kind = kind(row.try_get("type")?);
        Ok(ColumnSchema {
            name: row.try_get("name")?,
            // Text types of every length are cast to the one that has none.
            sql_type: if kind == ColumnKind::Text { "text".to_owned() } else { row.try_get("sql_type")? },
            kind,
            nullable: row.try_get("nullable")?,
            has_default: row.try_get("has_default")?,
            generated: row.try_get("generated")?,
        })
    };
    rows.iter().map(column).collect()
}

/// The primary key, and the other keys.
async fn keys(connection: &mut PgConnection, table: Oid) -> sqlx::Result<(Vec<String>, Vec<Vec<String>>)> {
    let indexes: Vec<(bool, Vec<String>)> = sqlx::query_as(
        "select i.indisprimary, array_agg(a.attname::text order by k.place)
         from pg_catalog.pg_index as i,
              unnest(i.indkey::smallint[]) with ordinality as k(number, place),
              pg_catalog.pg_attribute as a
         where i.indrelid = $1 and i.indisunique and i.indisvalid
           and i.indpred is null and i.indexprs is null
           and k.place <= i.indnkeyatts
           and a.attrelid = i.indrelid and a.attnum = k.number
         group by i.indexrelid, i.indisprimary, i.indimmediate
         -- A deferrable index cannot settle a conflict between rows.
         having i.indisprimary or (i.indimmediate and bool_and(a.attnotnull))
         order by i.indexrelid",
    )
    .bind(table)
    .fetch_all(connection)
    .await?;
    let (primary, unique): (Vec<_>, Vec<_>) = indexes.into_iter().partition(|(is_primary, _)| *is_primary);
    let primary = primary.into_iter().next().map(|(_, columns)| columns).unwrap_or_default();
    Ok((primary, unique.into_iter().map(|(_, columns)| columns).collect()))
}

/// How values of a built-in type travel. The numbers of built-in types are the same on every server.
fn kind(oid: Oid) -> ColumnKind {
    match oid.0 {
        16 => ColumnKind::Bool,
        20 | 21 | 23 => ColumnKind::Int,
        700 | 701 => ColumnKind::Float,
        // name, text, character, character varying
        19 | 25 | 1042 | 1043 => ColumnKind::Text,
        17 => ColumnKind::Bytes,
        2950 => ColumnKind::Uuid,
        1082 => ColumnKind::Date,
        1114 => ColumnKind::Timestamp,
        1184 => ColumnKind::TimestampTz,
        114 | 3802 => ColumnKind::Json,
        1700 => ColumnKind::Numeric,
        _ => ColumnKind::Other,
    }
}

fn other_than_table(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "r" | "p" => return None,
        "v" => "a view",
        "m" => "a materialized view",
        "f" => "a foreign table",
        "S" => "a sequence",
        "i" | "I" => "an index",
        _ => "a type",
    })
}

fn failed(name: &TableName) -> impl FnOnce(sqlx::Error) -> Error {
    Error::database(format!("reading what the database says of table {name}"))
}
