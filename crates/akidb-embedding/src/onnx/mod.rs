//! Models that `akidb-mlx export` wrote, computed by ONNX Runtime; neither Python nor MLX is needed.
//!
//! ```text
//! provider, ml_bridge   what callers hold
//! location              a name or a directory to the file; reads the cache of model_cache
//! inspection            a look at the file before ONNX Runtime reads it
//! text                  the tokenizer that the file holds
//! session               ONNX Runtime
//! queue                 the thread that owns the session, and the batches
//! vectors               pooled rows to a caller's vectors
//! ```

mod inspection;
mod location;
mod ml_bridge;
mod provider;
mod queue;
mod session;
mod text;
mod vectors;

pub use ml_bridge::OnnxMlBridge;
pub use provider::{OnnxEmbeddingProvider, OnnxOptions};
