//! Connecting to Postgres.

use std::str::FromStr;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Pool, Postgres};

use super::{AnyDatabase, Engine};
use crate::error::{Error, Result};
use crate::url::{DatabaseUrl, EngineKind};

/// As many as an operator's command and its workers use at once; a database's connections are dear.
const CONNECTIONS_MAX: u32 = 10;

/// Long enough for a failover to a standby that is ready, short enough that a wrong host is told soon.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the database's own views of its sessions show.
const APPLICATION_NAME: &str = "crossfade";

impl Engine for Postgres {
    fn connect(url: &DatabaseUrl) -> BoxFuture<'_, Result<Pool<Self>>> {
        async move {
            let doing = || format!("connecting to {url}");
            let mut options = PgConnectOptions::from_str(url.expose()).map_err(Error::database(doing()))?;
            if options.get_application_name().is_none() {
                options = options.application_name(APPLICATION_NAME);
            }
            PgPoolOptions::new()
                .max_connections(CONNECTIONS_MAX)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .connect_with(options)
                .await
                .map_err(Error::database(doing()))
        }
        .boxed()
    }

    fn database(pool: Pool<Self>) -> AnyDatabase {
        AnyDatabase::postgres(pool, DatabaseUrl::of_application(EngineKind::Postgres))
    }
}
