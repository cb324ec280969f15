//! What both processes of a cluster need around Ballista's own code.

use std::io::Write;

use tokio::runtime::{Builder, Runtime};

/// Plans are walked recursively, and unoptimised code has large frames.
const STACK_BYTES: usize = 32 * 1024 * 1024;

pub(crate) fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().enable_all().thread_stack_size(STACK_BYTES).build()
}

/// Prints what the process logs from here on, one line each.
pub(crate) fn log_lines() -> Result<(), log::SetLoggerError> {
    log::set_logger(&Lines)?;
    log::set_max_level(log::LevelFilter::Info);
    Ok(())
}

struct Lines;

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let text = record.args().to_string();
        // Plans span lines, and are long.
        let mut stdout = std::io::stdout().lock();
        let _ = writeln!(stdout, "{} {}", record.level(), text.lines().next().unwrap_or_default());
        let _ = stdout.flush();
    }

    fn flush(&self) {}
}
