//! The scan: a plan for the cluster, its results, findings.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::cast::AsArray;
use arrow::array::types::UInt64Type;
use ballista::prelude::{SessionConfigExt, SessionContextExt};
use ballista_core::config::BALLISTA_CLIENT_PULL;
use ballista_core::execution_plans::DistributedQueryExec;
use ballista_core::serde::protobuf::CancelJobParams;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use crossfade_backfill::Cancel;
use crossfade_backfill::findings::{SUMMARY_FILE, ScanSummary};
use crossfade_backfill::scan::{Comparison, Dumps, ScanOptions, conclude};
use crossfade_backfill::snapshot::SnapshotPair;
use datafusion::datasource::file_format::format_as_file_type;
use datafusion::datasource::file_format::parquet::ParquetFormatFactory;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use datafusion_proto::protobuf::LogicalPlanNode;

use crate::answer::Answer;
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::plan::Question;
use crate::side::{Side, folder_url};

/// Where executors write, in the findings' folder.
const RESULTS_FOLDER: &str = "results.tmp";

/// Rows per partition of the grouping: with key, hash and two counts about a quarter of a GiB in an executor's memory.
const PARTITION_ROWS: u64 = 4_000_000;

/// Partitions at least: work for a few executors with a few cores each, whatever the size.
const PARTITIONS_MIN: u64 = 8;

/// Partitions at most: each task writes a piece for each of them, and pieces must not become tiny.
const PARTITIONS_MAX: u64 = 1024;

/// How long a cancelled scan waits to be told its job's name: no longer than who has pressed Ctrl-C will wait.
const NAME_TIMEOUT: Duration = Duration::from_secs(5);

/// A pause between two looks for it.
const NAME_POLL: Duration = Duration::from_millis(20);

/// Compares the two snapshots on the cluster and writes what it finds into `findings`, a folder that is created if it is
/// not there. The findings are those of the local engine. Executors must see the snapshots' folder and the findings'
/// under the same absolute paths as this process.
///
/// # Errors
///
/// [`Error::Unreachable`], [`Error::Job`], [`Error::ResultsElsewhere`]; what the local
/// [`scan`](crossfade_backfill::scan::scan) gives.
pub async fn scan(
    cluster: &Cluster,
    pair: &SnapshotPair,
    findings: &Path,
    options: &ScanOptions,
    cancel: &Cancel,
) -> Result<ScanSummary> {
    let comparison = Comparison::from(pair);
    let (old, new) = (Side::of_snapshot(pair.old())?, Side::of_snapshot(pair.new_side())?);
    let key_types = comparison.compared_as();
    let question =
        Question { old: &old, new: &new, key: comparison.key(), key_types: &key_types, columns: &[] };
    run(cluster, &question, &comparison, Some(pair), findings, options, cancel).await
}

/// Compares two dumps on the cluster: [`scan`] of rows that have no hashes, in any order. All columns travel between
/// executors, so where the same dump is scanned more than once it pays to [import](crossfade_backfill::import) it first.
///
/// # Errors
///
/// What [`scan`] gives; [`Error::KeyNull`]; the errors of [`Dumps::open`].
pub async fn scan_dumps(
    cluster: &Cluster,
    dumps: &Dumps,
    findings: &Path,
    options: &ScanOptions,
    cancel: &Cancel,
) -> Result<ScanSummary> {
    let tables = dumps.open()?;
    let (old, new) = (Side::of_dump(&tables.old)?, Side::of_dump(&tables.new)?);
    let comparison = &tables.comparison;
    let key_types = comparison.compared_as();
    let question = Question {
        old: &old,
        new: &new,
        key: comparison.key(),
        key_types: &key_types,
        columns: &tables.values,
    };
    run(cluster, &question, comparison, None, findings, options, cancel).await
}

async fn run(
    cluster: &Cluster,
    question: &Question<'_>,
    comparison: &Comparison,
    explain_from: Option<&SnapshotPair>,
    findings: &Path,
    options: &ScanOptions,
    cancel: &Cancel,
) -> Result<ScanSummary> {
    if findings.join(SUMMARY_FILE).exists() {
        return Err(crossfade_backfill::Error::FindingsPresent { path: findings.to_owned() }.into());
    }
    cluster.reach().await?;
    let results = Results::create(findings)?;
    let context = context(cluster, comparison.rows()).await?;
    let groups = question.plan(&context)?;
    let written = execute(cluster, &context, groups, &results, cancel, comparison).await?;
    let answer = Answer::open(&results.folder, question, comparison, written)?;
    // What goes wrong while the results are read ends the conclusion, and is what is reported.
    let mut failed = None;
    let batches = answer.batches().map(|batch| {
        batch.map_err(|error| {
            let detail = error.to_string();
            failed = Some(error);
            crossfade_backfill::Error::Answer { detail }
        })
    });
    let concluded = conclude(comparison, explain_from, batches, findings, options);
    match failed {
        Some(error) => Err(error),
        None => Ok(concluded?),
    }
}

