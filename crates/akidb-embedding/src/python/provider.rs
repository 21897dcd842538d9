//! The provider that AkiDB holds: an `akidb_mlx.EmbeddingService`, called from any number of tasks.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use pyo3::prelude::*;
use tracing::{Instrument, field, instrument};

use super::embed_call::{EmbedRequest, Embedded, Layout};
use super::model::{PythonModel, load_apart};
use super::service::{ServiceOptions, create_service, model_info};
use crate::failures::check_model;
use crate::{
    BatchEmbeddingRequest, BatchEmbeddingResponse, EmbedOptions, EmbeddingProvider, EmbeddingResult, FlatEmbeddings,
    ModelInfo, Usage,
};

/// Embeddings of one model, computed by akidb-mlx in this process.
///
/// Calls reach Python through a few threads that this provider owns, and come back as soon as the service has them.
/// A clone is another handle to the same service. Python is never finalised, so call [`close`](Self::close) before the
/// process ends; when the last handle is dropped, a service that this provider made is closed in the background.
#[derive(Clone)]
pub struct MlxEmbeddingProvider {
    shared: Arc<Shared>,
}

struct Shared {
    python: PythonModel,
    info: ModelInfo,
}

impl fmt::Debug for MlxEmbeddingProvider {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = self.shared.python.is_open();
        let mut fields = formatter.debug_struct("MlxEmbeddingProvider");
        fields.field("info", &self.shared.info).field("open", &open).finish_non_exhaustive()
    }
}

impl MlxEmbeddingProvider {
    /// Start Python, if it does not run yet, and load a model. It blocks meanwhile: in async code, use
    /// [`load`](Self::load).
    ///
    /// # Errors
    ///
    /// `Internal` when there is no Python or no akidb-mlx in it, or the model's files are damaged; `ModelNotFound`;
    /// `InvalidInput` for a setting that is not usable.
    pub fn new(model: &str) -> EmbeddingResult<Self> {
        Self::open(model, &ServiceOptions::default())
    }

    /// Load a model with options; see [`new`](Self::new).
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), and `InvalidInput` for `dimensions` that the model does not have.
    #[instrument(name = "load", skip_all, fields(model = %model))]
    pub fn open(model: &str, options: &ServiceOptions) -> EmbeddingResult<Self> {
        let interpreter = options.python.started()?;
        let service = Python::attach(|py| create_service(py, model, options, &interpreter))?;
        Self::around(service, true)
    }

    /// Load a model on a thread of its own; see [`open`](Self::open).
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub async fn load(model: &str, options: ServiceOptions) -> EmbeddingResult<Self> {
        let model = model.to_owned();
        load_apart(move || Self::open(&model, &options)).await
    }

    /// Wrap a service that the host holds: an `akidb_mlx.EmbeddingService`, or an object with the same methods. The
    /// service is closed by [`close`](Self::close), and not when the provider is dropped. This waits for the GIL.
    ///
    /// # Errors
    ///
    /// Those of its `get_model_info()`.
    pub fn from_service(service: Py<PyAny>) -> EmbeddingResult<Self> {
        Self::around(service, false)
    }

    fn around(service: Py<PyAny>, owned: bool) -> EmbeddingResult<Self> {
        let (python, info) = PythonModel::around(service, owned, model_info)?;
        Ok(Self { shared: Arc::new(Shared { python, info }) })
    }

    /// Embed texts with options; see [`embed_batch`](EmbeddingProvider::embed_batch).
    ///
    /// # Errors
    ///
    /// As `embed_batch`, and `ServiceUnavailable` when the timeout passed.
    pub async fn embed_with(
        &self,
        request: BatchEmbeddingRequest,
        options: EmbedOptions,
    ) -> EmbeddingResult<BatchEmbeddingResponse> {
        let began = Instant::now();
        let embedded: Embedded<Vec<Vec<f32>>> = self.call(request, options).await?;
        Ok(BatchEmbeddingResponse {
            model: self.shared.info.model.clone(),
            embeddings: embedded.vectors,
            usage: Usage::since(began, &embedded.token_counts),
        })
    }

    /// Embed texts and return the vectors in one piece, with the token count of each text.
    ///
    /// # Errors
    ///
    /// As [`embed_with`](Self::embed_with).
    pub async fn embed_flat(
        &self,
        request: BatchEmbeddingRequest,
        options: EmbedOptions,
    ) -> EmbeddingResult<FlatEmbeddings> {
        let began = Instant::now();
        let embedded: Embedded<Vec<f32>> = self.call(request, options).await?;
        Ok(FlatEmbeddings {
            model: self.shared.info.model.clone(),
            values: embedded.vectors,
            dimension: embedded.dimension,
            usage: Usage::since(began, &embedded.token_counts),
            token_counts: embedded.token_counts,
            truncated: embedded.truncated,
        })
    }

    /// Take no more calls, end those that are pending, and free the model. Idempotent.
    ///
    /// With `drain`, every call that was made is finished first, however long that takes. Without, the batches that are
    /// running are finished and all other calls fail as unavailable; this takes 10 s at most, whatever Python does.
    ///
    /// # Errors
    ///
    /// `ServiceUnavailable` when Python did not answer in time; pending calls have failed then too. What the service's
    /// own `close()` raised.
    #[instrument(skip(self), fields(model = %self.shared.info.model))]
    pub async fn close(&self, drain: bool) -> EmbeddingResult<()> {
        self.shared.python.close(drain).await
    }

    async fn call<L: Layout>(
        &self,
        request: BatchEmbeddingRequest,
        options: EmbedOptions,
    ) -> EmbeddingResult<Embedded<L>> {
        let (model, texts) = (&self.shared.info.model, request.inputs.len());
        let span = tracing::debug_span!("embed", %model, texts, tokens = field::Empty);
        let outcome = self.submit(request, options).instrument(span.clone()).await;
        if let Ok(embedded) = &outcome {
            span.record("tokens", embedded.token_counts.iter().sum::<usize>());
        }
        outcome
    }

    async fn submit<L: Layout>(
        &self,
        request: BatchEmbeddingRequest,
        options: EmbedOptions,
    ) -> EmbeddingResult<Embedded<L>> {
        let BatchEmbeddingRequest { model, inputs: texts, normalize } = request;
        let Shared { python, info } = &*self.shared;
        check_model(&info.model, &model)?;
        let limit = options.timeout;
        python.call(EmbedRequest { texts, normalize, options, layout: PhantomData }, limit).await
    }
}

#[async_trait]
impl EmbeddingProvider for MlxEmbeddingProvider {
    async fn embed_batch(&self, request: BatchEmbeddingRequest) -> EmbeddingResult<BatchEmbeddingResponse> {
        self.embed_with(request, EmbedOptions::default()).await
    }

    /// Return what the service said when it was loaded: it does not change, so nothing is asked.
    async fn model_info(&self) -> EmbeddingResult<ModelInfo> {
        Ok(self.shared.info.clone())
    }

    /// Ask the service, which answers also while a forward pass hangs; 5 s at most if Python itself hangs. All who ask at
    /// once share one answer.
    #[instrument(level = "debug", skip_all, fields(model = %self.shared.info.model))]
    async fn health_check(&self) -> EmbeddingResult<()> {
        self.shared.python.health_check().await
    }
}
