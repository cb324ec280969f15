//! Functions that are made in the database when a migration is registered, where the engine has such a
//! thing: several statements in one round trip, each with a snapshot of its own.

pub(crate) mod postgres;
