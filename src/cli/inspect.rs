//! `crossfade snapshot inspect | diff | head`: a look into snapshots, without a database.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use crossfade::backfill::inspect::{self, Cell, ColumnDiff, Inspection};
use crossfade::backfill::snapshot::{MANIFEST_FILE, Side, Snapshot};
use crossfade::core::gate::{counted, grouped};

use super::failure::{self, Failure};
use super::output::Output;
use super::place::{Found, Place, Stores};
use super::progress::{self, Shown};

/// Say what a snapshot is: where it is from, its columns, rows and range of keys.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  crossfade snapshot inspect snapshots/monday")]
pub(crate) struct Inspect {
    /// The snapshot's folder, the folder of one of its sides, or the snapshot's URL.
    #[arg(value_name = "DIR|URL", required_unless_present = "out")]
    folder: Option<Place>,
    #[arg(long, hide = true, conflicts_with = "folder")]
    pub(crate) out: Option<Place>,
    #[command(flatten, next_help_heading = "Object stores")]
    stores: Stores,
}

/// Show one key's rows on both sides, and mark the columns that differ.
///
/// Exits with 4 when they differ.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  crossfade snapshot diff snapshots/monday 42 sub_7")]
pub(crate) struct Diff {
    /// The snapshot's folder or URL.
    #[arg(value_name = "DIR|URL", required_unless_present = "out")]
    folder: Option<Place>,
    /// The key, a value for each of its columns, written as `inspect` writes them.
    #[arg(required_unless_present = "out", allow_negative_numbers = true)]
    key: Vec<String>,
    #[arg(long, hide = true, conflicts_with = "folder")]
    pub(crate) out: Option<Place>,
    #[command(flatten, next_help_heading = "Object stores")]
    stores: Stores,
}

