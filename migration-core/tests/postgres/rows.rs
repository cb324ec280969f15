//! Rows on their way out.
