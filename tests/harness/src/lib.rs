//! Real database servers, fresh databases and child processes for tests.
//!
//! Each test gets a database of its own, on a real server that listens on a private unix socket and
//! nowhere else. Nothing outlives the test process: a supervisor stops the server and removes its folder
//! when the process ends, however it ends.
//!
//! ```no_run
//! use crossfade_test_harness::{Postgres, sqlite};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let database = Postgres::shared().database().await;
//! sqlx::query("select 1").execute(database.pool()).await.unwrap();
//!
//! // A server that only this test uses may be killed and started again.
//! let mut server = Postgres::start();
//! server.kill();
//! server.restart();
//!
//! let database = sqlite().await;
//! assert!(database.url().starts_with("sqlite://"));
//! # }
//! ```
//!
//! # One server or many
//!
//! [`Postgres::shared`] starts at most one server in a process. Under `cargo test` that is one server for each
//! test binary. Runners that give each test a process of its own share one server through the wrapper:
//! `cargo run -p crossfade-test-harness --bin with-postgres -- cargo nextest run`. It exports
//! [`SERVER_VARIABLE`], which [`Postgres::shared`] follows.
//!
//! A missing server is an error that names the command which installs it. No test is skipped.

mod database;
mod error;
mod installation;
mod postgres;
mod program;
#[cfg(feature = "s3")]
mod s3;
mod sqlite;
mod supervisor;

pub use database::TestDatabase;
pub use error::HarnessError;
pub use postgres::{Postgres, SERVER_VARIABLE};
pub use program::{Finished, Program, Running, Signal};
#[cfg(feature = "s3")]
pub use s3::{Mischief, S3};
pub use sqlite::sqlite;
