//! Scientist-style experiments: run a control and a candidate, compare them, publish what was seen.
