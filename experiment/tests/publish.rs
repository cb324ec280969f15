//! Publishers: what they take, what they drop, and that they never block.

use std::{
    convert::Infallible,
    io::{self, Write},
    sync::{Arc, Mutex, mpsc},
};

use crossfade_experiment::{
    DiffKind, Examples, Experiment, JsonLines, Publisher, Sampling, ToChannel, ToMetrics, ToTracing,
    Unmatched, diff_json,
};
use serde_json::{Value, json};

type Number = Experiment<i64, Infallible>;

fn experiment(publisher: impl Publisher) -> Number {
    let differ = |old: &i64, new: &i64, reveal| {
        diff_json(&json!({ "n": [old], "even": old % 2 }), &json!({ "n": [new], "even": new % 2 }), reveal)
    };
    let builder = Experiment::builder("number").sampling(Sampling::Always).diff(differ);
    builder.publisher(publisher).build().unwrap()
}

fn run(experiment: &Number, old: i64, new: i64) {
    assert_eq!(experiment.run_sync_in_line("k", || Ok(old), || Ok(new)), Ok(old));
}

#[test]
fn a_full_channel_drops_and_counts() {
    let (publisher, mut receiver) = ToChannel::new(2);
    let publisher = Arc::new(publisher);
    let experiment = experiment(publisher.clone());
    (0..5).for_each(|n| run(&experiment, n, n));
    assert_eq!(publisher.dropped(), 3);
    assert_eq!(std::iter::from_fn(|| receiver.try_recv().ok()).count(), 2);
}

/// A writer that waits for permission, and keeps what was written.
struct Gated {
    permits: mpsc::Receiver<()>,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Write for Gated {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.permits.recv();
        self.written.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn lines_are_written_and_a_stuck_writer_blocks_nobody() {
    let (permit, permits) = mpsc::channel();
    let written = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::new(JsonLines::new(Gated { permits, written: written.clone() }, 3).unwrap());
    let experiment = experiment(lines.clone());
    (0..10).for_each(|n| run(&experiment, n, n + 1));
    // One may be in the writer's hands, three are in the queue.
    let dropped = lines.dropped();
    assert!((6..=7).contains(&dropped), "{dropped}");
    drop(permit);
    drop(experiment);
    assert_eq!(Arc::strong_count(&lines), 1);
    drop(lines);
    let written = String::from_utf8(written.lock().unwrap().clone()).unwrap();
    let lines: Vec<Value> = written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len() as u64, 10 - dropped);
    assert_eq!(lines[0]["verdict"], json!({ "mismatched": "unchecked" }));
    assert_eq!(lines[0]["differences"][0]["old"], json!("redacted"));
}

#[test]
fn each_sort_of_difference_has_a_reservoir_of_its_own() {
    let examples = Arc::new(Examples::new(3, 2));
    let experiment = experiment(examples.clone());
    // A thousand that differ in `n` alone, and one that differs in `even` too.
    (0..1_000).for_each(|n| run(&experiment, n, n + 2));
    run(&experiment, 1, 2);
    run(&experiment, 1, 1);
    let groups = examples.groups();
    let sorts: Vec<_> = groups
        .iter()
        .map(|group| (group.path.as_str(), group.kind, group.seen, group.examples.len()))
        .collect();
    assert_eq!(sorts, [("even", DiffKind::Value, 1, 1), ("n[]", DiffKind::Value, 1_001, 3)]);
    assert_eq!(examples.drain().len(), 2);
    assert!(examples.groups().is_empty() && examples.missed() == 0);
}

#[test]
fn groups_are_bounded() {
    let examples = Arc::new(Examples::new(1, 1));
    let experiment = experiment(examples.clone());
    run(&experiment, 1, 3);
    run(&experiment, 1, 2);
    assert_eq!((examples.groups().len(), examples.missed()), (1, 1));
}

#[test]
fn a_publisher_of_what_does_not_match_is_not_asked_about_the_rest() {
    let (publisher, mut receiver) = ToChannel::new(8);
    let experiment = experiment(Unmatched(publisher));
    run(&experiment, 1, 1);
    run(&experiment, 1, 2);
    assert!(receiver.try_recv().unwrap().verdict.is_mismatch());
    assert!(receiver.try_recv().is_err());
}

/// Counts what the facade is told.
#[derive(Default)]
struct Recorder(Mutex<Vec<String>>);

impl metrics::Recorder for &'static Recorder {
    fn describe_counter(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
    fn describe_gauge(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
    fn describe_histogram(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
    fn register_counter(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Counter {
        self.0.lock().unwrap().push(key.to_string());
        metrics::Counter::noop()
    }
    fn register_gauge(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Gauge {
        metrics::Gauge::noop()
    }
    fn register_histogram(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Histogram {
        self.0.lock().unwrap().push(key.to_string());
        metrics::Histogram::noop()
    }
}

#[test]
fn metrics_are_named_by_experiment_candidate_and_verdict() {
    let recorder: &'static Recorder = Box::leak(Box::default());
    let experiment = experiment(ToMetrics);
    metrics::with_local_recorder(&recorder, || run(&experiment, 1, 2));
    let told = recorder.0.lock().unwrap();
    assert_eq!(told.len(), 3);
    let counter = &told[0];
    for part in ["experiment_observations_total", "number", "candidate", "mismatched"] {
        assert!(counter.contains(part), "{part} in {counter}");
    }
}

/// Counts events by level.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<tracing::Level>>>);

impl tracing::Subscriber for Events {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        self.0.lock().unwrap().push(*event.metadata().level());
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn a_mismatch_is_a_warning_and_a_match_is_quiet() {
    let events = Events::default();
    let experiment = experiment(ToTracing);
    tracing::subscriber::with_default(events.clone(), || {
        run(&experiment, 1, 1);
        run(&experiment, 1, 2);
    });
    assert_eq!(*events.0.lock().unwrap(), [tracing::Level::WARN]);
}
