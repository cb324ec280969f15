//! Making crossfade's own tables, and bringing older ones up to date.

pub(super) mod postgres;