/// Show the first rows of one side.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  crossfade snapshot head snapshots/monday --side new --rows 5")]
pub(crate) struct Head {
    /// The snapshot's folder, the folder of one of its sides, or the snapshot's URL.
    #[arg(value_name = "DIR|URL", required_unless_present = "out")]
    folder: Option<Place>,
    /// Which side, where the folder has both.
    #[arg(long, value_enum, default_value = "old")]
    side: WhichSide,
    /// How many rows.
    #[arg(long, value_name = "N", default_value_t = 10)]
    rows: usize,
    #[arg(long, hide = true, conflicts_with = "folder")]
    pub(crate) out: Option<Place>,
    #[command(flatten, next_help_heading = "Object stores")]
    stores: Stores,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum WhichSide {
    Old,
    New,
}

/// Longer values are cut, so that a row stays a line.
const CELL_CHARS_MAX: usize = 40;

impl Inspect {
    pub(crate) async fn run(self, output: Output) -> Result<ExitCode, Failure> {
        let found = found(&self.stores, self.folder, output).await?;
        let folder = &found.path;
        let inspections = if folder.join(MANIFEST_FILE).exists() {
            vec![inspect::inspect(&Snapshot::open(folder)?)?]
        } else {
            let pair = found.open()?;
            vec![inspect::inspect(pair.old())?, inspect::inspect(pair.new_side())?]
        };
        output.result(&inspections, |inspections| {
            inspections.iter().map(described).collect::<Vec<_>>().join("\n")
        });
        Ok(ExitCode::SUCCESS)
    }
}

impl Diff {
    pub(crate) async fn run(self, output: Output) -> Result<ExitCode, Failure> {
        let found = found(&self.stores, self.folder, output).await?;
        let pair = found.open()?;
        let diff = inspect::diff(&pair, &self.key)?;
        output.result(&diff, |diff| {
            let mut rows = vec![["".to_owned(), "column".to_owned(), "old".to_owned(), "new".to_owned()]];
            rows.extend(diff.columns.iter().map(|column| {
                let mark = if column.differs { "*" } else { "" };
                [mark.to_owned(), column.name.clone(), text(&column.old), text(&column.new)]
            }));
            let counts = format!(
                "{} and {} with this key\n",
                counted(diff.rows_old, "old row"),
                counted(diff.rows_new, "new row")
            );
            counts + &table(&rows)
        });
        let is_equal = diff.rows_old == 1
            && diff.rows_new == 1
            && !diff.columns.iter().any(|column: &ColumnDiff| column.differs);
        let is_nowhere = diff.rows_old + diff.rows_new == 0;
        Ok(if is_equal || is_nowhere { ExitCode::SUCCESS } else { ExitCode::from(failure::DIFFERENCES) })
    }
}

impl Head {
    pub(crate) async fn run(self, output: Output) -> Result<ExitCode, Failure> {
        let found = found(&self.stores, self.folder, output).await?;
        let side = match self.side {
            WhichSide::Old => Side::Old,
            WhichSide::New => Side::New,
        };
        let snapshot = Snapshot::open(side_folder(&found.path, side))?;
        let names: Vec<String> =
            snapshot.manifest().columns.iter().map(|column| column.name.clone()).collect();
        let rows = inspect::cells(&inspect::head(&snapshot, self.rows)?);
        let document: Vec<serde_json::Value> = rows
            .iter()
            .map(|row| {
                let cells = names.iter().zip(row).map(|(name, cell)| (name.clone(), json(cell)));
                serde_json::Value::Object(cells.collect())
            })
            .collect();
        output.result(&document, |_| {
            let mut lines = vec![names.clone()];
            lines.extend(rows.iter().map(|row| row.iter().map(text).collect()));
            table(&lines)
        });
        Ok(ExitCode::SUCCESS)
    }
}

/// What is to be looked at; what lies in an object store is fetched first.
async fn found(stores: &Stores, place: Option<Place>, output: Output) -> Result<Found, Failure> {
    let place = place.unwrap_or(Place::Local(PathBuf::new()));
    let (progress, cancel) = (Shown::new(output), progress::cancel_on_interrupt(output));
    stores.pair(place, &progress, &cancel, output).await
}

fn side_folder(folder: &Path, side: Side) -> PathBuf {
    if folder.join(MANIFEST_FILE).exists() { folder.to_owned() } else { side.folder(folder) }
}

fn described(inspection: &Inspection) -> String {
    let manifest = &inspection.manifest;
    let mut text = format!(
        "{}: {}, {} bytes in {}\n",
        manifest.side,
        counted(manifest.rows, "row"),
        grouped(inspection.bytes),
        counted(manifest.files.len() as u64, "file")
    );
    let range = match (&inspection.first_key, &inspection.last_key) {
        (Some(first), Some(last)) => format!("{} to {}", first.join(", "), last.join(", ")),
        _ => "none".to_owned(),
    };
    let facts = [
        ("migration", manifest.migration.clone()),
        ("store", manifest.store.clone()),
        ("consistent point", manifest.consistent_point.clone()),
        ("taken", format!("{} (epoch {}, {})", manifest.started_at, manifest.epoch, manifest.phase)),
        ("key", manifest.key.join(", ")),
        ("scope", manifest.scope.join(", ")),
        ("keys", range),
        ("repeated keys", grouped(manifest.duplicate_keys)),
    ];
    for (name, value) in facts {
        text.push_str(&format!("  {name:<17} {value}\n"));
    }
    text.push_str("  columns\n");
    for column in &manifest.columns {
        let nullable = if column.nullable { ", may be null" } else { "" };
        text.push_str(&format!("    {} {}{nullable}\n", column.name, column.data_type));
    }
    text
}

fn text(cell: &Cell) -> String {
    match cell {
        Cell::Absent => "(no row)".to_owned(),
        Cell::Null => "null".to_owned(),
        Cell::Value(value) if value.chars().count() > CELL_CHARS_MAX => {
            value.chars().take(CELL_CHARS_MAX - 1).chain(['…']).collect()
        }
        Cell::Value(value) => value.clone(),
    }
}

fn json(cell: &Cell) -> serde_json::Value {
    match cell {
        Cell::Absent | Cell::Null => serde_json::Value::Null,
        Cell::Value(value) => serde_json::Value::String(value.clone()),
    }
}

fn table<R: AsRef<[String]>>(rows: &[R]) -> String {
    let columns = rows.iter().map(|row| row.as_ref().len()).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.as_ref().get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.as_ref().iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}
