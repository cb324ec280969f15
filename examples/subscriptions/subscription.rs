//! A subscription, and what can go wrong with one.

use serde::{Deserialize, Serialize};

/// What the service keeps for its customers: an element of an array in the old store, a row in the new.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Subscription {
    /// Numbered from 1 for each customer, and never used again.
    pub(crate) id: i64,
    pub(crate) plan: String,
    pub(crate) price_cents: i64,
    pub(crate) cancelled: bool,
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request failed. Each variant has its cause as `source`, where crossfade finds out whether the
/// transaction lost a race and may be run again; `#[error(transparent)]` would hide the cause.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("customer {customer} has no subscription {id}")]
    NotFound { customer: i64, id: i64 },
    #[error("the migration: {0}")]
    Migration(#[from] crossfade::Error),
    #[error("the experiment: {0}")]
    Experiment(#[from] crossfade::experiment::Error),
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    #[error("the array of subscriptions: {0}")]
    Array(#[from] serde_json::Error),
}
