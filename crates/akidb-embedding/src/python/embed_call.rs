//! One call on its way through Python: texts in, a future there, bytes out.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyWeakrefMethods, PyWeakrefReference};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::exceptions::embedding_error;
use super::failures::late;
use super::thread::reply;
use crate::{EmbedOptions, EmbeddingResult, Overflow};

/// What the vectors of a call become; from Python's bytes in one copy.
pub(crate) trait Layout: Send + 'static {
    /// `bytes` are float32 in this machine's order, `dimension` a row.
    fn of(bytes: &[u8], dimension: usize) -> Self;
}

impl Layout for Vec<f32> {
    fn of(bytes: &[u8], _: usize) -> Self {
        let (values, _) = bytes.as_chunks();
        values.iter().map(|value| f32::from_ne_bytes(*value)).collect()
    }
}

impl Layout for Vec<Vec<f32>> {
    fn of(bytes: &[u8], dimension: usize) -> Self {
        bytes.chunks_exact(4 * dimension.max(1)).map(|row| Layout::of(row, dimension)).collect()
    }
}

/// The `EmbeddingBatch` of a call.
pub(crate) struct Embedded<L> {
    pub(crate) vectors: L,
    pub(crate) dimension: usize,
    pub(crate) token_counts: Vec<usize>,
    pub(crate) truncated: Vec<bool>,
}

/// The future of a call, known as soon as that was submitted. It is the service's to keep: one that the service forgets
/// is collected, and its callback with it, which ends the call.
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
pub(crate) struct EmbedCall<L> {
    pub(crate) texts: Vec<String>,
    pub(crate) normalize: bool,
    pub(crate) options: EmbedOptions,
    pub(crate) deadline: Option<Instant>,
    pub(crate) answer: oneshot::Sender<EmbeddingResult<Embedded<L>>>,
    pub(crate) submitted: Submitted,
    /// Its place in the queue of those that wait.
    pub(crate) place: OwnedSemaphorePermit,
}

impl<L: Layout> EmbedCall<L> {
    /// Hand the texts to the service, unless nobody waits any more. The answer comes from the service's own thread.
    pub(crate) fn submit(self, py: Python<'_>, service: &Bound<'_, PyAny>) {
        drop(self.place);
        if self.answer.is_closed() {
            return;
        }
        let remaining = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if remaining.is_some_and(|remaining| remaining.is_zero()) {
            return reply(self.answer, Err(late()));
        }
        let options = keywords(py, self.normalize, &self.options, remaining.map(|remaining| remaining.as_secs_f64()));
        let texts = PyList::new(py, &self.texts);
        let future = options.and_then(|options| service.call_method("submit", (texts?,), Some(&options)));
        let answer = self.answer;
        let future = match future {
            Ok(future) => future,
            Err(error) => return reply(answer, Err(embedding_error(py, &error))),
        };
        let when_done = WhenDone(Some(Box::new(move |future| {
            let outcome = future.call_method0("result").and_then(|batch| read(&batch));
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

fn keywords<'py>(
    py: Python<'py>,
    normalize: bool,
    options: &EmbedOptions,
    timeout: Option<f64>,
) -> PyResult<Bound<'py, PyDict>> {
    let keywords = PyDict::new(py);
    if !normalize {
        keywords.set_item("normalize", false)?;
    }
    if let Some(input_type) = &options.input_type {
        keywords.set_item("input_type", input_type)?;
    }
    if let Some(prompt) = &options.prompt {
        keywords.set_item("prompt", prompt)?;
    }
    if let Some(dimensions) = options.dimensions {
        keywords.set_item("dimensions", dimensions)?;
    }
    match options.on_overflow {
        Overflow::Truncate => {}
        Overflow::Error => keywords.set_item("on_overflow", "error")?,
        Overflow::Chunk => keywords.set_item("on_overflow", "chunk")?,
    }
    if let Some(timeout) = timeout {
        keywords.set_item("timeout", timeout)?;
    }
    Ok(keywords)
}

/// What an `EmbeddingBatch` holds. Bytes, because abi3 has the buffer protocol only from Python 3.11.
fn read<L: Layout>(batch: &Bound<'_, PyAny>) -> PyResult<Embedded<L>> {
    let dimension: usize = batch.getattr("dimension")?.extract()?;
    let token_counts: Vec<usize> = batch.getattr("token_counts")?.extract()?;
    let bytes = batch.getattr("vectors")?.call_method0("tobytes")?.cast_into::<PyBytes>()?;
    let (found, texts) = (bytes.as_bytes().len(), token_counts.len());
    if found != 4 * dimension * texts {
        let message =
            format!("found {found} bytes instead of float32 vectors of {texts} texts, {dimension} values each");
        return Err(PyValueError::new_err(message));
    }
    Ok(Embedded {
        vectors: L::of(bytes.as_bytes(), dimension),
        dimension,
        token_counts,
        truncated: batch.getattr("truncated")?.extract()?,
    })
}
