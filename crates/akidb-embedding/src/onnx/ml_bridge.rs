//! The bridge whose vectors ONNX Runtime computes.

use std::time::Duration;

use async_trait::async_trait;

use super::{OnnxEmbeddingProvider, OnnxOptions};
use crate::{BatchEmbeddingRequest, EmbedOptions, EmbeddingProvider, Entity, MlBridge, MlBridgeError, MlBridgeResult};

/// A bridge with the vectors of an [`OnnxEmbeddingProvider`], without Python.
///
/// It finds no entities and makes no summaries: those are `Unsupported`. Texts that wait one by one share batches.
#[derive(Debug, Clone)]
pub struct OnnxMlBridge {
    provider: OnnxEmbeddingProvider,
    limit: Option<Duration>,
}

impl OnnxMlBridge {
    /// Load a model; see [`OnnxEmbeddingProvider::new`]. It blocks: in async code, use [`load`](Self::load).
    ///
    /// # Errors
    ///
    /// `FunctionCall`, with what the provider says.
    pub fn new(model: &str) -> MlBridgeResult<Self> {
        Ok(OnnxEmbeddingProvider::new(model)?.into())
    }

    /// Load a model on a thread for blocking work; see [`OnnxEmbeddingProvider::load`].
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub async fn load(model: &str, options: OnnxOptions) -> MlBridgeResult<Self> {
        Ok(OnnxEmbeddingProvider::load(model, options).await?.into())
    }

    /// Let no call take longer than this, waiting included; what has not run of it is dropped.
    #[must_use]
    pub fn with_timeout(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Close the provider, also for others that hold it; see [`OnnxEmbeddingProvider::close`].
    ///
    /// # Errors
    ///
    /// None.
    pub async fn close(&self) -> MlBridgeResult<()> {
        Ok(self.provider.close(false).await?)
    }

    async fn embed(&self, texts: Vec<String>) -> MlBridgeResult<Vec<Vec<f32>>> {
        let request = BatchEmbeddingRequest::new(self.provider.model_info().await?.model, texts);
        let options = EmbedOptions { timeout: self.limit, ..EmbedOptions::default() };
        Ok(self.provider.embed_with(request, options).await?.embeddings)
    }
}

impl From<OnnxEmbeddingProvider> for OnnxMlBridge {
    fn from(provider: OnnxEmbeddingProvider) -> Self {
        Self { provider, limit: None }
    }
}

#[async_trait]
impl MlBridge for OnnxMlBridge {
    async fn generate_embedding(&self, text: &str) -> MlBridgeResult<Vec<f32>> {
        Ok(self.embed(vec![text.to_owned()]).await?.remove(0))
    }

    async fn generate_embeddings_batch(&self, texts: &[String]) -> MlBridgeResult<Vec<Vec<f32>>> {
        self.embed(texts.to_vec()).await
    }

    /// Not in this bridge.
    async fn extract_entities(&self, _: &str) -> MlBridgeResult<Vec<Entity>> {
        Err(MlBridgeError::Unsupported("OnnxMlBridge finds no entities: use PyMlBridge for them".into()))
    }

    /// Not in this bridge.
    async fn summarize(&self, _: &[String]) -> MlBridgeResult<String> {
        Err(MlBridgeError::Unsupported(
            "OnnxMlBridge makes no summaries: use PyMlBridge or OpenAiMlBridge for them".into(),
        ))
    }

    async fn health_check(&self) -> MlBridgeResult<bool> {
        Ok(self.provider.health_check().await.is_ok())
    }
}
