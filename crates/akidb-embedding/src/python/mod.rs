//! Everything that runs Python, in the order of a call: the interpreter is found, threads of its own run what needs
//! the GIL, and answers come back over channels. No thread of the caller's ever waits for the GIL.

mod at_exit;
mod embed_call;
mod environment;
mod exceptions;
mod ml_bridge;
mod provider;
mod service;
mod thread;

pub use environment::PythonEnvironment;
pub use ml_bridge::PyMlBridge;
pub use provider::MlxEmbeddingProvider;
pub use service::ServiceOptions;

use std::time::Duration;

use crate::EmbeddingError;

/// How long a question that Python answers without waiting for anything may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Most calls that wait for a thread that runs Python.
const MAX_WAITING: usize = 4096;

/// The hint of a refusal: such a queue is full only while something keeps Python from running.
const RETRY_AFTER: Duration = Duration::from_secs(1);

fn unavailable(message: impl Into<String>) -> EmbeddingError {
    EmbeddingError::ServiceUnavailable(message.into().into())
}
