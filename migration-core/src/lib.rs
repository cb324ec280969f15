//! Phases, control records, fence, dual writes, reads and gates of online data migrations.

mod adoption;
pub mod catalog;
mod cell;
pub mod check;
pub mod comparisons;
pub mod connect;
pub mod control;
pub mod error;
pub mod fence;
pub mod fleet;
pub mod gate;
pub mod key;
pub mod manifest;
pub mod migration;
pub mod mirror;
pub mod operate;
pub mod phase;
pub mod plan;
mod projection;
mod quote;
pub mod ramp;
pub mod read;
mod retirement;
pub mod rows;
pub mod scaffold;
pub mod template;
pub mod transition;
pub mod url;
pub mod work;
pub mod write;

pub use error::{Error, Result};
