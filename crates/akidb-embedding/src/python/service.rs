//! Python's `EmbeddingService` and `Reranker`: how they are made, and what is asked of them besides their calls.

use std::path::Path;

use pyo3::exceptions::PyModuleNotFoundError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::environment::PythonEnvironment;
use super::exceptions::{embedding_error, failure};
use super::failures::unavailable;
use crate::{EmbeddingError, EmbeddingResult, MlBridgeError, ModelInfo, RerankerInfo};

/// The options of a service, which apply to all its calls.
///
/// ```
/// # use akidb_embedding::ServiceOptions;
/// let options = ServiceOptions::default().with_device("cpu").with_dimensions(512);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceOptions {
    /// The number of values in a vector unless a call says otherwise. `None`: that of the settings
    /// (`AKIDB_DIMENSIONS`), else the catalogue's default. A reranker has none.
    pub dimensions: Option<u32>,
    /// The most tokens of a pair that a reranker reads. `None`: what the model's files say. For rerankers only.
    pub max_length: Option<u32>,
    /// `"auto"`, `"gpu"` or `"cpu"`. `None`: that of the settings (`AKIDB_DEVICE`).
    pub device: Option<String>,
    /// Whether a model that is not on this machine may be downloaded. True by default.
    pub auto_download: bool,
    /// The place of Python and its packages.
    pub python: PythonEnvironment,
}

impl ServiceOptions {
    /// Set [`dimensions`](Self::dimensions).
    #[must_use]
    pub fn with_dimensions(mut self, dimensions: u32) -> Self {
        self.dimensions = Some(dimensions);
        self
    }

    /// Set [`max_length`](Self::max_length).
    #[must_use]
    pub fn with_max_length(mut self, max_length: u32) -> Self {
        self.max_length = Some(max_length);
        self
    }

    /// Set [`device`](Self::device).
    #[must_use]
    pub fn with_device(mut self, device: impl Into<String>) -> Self {
        self.device = Some(device.into());
        self
    }

    /// Set [`auto_download`](Self::auto_download).
    #[must_use]
    pub fn with_auto_download(mut self, auto_download: bool) -> Self {
        self.auto_download = auto_download;
        self
    }

    /// Set [`python`](Self::python).
    #[must_use]
    pub fn with_python(mut self, python: PythonEnvironment) -> Self {
        self.python = python;
        self
    }
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self {
            dimensions: None,
            max_length: None,
            device: None,
            auto_download: true,
            python: PythonEnvironment::default(),
        }
    }
}

pub(crate) fn create_service(
    py: Python<'_>,
    model: &str,
    options: &ServiceOptions,
    interpreter: &Path,
) -> EmbeddingResult<Py<PyAny>> {
    refuse_option("max_length", options.max_length, "an embedding model")?;
    create(py, "EmbeddingService", model, options, ("dimensions", options.dimensions), interpreter)
}

pub(crate) fn create_reranker(
    py: Python<'_>,
    model: &str,
    options: &ServiceOptions,
    interpreter: &Path,
) -> EmbeddingResult<Py<PyAny>> {
    refuse_option("dimensions", options.dimensions, "a reranker")?;
    create(py, "Reranker", model, options, ("max_length", options.max_length), interpreter)
}

fn refuse_option(name: &str, value: Option<u32>, of: &str) -> EmbeddingResult<()> {
    match value {
        None => Ok(()),
        Some(value) => Err(EmbeddingError::InvalidInput(
            format!("{name} is no option of {of}, found {value}; leave it out").into(),
        )),
    }
}

/// Make an object of a class, with the option that only its kind has.
fn create(
    py: Python<'_>,
    class: &str,
    model: &str,
    options: &ServiceOptions,
    (name, value): (&str, Option<u32>),
    interpreter: &Path,
) -> EmbeddingResult<Py<PyAny>> {
    let class = import_class(py, class, interpreter)?;
    let create = || {
        let keywords = PyDict::new(py);
        keywords.set_item(name, value)?;
        keywords.set_item("device", options.device.as_deref())?;
        keywords.set_item("auto_download", options.auto_download)?;
        class.call((model,), Some(&keywords)).map(Bound::unbind)
    };
    create().map_err(|error: PyErr| embedding_error(py, &error))
}

fn import_class<'py>(py: Python<'py>, class: &str, interpreter: &Path) -> Result<Bound<'py, PyAny>, MlBridgeError> {
    py.import("akidb_mlx").and_then(|package| package.getattr(class)).map_err(|error| {
        let mut failure = failure(py, &error);
        if error.is_instance_of::<PyModuleNotFoundError>(py) {
            failure.message = format!(
                "{}: akidb_mlx cannot be imported by {1}; run {1} -m pip install akidb-mlx, or set AKIDB_PYTHON to an \
                 interpreter or virtual environment that has it",
                failure.message,
                interpreter.display()
            );
        }
        MlBridgeError::ModuleImport(failure)
    })
}

pub(crate) fn model_info(service: &Bound<'_, PyAny>) -> PyResult<ModelInfo> {
    let info = service.call_method0("get_model_info")?;
    Ok(ModelInfo {
        model: info.get_item("model_name")?.extract()?,
        dimension: info.get_item("dimension")?.extract()?,
        max_tokens: info.get_item("max_tokens")?.extract()?,
    })
}

pub(crate) fn reranker_info(reranker: &Bound<'_, PyAny>) -> PyResult<RerankerInfo> {
    let info = reranker.call_method0("get_model_info")?;
    Ok(RerankerInfo {
        model: info.get_item("model_name")?.extract()?,
        labels: info.get_item("labels")?.extract()?,
        max_tokens: info.get_item("max_tokens")?.extract()?,
    })
}

/// A degraded service takes calls.
pub(crate) fn health(service: &Bound<'_, PyAny>) -> PyResult<EmbeddingResult<()>> {
    let health = service.call_method0("health_check")?;
    let status: String = health.get_item("status")?.extract()?;
    if status != "failed" {
        return Ok(Ok(()));
    }
    let reason: String = health.get_item("reason")?.extract()?;
    Ok(Err(unavailable(format!("the service is not healthy: {reason}"))))
}
