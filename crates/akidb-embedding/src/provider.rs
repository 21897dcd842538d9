//! The trait of a source of embeddings.

use async_trait::async_trait;

use crate::{BatchEmbeddingRequest, BatchEmbeddingResponse, EmbeddingResult, ModelInfo};

/// A source of embeddings. Any number of tasks may call one at once.
#[async_trait]
pub trait EmbeddingProvider: Send + Sync {
    /// Return one vector for each text, in order; none for none. Dropping the future cancels the call.
    ///
    /// # Errors
    ///
    /// `ModelNotFound` for another model than the provider's, `InvalidInput` for a text or an option that is not
    /// usable (with the text's index), `ServiceUnavailable` when the queue is full (with a hint when to try again) or
    /// the service is closed, `Internal` when the model failed.
    async fn embed_batch(&self, request: BatchEmbeddingRequest) -> EmbeddingResult<BatchEmbeddingResponse>;

    /// Return the model's name and limits.
    ///
    /// # Errors
    ///
    /// As the implementation says; those of this crate return none.
    async fn model_info(&self) -> EmbeddingResult<ModelInfo>;

    /// Succeed if the provider can take a call now.
    ///
    /// # Errors
    ///
    /// `ServiceUnavailable`, with the reason.
    async fn health_check(&self) -> EmbeddingResult<()>;
}
