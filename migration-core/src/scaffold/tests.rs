use super::*;
use crate::catalog::{ColumnKind, ColumnSchema};
use crate::manifest::{Manifest, TableName};

/// A column from its name and type; `!` behind the type is not null, `=` has a default.
fn column((name, declared): (&str, &str)) -> ColumnSchema {
    let sql_type = declared.trim_end_matches(['!', '=']);
    let kind = match sql_type {
        "bigint" | "integer" => ColumnKind::Int,
        "text" => ColumnKind::Text,
        "jsonb" | "json" => ColumnKind::Json,
        "boolean" => ColumnKind::Bool,
        "uuid" => ColumnKind::Uuid,
        "bytea" | "blob" => ColumnKind::Bytes,
        "timestamp without time zone" => ColumnKind::Timestamp,
        "timestamp with time zone" => ColumnKind::TimestampTz,
        _ => ColumnKind::Other,
    };
    ColumnSchema {
        name: name.to_owned(),
        sql_type: sql_type.to_owned(),
        kind,
        nullable: !declared.contains('!'),
        has_default: declared.contains('='),
        generated: false,
    }
}

fn table(name: &str, key: &[&str], columns: &[(&str, &str)]) -> TableSchema {
    TableSchema {
        name: TableName::parse(name).unwrap(),
        columns: columns.iter().copied().map(column).collect(),
        primary_key: key.iter().map(|&name| name.to_owned()).collect(),
        unique_keys: Vec::new(),
        rows_estimate: 0,
    }
}

fn scaffolded(engine: EngineKind, old: &TableSchema, new: &TableSchema) -> String {
    scaffold(&Scaffold {
        name: "m",
        engine,
        old,
        new,
        old_url: "env:DATABASE_URL",
        new_url: "env:DATABASE_URL",
    })
}

fn parsed(engine: EngineKind, old: &TableSchema, new: &TableSchema) -> (String, Manifest) {
    let text = scaffolded(engine, old, new);
    let manifest = Manifest::parse(&text, "m.toml").unwrap_or_else(|error| panic!("{error}\n{text}"));
    (text, manifest)
}

fn customers() -> TableSchema {
    table("customers", &["id"], &[("id", "bigint!"), ("name", "text!"), ("subscriptions", "jsonb!=")])
}

fn subscriptions() -> TableSchema {
    table(
        "subscriptions",
        &["customer_id", "id"],
        &[
            ("customer_id", "bigint!"),
            ("id", "text!"),
            ("plan", "text!"),
            ("seats", "integer"),
            ("since", "timestamp with time zone"),
            ("tags", "text[]"),
            ("extra", "jsonb"),
        ],
    )
}

#[test]
fn the_elements_of_an_array_become_rows_on_postgres() {
    let (text, manifest) = parsed(EngineKind::Postgres, &customers(), &subscriptions());
    assert!(!text.contains("TODO"), "{text}");
    assert_eq!(manifest.new_table().scope, ["customer_id"]);
    assert_eq!(
        manifest.mapping().projection.to_string(),
        "select o.id as customer_id,
       s.value ->> 'id' as id,
       s.value ->> 'plan' as plan,
       cast(s.value ->> 'seats' as integer) as seats,
       cast(s.value ->> 'since' as timestamp with time zone) as since,
       cast(case when jsonb_typeof(s.value -> 'tags') = 'array'
            then array(select jsonb_array_elements_text(s.value -> 'tags')) end as text[]) as tags,
       nullif(s.value -> 'extra', 'null') as extra
from customers as o
cross join jsonb_array_elements(o.subscriptions) as s(value)
where o.id in (:keys)"
    );
    assert_eq!(
        manifest.mapping().reverse[0].to_string(),
        "update customers as o
set subscriptions = coalesce((
    select jsonb_agg(
        jsonb_build_object(
            'id', n.id,
            'plan', n.plan,
            'seats', n.seats,
            'since', n.since,
            'tags', n.tags,
            'extra', n.extra)
        order by n.id)
    from subscriptions as n
    where n.customer_id = o.id), '[]')
where o.id in (:keys)"
    );
    assert_eq!(
        manifest.mapping().retire[0].to_string(),
        "update customers\nset subscriptions = '[]'\nwhere id in (:keys)"
    );
}

