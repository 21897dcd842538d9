//! The bridge to Python functions: those of `akidb_mlx.ml_funcs`, or a user's own.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};
use std::time::Duration;

use async_trait::async_trait;
use pyo3::Python;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::timeout;
use tracing::instrument;

use super::ANSWER_WITHIN;
use super::at_exit::close_at_exit;
use super::environment::PythonEnvironment;
use super::failures::{late, no_thread};
use super::ml_functions::{DEFAULT_MODULE, Functions};
use super::question::Question;
use super::thread::{PythonThread, Task, reply, run_apart};
use crate::{EmbeddingError, Entity, MlBridge, MlBridgeError, MlBridgeResult};

/// Most texts that wait one by one and are embedded by one call.
const MOST_JOINED: usize = 256;

/// A bridge to five Python functions: `generate_embedding`, `generate_embeddings_batch`, `extract_entities`,
/// `summarize` and `health_check`.
///
/// Single texts, batches, entities and summaries each have a thread and a queue of their own, so that none waits for
/// another kind. Texts that wait for `generate_embedding` share a call of `generate_embeddings_batch`. A call whose
/// future is dropped before its turn is not made. Python is never finalised, so call [`close`](Self::close) before the
/// process ends.
pub struct PyMlBridge {
    module: PathBuf,
    limit: Option<Duration>,
    functions: Arc<Functions>,
    health: Question<MlBridgeResult<bool>>,
    embeddings: PythonThread<Single>,
    batches: CallThread,
    entities: CallThread,
    summaries: CallThread,
    control: PythonThread<Task>,
}

/// The thread of one kind of calls.
struct CallThread {
    thread: PythonThread<Task>,
    /// Whether the end of the process is hooked: after the first call, which loads what the others need.
    hooked: Arc<Once>,
}

/// A text that waits for its vector.
struct Single {
    text: String,
    answer: oneshot::Sender<MlBridgeResult<Vec<f32>>>,
    _place: OwnedSemaphorePermit,
}

impl PyMlBridge {
    /// Import the functions of a module.
    ///
    /// `python_module_path` is a folder with an `ml_funcs.py` (or a package of that name), or a module's dotted name,
    /// as in `"akidb_mlx.ml_funcs"`. It blocks while Python starts and imports: in async code, use
    /// [`load`](Self::load).
    ///
    /// # Errors
    ///
    /// `PythonInit` when there is no Python, `ModuleImport` when the module is not found, fails or lacks a function.
    pub fn new(python_module_path: impl AsRef<Path>) -> MlBridgeResult<Self> {
        Self::open(python_module_path, &PythonEnvironment::default())
    }

    /// Import the functions of akidb-mlx.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn default_module() -> MlBridgeResult<Self> {
        Self::new(DEFAULT_MODULE)
    }

    /// Import the functions of a module in another Python environment than the default; see [`new`](Self::new).
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    #[instrument(name = "load", skip_all, fields(module = %python_module_path.as_ref().display()))]
    pub fn open(python_module_path: impl AsRef<Path>, python: &PythonEnvironment) -> MlBridgeResult<Self> {
        let module = python_module_path.as_ref().to_owned();
        let interpreter = python.started()?;
        let functions = Arc::new(Functions::find(&module, &interpreter)?);
        let thread = |name| PythonThread::of_tasks(name).map_err(no_thread);
        let calls = |name| Ok::<_, EmbeddingError>(CallThread { thread: thread(name)?, hooked: Arc::new(Once::new()) });
        let hooked = Once::new();
        let (embedding, asked) = (Arc::clone(&functions), Arc::clone(&functions));
        Ok(Self {
            module,
            limit: None,
            functions,
            health: Question::new(move |py| asked.healthy(py)),
            embeddings: PythonThread::spawn("akidb-ml-embed", move |py, waiting| {
                embed_all(py, &embedding, waiting, &hooked);
            })
            .map_err(no_thread)?,
            batches: calls("akidb-ml-batch")?,
            entities: calls("akidb-ml-entities")?,
            summaries: calls("akidb-ml-summary")?,
            control: thread("akidb-ml-control")?,
        })
    }

    /// Import the functions of a module on a thread of its own; see [`open`](Self::open).
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub async fn load(python_module_path: impl AsRef<Path>, python: PythonEnvironment) -> MlBridgeResult<Self> {
        let module = python_module_path.as_ref().to_owned();
        let loaded = run_apart("akidb-ml-load", move || Self::open(module, &python)).await.map_err(no_thread)?;
        loaded.ok_or_else(panicked)?
    }

    /// Let no call take longer than this, waiting included.
    ///
    /// A call that is not answered by then fails, and is not made if its turn has not come. A function that runs in
    /// Python cannot be interrupted: it goes on, and the next call of its kind waits for it.
    #[must_use]
    pub fn with_timeout(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Free what the functions loaded, if their module has a function `close` too. The next call may load it again.
    ///
    /// # Errors
    ///
    /// `FunctionCall`: it raised an exception, or did not return within the [timeout](Self::with_timeout).
    #[instrument(skip_all)]
    pub async fn close(&self) -> MlBridgeResult<()> {
        let functions = Arc::clone(&self.functions);
        let closed = run_apart("akidb-ml-close", move || Python::attach(|py| functions.release(py)));
        self.within(async { closed.await.map_err(no_thread)?.ok_or_else(panicked)? }).await
    }

    /// Call a function on a thread, if somebody still waits when its turn comes.
    async fn call<T: Send + 'static>(
        &self,
        kind: &CallThread,
        call: impl FnOnce(Python<'_>, &Functions) -> MlBridgeResult<T> + Send + 'static,
    ) -> MlBridgeResult<T> {
        let (functions, hooked) = (Arc::clone(&self.functions), Arc::clone(&kind.hooked));
        let (answer, answered) = oneshot::channel();
        let place = kind.thread.take_place()?;
        kind.thread.run(move |py| {
            drop(place);
            if !answer.is_closed() {
                let outcome = call(py, &functions);
                hooked.call_once(close_at_exit);
                reply(answer, outcome);
            }
        });
        self.within(async { answered.await.map_err(|_| panicked())? }).await
    }

    /// Wait for an answer, until the timeout.
    async fn within<T>(&self, answer: impl Future<Output = MlBridgeResult<T>>) -> MlBridgeResult<T> {
        match self.limit {
            None => answer.await,
            Some(limit) => timeout(limit, answer).await.unwrap_or_else(|_| Err(late().into())),
        }
    }
}

