//! Online data migrations: dual writes, shadow reads, fenced phases and offline backfills.
