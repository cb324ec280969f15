//! A stock Ballista executor: `executor HOST SCHEDULER_PORT DATA_PORT CONTROL_PORT WORK_FOLDER`.
//!
//! `cargo install ballista-executor` builds the same with all its settings; this one needs no further crates.

mod process;

use std::sync::Arc;

use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    process::log_lines()?;
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
    process::runtime()?.block_on(start_executor_process(Arc::new(config)))?;
    Ok(())
}
