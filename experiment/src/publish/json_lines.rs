//! One JSON object a line, written by a thread of its own.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use super::Publisher;
use crate::Observation;

/// Writes observations as JSON, one a line. A thread writes; what it cannot keep up with is dropped and
/// counted. Dropping the publisher writes what was taken before, and waits for it.
#[derive(Debug)]
pub struct JsonLines {
    sender: Option<SyncSender<Observation>>,
    writer: Option<JoinHandle<()>>,
    dropped: AtomicU64,
    failed: Arc<AtomicU64>,
}

impl JsonLines {
    /// Starts the thread, with a queue of `capacity` observations.
    ///
    /// # Errors
    /// What the system says if no thread can be started.
    pub fn new(writer: impl Write + Send + 'static, capacity: usize) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(capacity.max(1));
        let failed = Arc::new(AtomicU64::new(0));
        let counter = failed.clone();
        let thread = std::thread::Builder::new().name("observations".into());
        let thread = thread.spawn(move || write_all(writer, &receiver, &counter))?;
        Ok(Self { sender: Some(sender), writer: Some(thread), dropped: AtomicU64::new(0), failed })
    }

    /// Observations that did not fit into the queue.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Observations whose writing failed.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

impl Publisher for JsonLines {
    fn publish(&self, observation: &Observation) {
        let sent = self.sender.as_ref().is_some_and(|sender| sender.try_send(observation.clone()).is_ok());
        if !sent {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for JsonLines {
    fn drop(&mut self) {
        // The thread ends with its queue.
        self.sender = None;
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has nothing more to write.
            let _ = writer.join();
        }
    }
}

fn write_all(mut writer: impl Write, receiver: &Receiver<Observation>, failed: &AtomicU64) {
    let mut line = Vec::new();
    while let Ok(first) = receiver.recv() {
        let mut next = Some(first);
        while let Some(observation) = next {
            line.clear();
            let written =
                serde_json::to_writer(&mut line, &observation).map_err(io::Error::from).and_then(|()| {
                    line.push(b'\n');
                    writer.write_all(&line)
                });
            if written.is_err() {
                failed.fetch_add(1, Ordering::Relaxed);
            }
            next = receiver.try_recv().ok();
        }
        // The queue is empty: whoever watches the file sees all of it.
        if writer.flush().is_err() {
            failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}