#[test]
fn a_row_becomes_a_row_and_what_is_missing_is_marked() {
    let old = table(
        "users",
        &["id"],
        &[
            ("id", "uuid!"),
            ("email", "text!"),
            ("seen", "timestamp without time zone"),
            ("legacy", "integer"),
        ],
    );
    let new = table(
        "accounts",
        &["user_id"],
        &[
            ("user_id", "uuid!"),
            ("email", "text!"),
            ("seen", "timestamp with time zone"),
            ("region", "text!"),
            ("created", "timestamp with time zone!="),
        ],
    );
    let (text, manifest) = parsed(EngineKind::Postgres, &old, &new);
    assert_eq!(
        manifest.mapping().projection.to_string(),
        "select o.id as user_id,
       o.email,
       o.seen at time zone 'UTC' as seen, -- TODO: times without a zone are taken as UTC
       null as region -- TODO: users has no such column, and it may not be NULL
from users as o
where o.id in (:keys)"
    );
    assert_eq!(
        manifest.mapping().reverse[0].to_string(),
        "insert into users (id, email, seen)
select n.user_id,
       n.email,
       n.seen at time zone 'UTC'
from accounts as n
where n.user_id in (:keys)
on conflict (id) do update
set email = excluded.email,
    seen = excluded.seen"
    );
    assert!(manifest.mapping().retire.is_empty());
    assert!(text.contains("# Columns of users that go nowhere: legacy."), "{text}");
    assert!(
        text.contains("# Columns of accounts that are left NULL or to their defaults: created."),
        "{text}"
    );
}

#[test]
fn an_old_row_that_needs_more_than_the_new_one_knows_is_only_updated() {
    let old = table("users", &["id"], &[("id", "bigint!"), ("email", "text"), ("password", "text!")]);
    let new = table("contacts", &["user_id"], &[("user_id", "bigint!"), ("email", "text")]);
    let (text, manifest) = parsed(EngineKind::Postgres, &old, &new);
    let reverse = "update users as o\nset email = n.email\nfrom contacts as n\nwhere n.user_id = o.id\n  and o.id in (:keys)";
    assert_eq!(manifest.mapping().reverse[0].to_string(), reverse);
    assert!(text.contains("# TODO: rows that are created in the new table do not come back"), "{text}");
}

#[test]
fn the_scope_is_found_column_by_column() {
    let scope = |old: &TableSchema, new: &TableSchema| {
        parsed(EngineKind::Sqlite, old, new).1.new_table().scope.clone()
    };
    let old = table("orders", &["tenant_id", "id"], &[("tenant_id", "bigint!"), ("id", "bigint!")]);
    let lines = [("id", "bigint!"), ("order_id", "bigint!"), ("tenant_id", "bigint!")];
    assert_eq!(scope(&old, &table("order_lines", &["id"], &lines)), ["tenant_id", "order_id"]);
    let old = table("customer", &["customer_id"], &[("customer_id", "bigint!")]);
    let rentals = [("rental_id", "bigint!"), ("customer_id", "bigint!")];
    assert_eq!(scope(&old, &table("rental", &["rental_id"], &rentals)), ["customer_id"]);
    let old = table("customers", &["id"], &[("id", "bigint!")]);
    let camel = [("id", "bigint!"), ("customerId", "bigint!")];
    assert_eq!(scope(&old, &table("orders", &["id"], &camel)), ["customerId"]);
    assert_eq!(scope(&old, &table("people", &["id"], &[("id", "bigint!")])), ["id"]);
}

#[test]
fn a_scope_that_is_not_there_is_marked() {
    let old = table("customers", &["id"], &[("id", "bigint!")]);
    let (text, manifest) = parsed(EngineKind::Sqlite, &old, &table("orders", &["id"], &[("id", "text!")]));
    assert_eq!(manifest.new_table().scope, ["customer_id"]);
    assert!(text.contains("# TODO: no column of orders is named as if it held customers.id."), "{text}");
    let other_type = [("id", "text!"), ("customer_id", "text!")];
    let (text, _) = parsed(EngineKind::Sqlite, &old, &table("orders", &["id"], &other_type));
    assert!(text.contains("# TODO: customer_id is text and customers.id bigint."), "{text}");
}

