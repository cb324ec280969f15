//! The manifest as it stands in the file: what serde reads, before anything is checked.
//!
//! Every value that a later check may reject keeps its span, so that the error can name the line.

use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) name: Spanned<String>,
    pub(super) control: Option<Spanned<String>>,
    pub(super) old: Old,
    pub(super) new: New,
    pub(super) mapping: Mapping,
    #[serde(default)]
    pub(super) gates: Gates,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Old {
    pub(super) url: Spanned<String>,
    pub(super) table: Spanned<String>,
    pub(super) key: Spanned<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct New {
    pub(super) url: Spanned<String>,
    pub(super) table: Spanned<String>,
    pub(super) scope: Spanned<Vec<String>>,
    pub(super) key: Spanned<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mapping {
    pub(super) projection: Spanned<String>,
    /// One statement, or a list of statements that run in order; likewise `retire`.
    pub(super) reverse: Option<Spanned<toml::Value>>,
    pub(super) retire: Option<Spanned<toml::Value>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Gates {
    pub(super) comparisons_min: Option<Spanned<u64>>,
    pub(super) mismatch_rate_max: Option<Spanned<f64>>,
    pub(super) confidence: Option<Spanned<f64>>,
    pub(super) latency_ratio_max: Option<Spanned<f64>>,
    #[serde(default, with = "humantime_serde::option")]
    pub(super) evidence_age_max: Option<Duration>,
    #[serde(default, with = "humantime_serde::option")]
    pub(super) soak_min: Option<Duration>,
    #[serde(default, with = "humantime_serde::option")]
    pub(super) old_path_quiet_min: Option<Duration>,
    pub(super) sample_keys: Option<Spanned<u32>>,
}
