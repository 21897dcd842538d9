//! The way in to a provider: so many calls at once, and none once it is closed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use crate::EmbeddingResult;
use crate::failures::{MAX_WAITING, closed, full, late};

/// Wait for a call, until its timeout; one without any time is not begun.
pub(crate) async fn within<T>(
    limit: Option<Duration>,
    call: impl Future<Output = EmbeddingResult<T>>,
) -> EmbeddingResult<T> {
    match limit {
        None => call.await,
        Some(Duration::ZERO) => Err(late()),
        Some(limit) => timeout(limit, call).await.unwrap_or_else(|_| Err(late())),
    }
}

/// Whether calls may enter, and whether those inside may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Stage {
    Open,
    Closing,
    #[cfg(feature = "openai")]
    Ended,
}

pub(crate) struct Gate {
    places: Arc<Semaphore>,
    stage: watch::Sender<Stage>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(MAX_WAITING)), stage: watch::Sender::new(Stage::Open) }
    }
}

impl Gate {
    pub(crate) fn is_open(&self) -> bool {
        *self.stage.borrow() == Stage::Open
    }

    /// Take a place; it is given back when it is dropped. `of` says what full places do.
    pub(crate) fn enter(&self, of: &str) -> EmbeddingResult<OwnedSemaphorePermit> {
        if !self.is_open() {
            return Err(closed());
        }
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| full(of))
    }

    /// Let nobody in any more.
    pub(crate) fn close(&self) {
        self.advance(Stage::Closing);
    }

    /// Wait until nobody is inside.
    pub(crate) async fn drained(&self) {
        drop(self.places.acquire_many(MAX_WAITING as u32).await);
    }

    /// Tell those inside to leave.
    #[cfg(feature = "openai")]
    pub(crate) fn end(&self) {
        self.advance(Stage::Ended);
    }

    /// Wait until those inside must leave.
    #[cfg(feature = "openai")]
    pub(crate) async fn ended(&self) {
        // The sender lives as long as this does.
        let _ = self.stage.subscribe().wait_for(|stage| *stage == Stage::Ended).await;
    }

    fn advance(&self, stage: Stage) {
        self.stage.send_modify(|held| {
            if *held < stage {
                *held = stage;
            }
        });
    }
}
