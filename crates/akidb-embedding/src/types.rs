//! The arguments and results of calls.
//!
//! Structs that an implementation of a trait constructs can be written as literals; those that it does not are
//! `non_exhaustive`, so that fields can be added.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Texts to embed with one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchEmbeddingRequest {
    /// The model's name, as the provider was given it.
    pub model: String,
    /// The texts; none gives no vectors.
    pub inputs: Vec<String>,
    /// Whether vectors are divided by their length (L2). True where JSON does not say.
    #[serde(default = "normalized")]
    pub normalize: bool,
}

fn normalized() -> bool {
    true
}

impl BatchEmbeddingRequest {
    /// Make a request for normalised vectors.
    pub fn new(model: impl Into<String>, inputs: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { model: model.into(), inputs: inputs.into_iter().map(Into::into).collect(), normalize: normalized() }
    }
}

/// The treatment of a text, or of a pair of texts, that is longer than the model takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Overflow {
    /// It is cut, and `truncated` of the result says so.
    #[default]
    Truncate,
    /// The call is refused.
    Error,
    /// The whole text is embedded, in overlapping windows that are averaged by token count. Of the windows of a pair's
    /// document, the best score counts.
    Chunk,
}

/// The options of one call that [`BatchEmbeddingRequest`] does not hold. The defaults are those of `embed_batch`.
///
/// ```
/// # use std::time::Duration;
/// # use akidb_embedding::EmbedOptions;
/// let options = EmbedOptions::default().with_input_type("query").with_timeout(Duration::from_secs(2));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EmbedOptions {
    /// `"query"`, `"document"` or another prompt name of the model: that prompt goes before each text.
    pub input_type: Option<String>,
    /// A string to put before each text, in place of a named prompt.
    pub prompt: Option<String>,
    /// The number of first values to keep; they are normalised again (Matryoshka). `None`: the service's.
    pub dimensions: Option<u32>,
    /// The treatment of a text that is longer than the model takes.
    pub on_overflow: Overflow,
    /// The time after which the call fails as unavailable; what has not run of it is then dropped.
    pub timeout: Option<Duration>,
}

impl EmbedOptions {
    /// Set [`input_type`](Self::input_type).
    #[must_use]
    pub fn with_input_type(mut self, input_type: impl Into<String>) -> Self {
        self.input_type = Some(input_type.into());
        self
    }

    /// Set [`prompt`](Self::prompt).
    #[must_use]
    pub fn with_prompt(mut self, prompt: impl Into<String>) -> Self {
        self.prompt = Some(prompt.into());
        self
    }

    /// Set [`dimensions`](Self::dimensions).
    #[must_use]
    pub fn with_dimensions(mut self, dimensions: u32) -> Self {
        self.dimensions = Some(dimensions);
        self
    }

    /// Set [`on_overflow`](Self::on_overflow).
    #[must_use]
    pub fn with_on_overflow(mut self, on_overflow: Overflow) -> Self {
        self.on_overflow = on_overflow;
        self
    }

    /// Set [`timeout`](Self::timeout).
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

/// A vector for each text, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchEmbeddingResponse {
    /// The model's name.
    pub model: String,
    /// The vectors.
    pub embeddings: Vec<Vec<f32>>,
    /// The tokens and the time that the call took.
    pub usage: Usage,
}

/// The tokens and the time that a call took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The number of tokens that the model read of all texts, counted by its tokenizer after truncation.
    pub total_tokens: usize,
    /// The number of milliseconds from the call to its answer.
    pub duration_ms: u64,
}

impl Usage {
    /// Return the usage of a call that began at a time and is done now.
    pub(crate) fn since(began: Instant, token_counts: &[usize]) -> Self {
        Self { total_tokens: token_counts.iter().sum(), duration_ms: began.elapsed().as_millis() as u64 }
    }
}

/// The vectors of a call in one piece, with the token count of each text.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FlatEmbeddings {
    /// The model's name.
    pub model: String,
    /// The vectors one after another, `dimension` values each.
    pub values: Vec<f32>,
    /// The number of values in a vector.
    pub dimension: usize,
    /// The number of tokens that the model read of each text.
    pub token_counts: Vec<usize>,
    /// Whether each text was cut.
    pub truncated: Vec<bool>,
    /// The tokens and the time that the call took.
    pub usage: Usage,
}

impl FlatEmbeddings {
    /// Iterate over the vectors, in the order of the texts.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.dimension.max(1))
    }
}

/// A model's name and limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// The name, as the provider was given it.
    pub model: String,
    /// The number of values in a vector unless a call says otherwise.
    pub dimension: u32,
    /// The most tokens that the model reads of a text.
    pub max_tokens: usize,
}

/// The options of one call of a [`RerankProvider`](crate::RerankProvider).
///
/// ```
/// # use std::time::Duration;
/// # use akidb_embedding::RerankOptions;
/// let options = RerankOptions::default().with_prompt("Find the answer.").with_timeout(Duration::from_secs(2));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RerankOptions {
    /// The name of a prompt of the model. `None`: the default of the model's files.
    pub prompt_name: Option<String>,
    /// A string in place of a named prompt: it stands before each query or, in a language model, is the instruction.
    pub prompt: Option<String>,
    /// The treatment of a pair that is longer than the model takes; `Chunk` takes the document's best window.
    pub on_overflow: Overflow,
    /// The time after which the call fails as unavailable; what has not run of it is then dropped.
    pub timeout: Option<Duration>,
}

impl RerankOptions {
    /// Set [`prompt_name`](Self::prompt_name).
    #[must_use]
    pub fn with_prompt_name(mut self, prompt_name: impl Into<String>) -> Self {
        self.prompt_name = Some(prompt_name.into());
        self
    }

    /// Set [`prompt`](Self::prompt).
    #[must_use]
    pub fn with_prompt(mut self, prompt: impl Into<String>) -> Self {
        self.prompt = Some(prompt.into());
        self
    }

    /// Set [`on_overflow`](Self::on_overflow).
    #[must_use]
    pub fn with_on_overflow(mut self, on_overflow: Overflow) -> Self {
        self.on_overflow = on_overflow;
        self
    }

    /// Set [`timeout`](Self::timeout).
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

/// The scores of pairs, with the token count of each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairScores {
    /// The model's name.
    pub model: String,
    /// The scores in the order of the pairs, `labels` values each.
    pub values: Vec<f32>,
    /// The number of scores of a pair.
    pub labels: usize,
    /// The number of tokens that the model read of each pair.
    pub token_counts: Vec<usize>,
    /// Whether each pair was cut.
    pub truncated: Vec<bool>,
    /// The tokens and the time that the call took.
    pub usage: Usage,
}

impl PairScores {
    /// Iterate over the scores of each pair, in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.labels.max(1))
    }
}

/// A reranker's name, labels and limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RerankerInfo {
    /// The name, as the provider was given it.
    pub model: String,
    /// The names of the labels; a pair has a score for each.
    pub labels: Vec<String>,
    /// The most tokens that the model reads of a pair.
    pub max_tokens: usize,
}
