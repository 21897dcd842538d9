//! The bridge to Python functions: those of `akidb_mlx.ml_funcs`, or a user's own.

use std::ffi::CStr;
use std::path::{Path, absolute};
use std::sync::{Arc, Once};

use async_trait::async_trait;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use super::at_exit::close_at_exit;
use super::environment::PythonEnvironment;
use super::exceptions::{call_error, failure};
use super::thread::{PythonThread, Task, reply, take_place};
use super::{ANSWER_WITHIN, MAX_WAITING, RETRY_AFTER};
use crate::{Entity, Failure, MlBridge, MlBridgeError, MlBridgeResult};

/// The module of akidb-mlx itself.
const DEFAULT_MODULE: &str = "akidb_mlx.ml_funcs";

/// Finds the module and its functions.
const FINDER: &CStr = pyo3::ffi::c_str!(include_str!("ml_module.py"));

/// The module in a folder.
const IN_FOLDER: &str = "ml_funcs";

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
    health: PythonThread<Task>,
}

/// What `ml_module.py` found, in its order.
#[derive(FromPyObject)]
struct Functions {
    #[pyo3(item(0))]
    generate_embedding: Py<PyAny>,
    #[pyo3(item(1))]
    generate_embeddings_batch: Py<PyAny>,
    #[pyo3(item(2))]
    extract_entities: Py<PyAny>,
    #[pyo3(item(3))]
    summarize: Py<PyAny>,
    #[pyo3(item(4))]
    health_check: Py<PyAny>,
    #[pyo3(item(5))]
    close: Option<Py<PyAny>>,
}

/// A text that waits for its vector.
struct Single {
    text: String,
    answer: oneshot::Sender<MlBridgeResult<Vec<f32>>>,
    _place: OwnedSemaphorePermit,
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
        let (name, folder) = module(python_module_path.as_ref())?;
        let functions = Python::attach(|py| {
            let finder = PyModule::from_code(py, FINDER, c"ml_module.py", c"akidb_embedding_ml_module")?;
            finder.getattr("find")?.call1((&name, &folder))?.extract()
        });
        let functions: Arc<Functions> = Arc::new(functions.map_err(|error: PyErr| {
            let mut failure = Python::attach(|py| failure(py, &error));
            failure.message = format!("{} (Python: {})", failure.message, interpreter.display());
            MlBridgeError::ModuleImport(failure)
        })?);
        let no_thread = |error| MlBridgeError::PythonInit(format!("no thread could be started: {error}").into());
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
            health: thread("akidb-ml-health")?,
        })
    }

    /// Free what the functions loaded, if their module has a `close` too. The next call may load it again.
    ///
    /// # Errors
    ///
    /// `FunctionCall`: what it raised.
    pub async fn close(&self) -> MlBridgeResult<()> {
        let call = |py: Python<'_>, functions: &Functions| match &functions.close {
            Some(close) => close.call0(py).map(drop).map_err(|error| call_error(py, &error)),
            None => Ok(()),
        };
        self.call(&self.health, call).await
    }

    fn place(&self) -> MlBridgeResult<OwnedSemaphorePermit> {
        take_place(&self.places).ok_or_else(|| {
            MlBridgeError::FunctionCall(Failure {
                retry_after: Some(RETRY_AFTER),
                ..format!("{MAX_WAITING} calls wait for Python already; try again in {RETRY_AFTER:?}").into()
            })
        })
    }

    /// Call a function on a thread, if somebody still waits when its turn comes.
    async fn call<T: Send + 'static>(
        &self,
        thread: &PythonThread<Task>,
        call: impl FnOnce(Python<'_>, &Functions) -> MlBridgeResult<T> + Send + 'static,
    ) -> MlBridgeResult<T> {
        let place = self.place()?;
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
        self.call(&self.batches, move |py, functions| functions.embed_batch(py, &texts)).await
    }

    async fn extract_entities(&self, text: &str) -> MlBridgeResult<Vec<Entity>> {
        let text = text.to_owned();
        let call = move |py: Python<'_>, functions: &Functions| {
            let found = functions.extract_entities.bind(py).call1((&text,)).map_err(|error| call_error(py, &error))?;
            entities(&text, &found).map_err(|error| wrong_type(py, "extract_entities", &error))
        };
        self.call(&self.entities, call).await
    }

    async fn summarize(&self, messages: &[String]) -> MlBridgeResult<String> {
        let messages = messages.to_vec();
        let call = move |py: Python<'_>, functions: &Functions| {
            let summary = functions.summarize.bind(py).call1((messages,)).map_err(|error| call_error(py, &error))?;
            summary.extract().map_err(|error| wrong_type(py, "summarize", &error))
        };
        self.call(&self.summaries, call).await
    }

    /// False as well when Python does not answer within 5 s.
    async fn health_check(&self) -> MlBridgeResult<bool> {
        let call = |py: Python<'_>, functions: &Functions| {
            let healthy = functions.health_check.bind(py).call0().map_err(|error| call_error(py, &error))?;
            healthy.extract().map_err(|error| wrong_type(py, "health_check", &error))
        };
        timeout(ANSWER_WITHIN, self.call(&self.health, call)).await.unwrap_or_else(|_| {
            tracing::warn!("health_check did not answer within {ANSWER_WITHIN:?}");
            Ok(false)
        })
    }
}

