//! Into a bounded channel.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use super::Publisher;
use crate::Observation;

/// Sends observations into a bounded channel; what does not fit is dropped and counted.
#[derive(Debug)]
pub struct ToChannel {
    sender: mpsc::Sender<Observation>,
    dropped: AtomicU64,
}

impl ToChannel {
    /// A publisher and the end that receives. A capacity of 0 counts as 1.
    #[must_use]
    pub fn new(capacity: usize) -> (Self, mpsc::Receiver<Observation>) {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        (Self { sender, dropped: AtomicU64::new(0) }, receiver)
    }

    /// Observations that did not fit, or came after the receiver had gone.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Publisher for ToChannel {
    fn publish(&self, observation: &Observation) {
        // The slot before the copy: nothing is cloned only to be dropped.
        match self.sender.try_reserve() {
            Ok(slot) => slot.send(observation.clone()),
            Err(_) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
