//! Scans on a cluster of real processes: a stock scheduler and two stock executors on the loopback.

mod bad_input;
mod command_line;
mod dumps;
mod lost_executor;
mod processes;
mod rows;
mod snapshots;
