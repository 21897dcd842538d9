//! What a call takes and returns.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Texts to embed with one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchEmbeddingRequest {
    /// The model's name, as the provider was given it.
    pub model: String,
    /// The texts; none gives no vectors.
    pub inputs: Vec<String>,
    /// Whether vectors are divided by their length (L2); true where JSON does not say.
    #[serde(default = "normalized")]
    pub normalize: bool,
}

fn normalized() -> bool {
    true
}

impl BatchEmbeddingRequest {
    /// A request for normalised vectors.
    pub fn new(model: impl Into<String>, inputs: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { model: model.into(), inputs: inputs.into_iter().map(Into::into).collect(), normalize: normalized() }
    }
}

/// What happens to a text that is longer than the model takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overflow {
    /// It is cut, and [`FlatEmbeddings::truncated`] says so.
    #[default]
    Truncate,
    /// The call is refused.
    Error,
    /// All of it is embedded, in overlapping windows that are averaged by token count.
    Chunk,
}

/// The options of one call that [`BatchEmbeddingRequest`] does not hold; the defaults are those of `embed_batch`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EmbedOptions {
    /// `"query"`, `"document"` or a prompt name of the model: that prompt goes before each text.
    pub input_type: Option<String>,
    /// A string to put before each text, in place of a named prompt.
    pub prompt: Option<String>,
    /// Keep this many of the first values and normalise again (Matryoshka); the service's own if not given.
    pub dimensions: Option<u32>,
    /// What happens to a text that is longer than the model takes.
    pub on_overflow: Overflow,
    /// After this the call fails as unavailable, and what has not run of it is dropped.
    pub timeout: Option<Duration>,
}

/// A vector for each text, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchEmbeddingResponse {
    /// The model's name.
    pub model: String,
    /// The vectors.
    pub embeddings: Vec<Vec<f32>>,
    /// What the call took.
    pub usage: Usage,
}

/// What a call took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The tokens that the model read of all texts, counted by its tokenizer after truncation.
    pub total_tokens: usize,
    /// Milliseconds from the call to its answer.
    pub duration_ms: u64,
}

/// The vectors of a call in one piece, and what was read of each text.
#[derive(Debug, Clone, PartialEq)]
pub struct FlatEmbeddings {
    /// The model's name.
    pub model: String,
    /// The vectors one after another, `dimension` values each.
    pub values: Vec<f32>,
    /// How many values a vector has.
    pub dimension: usize,
    /// For each text, the tokens that were read of it.
    pub token_counts: Vec<usize>,
    /// For each text, whether it was cut.
    pub truncated: Vec<bool>,
    /// What the call took.
    pub usage: Usage,
}

impl FlatEmbeddings {
    /// The vectors, in the order of the texts.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.dimension.max(1))
    }
}

/// What a model is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Its name, as the provider was given it.
    pub model: String,
    /// How many values a vector has unless a call says otherwise.
    pub dimension: u32,
    /// The most tokens that it reads of a text.
    pub max_tokens: usize,
}
