//! Where an export reads from: the database, or a replica that has come far enough.

use std::sync::Arc;
use std::time::Duration;

use crossfade_migration_core::connect::Store;

use super::ExportOptions;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::migration::Migration;

/// How often a replica is asked how far it has come.
const POLL: Duration = Duration::from_millis(50);

/// Where rows are read.
pub(super) struct Source {
    pub(super) store: Arc<dyn Store>,
    pub(super) name: String,
}

/// The store to read from. What is opened there from now on shows every write that was acknowledged before this call,
/// and so the barrier of the epoch that the migration is in.
pub(super) async fn source(
    migration: &Migration,
    options: &ExportOptions,
    cancel: &Cancel,
) -> Result<Source> {
    let Some(replica) = &options.replica else {
        return Ok(Source { store: migration.store.clone(), name: migration.store_name.clone() });
    };
    let position = migration.store.written().await?;
    let behind = async {
        while !replica.store.has_replayed(&position).await? {
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    };
    tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(Error::Stopped { what: "export" }),
        outcome = tokio::time::timeout(options.replica_patience, behind) => match outcome {
            Ok(replayed) => replayed.map_err(|error: crossfade_migration_core::Error| Error::Core(error))?,
            Err(_) => return Err(Error::ReplicaBehind {
                replica: replica.url.to_string(),
                position: position.position,
                patience: options.replica_patience,
            }),
        },
    }
    Ok(Source { store: replica.store.clone(), name: replica.url.to_string() })
}
