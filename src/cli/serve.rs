//! `crossfade serve`: where migrations stand, over HTTP, for those who watch.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use clap::Args;
use crossfade::Operator;
use crossfade::core::phase::Phase;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::connection::Connection;
use super::failure::Failure;
use super::output::Output;
use super::status::Seen;

/// The media type of Prometheus' text format.
const PROMETHEUS: &str = "text/plain; version=0.0.4";

/// Serve where migrations stand over HTTP: /metrics for Prometheus, /status as JSON, /health.
///
/// Each request reads the control store anew; nothing can be changed this way. There is no authentication: listen where only
/// those who may know can reach it. Ends on an interrupt.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  crossfade serve\n  crossfade serve subscriptions --listen 0.0.0.0:9876\n  curl -s http://127.0.0.1:9876/metrics"
)]
pub(crate) struct Serve {
    /// The migrations; all of them, new ones too, where none is named.
    names: Vec<String>,
    /// The address to listen on; port 0 takes a free one, which is printed.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9876")]
    listen: SocketAddr,
}

impl Serve {
    pub(crate) async fn run(self, connection: &Connection, output: Output) -> Result<ExitCode, Failure> {
        let operator = connection.operator().await?;
        for name in &self.names {
            operator.database().control.migration(name).await?;
        }
        let failed = |source| Failure::Listen { address: self.listen, source };
        let listener = TcpListener::bind(self.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        output.result(&serde_json::json!({ "listening": address }), |_| {
            format!("listening on http://{address}")
        });

        let router = Router::new()
            .route("/metrics", get(metrics))
            .route("/status", get(statuses))
            .route("/health", get(health))
            .with_state(Arc::new(Watched { operator, names: self.names }));
        axum::serve(listener, router).with_graceful_shutdown(told_to_stop()).await.map_err(failed)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns when somebody interrupts the command, or whoever supervises it ends it.
async fn told_to_stop() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

/// What is served.
struct Watched {
    operator: Operator,
    names: Vec<String>,
}

impl Watched {
    async fn look(&self) -> Result<Vec<Seen>, Failure> {
        let names = match self.names.as_slice() {
            [] => self.operator.database().control.names().await?,
            names => names.to_vec(),
        };
        let mut all = Vec::with_capacity(names.len());
        for name in names {
            all.push(Seen::now(&self.operator, name).await?);
        }
        Ok(all)
    }
}

async fn metrics(State(watched): State<Arc<Watched>>) -> Response {
    match watched.look().await {
        Ok(all) => ([(CONTENT_TYPE, PROMETHEUS)], exposition(&all)).into_response(),
        Err(failure) => unavailable(&failure),
    }
}

async fn statuses(State(watched): State<Arc<Watched>>) -> Response {
    match watched.look().await {
        Ok(all) => {
            let document = serde_json::Value::Array(all.iter().map(Seen::document).collect());
            ([(CONTENT_TYPE, "application/json")], format!("{document:#}\n")).into_response()
        }
        Err(failure) => unavailable(&failure),
    }
}

async fn health(State(watched): State<Arc<Watched>>) -> Response {
    match watched.operator.database().control.names().await {
        Ok(_) => "ok\n".into_response(),
        Err(error) => unavailable(&error.into()),
    }
}

fn unavailable(failure: &Failure) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{failure}\n")).into_response()
}

/// A family of samples: its name, what it means, and a function that gives a migration's samples as labels
/// and value.
type Family = (&'static str, &'static str, fn(&Seen) -> Vec<(String, f64)>);

const FAMILIES: &[Family] = &[
    ("crossfade_phase", "1 for the phase that the migration is in, 0 for the others.", |seen| {
        let present = seen.overview.registered.standing.phase;
        let sample = |phase: Phase| {
            (format!("phase=\"{}\"", phase.as_str()), if phase == present { 1.0 } else { 0.0 })
        };
        Phase::ALL.into_iter().map(sample).collect()
    }),
    ("crossfade_epoch", "Grows with each change of phase or ramp.", |seen| {
        vec![(String::new(), seen.overview.registered.standing.epoch.0 as f64)]
    }),
    ("crossfade_ramp_ratio", "The share of keys that the phase applies to.", |seen| {
        vec![(String::new(), f64::from(seen.overview.registered.standing.ramp.ppm()) / 1e6)]
    }),
    ("crossfade_phase_seconds", "How long the migration has stood as it does.", |seen| {
        vec![(String::new(), seen.overview.registered.stood.as_secs_f64())]
    }),
    ("crossfade_gate_open", "Whether the next phase may be entered now.", |seen| {
        let gate = seen.overview.gate.iter();
        gate.map(|gate| (format!("to=\"{}\"", gate.to.as_str()), f64::from(u8::from(gate.open)))).collect()
    }),
    ("crossfade_gate_missing", "How many conditions of the next phase's gate are not met.", |seen| {
        let gate = seen.overview.gate.iter();
        gate.map(|gate| (format!("to=\"{}\"", gate.to.as_str()), gate.missing().count() as f64)).collect()
    }),
    ("crossfade_instances", "Instances of the application by whether their lease is live.", |seen| {
        let live = seen.overview.instances.iter().filter(|instance| instance.is_live).count();
        let gone = seen.overview.instances.len() - live;
        vec![("lease=\"live\"".into(), live as f64), ("lease=\"expired\"".into(), gone as f64)]
    }),
    ("crossfade_epoch_comparisons", "Shadow reads at this epoch by what became of them.", |seen| {
        let seen = &seen.overview.comparisons;
        let matched = seen.compared.saturating_sub(seen.mismatched);
        [("matched", matched), ("mismatched", seen.mismatched), ("dropped", seen.dropped)]
            .map(|(outcome, count)| (format!("outcome=\"{outcome}\""), count as f64))
            .into()
    }),
    ("crossfade_job_keys", "Keys of jobs that have not ended, in all and done.", |seen| {
        let unfinished = seen.jobs.iter().filter(|job| !job.state.is_finished());
        let samples = unfinished.flat_map(|job| {
            [("total", job.keys), ("done", job.done.keys_done)].map(|(keys, count)| {
                (format!("job=\"{}\",kind=\"{}\",keys=\"{keys}\"", job.id.0, job.kind.as_str()), count as f64)
            })
        });
        samples.collect()
    }),
];

/// Prometheus' text format. Names of migrations are identifiers, and need no escapes.
fn exposition(all: &[Seen]) -> String {
    let mut text = String::new();
    for (name, help, samples) in FAMILIES {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for seen in all {
            for (labels, value) in samples(seen) {
                let comma = if labels.is_empty() { "" } else { "," };
                let _ = writeln!(text, "{name}{{migration=\"{}\"{comma}{labels}}} {value}", seen.name);
            }
        }
    }
    text
}
