//! End-to-end tests, one module for each capability.

mod story;
mod tidy;
mod tutorial;
