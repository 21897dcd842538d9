//! Everything that runs Python: an interpreter is found (`environment`), a service is made or taken (`service`), and
//! threads of its own (`thread`) run what needs the GIL (`call`, `ml_functions`), so that no task ever waits for it. The
//! two providers of models share `model`, and differ in what a call takes and gives (`embed_call`, `score_call`).

mod at_exit;
mod call;
mod embed_call;
mod environment;
mod exceptions;
mod failures;
mod ml_bridge;
mod ml_functions;
mod model;
mod provider;
mod question;
mod rerank_provider;
mod score_call;
mod service;
mod state;
mod thread;

pub use environment::PythonEnvironment;
pub use ml_bridge::PyMlBridge;
pub use provider::MlxEmbeddingProvider;
pub use rerank_provider::MlxRerankProvider;
pub use service::ServiceOptions;

use std::time::Duration;

/// How long a question that Python answers without waiting for anything may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
