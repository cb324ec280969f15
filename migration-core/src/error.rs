//! The crate's one error.

use std::panic::Location;
use std::time::Duration;

use crate::gate::{GateReport, spell};
use crate::manifest::{ManifestError, TableName};
use crate::phase::{Epoch, Phase, Standing};
use crate::plan::Misfit;
use crate::transition::Impossible;
use crate::url::UrlError;

/// What migration-core returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, on what, and why.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A fault in a manifest's text.
    #[error(transparent)]
    Manifest(#[from] ManifestError),

    /// A database URL that cannot be used.
    #[error(transparent)]
    Url(#[from] UrlError),

    /// Manifest and tables do not fit.
    #[error("manifest {migration} does not fit the tables: {}", spell_misfits(.misfits))]
    Misfit {
        /// The migration.
        migration: String,
        /// Everything that does not fit.
        misfits: Vec<Misfit>,
    },

    /// Old store, new store and control store are not one database.
    #[error("migration {migration}: {what}")]
    SeveralDatabases {
        /// The migration.
        migration: String,
        /// Which of them differ.
        what: String,
    },

    /// A table that is not there.
    #[error("there is no table {table}")]
    NoTable {
        /// The table.
        table: TableName,
    },

    /// Something of this name that rows cannot be moved out of or into.
    #[error("{table} is {kind}, not a table")]
    NotATable {
        /// The name.
        table: TableName,
        /// What it is: "a view", for one.
        kind: String,
    },

    /// A statement of the manifest that the database does not understand.
    #[error("the database does not accept {what}: {message}")]
    Query {
        /// Which statement.
        what: String,
        /// The database's words.
        message: String,
    },

    /// A migration that the control store does not know.
    #[error("there is no migration {name:?} in the control store{}", spell_known(.known))]
    UnknownMigration {
        /// The name that was asked for.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },

    /// The control store has no tables of crossfade's, or tables that are not crossfade's.
    #[error("the control store {store} {what}")]
    ControlStore {
        /// The store, masked.
        store: String,
        /// What is wrong with it.
        what: String,
        /// What would mend it.
        hint: String,
    },

    /// The registered migration differs where it may not any more.
    #[error("migration {name} is in {phase} and its mapping differs from the registered one")]
    Registered {
        /// The migration.
        name: String,
        /// Where it stands.
        phase: Phase,
    },

    /// A request that makes no sense where the migration stands.
    #[error("migration {migration}: {source}")]
    Impossible {
        /// The migration.
        migration: String,
        /// Why.
        source: Impossible,
    },

    /// A gate that is not open.
    #[error("migration {migration} may not enter {} yet:{}", .report.to, spell_missing(.report))]
    Refused {
        /// The migration.
        migration: String,
        /// The gate's verdict.
        report: GateReport,
    },

    /// Somebody else changed the standing in the meantime.
    #[error("migration {migration} has moved to {found} since it was read at epoch {expected}")]
    Conflict {
        /// The migration.
        migration: String,
        /// The epoch that the change was decided on.
        expected: Epoch,
        /// Where it stands.
        found: Standing,
    },

    /// Transactions in flight held the fence for too long.
    #[error("migration {migration}: transactions in flight held the fence for {}; nothing was changed", spell(*.waited))]
    FenceTimeout {
        /// The migration.
        migration: String,
        /// How long was waited.
        waited: Duration,
    },

    /// Live instances have not adopted an epoch in time.
    #[error("migration {migration} is at {standing}, and {} not adopted it: {}", spell_have(.instances), .instances.join(", "))]
    Unadopted {
        /// The migration.
        migration: String,
        /// Where it stands.
        standing: Standing,
        /// The instances that it waits for.
        instances: Vec<String>,
    },

    /// A transaction was begun at an epoch that has passed.
    #[error("migration {migration} has moved on from epoch {expected} to {found} since this write began")]
    StaleEpoch {
        /// The migration.
        migration: String,
        /// The epoch of the write.
        expected: Epoch,
        /// The epoch now.
        found: Epoch,
    },

    /// The old path was used after it was closed.
    #[error("the old path of migration {migration} is closed (phase {phase}), and was used at {at}")]
    OldPathClosed {
        /// The migration.
        migration: String,
        /// Where it stands.
        phase: Phase,
        /// The call site.
        at: &'static Location<'static>,
    },

    /// An instance has lost its lease and cannot tell where the migration stands.
    #[error("migration {migration}: the control store has not been reached for {}, so the phase is not known", spell(*.since))]
    LeaseLost {
        /// The migration.
        migration: String,
        /// For how long.
        since: Duration,
    },

    /// A key that does not fit the old table.
    #[error("migration {migration}: {key} is no key: {reason}")]
    Key {
        /// The migration.
        migration: String,
        /// The key.
        key: String,
        /// Why not.
        reason: String,
    },

    /// A value that its column cannot hold.
    #[error("column {column} of {what} holds {value}, which does not fit its type {sql_type}")]
    Value {
        /// The table or query.
        what: String,
        /// The column.
        column: String,
        /// The value, shortened.
        value: String,
        /// The column's type.
        sql_type: String,
    },

    /// Something in the control store that this version cannot read.
    #[error("the control store holds {what}, which this version of crossfade cannot read")]
    Unreadable {
        /// What.
        what: String,
    },

    /// A database that could not do what it was asked.
    #[error("{doing}: {source}")]
    Database {
        /// What was being done.
        doing: String,
        /// The driver's error.
        source: sqlx::Error,
    },

    /// Rows that could not be put into Arrow arrays.
    #[error("{doing}: {source}")]
    Arrow {
        /// What was being done.
        doing: String,
        /// Arrow's error.
        source: arrow::error::ArrowError,
    },
}

impl Error {
    /// A database error, with what was being done.
    pub fn database(doing: impl Into<String>) -> impl FnOnce(sqlx::Error) -> Error {
        let doing = doing.into();
        move |source| Error::Database { doing, source }
    }

    /// Whether the same call, made again with a fresh transaction, may succeed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::StaleEpoch { .. } => true,
            Error::Database { source, .. } => is_retryable(source),
            _ => false,
        }
    }

    /// Whether a connection was lost, so that what was read over it can be read again over another one.
    pub fn is_connection_lost(&self) -> bool {
        match self {
            Error::Database { source, .. } => is_connection_lost(source),
            _ => false,
        }
    }

    /// Whether a gate said no.
    pub fn is_refused(&self) -> bool {
        matches!(self, Error::Refused { .. })
    }

    /// The next step, where there is one.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Error::Manifest(error) => return error.hint.clone(),
            Error::Url(UrlError::Unset(name)) => format!("export {name}=postgres://…, or write it into .env"),
            Error::Url(_) => "write postgres://user@host/database, or sqlite:path/to/file.db".to_owned(),
            Error::Misfit { misfits, .. } => {
                misfits.iter().map(|misfit| misfit.hint.as_str()).collect::<Vec<_>>().join("; ")
            }
            Error::SeveralDatabases { .. } => {
                "give both tables and crossfade's own the same database URL".to_owned()
            }
            Error::NoTable { table } => format!(
                "create {table}, or mend its name in the manifest (schema.table, where it is not on the search path)"
            ),
            Error::NotATable { .. } => {
                "name the table behind it: rows are locked, keyed and compared there".to_owned()
            }
            Error::Query { .. } => {
                "try the statement in the database's own shell, with a key in place of :keys".to_owned()
            }
            Error::UnknownMigration { .. } => "crossfade init MANIFEST registers one".to_owned(),
            Error::ControlStore { hint, .. } => hint.clone(),
            Error::Registered { .. } => {
                "roll back to old_only first, or register the new mapping under another name".to_owned()
            }
            Error::Refused { migration, report } => {
                let missing: Vec<_> = report.missing().collect();
                match missing.as_slice() {
                    [condition] => condition.hint.clone(),
                    // Each has its own beside it.
                    _ => format!("crossfade plan {migration} shows how far each of them is"),
                }
            }
            Error::Conflict { migration, .. } => {
                format!("crossfade status {migration} shows where it stands; decide again")
            }
            Error::Impossible { migration, .. } => {
                format!("crossfade status {migration} shows where it stands, and what comes next")
            }
            Error::FenceTimeout { .. } => {
                "look for long transactions that write the migrated table, and try again".to_owned()
            }
            Error::Unadopted { .. } => {
                "stop the instances that are named, or wait until they have adopted it or their leases run out".to_owned()
            }
            Error::OldPathClosed { .. } => "read and write the new store here".to_owned(),
            Error::StaleEpoch { .. } => {
                "run the transaction again; the closure form does so by itself".to_owned()
            }
            Error::Value { .. } => "cast it in the projection, or mend the row".to_owned(),
            Error::Unreadable { .. } => {
                "use the version of crossfade that wrote it, or a newer one".to_owned()
            }
            Error::Database { source, .. } => return database_hint(source),
            _ => return None,
        })
    }
}