impl fmt::Debug for PyMlBridge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = formatter.debug_struct("PyMlBridge");
        fields.field("module", &self.module).field("timeout", &self.limit).finish_non_exhaustive()
    }
}

#[async_trait]
impl MlBridge for PyMlBridge {
    #[instrument(level = "debug", skip_all, fields(bytes = text.len()))]
    async fn generate_embedding(&self, text: &str) -> MlBridgeResult<Vec<f32>> {
        let (answer, answered) = oneshot::channel();
        self.embeddings.send(Single { text: text.to_owned(), answer, _place: self.embeddings.take_place()? });
        self.within(async { answered.await.map_err(|_| panicked())? }).await
    }

    #[instrument(level = "debug", skip_all, fields(texts = texts.len()))]
    async fn generate_embeddings_batch(&self, texts: &[String]) -> MlBridgeResult<Vec<Vec<f32>>> {
        let texts = texts.to_vec();
        self.call(&self.batches, move |py, functions| functions.embed_batch(py, &texts)).await
    }

    #[instrument(level = "debug", skip_all, fields(bytes = text.len()))]
    async fn extract_entities(&self, text: &str) -> MlBridgeResult<Vec<Entity>> {
        let text = text.to_owned();
        self.call(&self.entities, move |py, functions| functions.entities(py, &text)).await
    }

    #[instrument(level = "debug", skip_all, fields(messages = messages.len()))]
    async fn summarize(&self, messages: &[String]) -> MlBridgeResult<String> {
        let messages = messages.to_vec();
        self.call(&self.summaries, move |py, functions| functions.summary(py, &messages)).await
    }

    /// Also false when Python does not answer within 5 s, or within the [timeout](PyMlBridge::with_timeout). All who
    /// ask at once share one call.
    #[instrument(level = "debug", skip_all)]
    async fn health_check(&self) -> MlBridgeResult<bool> {
        let limit = self.limit.map_or(ANSWER_WITHIN, |limit| limit.min(ANSWER_WITHIN));
        match timeout(limit, self.health.answer(&self.control)).await {
            Ok(healthy) => healthy.unwrap_or_else(|| Err(panicked())),
            Err(_) => {
                tracing::warn!("health_check did not answer within {limit:?}");
                Ok(false)
            }
        }
    }
}

/// Embed what waits, many texts a call. When a call fails its texts go one by one, so that each gets its own error.
fn embed_all(py: Python<'_>, functions: &Functions, waiting: Vec<Single>, hooked: &Once) {
    // Looked at before each call, as callers may leave during the one before.
    let wanted = |single: &Single| !single.answer.is_closed();
    let mut waiting = waiting.into_iter().filter(wanted);
    loop {
        let joined: Vec<Single> = waiting.by_ref().take(MOST_JOINED).collect();
        if joined.is_empty() {
            return;
        }
        let texts: Vec<&str> = joined.iter().map(|single| single.text.as_str()).collect();
        let vectors = if texts.len() > 1 { functions.embed_batch(py, &texts).ok() } else { None };
        match vectors {
            Some(vectors) => {
                hooked.call_once(close_at_exit);
                joined.into_iter().zip(vectors).for_each(|(single, vector)| reply(single.answer, Ok(vector)));
            }
            None => joined.into_iter().filter(wanted).for_each(|single| {
                let vector = functions.embed(py, &single.text);
                hooked.call_once(close_at_exit);
                reply(single.answer, vector);
            }),
        }
    }
}

fn panicked() -> MlBridgeError {
    MlBridgeError::FunctionCall("the thread that runs Python ended the call without an answer".into())
}
