//! Python's `EmbeddingService`: how it is made, and what is asked of it besides embedding.

use std::path::Path;

use pyo3::exceptions::PyModuleNotFoundError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::environment::PythonEnvironment;
use super::exceptions::{embedding_error, failure};
use super::failures::unavailable;
use crate::{EmbeddingResult, MlBridgeError, ModelInfo};

/// How a service is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceOptions {
    /// How many values a vector has unless a call says otherwise; the catalogue's default if not given.
    pub dimensions: Option<u32>,
    /// `"auto"`, `"gpu"` or `"cpu"`; the settings' if not given.
    pub device: Option<String>,
    /// Whether a model that is not on this machine may be downloaded.
    pub auto_download: bool,
    /// Where Python and its packages are.
    pub python: PythonEnvironment,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self { dimensions: None, device: None, auto_download: true, python: PythonEnvironment::default() }
    }
}

pub(crate) fn create_service(
    py: Python<'_>,
    model: &str,
    options: &ServiceOptions,
    interpreter: &Path,
) -> EmbeddingResult<Py<PyAny>> {
    let class = import_service(py, interpreter)?;
    let create = || {
        let keywords = PyDict::new(py);
        keywords.set_item("dimensions", options.dimensions)?;
        keywords.set_item("device", options.device.as_deref())?;
        keywords.set_item("auto_download", options.auto_download)?;
        class.call((model,), Some(&keywords)).map(Bound::unbind)
    };
    create().map_err(|error: PyErr| embedding_error(py, &error))
}

fn import_service<'py>(py: Python<'py>, interpreter: &Path) -> Result<Bound<'py, PyAny>, MlBridgeError> {
    py.import("akidb_mlx").and_then(|package| package.getattr("EmbeddingService")).map_err(|error| {
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
