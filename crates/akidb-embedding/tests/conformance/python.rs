//! What Python computes in this process.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use akidb_embedding::{
    BatchEmbeddingRequest, BatchEmbeddingResponse, EmbedOptions, EmbeddingProvider, EmbeddingResult, MlBridge,
    MlBridgeResult, MlxEmbeddingProvider, Overflow, PyMlBridge, ServiceOptions,
};
use async_trait::async_trait;

use crate::common::{MINILM, request};
use crate::provider_checks::LongText;
use crate::{bridge_checks, bridge_conforms, provider_checks, provider_conforms};

struct Provider(MlxEmbeddingProvider);

impl Provider {
    async fn alone() -> Self {
        Self(MlxEmbeddingProvider::load(MINILM, ServiceOptions::default().with_device("cpu")).await.unwrap())
    }
}

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
        let options = EmbedOptions::default().with_on_overflow(Overflow::Error);
        self.0.embed_with(request(["a", &"word ".repeat(600), "b"]), options).await
    }

    async fn close(&self, drain: bool) -> EmbeddingResult<()> {
        self.0.close(drain).await
    }
}

struct Bridge(Arc<PyMlBridge>);

/// One for all tests, as a process has one of each of `ml_funcs`' models.
fn shared() -> Arc<PyMlBridge> {
    static BRIDGE: OnceLock<Arc<PyMlBridge>> = OnceLock::new();
    Arc::clone(BRIDGE.get_or_init(|| Arc::new(PyMlBridge::default_module().unwrap())))
}

#[async_trait]
impl bridge_checks::Subject for Bridge {
    fn bridge(&self) -> Arc<dyn MlBridge> {
        Arc::clone(&self.0) as _
    }

    async fn bridge_within(&self, limit: Duration) -> Arc<dyn MlBridge> {
        Arc::new(PyMlBridge::default_module().unwrap().with_timeout(limit))
    }

    async fn close(&self) -> MlBridgeResult<()> {
        self.0.close().await
    }
}

provider_conforms!(
    python_provider,
    async { crate::python::Provider(crate::common::minilm()) },
    [vectors_keep_their_length_if_that_is_asked, a_bad_text_fails_alone, a_deadline_ends_a_call]
);
crate::conforms!(
    python_provider_closed,
    provider_checks,
    crate::python::Provider::alone(),
    [after_closing_calls_are_refused, closing_may_finish_what_was_begun]
);
bridge_conforms!(python_bridge, async { crate::python::Bridge(crate::python::shared()) }, [a_deadline_ends_a_call]);
