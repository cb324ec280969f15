//! Online data migrations: move millions of live records from an old table to a new one while the
//! service keeps answering, and prove that nothing was lost.
//!
//! A [`Manifest`] names an old table, a new table and the projection between them. The migration
//! then goes through seven [`Phase`]s, each behind a gate: writes are doubled, reads are shadowed and
//! compared, reads move, writes are turned round, the old path is closed, the old data is removed.
//! Until the old path is closed every step can be taken back without loss.
//!
//! # In a service
//!
//! ```no_run
//! use crossfade::{Migration, Side};
//! use sqlx::PgPool;
//!
//! # async fn example(pool: PgPool, customer_id: i64, plan: String) -> Result<(), Box<dyn std::error::Error>> {
//! let subscriptions = Migration::join(pool.clone(), "subscriptions").await?;
//!
//! // A write: in the transaction that you have anyway, one call more.
//! let write = subscriptions.pin();
//! let mut transaction = pool.begin().await?;
//! match write.primary() {
//!     Side::Old => { /* update customers … */ }
//!     Side::New => { /* update subscriptions … */ }
//! }
//! write.mirror(&mut transaction, customer_id).await?;
//! transaction.commit().await?;
//! # Ok(())
//! # }
//! ```
//!
//! A read picks its store by phase and key, and is an experiment while reads are shadowed: see
//! [`Migration::reader`].
//!
//! # For an operator
//!
//! The binary `crossfade` does everything that [`Operator`] and the jobs in [`backfill`] do; the
//! README shows it.
//!
//! # The nouns
//!
//! | | |
//! | --- | --- |
//! | [`Manifest`] | the TOML file that defines a migration |
//! | [`Phase`], [`Ramp`], [`Epoch`] | where it stands: [`Standing`] |
//! | [`Migration`] | an instance's handle: writes ([`Write`], [`WriteTransaction`]) and reads ([`Reader`]) |
//! | [`Operator`] | registers, shows, moves on, moves back |
//! | [`experiment`] | control against candidate, by itself and without a database |
//! | [`backfill`] | snapshots, scans, copies, verifications, cleanup |
//! | [`core`] | the seams between all of these and the engines |

pub use crossfade_backfill as backfill;
#[cfg(feature = "distributed")]
pub use crossfade_distributed as distributed;
pub use crossfade_experiment as experiment;
pub use crossfade_migration_core as core;

pub use crossfade_migration_core::connect::{AnyDatabase, Engine};
pub use crossfade_migration_core::gate::{GateReport, Thresholds};
pub use crossfade_migration_core::key::{Key, KeyValue};
pub use crossfade_migration_core::manifest::{Manifest, ManifestError};
pub use crossfade_migration_core::migration::Migration;
pub use crossfade_migration_core::operate::{Moved, Operator, Order, Overview};
pub use crossfade_migration_core::phase::{Epoch, Phase, Ramp, Side, Standing};
pub use crossfade_migration_core::read::Reader;
pub use crossfade_migration_core::transition::Request;
pub use crossfade_migration_core::url::{DatabaseUrl, StoreUrl};
pub use crossfade_migration_core::write::{Write, WriteTransaction};
pub use crossfade_migration_core::{Error, Result};
