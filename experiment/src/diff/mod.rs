//! Which fields differ: by derive, or of values that serialise; redacted unless values are shown.

mod differences;
mod fields;
mod implementations;
mod json;
mod tape;

pub use differences::Differences;
pub use fields::{DiffKind, FieldDiff, FieldValue, Reveal};
pub use implementations::{Approximate, Diff};
pub use json::{diff_json, diff_serialized};
