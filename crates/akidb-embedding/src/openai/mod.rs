//! Models of a server with an OpenAI-compatible API.
//!
//! ```text
//! provider, ml_bridge   what callers hold
//! options               limits, prompts, address and key
//! access                checks the address; keeps the key out of messages
//! api                   sends a request, again where that may help (failures)
//! answers               takes nothing of an answer on trust
//! ```

mod access;
mod answers;
mod api;
mod failures;
mod ml_bridge;
mod options;
mod provider;

pub use ml_bridge::OpenAiMlBridge;
pub use options::{OpenAiLimits, OpenAiOptions};
pub use provider::OpenAiEmbeddingProvider;
