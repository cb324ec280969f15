//! Snapshots, offline scans and parallel, resumable copies for online data migrations.
