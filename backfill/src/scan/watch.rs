//! Scans for whoever shows how far they are, and may stop them.

use std::ops::ControlFlow;
use std::path::PathBuf;

use super::{Dumps, Progress, ScanOptions, scan, scan_dumps};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::findings::ScanSummary;
use crate::progress::{self, Meter, Stage};
use crate::snapshot::SnapshotPair;

/// [`scan`] on threads of its own, telling how far it is.
///
/// # Errors
///
/// Those of [`scan`].
pub async fn watch(
    pair: SnapshotPair,
    findings: PathBuf,
    options: &ScanOptions,
    progress: &dyn progress::Progress,
    cancel: &Cancel,
) -> Result<ScanSummary> {
    let options = options.clone();
    watched(progress, cancel, move |tell| scan(&pair, findings, &options, tell)).await
}

/// [`scan_dumps`] on threads of its own, telling how far it is.
///
/// # Errors
///
/// Those of [`scan_dumps`].
pub async fn watch_dumps(
    dumps: Dumps,
    findings: PathBuf,
    options: &ScanOptions,
    progress: &dyn progress::Progress,
    cancel: &Cancel,
) -> Result<ScanSummary> {
    let options = options.clone();
    watched(progress, cancel, move |tell| scan_dumps(&dumps, findings, &options, tell)).await
}

type Tell<'a> = &'a (dyn Fn(Progress) -> ControlFlow<()> + Sync);

async fn watched(
    progress: &dyn progress::Progress,
    cancel: &Cancel,
    run: impl FnOnce(Tell<'_>) -> Result<ScanSummary> + Send + 'static,
) -> Result<ScanSummary> {
    let (tell, mut told) = tokio::sync::watch::channel(None::<Progress>);
    let stop = cancel.clone();
    let scanning = tokio::task::spawn_blocking(move || {
        run(&|progress| {
            // Threads report in any order; the bar only grows.
            tell.send_if_modified(|last| {
                let grows = last.is_none_or(|last| progress.rows_done > last.rows_done);
                if grows {
                    *last = Some(progress);
                }
                grows
            });
            if stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    });
    let mut meter: Option<Meter<'_>> = None;
    // The channel closes when the scan is over.
    while told.changed().await.is_ok() {
        if let Some(progress_now) = *told.borrow_and_update() {
            let Progress { rows_done, rows_total } = progress_now;
            match &meter {
                Some(meter) => meter.at(rows_done),
                // What comes first was done by a scan that was stopped, or in an instant.
                None => meter = Some(Meter::new(progress, Stage::Scan, rows_done, Some(rows_total))),
            }
        }
    }
    let summary = scanning.await.map_err(|_| Error::WorkerLost)??;
    let rows = summary.rows_old + summary.rows_new;
    meter.unwrap_or_else(|| Meter::new(progress, Stage::Scan, rows, Some(rows))).finish();
    Ok(summary)
}
