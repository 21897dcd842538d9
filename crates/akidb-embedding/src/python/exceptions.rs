//! Python's exceptions as Rust's errors.

use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::error::{Failure, PythonError};
use crate::{EmbeddingError, MlBridgeError};

/// Most characters of a message of somebody else's.
const MOST_SHOWN: usize = 500;

/// Return what an exception says, with the `index` and `retry_after_s` of those of akidb_mlx.
pub(crate) fn failure(py: Python<'_>, error: &PyErr) -> Failure {
    let value = error.value(py);
    let message = value.str().map_or_else(|error| error.to_string(), |text| text.to_string_lossy().into_owned());
    let types: Vec<String> = value.get_type().mro().iter().filter_map(|class| full_name(&class)).collect();
    let ours = types.iter().any(|name| name == "akidb_mlx.errors.AkidbMlxError");
    let attribute = |name| value.getattr_opt(name).ok().flatten();
    let retry_after_s: Option<f64> = attribute("retry_after_s").and_then(|seconds| seconds.extract().ok());
    Failure {
        // A message of akidb_mlx is a whole one; another says little without its type.
        message: match types.first() {
            Some(name) if !ours => {
                format!("{}: {}", name.strip_prefix("builtins.").unwrap_or(name), one_line(&message))
            }
            _ => message.clone(),
        },
        index: attribute("index").filter(|_| ours).and_then(|index| index.extract().ok()),
        retry_after: retry_after_s.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        python: Some(Box::new(PythonError {
            types,
            message,
            traceback: traceback(py, error).unwrap_or_else(|error| format!("(no traceback: {error})")),
        })),
        ..Failure::default()
    }
}

pub(crate) fn embedding_error(py: Python<'_>, error: &PyErr) -> EmbeddingError {
    EmbeddingError::from_python(failure(py, error))
}

pub(crate) fn call_error(py: Python<'_>, error: &PyErr) -> MlBridgeError {
    MlBridgeError::FunctionCall(failure(py, error))
}

/// Return a message of somebody else's on one line, and not too long; the whole is in [`PythonError`].
fn one_line(message: &str) -> String {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MOST_SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn full_name(class: &Bound<'_, PyAny>) -> Option<String> {
    let class = class.cast::<PyType>().ok()?;
    Some(format!("{}.{}", class.module().ok()?, class.qualname().ok()?))
}

fn traceback(py: Python<'_>, error: &PyErr) -> PyResult<String> {
    let parts = (error.get_type(py), error.value(py), error.traceback(py));
    let lines = py.import("traceback")?.call_method1("format_exception", parts)?;
    "".into_pyobject(py)?.call_method1("join", (lines,))?.extract()
}
