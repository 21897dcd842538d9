//! The provider of scores: an `akidb_mlx.Reranker`, called from any number of tasks.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use pyo3::prelude::*;
use tracing::{Instrument, field, instrument};

use super::model::{PythonModel, load_apart};
use super::score_call::{ScoreRequest, Scored};
use super::service::{ServiceOptions, create_reranker, reranker_info};
use crate::rerank::{check_rerank, ranked};
use crate::{EmbeddingResult, PairScores, RerankOptions, RerankProvider, RerankerInfo, Usage};

/// Scores of one reranker, computed by akidb-mlx in this process.
///
/// It runs as an [`MlxEmbeddingProvider`](crate::MlxEmbeddingProvider) does: calls reach Python through a few threads of
/// its own, and a clone is another handle to the same reranker. Call [`close`](Self::close) before the process ends;
/// when the last handle is dropped, a reranker that this provider made is closed in the background.
#[derive(Clone)]
pub struct MlxRerankProvider {
    shared: Arc<Shared>,
}

struct Shared {
    python: PythonModel,
    info: RerankerInfo,
}

impl fmt::Debug for MlxRerankProvider {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = self.shared.python.is_open();
        let mut fields = formatter.debug_struct("MlxRerankProvider");
        fields.field("info", &self.shared.info).field("open", &open).finish_non_exhaustive()
    }
}

impl MlxRerankProvider {
    /// Start Python, if it does not run yet, and load a reranker. It blocks meanwhile: in async code, use
    /// [`load`](Self::load).
    ///
    /// # Errors
    ///
    /// As [`MlxEmbeddingProvider::new`](crate::MlxEmbeddingProvider::new); `Internal` for a model that is no reranker.
    pub fn new(model: &str) -> EmbeddingResult<Self> {
        Self::open(model, &ServiceOptions::default())
    }

    /// Load a reranker with options; see [`new`](Self::new).
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), and `InvalidInput` for a `max_length` that the model does not take, or for `dimensions`.
    #[instrument(name = "load", skip_all, fields(model = %model))]
    pub fn open(model: &str, options: &ServiceOptions) -> EmbeddingResult<Self> {
        let interpreter = options.python.started()?;
        let reranker = Python::attach(|py| create_reranker(py, model, options, &interpreter))?;
        Self::around(reranker, true)
    }

    /// Load a reranker on a thread of its own; see [`open`](Self::open).
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub async fn load(model: &str, options: ServiceOptions) -> EmbeddingResult<Self> {
        let model = model.to_owned();
        load_apart(move || Self::open(&model, &options)).await
    }

    /// Wrap a reranker that the host holds: an `akidb_mlx.Reranker`, or an object with the same methods. It is closed by
    /// [`close`](Self::close), and not when the provider is dropped. This waits for the GIL.
    ///
    /// # Errors
    ///
    /// Those of its `get_model_info()`.
    pub fn from_reranker(reranker: Py<PyAny>) -> EmbeddingResult<Self> {
        Self::around(reranker, false)
    }

    fn around(reranker: Py<PyAny>, owned: bool) -> EmbeddingResult<Self> {
        let (python, info) = PythonModel::around(reranker, owned, reranker_info)?;
        Ok(Self { shared: Arc::new(Shared { python, info }) })
    }

    /// Take no more calls, end those that are pending, and free the model. Idempotent.
    ///
    /// # Errors
    ///
    /// As [`MlxEmbeddingProvider::close`](crate::MlxEmbeddingProvider::close).
    #[instrument(skip(self), fields(model = %self.shared.info.model))]
    pub async fn close(&self, drain: bool) -> EmbeddingResult<()> {
        self.shared.python.close(drain).await
    }

    async fn call(&self, pairs: Vec<(String, String)>, options: RerankOptions) -> EmbeddingResult<Scored> {
        let Shared { python, info } = &*self.shared;
        let span = tracing::debug_span!("rerank", model = %info.model, pairs = pairs.len(), tokens = field::Empty);
        let limit = options.timeout;
        let outcome = python.call(ScoreRequest { pairs, options }, limit).instrument(span.clone()).await;
        if let Ok(scored) = &outcome {
            span.record("tokens", scored.token_counts.iter().sum::<usize>());
        }
        outcome
    }
}

#[async_trait]
impl RerankProvider for MlxRerankProvider {
    async fn rerank(
        &self,
        query: &str,
        documents: Vec<String>,
        top_k: Option<usize>,
        options: RerankOptions,
    ) -> EmbeddingResult<Vec<(usize, f32)>> {
        check_rerank(&self.shared.info, top_k)?;
        let pairs = documents.into_iter().map(|document| (query.to_owned(), document)).collect();
        Ok(ranked(&self.call(pairs, options).await?.scores, top_k))
    }

    async fn scores(&self, pairs: Vec<(String, String)>, options: RerankOptions) -> EmbeddingResult<PairScores> {
        let began = Instant::now();
        let scored = self.call(pairs, options).await?;
        Ok(PairScores {
            model: self.shared.info.model.clone(),
            values: scored.scores,
            labels: scored.labels,
            usage: Usage::since(began, &scored.token_counts),
            token_counts: scored.token_counts,
            truncated: scored.truncated,
        })
    }

    /// Return what the reranker said when it was loaded: it does not change, so nothing is asked.
    async fn model_info(&self) -> EmbeddingResult<RerankerInfo> {
        Ok(self.shared.info.clone())
    }

    /// Ask the reranker, which answers also while a forward pass hangs; 5 s at most if Python itself hangs. All who ask
    /// at once share one answer.
    #[instrument(level = "debug", skip_all, fields(model = %self.shared.info.model))]
    async fn health_check(&self) -> EmbeddingResult<()> {
        self.shared.python.health_check().await
    }
}
