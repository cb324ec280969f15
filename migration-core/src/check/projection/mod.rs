//! What the projection gives for sampled keys, held against the new table's columns.

pub(super) mod postgres;
