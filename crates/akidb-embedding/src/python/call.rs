//! One call on its way through Python: arguments in, a future there, what its result holds out.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyWeakrefMethods, PyWeakrefReference};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::exceptions::embedding_error;
use super::failures::late;
use super::thread::reply;
use crate::{EmbeddingResult, Overflow};

/// What is asked of a model, and the way to read its answer.
pub(crate) trait Request: Send + 'static {
    /// What the result of Python's future becomes.
    type Answer: Send + 'static;

    /// How many texts or pairs there are, and their bytes.
    fn size(&self) -> (usize, usize);

    /// The first argument of Python's `submit`.
    fn inputs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>>;

    /// Add the options of `submit` to its keywords, but for the timeout.
    fn set_options(&self, keywords: &Bound<'_, PyDict>) -> PyResult<()>;

    /// Read the result.
    fn read(batch: &Bound<'_, PyAny>) -> PyResult<Self::Answer>;
}

/// The future of a call, known as soon as that was submitted. It is the model's to keep: one that the model forgets is
/// collected, and its callback with it, which ends the call.
#[derive(Clone, Default)]
pub(crate) struct Submitted(Arc<OnceLock<Py<PyWeakrefReference>>>);

impl Submitted {
    /// Cancel the call, if it was submitted and is not done.
    pub(crate) fn cancel(&self, py: Python<'_>) {
        let future = self.0.get().and_then(|future| future.bind(py).upgrade());
        if let Some(Err(error)) = future.map(|future| future.call_method0("cancel")) {
            tracing::error!("cancelling a call failed: {error}");
        }
    }
}

/// A call that waits for the thread that submits it.
pub(crate) struct Call<R: Request> {
    pub(crate) request: R,
    pub(crate) deadline: Option<Instant>,
    pub(crate) answer: oneshot::Sender<EmbeddingResult<R::Answer>>,
    pub(crate) submitted: Submitted,
    /// Its place in the queue of those that wait.
    pub(crate) place: OwnedSemaphorePermit,
}

impl<R: Request> Call<R> {
    /// Hand the request to the model, unless nobody waits any more. The answer comes from the model's own thread.
    pub(crate) fn submit(self, py: Python<'_>, model: &Bound<'_, PyAny>) {
        drop(self.place);
        if self.answer.is_closed() {
            return;
        }
        let remaining = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if remaining.is_some_and(|remaining| remaining.is_zero()) {
            return reply(self.answer, Err(late()));
        }
        let options = keywords(py, &self.request, remaining.map(|remaining| remaining.as_secs_f64()));
        let inputs = self.request.inputs(py);
        let future = options.and_then(|options| model.call_method("submit", (inputs?,), Some(&options)));
        let answer = self.answer;
        let future = match future {
            Ok(future) => future,
            Err(error) => return reply(answer, Err(embedding_error(py, &error))),
        };
        let when_done = WhenDone(Some(Box::new(move |future| {
            let outcome = future.call_method0("result").and_then(|batch| R::read(&batch));
            reply(answer, outcome.map_err(|error| embedding_error(future.py(), &error)));
        })));
        let watched = PyWeakrefReference::new(&future).and_then(|weak| {
            self.submitted.0.get_or_init(|| weak.unbind());
            future.call_method1("add_done_callback", (when_done,))
        });
        if let Err(error) = watched {
            error.write_unraisable(py, Some(&future)); // the caller hears of it by the channel that closed
        }
    }
}

/// Called by Python's future, once, on the thread that owns the model: it takes one copy and leaves.
#[pyclass]
struct WhenDone(Option<Deliver>);

type Deliver = Box<dyn FnOnce(&Bound<'_, PyAny>) + Send + Sync>;

#[pymethods]
impl WhenDone {
    fn __call__(&mut self, future: &Bound<'_, PyAny>) {
        if let Some(deliver) = self.0.take() {
            deliver(future);
        }
    }
}

fn keywords<'py, R: Request>(py: Python<'py>, request: &R, timeout: Option<f64>) -> PyResult<Bound<'py, PyDict>> {
    let keywords = PyDict::new(py);
    request.set_options(&keywords)?;
    if let Some(timeout) = timeout {
        keywords.set_item("timeout", timeout)?;
    }
    Ok(keywords)
}

/// Set the options that calls of every kind have.
pub(crate) fn set_common(keywords: &Bound<'_, PyDict>, prompt: Option<&str>, on_overflow: Overflow) -> PyResult<()> {
    if let Some(prompt) = prompt {
        keywords.set_item("prompt", prompt)?;
    }
    match on_overflow {
        Overflow::Truncate => Ok(()),
        Overflow::Error => keywords.set_item("on_overflow", "error"),
        Overflow::Chunk => keywords.set_item("on_overflow", "chunk"),
    }
}
