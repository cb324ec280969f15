//! What the database would do to run the projection for one key.

pub(super) mod postgres;
