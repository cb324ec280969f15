//! End-to-end tests, one module for each capability.

mod command_line;
mod resilience;
mod story;
mod tidy;
mod tutorial;
mod world;
