//! Two snapshots that differ in a known way, the same on every machine.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Decimal128Builder, Int32Builder, Int64Builder, RecordBatch, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use crossfade_backfill::Result;
use crossfade_backfill::snapshot::{Side, SnapshotHeader, SnapshotWriter};

/// Rows per batch: what exporters bring.
const BATCH_ROWS: usize = 8 * 1024;

/// Of a million rows of old, how many new lacks.
const MISSING_PPM: u64 = 10_000;
/// Of a million rows of old, how many have another value in new.
const MISMATCHED_PPM: u64 = 500;
/// For a million rows of old, how many new has beyond them.
const ORPHANED_PPM: u64 = 100;

/// Columns beside the key, any of which may differ.
const VALUE_COLUMNS: u64 = 8;

const PLANS: [&str; 5] = ["free", "basic", "pro", "team", "enterprise"];
const STATUSES: [&str; 4] = ["active", "trialing", "past_due", "canceled"];

/// Writes both snapshots of a pair.
pub(crate) fn pair(folder: &Path, rows: u64) -> Result<()> {
    side(folder, Side::Old, rows)?;
    side(folder, Side::New, rows)
}

fn side(folder: &Path, side: Side, rows: u64) -> Result<()> {
    let mut writer = SnapshotWriter::create(side.folder(folder), header(side))?;
    let mut batch = Builders::new();
    let mut id = 0;
    for row in 0..rows {
        // Keys have gaps, as they have where rows are deleted.
        let fate = random(row, 0) % 1_000_000;
        id += 2 + random(row, 1) % 3;
        let differs = MISSING_PPM..MISSING_PPM + MISMATCHED_PPM;
        match side {
            Side::Old => batch.append(id, row, rows, None),
            Side::New if fate < MISSING_PPM => {}
            Side::New if differs.contains(&fate) => {
                batch.append(id, row, rows, Some(random(row, 2) % VALUE_COLUMNS));
            }
            Side::New => batch.append(id, row, rows, None),
        }
        if side == Side::New && random(row, 3) % 1_000_000 < ORPHANED_PPM {
            batch.append(id + 1, row, rows, None);
        }
        if batch.rows >= BATCH_ROWS {
            writer.write(&batch.finish())?;
        }
    }
    writer.write(&batch.finish())?;
    writer.finish()?;
    Ok(())
}

fn header(side: Side) -> SnapshotHeader {
    SnapshotHeader {
        migration: "bench".into(),
        manifest_hash: "0".into(),
        side,
        store: "generated".into(),
        consistent_point: "generated".into(),
        epoch: 1,
        phase: "dual_write".into(),
        started_at: "2026-01-01T00:00:00Z".into(),
        schema: schema(),
        key: vec!["id".into()],
        scope_columns: 1,
    }
}

fn schema() -> SchemaRef {
    let timestamp = DataType::Timestamp(TimeUnit::Microsecond, None);
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("customer_id", DataType::Int64, false),
        Field::new("plan", DataType::Utf8, false),
        Field::new("status", DataType::Utf8, false),
        Field::new("quantity", DataType::Int32, false),
        Field::new("amount", DataType::Decimal128(12, 2), false),
        Field::new("created_at", timestamp.clone(), false),
        Field::new("updated_at", timestamp, true),
        Field::new("metadata", DataType::Utf8, true),
    ]))
}

struct Builders {
    id: Int64Builder,
    customer_id: Int64Builder,
    plan: StringBuilder,
    status: StringBuilder,
    quantity: Int32Builder,
    amount: Decimal128Builder,
    created_at: TimestampMicrosecondBuilder,
    updated_at: TimestampMicrosecondBuilder,
    metadata: StringBuilder,
    rows: usize,
}

impl Builders {
    fn new() -> Self {
        Self {
            id: Int64Builder::new(),
            customer_id: Int64Builder::new(),
            plan: StringBuilder::new(),
            status: StringBuilder::new(),
            quantity: Int32Builder::new(),
            amount: Decimal128Builder::new().with_data_type(DataType::Decimal128(12, 2)),
            created_at: TimestampMicrosecondBuilder::new(),
            updated_at: TimestampMicrosecondBuilder::new(),
            metadata: StringBuilder::new(),
            rows: 0,
        }
    }

    /// Appends the row; `changed` is the column that has another value than the row's own.
    fn append(&mut self, id: u64, row: u64, rows: u64, changed: Option<u64>) {
        // Adding one to what a value is made of gives another value.
        let value =
            |column: u64, of: u64| (random(row, 16 + column) + u64::from(changed == Some(column))) % of;
        let created_at = 1_600_000_000_000_000 + value(5, 150_000_000_000_000) as i64;
        self.id.append_value(id as i64);
        self.customer_id.append_value(value(0, rows / 4 + 2) as i64);
        self.plan.append_value(PLANS[value(1, 5) as usize]);
        self.status.append_value(STATUSES[value(2, 4) as usize]);
        self.quantity.append_value(value(3, 100) as i32);
        self.amount.append_value(i128::from(value(4, 1_000_000)));
        self.created_at.append_value(created_at);
        let updated_at = value(6, 300_000_000_000_000) as i64;
        self.updated_at.append_value(1_600_000_000_000_000 + updated_at);
        // 60 bytes, most of them random.
        let (high, low) = (value(7, u64::MAX), random(row, 32));
        self.metadata.append_value(format!(r#"{{"source":"web","ref":"{high:016x}{low:016x}"}}{:>3}"#, ""));
        self.rows += 1;
    }

    fn finish(&mut self) -> RecordBatch {
        self.rows = 0;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.id.finish()),
            Arc::new(self.customer_id.finish()),
            Arc::new(self.plan.finish()),
            Arc::new(self.status.finish()),
            Arc::new(self.quantity.finish()),
            Arc::new(self.amount.finish()),
            Arc::new(self.created_at.finish()),
            Arc::new(self.updated_at.finish()),
            Arc::new(self.metadata.finish()),
        ];
        RecordBatch::try_new(schema(), columns).expect("the columns are built by the schema")
    }
}

/// A number that follows from the row and what it is for (SplitMix64's finaliser).
fn random(row: u64, purpose: u64) -> u64 {
    let mut bits =
        (row ^ purpose << 56).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xd134_2543_de82_ef95);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
