//! Core seconds of processes, where the system tells them in `/proc`.

use std::fs;
use std::path::Path;

/// In how many parts Linux counts a second for all programs, whatever its own clock.
const TICKS_PER_SECOND: f64 = 100.0;

/// Core seconds so far; no number where nothing is known.
#[derive(Clone, Copy)]
pub(crate) struct Cpu(f64);

impl Cpu {
    /// Of this process and of those that it has started and seen end.
    pub(crate) fn of_this_process() -> Cpu {
        Cpu(ticks("self").map_or(f64::NAN, |[own, children]| own + children))
    }

    /// Of those that a process has started and seen end.
    pub(crate) fn of_children(process: Option<u32>) -> Cpu {
        Cpu(process
            .and_then(|process| ticks(&process.to_string()))
            .map_or(f64::NAN, |[_, children]| children))
    }

    /// The seconds between two readings.
    pub(crate) fn since(self, earlier: Cpu) -> f64 {
        self.0 - earlier.0
    }
}

/// The process that starts a server's others.
pub(crate) async fn server(pool: &sqlx::PgPool) -> Result<Option<u32>, sqlx::Error> {
    let folder: String = sqlx::query_scalar("show data_directory").fetch_one(pool).await?;
    let text = fs::read_to_string(Path::new(&folder).join("postmaster.pid")).unwrap_or_default();
    Ok(text.lines().next().and_then(|line| line.trim().parse().ok()))
}

/// The core seconds of a process and of its children.
fn ticks(process: &str) -> Option<[f64; 2]> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name may hold anything, and stands in brackets; user and system time are the 14th and 15th, and so on.
    let (_, rest) = text.rsplit_once(')')?;
    let numbers: Vec<f64> =
        rest.split_whitespace().skip(11).take(4).map(str::parse).collect::<Result<_, _>>().ok()?;
    let [user, system, children_user, children_system] = numbers[..] else { return None };
    Some([(user + system) / TICKS_PER_SECOND, (children_user + children_system) / TICKS_PER_SECOND])
}
