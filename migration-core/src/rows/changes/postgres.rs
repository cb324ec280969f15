//! What has changed between two moments in Postgres.
//!
//! Each row version carries the identifier of the transaction that wrote it (`xmin`), and an identifier below the `xmin` of a
//! snapshot belongs to a transaction that had ended when the snapshot was taken, whichever way, with all its savepoints. So a row
//! version that is visible now and was written by such a transaction was visible then as well: its writer had committed, and
//! who deleted it later has not yet, or it would not be visible now. If all rows of a range that are visible now are of this
//! kind, and they are as many as there were then, they are those that there were then: nothing was inserted or updated, because
//! that would have left a version by a later transaction, and nothing was deleted, because one would be missing.
//!
//! That a snapshot sees a transaction is not asked: it lists transactions, but not their savepoints, whose identifiers
//! stand in rows too. What was written between the oldest running transaction and the snapshot counts as changed.

use sqlx::postgres::PgConnection;
use sqlx::postgres::types::Oid;
use sqlx::{AssertSqlSafe, Row};

use super::Horizon;
use crate::catalog::postgres::columns;
use crate::phase::Side;
use crate::plan::Plan;
use crate::projection::postgres::own_keys;
use crate::projection::row_by_row::{FUNCTIONS, WRITER_COLUMN, with_writer};
use crate::quote::postgres::table;
use crate::rows::ScopeRange;
use crate::rows::ranges::postgres::within;

/// Types whose values are never shown in another way while they are the same: their form depends on no setting, and nothing
/// that it is made of can be altered. Enumerations are too, as long as their labels are.
const SURE_TYPES: &[&str] = &[
    "bool",
    "int2",
    "int4",
    "int8",
    "float4",
    "float8",
    "numeric",
    "text",
    "varchar",
    "bpchar",
    "bytea",
    "uuid",
    "date",
    "time",
    "timestamp",
    "timestamptz",
    "json",
    "jsonb",
    "inet",
    "cidr",
    "macaddr",
    "macaddr8",
    "bit",
    "varbit",
    "_bool",
    "_int2",
    "_int4",
    "_int8",
    "_numeric",
    "_text",
    "_varchar",
    "_uuid",
];

/// Operators that a projection may use for its rows to be made row by row.
const OPERATORS: &[&str] = &[
    "=", "<>", "<", "<=", ">", ">=", "+", "-", "*", "/", "%", "||", "->", "->>", "#>", "#>>", "@>", "<@",
    "?", "~~", "~~*", "!~~", "!~~*",
];

/// The horizon of a connection's snapshot. The inner error says in words why there is none.
pub(in crate::rows) async fn horizon(
    connection: &mut PgConnection,
    plan: &Plan,
    side: Side,
) -> sqlx::Result<Result<Horizon, String>> {
    let name = match side {
        Side::Old => plan.old(),
        Side::New => plan.new_table(),
    };
    // Numbers rather than times as text, which would depend on the session. Where the server has come up again after a
    // crash, without having been started again, its statistics begin anew.
    let row = sqlx::query(
        "select pg_snapshot_xmin(pg_current_snapshot())::text::bigint as ended_below,
                pg_snapshot_xmax(pg_current_snapshot())::text::bigint as begun_below,
                concat_ws(' ', (select system_identifier from pg_control_system()),
                          extract(epoch from pg_postmaster_start_time()),
                          (select extract(epoch from stats_reset) from pg_stat_bgwriter)) as server,
                concat_ws(' ', (select d.oid from pg_catalog.pg_database as d where d.datname = current_database()),
                          c.oid, c.relfilenode) as place,
                c.oid as table_oid,
                case
                    when pg_is_in_recovery() then 'a replica does not know which transactions are running'
                    when c.relkind <> 'r' or exists (select from pg_catalog.pg_inherits as i where i.inhparent = c.oid)
                        then 'the table has parts of its own'
                    when a.amname is distinct from 'heap' then 'the table is not stored as a heap'
                    when not has_table_privilege(c.oid, 'select')
                        then 'the role may not see which transaction wrote a row'
                    when row_security_active(c.oid) then 'row security decides which rows are seen'
                end as obstacle
         from pg_catalog.pg_class as c left join pg_catalog.pg_am as a on a.oid = c.relam
         where c.oid = to_regclass($1)",
    )
    .bind(table(name))
    .fetch_one(&mut *connection)
    .await?;
    if let Some(obstacle) = row.try_get("obstacle")? {
        return Ok(Err(obstacle));
    }
    let oid: Oid = row.try_get("table_oid")?;
    let (all, unsure) = shapes(connection, oid).await?;
    let obstacle = match side {
        Side::New => plan.columns().iter().find(|column| unsure.contains(&column.name)).map(|column| {
            format!("column {} of type {} may change without its row", column.name, column.sql_type)
        }),
        Side::Old => match written(connection, plan, oid, &unsure).await? {
            Ok(_) => foreign(connection).await?,
            Err(why) => Some(format!("the projection is not known to make each row of one old row: {why}")),
        },
    };
    if let Some(obstacle) = obstacle {
        return Ok(Err(obstacle));
    }
    let number = |name: &str| row.try_get(name).map(i64::unsigned_abs);
    Ok(Ok(Horizon {
        ended_below: number("ended_below")?,
        begun_below: number("begun_below")?,
        server: row.try_get("server")?,
        table: row.try_get("place")?,
        columns: format!("{:016x}", xxhash_rust::xxh3::xxh3_64(all.as_bytes())),
    }))
}