#[test]
fn a_number_of_its_own_is_no_key_where_the_old_key_is_unique() {
    let old = table("users", &["id"], &[("id", "bigint!"), ("bio", "text")]);
    let mut new = table("profiles", &["id"], &[("id", "bigint!="), ("user_id", "bigint!"), ("bio", "text")]);
    new.unique_keys = vec![vec!["user_id".to_owned()]];
    let (text, manifest) = parsed(EngineKind::Postgres, &old, &new);
    assert_eq!(manifest.new_table().key, ["user_id"]);
    assert!(text.contains("left NULL or to their defaults: id."), "{text}");
}

#[test]
fn a_table_without_a_key_is_told_so() {
    let old = table("users", &[], &[("name", "text")]);
    let new = table("people", &[], &[("name", "text")]);
    let (text, _) = parsed(EngineKind::Postgres, &old, &new);
    assert!(text.contains("TODO: table users has neither"), "{text}");
    assert!(text.contains("TODO: table people has neither"), "{text}");
    parsed(EngineKind::Sqlite, &table("empty", &[], &[]), &table("void", &[], &[]));
}

#[test]
fn several_rows_without_an_array_are_left_to_the_reader() {
    let old = table("users", &["id"], &[("id", "bigint!"), ("settings", "jsonb")]);
    let new = table("visits", &["id"], &[("id", "bigint!"), ("user_id", "bigint!")]);
    let (text, manifest) = parsed(EngineKind::Postgres, &old, &new);
    assert!(text.contains("TODO: the new key has id beside the old key"), "{text}");
    assert!(manifest.mapping().reverse.is_empty());
}

#[test]
fn a_text_is_an_array_on_sqlite_where_its_name_says_so() {
    let email = |declared: &str, name: &str| {
        let old = table("users", &["id"], &[("id", "integer!"), (name, declared)]);
        let columns = [("user_id", "integer!"), ("email", "text!")];
        parsed(EngineKind::Sqlite, &old, &table("emails", &["user_id", "email"], &columns)).0
    };
    assert!(email("text", "emails").contains("json_each(o.emails)"));
    assert!(email("blob", "email_list").contains("jsonb_group_array"));
    assert!(!email("text", "email").contains("json_each"));
    assert!(email("json", "email").contains("json_each(o.email)"));
}

#[test]
fn the_gates_stand_there_with_their_defaults() {
    let text = scaffolded(EngineKind::Postgres, &customers(), &subscriptions());
    let (head, gates) = text.split_once("[gates]\n").unwrap();
    let settings: String = gates
        .lines()
        .filter(|line| line.contains(" = "))
        .map(|line| format!("{}\n", line.trim_start_matches("# ")))
        .collect();
    assert_eq!(settings.lines().count(), 8, "{settings}");
    let manifest = Manifest::parse(&format!("{head}[gates]\n{settings}"), "m.toml").unwrap();
    assert_eq!(manifest.thresholds(), &Thresholds::default());
}

#[test]
fn names_of_any_kind_leave_the_manifest_whole() {
    let odd = "a\"\"\"\\b\n'c'\r\t-- :keys; ";
    let old = table("us'ers", &[odd], &[(odd, "bigint!"), ("order", "jsonb")]);
    let new = table(
        "\"orders\"",
        &["us'er_id", odd],
        &[("us'er_id", "bigint!"), (odd, "text!"), ("select", "bytea!"), ("x y", "bigint")],
    );
    for engine in [EngineKind::Postgres, EngineKind::Sqlite] {
        let (_, manifest) = parsed(engine, &old, &new);
        assert_eq!(manifest.old().key, [odd]);
        let (_, manifest) = parsed(engine, &old, &table("o", &["x"], &[("x", "text!"), (odd, "text!")]));
        assert_eq!(manifest.old().key, [odd]);
    }
}
