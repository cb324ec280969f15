//! Phases, control records, fence, dual writes, reads and gates of online data migrations.
