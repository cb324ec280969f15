//! A stock Ballista scheduler: `scheduler HOST PORT`.
//!
//! `cargo install ballista-scheduler` builds the same with all its settings; this one needs no further crates, and
//! notices within seconds that an executor has died.

mod process;

use std::sync::Arc;

use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::scheduler_process::start_server;

/// Executors send a sign of life each second, so that five seconds without one are a death.
const EXECUTOR_TIMEOUT_SECONDS: u64 = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    process::log_lines()?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, port] = arguments.as_slice() else { return Err("usage: scheduler HOST PORT".into()) };
    let config = SchedulerConfig {
        external_host: host.clone(),
        bind_host: host.clone(),
        bind_port: port.parse()?,
        executor_timeout_seconds: EXECUTOR_TIMEOUT_SECONDS,
        no_executors_grace_period_seconds: EXECUTOR_TIMEOUT_SECONDS,
        expire_dead_executor_interval_seconds: 1,
        ..SchedulerConfig::default()
    };
    process::runtime()?.block_on(async {
        let cluster = BallistaCluster::new_from_config(&config).await?;
        start_server(cluster, format!("{host}:{port}").parse()?, Arc::new(config)).await?;
        Ok(())
    })
}
