//! How names and values of the manifest become SQL: one place per engine, and nothing else builds SQL from text.

pub(crate) mod postgres;
pub(crate) mod sqlite;
