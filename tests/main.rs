//! End-to-end tests, one module for each capability.

mod command_line;
#[cfg(feature = "s3")]
mod object_store;
mod resilience;
mod story;
mod tidy;
mod tutorial;
mod world;
