//! What AkiDB's weaver asks of machine learning: vectors, entities and summaries.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::MlBridgeResult;

/// A named thing in a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entity {
    /// What it says, `text[start_byte..end_byte]`.
    pub text: String,
    /// Its kind, as in `"PERSON"`.
    pub label: String,
    /// Where it begins, in characters (Python's offsets).
    pub start: usize,
    /// Where it ends, in characters.
    pub end: usize,
    /// Where it begins, in bytes (Rust's offsets).
    pub start_byte: usize,
    /// Where it ends, in bytes.
    pub end_byte: usize,
}

/// Vectors, entities and summaries of texts. Any number of tasks may call one at once.
#[async_trait]
pub trait MlBridge: Send + Sync {
    /// The vector of a text, 384 values (all-MiniLM-L6-v2).
    ///
    /// # Errors
    ///
    /// `FunctionCall` or `TypeConversion`, as for all of these.
    async fn generate_embedding(&self, text: &str) -> MlBridgeResult<Vec<f32>>;

    /// A vector for each text, in order; none for none.
    ///
    /// # Errors
    ///
    /// As [`generate_embedding`](Self::generate_embedding).
    async fn generate_embeddings_batch(&self, texts: &[String]) -> MlBridgeResult<Vec<Vec<f32>>>;

    /// The named things in a text, in order.
    ///
    /// # Errors
    ///
    /// As [`generate_embedding`](Self::generate_embedding).
    async fn extract_entities(&self, text: &str) -> MlBridgeResult<Vec<Entity>>;

    /// A short text that says what the messages say.
    ///
    /// # Errors
    ///
    /// As [`generate_embedding`](Self::generate_embedding).
    async fn summarize(&self, messages: &[String]) -> MlBridgeResult<String>;

    /// Whether the functions above can be called.
    ///
    /// # Errors
    ///
    /// As [`generate_embedding`](Self::generate_embedding).
    async fn health_check(&self) -> MlBridgeResult<bool>;
}