async fn context(cluster: &Cluster, rows: u64) -> Result<SessionContext> {
    let partitions = (rows / PARTITION_ROWS).clamp(PARTITIONS_MIN, PARTITIONS_MAX);
    let mut config = SessionConfig::new_with_ballista()
        .with_target_partitions(usize::try_from(partitions).unwrap_or(1))
        .with_ballista_job_name("crossfade scan")
        // Asking again and again, so that the job's name is known from the start, to take it back by, and that no stream has to
        // hold for hours.
        .set_bool(BALLISTA_CLIENT_PULL, true);
    // The files' own types, so that plan and files agree without a cast.
    config.options_mut().execution.parquet.schema_force_view_types = false;
    let state = SessionStateBuilder::new().with_config(config).with_default_features().build();
    SessionContext::remote_with_state(&cluster.endpoint(), state).await.map_err(Error::plan("open a session"))
}

/// Has the executors write the groups, and gives how many they say they wrote.
async fn execute(
    cluster: &Cluster,
    context: &SessionContext,
    groups: DataFrame,
    results: &Results,
    cancel: &Cancel,
    comparison: &Comparison,
) -> Result<u64> {
    let format = format_as_file_type(Arc::new(ParquetFormatFactory::new()));
    let url = folder_url(&results.folder)?.to_string();
    let plan =
        LogicalPlanBuilder::copy_to(groups.into_unoptimized_plan(), url, format, HashMap::new(), vec![])
            .and_then(LogicalPlanBuilder::build)
            .map_err(Error::plan("make a plan"))?;
    let failed = |source: DataFusionError| Error::Job { cluster: cluster.clone(), source: Box::new(source) };
    let plan = context.state().create_physical_plan(&plan).await.map_err(failed)?;
    let mut job = tokio::spawn(collect(plan.clone(), context.task_ctx()));
    let counts = tokio::select! {
        counts = &mut job => counts.map_err(|_| crossfade_backfill::Error::WorkerLost)?.map_err(failed)?,
        () = cancel.cancelled() => {
            stop(cluster, plan.as_ref()).await;
            job.abort();
            return Err(crossfade_backfill::Error::Cancelled { rows_done: 0, rows_total: comparison.rows() }.into());
        }
    };
    let count = |batch: &arrow::array::RecordBatch| -> u64 {
        let counts = batch.columns().first().and_then(|column| column.as_primitive_opt::<UInt64Type>());
        counts.map_or(0, |counts| counts.values().iter().sum())
    };
    Ok(counts.iter().map(count).sum())
}

/// Asks the scheduler to give the job up. Where that fails the job ends by itself, and nobody reads its results.
async fn stop(cluster: &Cluster, plan: &dyn ExecutionPlan) {
    let Some(query) = plan.downcast_ref::<DistributedQueryExec<LogicalPlanNode>>() else { return };
    // The scheduler says the job's name when it has taken it.
    let named = async {
        loop {
            if let Some(job_id) = query.job_id() {
                break job_id;
            }
            tokio::time::sleep(NAME_POLL).await;
        }
    };
    let Ok(job_id) = tokio::time::timeout(NAME_TIMEOUT, named).await else { return };
    if let Ok(mut scheduler) = SchedulerGrpcClient::connect(cluster.endpoint()).await {
        let _ = scheduler.cancel_job(CancelJobParams { job_id: job_id.into() }).await;
    }
}

/// The folder that executors write to. It goes with the value, and what an earlier scan left is removed first.
struct Results {
    folder: PathBuf,
}

impl Results {
    fn create(findings: &Path) -> Result<Self> {
        let folder = findings.join(RESULTS_FOLDER);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &folder)(error));
            }
            _ => {}
        }
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        Ok(Self { folder })
    }
}

impl Drop for Results {
    /// What cannot be removed now is removed by the next scan.
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
