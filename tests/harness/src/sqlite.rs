//! SQLite databases in files of their own.

use sqlx::{
    Sqlite,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions},
};

use crate::{TestDatabase, database::Home};

/// Creates an empty SQLite database in a temporary folder, in WAL mode as applications with more than one
/// connection use it.
///
/// # Panics
///
/// When the temporary folder cannot be written.
pub async fn sqlite() -> TestDatabase<Sqlite> {
    let folder = tempfile::Builder::new()
        .prefix("crossfade-sqlite-")
        .tempdir()
        .expect("the temporary folder is writable");
    let path = folder.path().join("test.db");
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal);
    let pool = SqlitePoolOptions::new().connect_with(options).await.expect("a new database file opens");
    TestDatabase::new(format!("sqlite://{}", path.display()), pool, Home::Sqlite { _folder: folder })
}
