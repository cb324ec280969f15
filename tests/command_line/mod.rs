//! The command line as scripts and people rely on it: what each command does, prints and exits with.

mod bad_dump;
mod bad_manifest;
mod bad_snapshot;
mod control_store;
mod dumps;
mod exit_status;
mod findings;
mod journey;
mod output;
mod serve;
mod since;
