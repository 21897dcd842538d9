//! The trait of a source of scores, and the order that scores give to documents.

use async_trait::async_trait;

use crate::{EmbeddingError, EmbeddingResult, PairScores, RerankOptions, RerankerInfo};

/// A source of scores of pairs of a query and a document. Any number of tasks may call one at once.
#[async_trait]
pub trait RerankProvider: Send + Sync {
    /// Return the documents' indices and scores, the best first; of equal scores the earlier document's. `top_k` is how
    /// many to return at most. Dropping the future cancels the call.
    ///
    /// # Errors
    ///
    /// As [`scores`](Self::scores), and `InvalidInput` for a model that gives several scores for a pair, or for a
    /// `top_k` of 0.
    async fn rerank(
        &self,
        query: &str,
        documents: Vec<String>,
        top_k: Option<usize>,
        options: RerankOptions,
    ) -> EmbeddingResult<Vec<(usize, f32)>>;

    /// Return the scores of pairs of a query and a document, in order. Dropping the future cancels the call.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a pair or an option that is not usable (with the pair's index), `ServiceUnavailable` when the
    /// queue is full (with a hint when to try again), the timeout passed or the reranker is closed, `Internal` when the
    /// model failed.
    async fn scores(&self, pairs: Vec<(String, String)>, options: RerankOptions) -> EmbeddingResult<PairScores>;

    /// Return the model's name, labels and limit.
    ///
    /// # Errors
    ///
    /// As the implementation says; those of this crate return none.
    async fn model_info(&self) -> EmbeddingResult<RerankerInfo>;

    /// Succeed if the provider can take a call now.
    ///
    /// # Errors
    ///
    /// `ServiceUnavailable`, with the reason.
    async fn health_check(&self) -> EmbeddingResult<()>;
}

/// Refuse a model whose scores give no order, and a number of documents that is none.
pub(crate) fn check_rerank(info: &RerankerInfo, top_k: Option<usize>) -> EmbeddingResult<()> {
    let labels = info.labels.len();
    if labels != 1 {
        let message = format!(
            "rerank orders documents by one score, and {} gives {labels} for each pair: use scores",
            info.model
        );
        return Err(EmbeddingError::InvalidInput(message.into()));
    }
    if top_k == Some(0) {
        return Err(EmbeddingError::InvalidInput("top_k must be 1 or more, or None for all, found 0".into()));
    }
    Ok(())
}

/// Return indices and scores, the best first; of equal scores the earlier one.
pub(crate) fn ranked(scores: &[f32], top_k: Option<usize>) -> Vec<(usize, f32)> {
    let mut ranked: Vec<(usize, f32)> = scores.iter().copied().enumerate().collect();
    ranked.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    ranked.truncate(top_k.unwrap_or(usize::MAX));
    ranked
}
