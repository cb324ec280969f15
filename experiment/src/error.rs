//! What this crate can fail at: configuration and decoding. Running an experiment has no error of its own.

/// Why an experiment could not be built or a report not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A share of calls that is no share.
    #[error("`{given}` is not a share of calls between 0 and 100 percent")]
    Share {
        /// What was given.
        given: String,
    },
    /// A limit that would let nothing, or everything, through.
    #[error("experiment `{experiment}`: limit `{limit}` must be above zero")]
    Limit {
        /// The experiment that was being built.
        experiment: String,
        /// The limit's name.
        limit: &'static str,
    },
    /// A choice among branches that names none of them.
    #[error("experiment `{experiment}` has no branch `{branch}` to answer with")]
    NoBranch {
        /// The experiment.
        experiment: String,
        /// The name that was chosen.
        branch: String,
    },
    /// Threads for candidates could not be started.
    #[error("cannot start {threads} threads for candidates")]
    Runtime {
        /// How many.
        threads: usize,
        /// What the system said.
        source: std::io::Error,
    },
    /// A latency sketch whose encoding is damaged or of an unknown version.
    #[error("cannot read a latency sketch: {reason}")]
    Sketch {
        /// What is wrong with the bytes.
        reason: &'static str,
    },
}
