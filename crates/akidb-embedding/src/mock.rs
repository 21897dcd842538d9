//! Stand-ins that need no Python and no model: equal texts have equal vectors, on every machine and in every version.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::failures::check_model;
use crate::rerank::{check_rerank, ranked};
use crate::{
    BatchEmbeddingRequest, BatchEmbeddingResponse, EmbeddingProvider, EmbeddingResult, Entity, MlBridge,
    MlBridgeResult, ModelInfo, PairScores, RerankOptions, RerankProvider, RerankerInfo, Usage,
};

/// A provider whose vectors depend on nothing but the text.
#[derive(Debug, Clone)]
pub struct MockEmbeddingProvider {
    model: String,
    dimension: u32,
    latency: Duration,
}

impl MockEmbeddingProvider {
    /// Name of the model that [`new`](Self::new) makes.
    pub const DEFAULT_MODEL: &'static str = "mock-embed-512";
    /// The number of values in its vectors.
    pub const DEFAULT_DIMENSION: u32 = 512;

    /// Make the model `mock-embed-512`, which answers at once.
    pub fn new() -> Self {
        Self::with_model(Self::DEFAULT_MODEL, Self::DEFAULT_DIMENSION)
    }

    /// Make the model `mock-embed-{dimension}`.
    pub fn with_dimension(dimension: u32) -> Self {
        Self::with_model(format!("mock-embed-{dimension}"), dimension)
    }

    /// Make a model of any name.
    pub fn with_model(model: impl Into<String>, dimension: u32) -> Self {
        Self { model: model.into(), dimension, latency: Duration::ZERO }
    }

    /// Let every call take so long.
    #[must_use]
    pub fn with_latency(mut self, milliseconds: u64) -> Self {
        self.latency = Duration::from_millis(milliseconds);
        self
    }
}

impl Default for MockEmbeddingProvider {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl EmbeddingProvider for MockEmbeddingProvider {
    async fn embed_batch(&self, request: BatchEmbeddingRequest) -> EmbeddingResult<BatchEmbeddingResponse> {
        let began = Instant::now();
        check_model(&self.model, &request.model)?;
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency).await;
        }
        let token_counts: Vec<usize> = request.inputs.iter().map(|text| words(text)).collect();
        let vector = |text: &String| vector(text, self.dimension as usize, request.normalize);
        Ok(BatchEmbeddingResponse {
            embeddings: request.inputs.iter().map(vector).collect(),
            usage: Usage::since(began, &token_counts),
            model: request.model,
        })
    }

    async fn model_info(&self) -> EmbeddingResult<ModelInfo> {
        Ok(ModelInfo { model: self.model.clone(), dimension: self.dimension, max_tokens: 8192 })
    }

    async fn health_check(&self) -> EmbeddingResult<()> {
        Ok(())
    }
}

/// A reranker whose score of a pair is the share of the query's words that the document has.
#[derive(Debug, Clone, Copy, Default)]
pub struct MockRerankProvider;

impl MockRerankProvider {
    /// Name of the model.
    pub const MODEL: &'static str = "mock-rerank";

    fn info() -> RerankerInfo {
        RerankerInfo { model: Self::MODEL.to_owned(), labels: vec!["LABEL_0".to_owned()], max_tokens: 8192 }
    }
}

#[async_trait]
impl RerankProvider for MockRerankProvider {
    async fn rerank(
        &self,
        query: &str,
        documents: Vec<String>,
        top_k: Option<usize>,
        _: RerankOptions,
    ) -> EmbeddingResult<Vec<(usize, f32)>> {
        check_rerank(&Self::info(), top_k)?;
        let scores: Vec<f32> = documents.iter().map(|document| shared_words(query, document)).collect();
        Ok(ranked(&scores, top_k))
    }

    async fn scores(&self, pairs: Vec<(String, String)>, _: RerankOptions) -> EmbeddingResult<PairScores> {
        let began = Instant::now();
        let token_counts: Vec<usize> = pairs.iter().map(|(query, document)| words(query) + words(document)).collect();
        Ok(PairScores {
            model: Self::MODEL.to_owned(),
            values: pairs.iter().map(|(query, document)| shared_words(query, document)).collect(),
            labels: 1,
            usage: Usage::since(began, &token_counts),
            truncated: vec![false; pairs.len()],
            token_counts,
        })
    }

    async fn model_info(&self) -> EmbeddingResult<RerankerInfo> {
        Ok(Self::info())
    }

    async fn health_check(&self) -> EmbeddingResult<()> {
        Ok(())
    }
}

/// A bridge whose vectors depend on nothing but the text, whose entities are the capitalised words, and whose summary
/// is the first message.
#[derive(Debug, Clone, Copy, Default)]
pub struct MockMlBridge;

#[async_trait]
impl MlBridge for MockMlBridge {
    async fn generate_embedding(&self, text: &str) -> MlBridgeResult<Vec<f32>> {
        Ok(vector(text, 384, true))
    }

    async fn generate_embeddings_batch(&self, texts: &[String]) -> MlBridgeResult<Vec<Vec<f32>>> {
        Ok(texts.iter().map(|text| vector(text, 384, true)).collect())
    }

    async fn extract_entities(&self, text: &str) -> MlBridgeResult<Vec<Entity>> {
        let words = text.split(|character: char| !character.is_alphanumeric());
        Ok(words
            .filter(|word| word.starts_with(char::is_uppercase))
            .map(|word| {
                let start_byte = word.as_ptr() as usize - text.as_ptr() as usize;
                let start = text[..start_byte].chars().count();
                Entity {
                    text: word.to_owned(),
                    label: "NAME".to_owned(),
                    start,
                    end: start + word.chars().count(),
                    start_byte,
                    end_byte: start_byte + word.len(),
                }
            })
            .collect())
    }

    async fn summarize(&self, messages: &[String]) -> MlBridgeResult<String> {
        Ok(messages.first().cloned().unwrap_or_default())
    }

    async fn health_check(&self) -> MlBridgeResult<bool> {
        Ok(true)
    }
}

fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

/// The share of the words of a query that are in a document, from 0 to 1.
fn shared_words(query: &str, document: &str) -> f32 {
    let held: HashSet<&str> = document.split_whitespace().collect();
    let shared = query.split_whitespace().filter(|word| held.contains(word)).count();
    shared as f32 / words(query).max(1) as f32
}

/// Values from -1 to 1 out of SplitMix64 (Steele et al. 2014), seeded with the text's FNV-1a hash.
fn vector(text: &str, dimension: usize, normalize: bool) -> Vec<f32> {
    let hash = |state: u64, byte: u8| (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let mut state = text.bytes().fold(0xcbf2_9ce4_8422_2325, hash);
    let mut values: Vec<f32> = (0..dimension).map(|_| 2.0 * uniform(&mut state) - 1.0).collect();
    let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    if normalize && length > 0.0 {
        values.iter_mut().for_each(|value| *value /= length);
    }
    values
}

/// The next of SplitMix64, from 0 to 1.
fn uniform(state: &mut u64) -> f32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32
}
