use std::fs::File;

use arrow::array::builder::Int64Builder;
use arrow::array::{
    ArrayRef, Int32Array, Int64Array, ListBuilder, RecordBatch, StringArray, StringBuilder, StructBuilder,
};
use arrow::datatypes::{DataType, Field};
use arrow::util::pretty::pretty_format_batches;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;

fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
}

fn read(folder: &Path) -> Vec<RecordBatch> {
    let files = parquet_files(folder).unwrap();
    let readers = files.iter().map(|path| {
        ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().build().unwrap()
    });
    readers.flatten().map(Result::unwrap).collect()
}

fn text(folder: &Path) -> Vec<String> {
    let table = pretty_format_batches(&read(folder)).unwrap().to_string();
    let cells = |line: &str| {
        line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(" ").trim_end().to_owned()
    };
    table.lines().filter(|line| line.starts_with('|')).skip(1).map(cells).collect()
}

/// Customers with subscriptions as `jsonb` arrays look after an export that knows their shape.
fn customers_with_lists(folder: &Path) {
    let fields = vec![Field::new("id", DataType::Utf8, true), Field::new("quantity", DataType::Int64, true)];
    let mut lists = ListBuilder::new(StructBuilder::from_fields(fields, 0));
    for subscriptions in
        [Some(vec![("a", Some(1)), ("b", None)]), Some(vec![]), None, Some(vec![("c", Some(3))])]
    {
        for (id, quantity) in subscriptions.iter().flatten() {
            let row = lists.values();
            row.field_builder::<StringBuilder>(0).unwrap().append_value(id);
            row.field_builder::<Int64Builder>(1).unwrap().append_option(*quantity);
            row.append(true);
        }
        lists.append(subscriptions.is_some());
    }
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3, 4]));
    write(&folder.join("customers.parquet"), vec![("id", ids), ("subscriptions", Arc::new(lists.finish()))]);
}

/// And this is how they look after one that does not.
fn customers_with_json(folder: &Path) {
    let json = [
        Some(r#"[{"id": "a", "quantity": 1, "amount": 1.10}, {"id": "b", "plan": {"name": "ba\"sic"}}]"#),
        Some("[]"),
        None,
        Some(r#"[{"id": "c", "quantity": null, "amount": 12345678901234567890.12}]"#),
    ];
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3, 4]));
    write(
        &folder.join("customers.parquet"),
        vec![("id", ids), ("subscriptions", Arc::new(StringArray::from(json.to_vec())))],
    );
}

const OF_LISTS: &str = "
    select id as customer_id, s['id'] as id, s['quantity'] as quantity
    from (select id, unnest(subscriptions) as s from old)
    order by customer_id, id";

const OF_JSON: &str = "
    select id as customer_id, json_text(s, 'id') as id, json_text(s, 'plan', 'name') as plan,
           cast(json_text(s, 'quantity') as bigint) as quantity,
           cast(json_text(s, 'amount') as decimal(30, 2)) as amount
    from (select id, unnest(json_elements(subscriptions)) as s from old)
    order by customer_id, id";

async fn run(dump: &Path, text: &str, columns: Option<&[&str]>, out: &Path) -> Result<Projected> {
    let columns = columns.map(|columns| columns.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    project(dump, &Query::new("projection.sql", text), columns.as_deref(), out, &Cancel::new()).await
}

#[tokio::test]
async fn lists_of_structs_become_rows() {
    let folder = tempfile::tempdir().unwrap();
    customers_with_lists(folder.path());
    let out = folder.path().join("out");
    let projected = run(folder.path(), OF_LISTS, None, &out).await.unwrap();
    assert_eq!(projected.rows, 3);
    assert_eq!(projected.columns, ["customer_id", "id", "quantity"]);
    assert_eq!(text(&out), ["1 a 1", "1 b", "4 c 3"]);
}

#[tokio::test]
async fn json_text_becomes_rows_and_keeps_its_digits() {
    let folder = tempfile::tempdir().unwrap();
    customers_with_json(folder.path());
    let out = folder.path().join("out");
    run(folder.path(), OF_JSON, None, &out).await.unwrap();
    assert_eq!(text(&out), ["1 a  1 1.10", "1 b ba\"sic", "4 c   12345678901234567890.12"]);
}

/// What is projected is compared like any other dump.
#[tokio::test]
async fn what_is_projected_can_be_imported() {
    use crossfade_backfill::import::{Dump, ImportOptions, import};
    let folder = tempfile::tempdir().unwrap();
    customers_with_json(folder.path());
    let out = folder.path().join("out");
    let columns = ["customer_id", "id", "amount"];
    let projected = run(folder.path(), OF_JSON, Some(&columns), &out).await.unwrap();
    let dump = Dump {
        path: projected.folder,
        columns: projected.columns,
        migration: "subscriptions".into(),
        manifest_hash: "5eed".into(),
        side: crossfade_backfill::snapshot::Side::Old,
        store: "warehouse".into(),
        consistent_point: "monday".into(),
        epoch: 1,
        phase: "dual_write".into(),
        started_at: "2026-01-01T00:00:00Z".into(),
        key: vec!["customer_id".into(), "id".into()],
        scope_columns: 1,
    };
    let manifest = import(dump, folder.path().join("snapshot"), &ImportOptions::default()).unwrap();
    assert_eq!(manifest.rows, 3);
}

#[tokio::test]
async fn a_projection_without_rows_still_has_columns() {
    let folder = tempfile::tempdir().unwrap();
    customers_with_lists(folder.path());
    let out = folder.path().join("out");
    let projected = run(folder.path(), "select id from old where id < 0", None, &out).await.unwrap();
    assert_eq!(projected.rows, 0);
    let side = Side::of_folder(&out).unwrap();
    assert_eq!(side.data_type("id"), Some(&DataType::Int64));
}

#[tokio::test]
async fn what_is_no_projection_is_refused_with_a_hint_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    write(
        &folder.path().join("d.parquet"),
        vec![
            ("id", Arc::new(Int32Array::from(vec![1])) as ArrayRef),
            ("j", Arc::new(StringArray::from(vec!["{"]))),
        ],
    );
    let elsewhere = folder.path().join("elsewhere.csv");
    for query in [
        "select nothing from old",
        "select id from customers",
        "selec id",
        "drop table old",
        "insert into old values (2)",
        &format!("copy old to '{}'", elsewhere.display()),
        "create external table t stored as csv location '/etc/passwd'",
        "select json_text(j, 'a') from old",
        "",
    ] {
        let out = folder.path().join("out");
        let error = run(folder.path(), query, None, &out).await.unwrap_err();
        assert!(matches!(error, Error::Projection { .. }), "{query}: {error:?}");
        assert!(error.to_string().contains("projection.sql"), "{error}");
        assert!(error.hint().is_some());
        assert!(!out.exists() && !out.with_extension("tmp").exists(), "{query}");
    }
    assert!(!elsewhere.exists());
    let out = folder.path().join("out");
    let error = run(folder.path(), "select id from old", Some(&["plan"]), &out).await.unwrap_err();
    assert!(matches!(&error, Error::ProjectionColumn { column, .. } if column == "plan"), "{error:?}");
    let error = run(&folder.path().join("nowhere"), "select id from old", None, &out).await.unwrap_err();
    assert!(matches!(error, Error::Backfill(crossfade_backfill::Error::DumpAbsent { .. })), "{error:?}");
}
