//! A thread that does nothing but run Python, so that no thread of the caller's has to.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::{io, thread};

use pyo3::Python;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::failures::full;
use crate::EmbeddingResult;
use crate::failures::MAX_WAITING;

/// A piece of work for such a thread.
pub(crate) type Task = Box<dyn FnOnce(Python<'_>) + Send>;

/// Runs what it is sent in order, attached to Python once for all that waits. It ends when its handle is dropped.
///
/// Each thread has its own bound, so that calls of one kind never take the places of another.
#[derive(Debug)]
pub(crate) struct PythonThread<M> {
    messages: mpsc::UnboundedSender<M>,
    places: Arc<Semaphore>,
}

impl PythonThread<Task> {
    /// Start a thread that runs closures.
    pub(crate) fn of_tasks(name: &str) -> io::Result<Self> {
        Self::spawn(name, |py, tasks| tasks.into_iter().for_each(|task| run_one(|| task(py))))
    }

    /// Run a closure later. When it is dropped instead, the channel it answers over says so.
    pub(crate) fn run(&self, task: impl FnOnce(Python<'_>) + Send + 'static) {
        self.send(Box::new(task));
    }
}

impl<M: Send + 'static> PythonThread<M> {
    /// Start a thread that hands everything that waits to `handle`.
    pub(crate) fn spawn(name: &str, handle: impl Fn(Python<'_>, Vec<M>) + Send + 'static) -> io::Result<Self> {
        let (messages, mut waiting) = mpsc::unbounded_channel();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            while let Some(first) = waiting.blocking_recv() {
                Python::attach(|py| {
                    let mut batch = vec![first];
                    while let Ok(next) = waiting.try_recv() {
                        batch.push(next);
                    }
                    run_one(|| handle(py, batch));
                });
            }
        })?;
        Ok(Self { messages, places: Arc::new(Semaphore::new(MAX_WAITING)) })
    }

    /// Take a place among the calls that wait for this thread; it is given back when it is dropped.
    ///
    /// A message keeps its place until the thread takes it, also when its caller has gone: so the queue is bounded.
    pub(crate) fn take_place(&self) -> EmbeddingResult<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| full())
    }

    /// Hand a message over; one that the thread does not take any more is dropped, with the channel it answers over.
    pub(crate) fn send(&self, message: M) {
        let _ = self.messages.send(message);
    }
}

/// A panic is the fault of one task; its own channel tells whoever waits, and the next runs.
fn run_one(task: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(task)).is_err() {
        tracing::error!("a task of a thread that runs Python panicked");
    }
}

/// Run something that waits on a thread of its own. `None` when it panicked.
pub(crate) async fn run_apart<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Option<T>> {
    let (answer, answered) = oneshot::channel();
    let span = tracing::Span::current();
    thread::Builder::new().name(name.to_owned()).spawn(move || reply(answer, span.in_scope(work)))?;
    Ok(answered.await.ok())
}

/// Answer whoever asked, who may have gone.
pub(crate) fn reply<T>(to: oneshot::Sender<T>, answer: T) {
    let _ = to.send(answer);
}
