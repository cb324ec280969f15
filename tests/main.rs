//! End-to-end tests, one module for each capability.

mod tidy;
mod tutorial;