/// Whether a database said that the transaction lost a race and may be run again.
///
/// Postgres: 40001 serialization failure, 40P01 deadlock, 55P03 lock not available. SQLite: busy
/// and locked, with their extended codes.
pub(crate) fn is_retryable(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    error.code().is_some_and(|code| match code.parse::<i32>() {
        _ if matches!(code.as_ref(), "40001" | "40P01" | "55P03") => true,
        // The low byte of SQLite's extended result codes is the primary one: 5 busy, 6 locked.
        Ok(number) if code.len() < 5 => matches!(number & 0xff, 5 | 6),
        _ => false,
    })
}

/// Postgres: connections that broke off, were ended by an administrator or by a server that went away.
fn is_connection_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(error) => error
            .code()
            .is_some_and(|code| matches!(code.as_ref(), "57P01" | "57P02" | "08000" | "08003" | "08006")),
        _ => false,
    }
}

fn database_hint(error: &sqlx::Error) -> Option<String> {
    let hint = match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => {
            "is the database running, and its URL right? When it is back, run the same command again"
        }
        sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed | sqlx::Error::PoolClosed => {
            "the connection broke off: run the same command again"
        }
        sqlx::Error::Database(error) => match error.code().as_deref() {
            Some("28P01" | "28000") => "check the user and password in the URL",
            Some("3D000") => "create the database, or mend its name in the URL",
            // SQLite's extended codes have the primary one in their low byte; Postgres' have five characters.
            Some(code) if code.len() < 5 => return sqlite_hint(code.parse().ok()?).map(str::to_owned),
            Some("42501") => "grant the rights, or use a role that has them",
            // Going down, starting up, or killed; a connection that a pooler cut.
            Some("57P01" | "57P02" | "57P03" | "08000" | "08003" | "08006") => {
                "the database has gone away: run the same command again when it is back"
            }
            Some("53300") => {
                "the database has no connection to spare: run the command again later, or raise its limit"
            }
            Some("53100") => "the disk is full: free some space and run the same command again",
            _ => return None,
        },
        _ => return None,
    };
    Some(hint.to_owned())
}

