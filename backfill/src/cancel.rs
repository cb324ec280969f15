//! A request to stop, as every long operation here takes it.

use std::sync::Arc;

use tokio::sync::watch;

/// A request to stop, shared by whoever may make it and whatever is under way.
///
/// What is under way stops at its next safe place: after the batch or the file part in hand.
#[derive(Debug, Clone)]
pub struct Cancel {
    sender: Arc<watch::Sender<bool>>,
}

impl Cancel {
    /// A request that nobody has made yet.
    pub fn new() -> Cancel {
        Cancel { sender: Arc::new(watch::Sender::new(false)) }
    }

    /// Makes the request.
    pub fn cancel(&self) {
        self.sender.send_replace(true);
    }

    /// Whether it was made.
    pub fn is_cancelled(&self) -> bool {
        *self.sender.borrow()
    }

    /// Waits until it is made.
    pub async fn cancelled(&self) {
        // The sender lives as long as `self`, so that waiting cannot fail.
        let _ = self.sender.subscribe().wait_for(|cancelled| *cancelled).await;
    }
}

impl Default for Cancel {
    fn default() -> Self {
        Cancel::new()
    }
}
