//! What a crash, a lost server, a full disk or a second operator leave behind: the database as it was, or a job that the
//! same command goes on with.

mod full_disk;
mod killed;
mod lost_server;
mod two_operators;
