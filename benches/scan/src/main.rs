//! Times the offline scan. `run.py` beside it sets its peer up and compares the two.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod generate;
mod pages;

use std::error::Error;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Parser;
use crossfade_backfill::findings::ScanSummary;
use crossfade_backfill::scan::{Compared, DumpOrder, DumpOrigin, Dumps, ScanOptions, scan, scan_dumps};
use crossfade_backfill::snapshot::SnapshotPair;

#[derive(Parser)]
enum Command {
    /// Writes two snapshots: 1 % of the rows missing, 0.05 % mismatched, 0.01 % orphaned.
    Generate {
        /// Folder for the pair.
        folder: PathBuf,
        /// Rows of the old snapshot.
        #[arg(long, default_value_t = 5_000_000)]
        rows: u64,
    },
    /// Scans a pair and prints the figures as JSON.
    Scan {
        /// Folder of the pair.
        folder: PathBuf,
        /// Folder for the findings; replaced.
        findings: PathBuf,
        /// Threads that compare.
        #[arg(long, default_value = "2")]
        threads: NonZeroUsize,
    },
    /// Only decompresses the pages of two files, by the Parquet library: what any comparison of these columns takes.
    Pages {
        /// The old file.
        old: PathBuf,
        /// The new file.
        new: PathBuf,
        /// Only those of this column.
        #[arg(long)]
        column: Option<String>,
        /// Threads.
        #[arg(long, default_value = "2")]
        threads: NonZeroUsize,
    },
    /// Scans two dumps of other tools and prints the figures as JSON.
    Dumps {
        /// The old dump.
        old: PathBuf,
        /// The new dump.
        new: PathBuf,
        /// Folder for the findings; replaced.
        findings: PathBuf,
        /// Threads that compare.
        #[arg(long, default_value = "2")]
        threads: NonZeroUsize,
        /// Compare keys alone.
        #[arg(long)]
        keys_only: bool,
        /// Memory for what is not in key order, in MiB.
        #[arg(long, default_value_t = 1024)]
        memory: u64,
    },
}

fn main() -> Result<(), Box<dyn Error>> {
    match Command::parse() {
        Command::Generate { folder, rows } => Ok(generate::pair(&folder, rows)?),
        Command::Scan { folder, findings, threads } => run_scan(&folder, &findings, threads),
        Command::Pages { old, new, column, threads } => pages::run(&[old, new], column.as_deref(), threads),
        Command::Dumps { old, new, findings, threads, keys_only, memory } => {
            let mut options = ScanOptions::default();
            options.threads = threads;
            options.unordered_bytes_max = memory << 20;
            let dumps = Dumps {
                old,
                new,
                key: vec!["id".into()],
                scope_columns: 1,
                compared: if keys_only { Compared::Keys } else { Compared::AllColumns },
                order: DumpOrder::Detect,
                origin: DumpOrigin::default(),
            };
            timed(&findings, || scan_dumps(&dumps, &findings, &options, &|_| ControlFlow::Continue(())))
        }
    }
}

fn run_scan(folder: &Path, findings: &Path, threads: NonZeroUsize) -> Result<(), Box<dyn Error>> {
    let mut options = ScanOptions::default();
    options.threads = threads;
    timed(findings, || {
        let pair = SnapshotPair::open(folder)?;
        scan(&pair, findings, &options, &|_| ControlFlow::Continue(()))
    })
}

fn timed(
    findings: &Path,
    run: impl FnOnce() -> crossfade_backfill::Result<ScanSummary>,
) -> Result<(), Box<dyn Error>> {
    if findings.exists() {
        std::fs::remove_dir_all(findings)?;
    }
    let start = Instant::now();
    let summary = run()?;
    let seconds = start.elapsed().as_secs_f64();
    let figures = serde_json::json!({
        "seconds": seconds,
        "cpu_seconds": cpu_seconds()?,
        "bytes_read": bytes_read()?,
        "memory_bytes_max": memory_bytes_max()?,
        "rows_old": summary.rows_old,
        "rows_new": summary.rows_new,
        "missing": summary.missing,
        "mismatched": summary.mismatched,
        "orphaned": summary.orphaned,
        "duplicated": summary.duplicated,
    });
    println!("{figures}");
    Ok(())
}

/// The most memory this process has held, by the kernel's count.
pub(crate) fn memory_bytes_max() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line =
        status.lines().find(|line| line.starts_with("VmHWM:")).ok_or("the kernel does not count memory")?;
    let kibibytes: u64 = line.split_whitespace().nth(1).ok_or("the kernel's count is unreadable")?.parse()?;
    Ok(kibibytes * 1024)
}

/// The bytes that this process has read, out of the system's cache or from the disk.
fn bytes_read() -> Result<u64, Box<dyn Error>> {
    let io = std::fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find(|line| line.starts_with("rchar:")).ok_or("the kernel does not count reads")?;
    Ok(line.trim_start_matches("rchar:").trim().parse()?)
}

/// The processor time of all threads of this process: what the scan costs where it has to share the machine.
pub(crate) fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The program's name is in parentheses and may hold anything; user and system time are 12 and 13 fields behind it.
    let fields = stat.rsplit_once(')').ok_or("the kernel's times are unreadable")?.1;
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<_, _>>()?;
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

/// Linux counts times for programs in hundredths of a second, whatever its own clock does.
const TICKS_PER_SECOND: f64 = 100.0;
