//! `crossfade scan --old … --new …`: two dumps that any tool wrote, compared as they lie there.

use clap::{Args, ValueEnum};
use crossfade::backfill::scan::{Compared, DumpOrder, DumpOrigin, Dumps};
use crossfade::core::plan::Plan;

use super::failure::Failure;
use super::place::{Found, Place};

/// Two dumps, and what is in them.
#[derive(Debug, Args)]
pub(crate) struct DumpArguments {
    /// What the old table projects to: a Parquet file, a folder of them, one side of a snapshot, or a URL of either.
    #[arg(long, value_name = "PATH|URL", requires = "new", conflicts_with = "snapshot")]
    old: Option<Place>,
    /// The new table: a Parquet file, a folder of them, one side of a snapshot, or a URL of either.
    #[arg(long, value_name = "PATH|URL", requires = "old", conflicts_with = "snapshot")]
    new: Option<Place>,
    /// The columns that identify a row, scope first; with a migration's name, its own.
    #[arg(long, value_name = "COLUMN", value_delimiter = ',', requires = "old")]
    key: Vec<String>,
    /// How many of the key's columns are the scope; all of them where it is left out.
    #[arg(long, value_name = "N", requires = "key")]
    scope_columns: Option<usize>,
    /// Compare these columns only; otherwise all, which both dumps must have.
    #[arg(long, value_name = "COLUMN", value_delimiter = ',', requires = "old")]
    columns: Vec<String>,
    /// Look for missing, orphaned and duplicated rows only: values are not read.
    #[arg(long, requires = "old", conflicts_with = "columns")]
    keys_only: bool,
    /// In which order the dumps' rows are.
    #[arg(long, value_enum, default_value = "detect", requires = "old")]
    order: Order,
    /// The migration's epoch when the dumps were taken; findings of another epoch are not copied.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "old")]
    epoch: u64,
    /// Memory for dumps in no order, such as 512MiB or 4GiB; what does not fit waits on the disk, beside the findings.
    #[arg(long, value_name = "BYTES", value_parser = bytes, requires = "old")]
    memory: Option<u64>,
}

/// Numbers of bytes, with or without a unit.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
    let unit = match text[digits.len()..].trim() {
        "" | "B" => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        unit => return Err(format!("{unit:?} is no unit: write KiB, MiB or GiB")),
    };
    let number: u64 =
        digits.trim().parse().map_err(|_| "write a number and a unit, as in 512MiB".to_owned())?;
    number.checked_mul(unit).filter(|bytes| *bytes > 0).ok_or_else(|| "no such amount of memory".to_owned())
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Order {
    /// By key if the files say or suggest so, and otherwise in any order.
    Detect,
    /// By key; a row out of order is an error.
    Key,
    /// In any order.
    None,
}

impl DumpArguments {
    /// Whether it is dumps that are compared.
    pub(crate) fn are_given(&self) -> bool {
        self.old.is_some()
    }

    /// The memory that was asked for.
    pub(crate) fn memory(&self) -> Option<u64> {
        self.memory
    }

    /// Where the dumps lie, old and new.
    pub(crate) fn places(&mut self) -> Result<[Place; 2], Failure> {
        match (self.old.take(), self.new.take()) {
            (Some(old), Some(new)) => Ok([old, new]),
            _ => Err(usage(
                "neither a snapshot nor two dumps were named",
                "pass --snapshot DIR, or --old PATH --new PATH",
            )),
        }
    }

    /// The dumps of a migration, or of two tables that none is known of, which lie at these paths.
    pub(crate) fn dumps(self, [old, new]: [&Found; 2], plan: Option<&Plan>) -> Result<Dumps, Failure> {
        let (key, scope_columns) = match plan {
            Some(plan) if self.key.is_empty() => (plan.order().to_vec(), plan.scope().len()),
            _ if self.key.is_empty() => {
                return Err(usage(
                    "nothing says which columns identify a row",
                    "pass --key COLUMN,…, or a migration's name",
                ));
            }
            _ => {
                let scope_columns = self.scope_columns.unwrap_or(self.key.len());
                (self.key, scope_columns)
            }
        };
        let compared = match plan {
            _ if self.keys_only => Compared::Keys,
            _ if !self.columns.is_empty() => Compared::Columns(self.columns),
            Some(plan) => {
                Compared::Columns(plan.columns().iter().map(|column| column.name.clone()).collect())
            }
            None => Compared::AllColumns,
        };
        let order = match self.order {
            Order::Detect => DumpOrder::Detect,
            Order::Key => DumpOrder::Ordered,
            Order::None => DumpOrder::Unordered,
        };
        let origin = DumpOrigin {
            migration: plan.map(|plan| plan.name().to_owned()).unwrap_or_default(),
            manifest_hash: plan.map(|plan| plan.fingerprint().to_owned()).unwrap_or_default(),
            epoch: self.epoch,
            phase: "unknown".to_owned(),
            stores: Some([old, new].map(|found| found.from.clone())),
        };
        let [old, new] = [old, new].map(|found| found.path.clone());
        Ok(Dumps { old, new, key, scope_columns, compared, order, origin })
    }
}

fn usage(what: &str, hint: &str) -> Failure {
    Failure::Usage { what: what.to_owned(), hint: hint.to_owned() }
}