impl Functions {
    fn embed(&self, py: Python<'_>, text: &str) -> MlBridgeResult<Vec<f32>> {
        let vector = self.generate_embedding.bind(py).call1((text,)).map_err(|error| call_error(py, &error))?;
        plain(&vector).and_then(|vector| vector.extract()).map_err(|error| wrong_type(py, "generate_embedding", &error))
    }

    fn embed_batch(&self, py: Python<'_>, texts: &[String]) -> MlBridgeResult<Vec<Vec<f32>>> {
        let vectors =
            self.generate_embeddings_batch.bind(py).call1((texts,)).map_err(|error| call_error(py, &error))?;
        let vectors: Vec<Vec<f32>> = plain(&vectors)
            .and_then(|vectors| vectors.extract())
            .map_err(|error| wrong_type(py, "generate_embeddings_batch", &error))?;
        if vectors.len() == texts.len() {
            return Ok(vectors);
        }
        let found = vectors.len();
        let message = format!("generate_embeddings_batch returned {found} vectors for {} texts", texts.len());
        Err(MlBridgeError::TypeConversion(message.into()))
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

/// The module's name, and the folder to look for it if it is not to be imported by name.
fn module(path: &Path) -> MlBridgeResult<(String, Option<String>)> {
    let unusable = |why: &str| MlBridgeError::ModuleImport(format!("{}: {why}", path.display()).into());
    let name = path.to_str().ok_or_else(|| unusable("not UTF-8; use another path"))?;
    if path.is_dir() {
        let folder = absolute(path).map_err(|error| unusable(&error.to_string()))?;
        return Ok((IN_FOLDER.to_owned(), folder.to_str().map(str::to_owned)));
    }
    let is_identifier = |part: &str| !part.is_empty() && part.chars().all(|c| c == '_' || c.is_alphanumeric());
    if !path.exists() && name.contains('.') && name.split('.').all(is_identifier) {
        return Ok((name.to_owned(), None));
    }
    let found = if path.exists() { "a file" } else { "nothing" };
    Err(unusable(&format!(
        "neither a folder with ml_funcs.py nor a module's dotted name, as {DEFAULT_MODULE}; found {found}"
    )))
}

/// Lists instead of NumPy's arrays.
fn plain<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    match value.getattr_opt("tolist")? {
        Some(tolist) => tolist.call0(),
        None => Ok(value.clone()),
    }
}

/// Entities with byte offsets beside Python's, which count characters.
fn entities(text: &str, found: &Bound<'_, PyAny>) -> PyResult<Vec<Entity>> {
    let ends = text.char_indices().map(|(byte, _)| byte).chain([text.len()]);
    let bytes: Vec<usize> = ends.collect();
    let entity = |entity: Bound<'_, PyAny>| {
        let entity = entity.cast::<PyDict>()?.as_any();
        let (start, end): (usize, usize) = (entity.get_item("start")?.extract()?, entity.get_item("end")?.extract()?);
        let said: String = entity.get_item("text")?.extract()?;
        let range = bytes.get(start).zip(bytes.get(end)).filter(|(from, to)| from <= to);
        match range {
            Some((&start_byte, &end_byte)) if text[start_byte..end_byte] == said => {
                Ok(Entity { text: said, label: entity.get_item("label")?.extract()?, start, end, start_byte, end_byte })
            }
            _ => Err(pyo3::exceptions::PyValueError::new_err(format!(
                "the entity {said:?} is not at {start}..{end} of its text, counted in characters"
            ))),
        }
    };
    found.try_iter()?.map(|found| entity(found?)).collect()
}

fn wrong_type(py: Python<'_>, function: &str, error: &PyErr) -> MlBridgeError {
    let mut failure = failure(py, error);
    failure.message = format!("{function} returned something else than was agreed on: {}", failure.message);
    MlBridgeError::TypeConversion(failure)
}

fn panicked() -> MlBridgeError {
    MlBridgeError::FunctionCall("the thread that runs Python ended the call without an answer".into())
}
