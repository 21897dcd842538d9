//! A question to Python whose answer is shared by all who ask it at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::Python;
use tokio::sync::watch;

use super::thread::{PythonThread, Task};

/// A question that waits for its thread once, however many callers ask it, and not at all when they have all gone.
pub(crate) struct Question<T> {
    state: Arc<State<T>>,
    ask: Arc<dyn Fn(Python<'_>) -> T + Send + Sync>,
}

struct State<T> {
    /// Whether a task waits for the thread.
    waits: AtomicBool,
    answers: watch::Sender<Option<T>>,
}

impl<T: Clone + Send + Sync + 'static> Question<T> {
    pub(crate) fn new(ask: impl Fn(Python<'_>) -> T + Send + Sync + 'static) -> Self {
        let state = State { waits: AtomicBool::new(false), answers: watch::Sender::new(None) };
        Self { state: Arc::new(state), ask: Arc::new(ask) }
    }

    /// Return the next answer; `None` when there will be none.
    pub(crate) async fn answer(&self, thread: &PythonThread<Task>) -> Option<T> {
        // The task looks for callers once it no longer waits: either it sees this one, or this one sends another.
        let mut answers = self.state.answers.subscribe();
        if !self.state.waits.swap(true, Ordering::SeqCst) {
            let (state, ask) = (Arc::clone(&self.state), Arc::clone(&self.ask));
            thread.run(move |py| {
                state.waits.store(false, Ordering::SeqCst);
                if state.answers.receiver_count() > 0 {
                    state.answers.send_replace(Some(ask(py)));
                }
            });
        }
        answers.changed().await.ok()?;
        answers.borrow_and_update().clone()
    }
}
