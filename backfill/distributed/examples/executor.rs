//! A stock Ballista executor: `executor HOST SCHEDULER_PORT DATA_PORT CONTROL_PORT WORK_FOLDER`.
//!
//! `cargo install ballista-executor` builds the same with all its settings; this one needs no further crates.

use std::io::Write;
use std::sync::Arc;

use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    log::set_logger(&Lines)?;
    log::set_max_level(log::LevelFilter::Info);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, scheduler_port, data_port, control_port, work_folder] = arguments.as_slice() else {
        return Err("usage: executor HOST SCHEDULER_PORT DATA_PORT CONTROL_PORT WORK_FOLDER".into());
    };
    let config = ExecutorProcessConfig {
        bind_host: host.clone(),
        external_host: Some(host.clone()),
        scheduler_host: host.clone(),
        scheduler_port: scheduler_port.parse()?,
        port: data_port.parse()?,
        grpc_port: control_port.parse()?,
        work_dir: Some(work_folder.clone()),
        scheduler_connect_timeout_seconds: 30,
        executor_heartbeat_interval_seconds: 1,
        vcores: 2,
        ..ExecutorProcessConfig::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(32 * 1024 * 1024)
        .build()?;
    runtime.block_on(start_executor_process(Arc::new(config)))?;
    Ok(())
}

/// Prints what the process logs, one line each.
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
