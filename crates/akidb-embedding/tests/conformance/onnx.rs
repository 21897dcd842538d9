//! What ONNX Runtime computes, without Python.

use std::sync::Arc;
use std::time::Duration;

use akidb_embedding::{
    BatchEmbeddingRequest, BatchEmbeddingResponse, EmbedOptions, EmbeddingProvider, EmbeddingResult, MlBridge,
    MlBridgeResult, OnnxEmbeddingProvider, OnnxMlBridge, Overflow,
};
use async_trait::async_trait;

use crate::exported::{open, path};
use crate::provider_checks::LongText;
use crate::{bridge_checks, bridge_conforms, provider_checks, provider_conforms};

struct Provider(OnnxEmbeddingProvider);

#[async_trait]
impl provider_checks::Subject for Provider {
    fn provider(&self) -> Arc<dyn EmbeddingProvider> {
        Arc::new(self.0.clone())
    }

    fn long_text(&self) -> LongText {
        LongText::Cut
    }

    async fn embed_within(
        &self,
        request: BatchEmbeddingRequest,
        limit: Duration,
    ) -> EmbeddingResult<BatchEmbeddingResponse> {
        self.0.embed_with(request, EmbedOptions::default().with_timeout(limit)).await
    }

    async fn embed_a_bad_text(&self) -> EmbeddingResult<BatchEmbeddingResponse> {
        let request = BatchEmbeddingRequest::new(path("tiny-bert"), ["a", &"word ".repeat(600), "b"]);
        self.0.embed_with(request, EmbedOptions::default().with_on_overflow(Overflow::Error)).await
    }

    async fn close(&self, drain: bool) -> EmbeddingResult<()> {
        self.0.close(drain).await
    }
}

struct Bridge(OnnxMlBridge);

#[async_trait]
impl bridge_checks::Subject for Bridge {
    fn bridge(&self) -> Arc<dyn MlBridge> {
        Arc::new(self.0.clone())
    }

    async fn bridge_within(&self, limit: Duration) -> Arc<dyn MlBridge> {
        Arc::new(self.0.clone().with_timeout(limit))
    }

    async fn close(&self) -> MlBridgeResult<()> {
        self.0.close().await
    }
}

provider_conforms!(
    onnx_provider,
    async { crate::onnx::Provider(crate::exported::open("tiny-bert")) },
    [
        vectors_keep_their_length_if_that_is_asked,
        a_bad_text_fails_alone,
        a_deadline_ends_a_call,
        after_closing_calls_are_refused,
        closing_may_finish_what_was_begun,
    ]
);
bridge_conforms!(
    onnx_bridge,
    async { crate::onnx::Bridge(crate::onnx::open("tiny-bert").into()) },
    [a_deadline_ends_a_call, after_closing_calls_are_refused]
);
