//! How far partitions are filled, durable: what a scan that was stopped goes on from.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::partitions::PARTITIONS;
use crate::durable::write_json;
use crate::error::Result;
use crate::findings::ScanSummary;

/// The file that says so, beside those of the partitions.
const FILE: &str = "progress.json";

/// What rows in partitions consist of: another number where ids are made, or sums are weighted, in another way. Without it this
/// version would take the rows of another for its own.
pub(super) const FORMAT: u32 = 2;

#[derive(Serialize, Deserialize)]
pub(super) struct Checkpoint {
    /// The [format](FORMAT) of the rows.
    pub(super) format: u32,
    /// What is compared and how, without any counts.
    pub(super) about: ScanSummary,
    /// How many row groups of each side are in the partitions: the first so many.
    pub(super) groups: [usize; 2],
    /// How many bytes of each side's files these are. What is behind them was written later, and its rows come again.
    pub(super) file_bytes: [Vec<u64>; 2],
}

impl Checkpoint {
    /// Makes it durable, in place of the one before.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        write_json(&folder.join(FILE), self)
    }

    /// The one in a folder, if it is of the same comparison: the same inputs, options and version.
    pub(super) fn read(folder: &Path, about: &ScanSummary) -> Option<Self> {
        let text = fs::read(folder.join(FILE)).ok()?;
        let found: Self = serde_json::from_slice(&text).ok()?;
        let [old, new] = &found.file_bytes;
        // Whoever changed the file by hand gets no panic from it.
        let is_sound =
            old.len() == new.len() && old.len().is_power_of_two() && PARTITIONS.contains(&(old.len() as u64));
        (is_sound && found.format == FORMAT && found.about == *about).then_some(found)
    }
}
