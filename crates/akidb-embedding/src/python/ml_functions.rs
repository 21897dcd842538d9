//! The Python functions of a bridge: where they are found, and what they must return.

use std::ffi::CStr;
use std::path::Path;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::exceptions::{call_error, failure};
use crate::{Entity, MlBridgeError, MlBridgeResult};

/// The module of akidb-mlx itself.
pub(crate) const DEFAULT_MODULE: &str = "akidb_mlx.ml_funcs";

/// Finds the module and its functions.
const FINDER: &CStr = pyo3::ffi::c_str!(include_str!("ml_module.py"));

/// The module in a folder.
const IN_FOLDER: &str = "ml_funcs";

/// What `ml_module.py` found, in its order.
#[derive(FromPyObject)]
pub(crate) struct Functions {
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

impl Functions {
    /// Import them; `interpreter` is for messages.
    pub(crate) fn find(path: &Path, interpreter: &Path) -> MlBridgeResult<Self> {
        let (name, folder) = module(path)?;
        let find = |py: Python<'_>| {
            let finder = PyModule::from_code(py, FINDER, c"ml_module.py", c"akidb_embedding_ml_module")?;
            finder.getattr("find")?.call1((&name, &folder))?.extract()
        };
        Python::attach(|py| {
            find(py).map_err(|error: PyErr| {
                let mut failure = failure(py, &error);
                failure.message = format!("{} (Python: {})", failure.message, interpreter.display());
                MlBridgeError::ModuleImport(failure)
            })
        })
    }

    pub(crate) fn embed(&self, py: Python<'_>, text: &str) -> MlBridgeResult<Vec<f32>> {
        let vector = self.generate_embedding.bind(py).call1((text,)).map_err(|error| call_error(py, &error))?;
        plain(&vector).and_then(|vector| vector.extract()).map_err(|error| wrong_type(py, "generate_embedding", &error))
    }

    pub(crate) fn embed_batch(&self, py: Python<'_>, texts: &[impl AsRef<str>]) -> MlBridgeResult<Vec<Vec<f32>>> {
        let call = |texts| self.generate_embeddings_batch.bind(py).call1((texts,));
        let vectors = PyList::new(py, texts.iter().map(AsRef::as_ref)).and_then(call);
        let vectors = vectors.map_err(|error| call_error(py, &error))?;
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

    pub(crate) fn entities(&self, py: Python<'_>, text: &str) -> MlBridgeResult<Vec<Entity>> {
        let found = self.extract_entities.bind(py).call1((text,)).map_err(|error| call_error(py, &error))?;
        entities(text, &found).map_err(|error| wrong_type(py, "extract_entities", &error))
    }

    pub(crate) fn summary(&self, py: Python<'_>, messages: &[String]) -> MlBridgeResult<String> {
        let summary = self.summarize.bind(py).call1((messages,)).map_err(|error| call_error(py, &error))?;
        summary.extract().map_err(|error| wrong_type(py, "summarize", &error))
    }

    pub(crate) fn healthy(&self, py: Python<'_>) -> MlBridgeResult<bool> {
        let healthy = self.health_check.bind(py).call0().map_err(|error| call_error(py, &error))?;
        healthy.extract().map_err(|error| wrong_type(py, "health_check", &error))
    }

    /// Free what the module loaded, if it can.
    pub(crate) fn release(&self, py: Python<'_>) -> MlBridgeResult<()> {
        let closed = self.close.as_ref().map_or(Ok(()), |close| close.call0(py).map(drop));
        closed.map_err(|error| call_error(py, &error))
    }
}

/// The module's name, and the folder to look for it if it is not to be imported by name.
fn module(path: &Path) -> MlBridgeResult<(String, Option<String>)> {
    let unusable = |why: &str| MlBridgeError::ModuleImport(format!("{}: {why}", path.display()).into());
    let name = path.to_str().ok_or_else(|| unusable("not UTF-8; use another path"))?;
    if path.is_dir() {
        let folder = path.canonicalize().map_err(|error| unusable(&error.to_string()))?;
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
            _ => Err(PyValueError::new_err(format!(
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
