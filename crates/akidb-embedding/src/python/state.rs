//! From open to closed: what a provider still does.

use std::sync::Arc;

use tokio::sync::watch;

/// How far the closing is.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub(crate) enum State {
    Open,
    /// New calls are refused.
    Draining,
    /// Calls that were not submitted are failed.
    Closing,
    /// Nothing will be answered any more.
    Closed,
}

/// The state that all handles of a provider share; it never goes back.
#[derive(Clone)]
pub(crate) struct SharedState(Arc<watch::Sender<State>>);

impl SharedState {
    pub(crate) fn open() -> Self {
        Self(Arc::new(watch::Sender::new(State::Open)))
    }

    pub(crate) fn now(&self) -> State {
        *self.0.borrow()
    }

    pub(crate) fn advance(&self, to: State) {
        self.0.send_if_modified(|state| {
            let later = *state < to;
            if later {
                *state = to;
            }
            later
        });
    }

    /// Wait until nothing will be answered any more.
    pub(crate) async fn closed(&self) {
        let _ = self.0.subscribe().wait_for(|state| *state == State::Closed).await;
    }
}
