//! Proof on Postgres.

use async_trait::async_trait;
use sqlx::Postgres;

use super::{CheckReport, Proof};
use crate::connect::Connected;
use crate::error::Result;
use crate::key::Key;
use crate::mirror::Subject;

#[async_trait]
impl Proof for Connected<Postgres> {
    async fn sample_keys(&self, _subject: &Subject, _count: u32) -> Result<Vec<Key>> {
        Ok(Vec::new())
    }

    async fn check_projection(&self, _subject: &Subject, _keys: &[Key]) -> Result<CheckReport> {
        Ok(CheckReport::default())
    }

    async fn check_reverse(&self, _subject: &Subject, _keys: &[Key]) -> Result<CheckReport> {
        Ok(CheckReport::default())
    }
}