/// Whether the rows of a range are those that there were at an earlier horizon, of which there were so many.
pub(in crate::rows) async fn is_unchanged(
    connection: &mut PgConnection,
    plan: &Plan,
    side: Side,
    range: &ScopeRange,
    since: &Horizon,
    rows: u64,
) -> sqlx::Result<bool> {
    let (source, writer) = match side {
        Side::New => (format!("{} as p", table(plan.new_table())), "xmin"),
        Side::Old => {
            let name = table(plan.old());
            let oid: Oid = sqlx::query_scalar("select to_regclass($1)::oid")
                .bind(name)
                .fetch_one(&mut *connection)
                .await?;
            let (_, unsure) = shapes(connection, oid).await?;
            let Ok(query) = written(connection, plan, oid, &unsure).await? else { return Ok(false) };
            (format!("({query}) as p"), WRITER_COLUMN)
        }
    };
    // Rows hold the lower half of an identifier; the age of one is reckoned from the present, which is near enough for both
    // to be reckoned right. A row whose writer has been forgotten for its age looks older or younger than it is: taken for
    // younger, it counts as changed.
    let sql = format!(
        "select count(*), count(*) filter (where pg_catalog.age(p.{writer}) > pg_catalog.age('{}'::xid)) from {source}{}",
        since.ended_below % (1 << 32),
        within(plan, range),
    );
    let (all, earlier): (i64, i64) = sqlx::query_as(AssertSqlSafe(sql)).fetch_one(connection).await?;
    Ok(all == earlier && all.unsigned_abs() == rows)
}

/// What a table's columns are, in words that change when anything about them does; and the names of those whose values may be
/// shown in another way while the rows are the same.
async fn shapes(connection: &mut PgConnection, table: Oid) -> sqlx::Result<(String, Vec<String>)> {
    // The identifiers of transactions tell apart what was altered, and back again.
    sqlx::query_as(
        "select coalesce(string_agg(concat_ws(' ', a.attnum, quote_ident(a.attname), a.atttypid, a.atttypmod, a.atthasmissing,
                                              a.xmin, t.xmin, e.labels), ', ' order by a.attnum), ''),
                coalesce(array_agg(a.attname::text) filter (where a.attgenerated not in ('', 's') or not (
                    t.typtype = 'e' or t.typname = any($2) and t.typnamespace = 'pg_catalog'::regnamespace)), '{}')
         from pg_catalog.pg_attribute as a
              join pg_catalog.pg_type as t on t.oid = a.atttypid
              left join lateral (
                  select string_agg(concat_ws(' ', l.oid, quote_literal(l.enumlabel), l.xmin), ' ' order by l.oid) as labels
                  from pg_catalog.pg_enum as l where l.enumtypid = t.oid) as e on true
         where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped",
    )
    .bind(table)
    .bind(SURE_TYPES)
    .fetch_one(connection)
    .await
}

/// The projection of all keys with the writer of each row's old row; the inner error says why there is none.
async fn written(
    connection: &mut PgConnection,
    plan: &Plan,
    old: Oid,
    unsure: &[String],
) -> sqlx::Result<Result<String, String>> {
    let Some(own_keys) = own_keys(plan) else {
        return Ok(Err("it is not understood".to_owned()));
    };
    let columns = columns(connection, old).await?;
    Ok(with_writer(plan, &own_keys, &columns, unsure))
}

/// Whether what a projection calls may be something else than what the database comes with.
async fn foreign(connection: &mut PgConnection) -> sqlx::Result<Option<String>> {
    let is_foreign: bool = sqlx::query_scalar(
        "with own as (select oid from pg_catalog.pg_type where typnamespace = 'pg_catalog'::regnamespace
                      union all select 0::oid)
         select exists (select from pg_catalog.pg_proc
                        where proname = any($1) and pronamespace <> 'pg_catalog'::regnamespace)
             or exists (select from pg_catalog.pg_operator
                        where oprname = any($2) and oprnamespace <> 'pg_catalog'::regnamespace
                          and oprleft in (select oid from own) and oprright in (select oid from own))
             or exists (select from pg_catalog.pg_cast as c join pg_catalog.pg_proc as f on f.oid = c.castfunc
                        where f.pronamespace <> 'pg_catalog'::regnamespace
                          and c.castsource in (select oid from own) and c.casttarget in (select oid from own))
             or (select s from unnest(current_schemas(true)) with ordinality as u (s, n)
                 where s !~ '^pg_temp' order by n limit 1) <> 'pg_catalog'",
    )
    .bind(FUNCTIONS)
    .bind(OPERATORS)
    .fetch_one(connection)
    .await?;
    Ok(is_foreign.then(|| {
        "functions, operators or casts are defined that may stand in the place of the database's own"
            .to_owned()
    }))
}
