//! The bridge to Python functions: those of `akidb_mlx.ml_funcs`, or a user's own.

use std::path::Path;
use std::sync::{Arc, Once};

use async_trait::async_trait;
use pyo3::Python;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use super::at_exit::close_at_exit;
use super::environment::PythonEnvironment;
use super::failures::no_thread;
use super::ml_functions::{DEFAULT_MODULE, Functions};
use super::thread::{PythonThread, Task, reply, take_place};
use super::{ANSWER_WITHIN, MAX_WAITING};
use crate::{Entity, MlBridge, MlBridgeError, MlBridgeResult};

/// Most texts that wait one by one and are embedded by one call.
const MOST_JOINED: usize = 256;

/// A bridge to five Python functions: `generate_embedding`, `generate_embeddings_batch`, `extract_entities`,
/// `summarize` and `health_check`.
///
/// Vectors, entities and summaries each have a thread, so that none waits for another kind; texts that wait for
/// `generate_embedding` share a call of `generate_embeddings_batch`. A call whose future is dropped before its turn is
/// not made. Python is never finalised, so call [`close`](Self::close) before the process ends.
pub struct PyMlBridge {
    functions: Arc<Functions>,
    places: Arc<Semaphore>,
    embeddings: PythonThread<Single>,
    batches: PythonThread<Task>,
    entities: PythonThread<Task>,
    summaries: PythonThread<Task>,
    control: PythonThread<Task>,
}

/// A text that waits for its vector.
struct Single {
    text: String,
    answer: oneshot::Sender<MlBridgeResult<Vec<f32>>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl PyMlBridge {
    /// The functions of `ml_funcs.py` (or of a package of that name) in a folder, or of a module's dotted name, as in
    /// `"akidb_mlx.ml_funcs"`. It imports the module, and so may wait.
    ///
    /// # Errors
    ///
    /// `PythonInit` when there is no Python, `ModuleImport` when the module is not found, fails or lacks a function.
    pub fn new(python_module_path: impl AsRef<Path>) -> MlBridgeResult<Self> {
        Self::open(python_module_path, &PythonEnvironment::default())
    }

    /// The functions of akidb-mlx.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn default_module() -> MlBridgeResult<Self> {
        Self::new(DEFAULT_MODULE)
    }

    /// [`new`](Self::new), in another Python environment than the default.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn open(python_module_path: impl AsRef<Path>, python: &PythonEnvironment) -> MlBridgeResult<Self> {
        let interpreter = python.started()?;
        let functions = Arc::new(Functions::find(python_module_path.as_ref(), &interpreter)?);
        let thread = |name| PythonThread::of_tasks(name).map_err(no_thread);
        let embedding = Arc::clone(&functions);
        Ok(Self {
            functions,
            places: Arc::new(Semaphore::new(MAX_WAITING)),
            embeddings: PythonThread::spawn("akidb-ml-embed", move |py, waiting| embed_all(py, &embedding, waiting))
                .map_err(no_thread)?,
            batches: thread("akidb-ml-batch")?,
            entities: thread("akidb-ml-entities")?,
            summaries: thread("akidb-ml-summary")?,
            control: thread("akidb-ml-control")?,
        })
    }

    /// Free what the functions loaded, if their module has a `close` too. The next call may load it again.
    ///
    /// # Errors
    ///
    /// `FunctionCall`: what it raised.
    pub async fn close(&self) -> MlBridgeResult<()> {
        self.call(&self.control, None, |py, functions| functions.release(py)).await
    }

    fn place(&self) -> MlBridgeResult<Option<OwnedSemaphorePermit>> {
        Ok(Some(take_place(&self.places)?))
    }

    /// Call a function on a thread, if somebody still waits when its turn comes. Until then it keeps its place.
    async fn call<T: Send + 'static>(
        &self,
        thread: &PythonThread<Task>,
        place: Option<OwnedSemaphorePermit>,
        call: impl FnOnce(Python<'_>, &Functions) -> MlBridgeResult<T> + Send + 'static,
    ) -> MlBridgeResult<T> {
        let functions = Arc::clone(&self.functions);
        let (answer, answered) = oneshot::channel();
        thread.run(move |py| {
            drop(place);
            if !answer.is_closed() {
                reply(answer, call(py, &functions));
                close_at_exit_once();
            }
        });
        answered.await.map_err(|_| panicked())?
    }
}

#[async_trait]
impl MlBridge for PyMlBridge {
    async fn generate_embedding(&self, text: &str) -> MlBridgeResult<Vec<f32>> {
        let (answer, answered) = oneshot::channel();
        self.embeddings.send(Single { text: text.to_owned(), answer, _place: self.place()? });
        answered.await.map_err(|_| panicked())?
    }

    async fn generate_embeddings_batch(&self, texts: &[String]) -> MlBridgeResult<Vec<Vec<f32>>> {
        let texts = texts.to_vec();
        self.call(&self.batches, self.place()?, move |py, functions| functions.embed_batch(py, &texts)).await
    }

    async fn extract_entities(&self, text: &str) -> MlBridgeResult<Vec<Entity>> {
        let text = text.to_owned();
        self.call(&self.entities, self.place()?, move |py, functions| functions.entities(py, &text)).await
    }

    async fn summarize(&self, messages: &[String]) -> MlBridgeResult<String> {
        let messages = messages.to_vec();
        self.call(&self.summaries, self.place()?, move |py, functions| functions.summary(py, &messages)).await
    }

    /// False as well when Python does not answer within 5 s.
    async fn health_check(&self) -> MlBridgeResult<bool> {
        let healthy = self.call(&self.control, None, |py, functions| functions.healthy(py));
        timeout(ANSWER_WITHIN, healthy).await.unwrap_or_else(|_| {
            tracing::warn!("health_check did not answer within {ANSWER_WITHIN:?}");
            Ok(false)
        })
    }
}

/// Embed what waits, many texts a call. When a call fails its texts go one by one, so that each gets its own error.
fn embed_all(py: Python<'_>, functions: &Functions, mut waiting: Vec<Single>) {
    waiting.retain(|single| !single.answer.is_closed());
    while !waiting.is_empty() {
        let rest = waiting.split_off(waiting.len().min(MOST_JOINED));
        let joined = std::mem::replace(&mut waiting, rest);
        let texts: Vec<String> = joined.iter().map(|single| single.text.clone()).collect();
        let vectors = if texts.len() > 1 { functions.embed_batch(py, &texts).ok() } else { None };
        let outcomes: Vec<_> = match vectors {
            Some(vectors) => vectors.into_iter().map(Ok).collect(),
            None => texts.iter().map(|text| functions.embed(py, text)).collect(),
        };
        close_at_exit_once();
        for (single, outcome) in joined.into_iter().zip(outcomes) {
            reply(single.answer, outcome);
        }
    }
}

/// By now the functions have loaded what they need.
fn close_at_exit_once() {
    static HOOKED: Once = Once::new();
    HOOKED.call_once(close_at_exit);
}

fn panicked() -> MlBridgeError {
    MlBridgeError::FunctionCall("the thread that runs Python ended the call without an answer".into())
}
