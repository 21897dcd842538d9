//! The trait of the functions that AkiDB's weaver calls: vectors, entities and summaries.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::MlBridgeResult;

/// A named thing in a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entity {
    /// The entity itself, `text[start_byte..end_byte]`.
    pub text: String,
    /// The kind, as in `"PERSON"`.
    pub label: String,
    /// The offset of its beginning, in characters (as Python counts).
    pub start: usize,
    /// The offset of its end, in characters.
    pub end: usize,
    /// The offset of its beginning, in bytes (as Rust counts).
    pub start_byte: usize,
    /// The offset of its end, in bytes.
    pub end_byte: usize,
}

/// Vectors, entities and summaries of texts. Any number of tasks may call one at once.
#[async_trait]
pub trait MlBridge: Send + Sync {
    /// Return the vector of a text; those of akidb-mlx have 384 values (all-MiniLM-L6-v2).
    ///
    /// # Errors
    ///
    /// `FunctionCall` or `TypeConversion`, as for all of these.
    async fn generate_embedding(&self, text: &str) -> MlBridgeResult<Vec<f32>>;

    /// Return one vector for each text, in order; none for none.
    ///
    /// # Errors
    ///
    /// As [`generate_embedding`](Self::generate_embedding).
    async fn generate_embeddings_batch(&self, texts: &[String]) -> MlBridgeResult<Vec<Vec<f32>>>;

    /// Return the named entities of a text, in order.
    ///
    /// # Errors
    ///
    /// As [`generate_embedding`](Self::generate_embedding); `Unsupported` where the bridge finds none.
    async fn extract_entities(&self, text: &str) -> MlBridgeResult<Vec<Entity>>;

    /// Return a summary of messages.
    ///
    /// # Errors
    ///
    /// As [`generate_embedding`](Self::generate_embedding); `Unsupported` where the bridge makes none.
    async fn summarize(&self, messages: &[String]) -> MlBridgeResult<String>;

    /// Return whether the functions above can be called.
    ///
    /// # Errors
    ///
    /// As [`generate_embedding`](Self::generate_embedding).
    async fn health_check(&self) -> MlBridgeResult<bool>;
}
