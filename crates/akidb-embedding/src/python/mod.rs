//! Everything that runs Python: an interpreter is found (`environment`), a service is made or taken (`service`), and
//! threads of its own (`thread`) run what needs the GIL (`embed_call`, `ml_functions`), so that no task ever waits for it.

mod at_exit;
mod embed_call;
mod environment;
mod exceptions;
mod failures;
mod ml_bridge;
mod ml_functions;
mod provider;
mod question;
mod service;
mod state;
mod thread;

pub use environment::PythonEnvironment;
pub use ml_bridge::PyMlBridge;
pub use provider::MlxEmbeddingProvider;
pub use service::ServiceOptions;

use std::time::Duration;

/// How long a question that Python answers without waiting for anything may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Most calls that wait for one of the threads that run Python.
const MAX_WAITING: usize = 4096;