fn sqlite_hint(code: i32) -> Option<&'static str> {
    Some(match code & 0xff {
        5 | 6 => {
            "another process writes to the database for long: look for it, then run the same command again"
        }
        8 => "grant the right to write the file and its folder",
        10 => "look at the disk and its free space, then run the same command again",
        11 | 26 => "the file is damaged, or no SQLite database",
        13 => "the disk is full: free some space and run the same command again",
        14 => "is the path right, and may it be opened? sqlite:PATH?mode=rwc creates a missing file",
        _ => return None,
    })
}

fn spell_misfits(misfits: &[Misfit]) -> String {
    misfits.iter().map(|misfit| misfit.message.as_str()).collect::<Vec<_>>().join("; ")
}

fn spell_have(instances: &[String]) -> String {
    if instances.len() == 1 {
        "1 instance has".to_owned()
    } else {
        format!("{} instances have", instances.len())
    }
}

/// What is missing, one line each; where there are several, each with what would fix it.
fn spell_missing(report: &GateReport) -> String {
    let missing: Vec<_> = report.missing().collect();
    if let [condition] = missing.as_slice() {
        return format!(" {}: {}", condition.name, condition.seen);
    }
    missing
        .iter()
        .map(|condition| format!("\n  {}: {}\n    hint: {}", condition.name, condition.seen, condition.hint))
        .collect()
}

fn spell_known(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!("; it knows {}", names.join(", ")) }
}
