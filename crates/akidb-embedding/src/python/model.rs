//! A model that a Python object holds, and the threads that call it: what the providers of every kind share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::ANSWER_WITHIN;
use super::at_exit::close_at_exit;
use super::call::{Call, Request, Submitted};
use super::exceptions::embedding_error;
use super::failures::{broken, closed, late, no_answer, no_thread};
use super::question::Question;
use super::service::health;
use super::state::{SharedState, State};
use super::thread::{PythonThread, Task, reply, run_apart};
use crate::EmbeddingResult;

/// Calls of more texts or bytes than this are tokenised on a thread of their own, so that no small one waits for that.
const SMALL_TEXTS: usize = 64;
const SMALL_BYTES: usize = 1 << 16;

/// How long `close(false)` waits; the service itself gives up on a forward pass after 4 s.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// An `EmbeddingService`, a `Reranker`, or an object with the same methods.
pub(crate) struct PythonModel {
    service: Arc<Py<PyAny>>,
    /// Whether the service is closed when this is dropped.
    owned: bool,
    state: SharedState,
    /// They bound the calls that wait to be submitted; the service bounds those that were.
    small: PythonThread<Task>,
    bulk: PythonThread<Task>,
    control: PythonThread<Task>,
    health: Question<EmbeddingResult<()>>,
}

impl PythonModel {
    /// Start the threads of a model, and ask it for its description.
    pub(crate) fn around<I>(
        service: Py<PyAny>,
        owned: bool,
        describe: impl FnOnce(&Bound<'_, PyAny>) -> PyResult<I>,
    ) -> EmbeddingResult<(Self, I)> {
        let info = Python::attach(|py| describe(service.bind(py)).map_err(|error| embedding_error(py, &error)))?;
        close_at_exit();
        let thread = |name| PythonThread::of_tasks(name).map_err(no_thread);
        let service = Arc::new(service);
        let asked = Arc::clone(&service);
        let ask = move |py: Python<'_>| health(asked.bind(py)).map_err(|error| embedding_error(py, &error))?;
        let model = Self {
            service,
            owned,
            state: SharedState::open(),
            small: thread("akidb-embed")?,
            bulk: thread("akidb-bulk")?,
            control: thread("akidb-control")?,
            health: Question::new(ask),
        };
        Ok((model, info))
    }

    pub(crate) fn is_open(&self) -> bool {
        self.state.now() == State::Open
    }

    /// Make a call. Dropping the future cancels it.
    pub(crate) async fn call<R: Request>(&self, request: R, limit: Option<Duration>) -> EmbeddingResult<R::Answer> {
        if !self.is_open() {
            return Err(closed());
        }
        let (texts, bytes) = request.size();
        let small = texts <= SMALL_TEXTS && bytes <= SMALL_BYTES;
        let thread = if small { &self.small } else { &self.bulk };
        let place = thread.take_place()?;
        let (answer, answered) = oneshot::channel();
        let submitted = Submitted::default();
        let call = Call {
            request,
            deadline: limit.and_then(|limit| Instant::now().checked_add(limit)),
            answer,
            submitted: submitted.clone(),
            place,
        };
        let (service, state) = (Arc::clone(&self.service), self.state.clone());
        thread.run(move |py| {
            if state.now() < State::Closing {
                call.submit(py, service.bind(py));
            } else {
                reply(call.answer, Err(closed()));
            }
        });
        let mut unfinished = CancelOnDrop(Some((thread, submitted)));
        let waited = async {
            tokio::select! {
                biased;
                outcome = answered => outcome.unwrap_or_else(|_| Err(broken("the service dropped the call"))),
                () = self.state.closed() => Err(closed()),
            }
        };
        let outcome = match limit {
            None => waited.await,
            Some(limit) => timeout(limit, waited).await.unwrap_or_else(|_| Err(late())),
        };
        if outcome.is_ok() {
            unfinished.0 = None;
        }
        outcome
    }

    /// Take no more calls, end those that are pending, and free the model; see the providers.
    pub(crate) async fn close(&self, drain: bool) -> EmbeddingResult<()> {
        self.state.advance(if drain { State::Draining } else { State::Closing });
        if drain {
            for thread in [&self.small, &self.bulk] {
                let (passed, passing) = oneshot::channel();
                thread.run(move |_| reply(passed, ()));
                passing.await.map_err(|_| broken("a thread that runs Python has ended"))?;
            }
        }
        let (service, state) = (Arc::clone(&self.service), self.state.clone());
        let close = move || {
            let outcome = Python::attach(|py| {
                let keywords = PyDict::new(py);
                let closed = keywords
                    .set_item("drain", drain)
                    .and_then(|()| service.bind(py).call_method("close", (), Some(&keywords)));
                closed.map(drop).map_err(|error| embedding_error(py, &error))
            });
            state.advance(State::Closed);
            outcome
        };
        let closed = async {
            let closed = run_apart("akidb-close", close).await.map_err(no_thread)?;
            closed.ok_or_else(|| broken("closing the service panicked"))?
        };
        if drain {
            return closed.await;
        }
        let outcome = timeout(CLOSE_WITHIN, closed).await;
        self.state.advance(State::Closed);
        outcome.unwrap_or_else(|elapsed| Err(no_answer(elapsed)))
    }

    /// Ask the service, which answers also while a forward pass hangs; 5 s at most if Python itself hangs. All who ask at
    /// once share one answer.
    pub(crate) async fn health_check(&self) -> EmbeddingResult<()> {
        match timeout(ANSWER_WITHIN, self.health.answer(&self.control)).await {
            Ok(health) => health.unwrap_or_else(|| Err(broken("a thread that runs Python has ended"))),
            Err(elapsed) => Err(no_answer(elapsed)),
        }
    }
}

impl Drop for PythonModel {
    fn drop(&mut self) {
        if self.owned && self.is_open() {
            let service = Arc::clone(&self.service);
            self.control.run(move |py| {
                if let Err(error) = service.bind(py).call_method0("close") {
                    tracing::error!("closing a service that was dropped failed: {error}");
                }
            });
        }
    }
}

/// Load a model on a thread of its own.
pub(crate) async fn load_apart<T: Send + 'static>(
    open: impl FnOnce() -> EmbeddingResult<T> + Send + 'static,
) -> EmbeddingResult<T> {
    let loaded = run_apart("akidb-load", open).await.map_err(no_thread)?;
    loaded.ok_or_else(|| broken("loading the model panicked"))?
}

/// Drops a call's work when nobody waits for it any more. The thread that submits it runs this after.
struct CancelOnDrop<'a>(Option<(&'a PythonThread<Task>, Submitted)>);

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if let Some((thread, submitted)) = self.0.take() {
            thread.run(move |py| submitted.cancel(py));
        }
    }
}
