//! The options of a provider whose model another server runs.

use std::collections::BTreeMap;
use std::time::Duration;

use super::access::Key;

/// The limits of an API. The defaults are OpenAI's; tokens are estimated, one for each 4 bytes of UTF-8 and one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenAiLimits {
    /// Most texts of a request.
    pub max_texts: usize,
    /// Most tokens of a request; a single text may have more.
    pub max_request_tokens: usize,
    /// Most tokens of a text; one that has more is refused before anything is sent.
    pub max_text_tokens: usize,
}

impl Default for OpenAiLimits {
    fn default() -> Self {
        Self { max_texts: 2048, max_request_tokens: 300_000, max_text_tokens: 8192 }
    }
}

impl OpenAiLimits {
    /// Set [`max_texts`](Self::max_texts); 0 counts as 1, as for the other limits.
    #[must_use]
    pub fn with_max_texts(mut self, texts: usize) -> Self {
        self.max_texts = texts.max(1);
        self
    }

    /// Set [`max_request_tokens`](Self::max_request_tokens).
    #[must_use]
    pub fn with_max_request_tokens(mut self, tokens: usize) -> Self {
        self.max_request_tokens = tokens.max(1);
        self
    }

    /// Set [`max_text_tokens`](Self::max_text_tokens).
    #[must_use]
    pub fn with_max_text_tokens(mut self, tokens: usize) -> Self {
        self.max_text_tokens = tokens.max(1);
        self
    }
}

/// The options of an [`OpenAiEmbeddingProvider`](crate::OpenAiEmbeddingProvider).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenAiOptions {
    /// The address before `/embeddings`. `None`: `OPENAI_BASE_URL`, else OpenAI's own.
    pub base_url: Option<String>,
    pub(crate) key: Option<Key>,
    /// The number of values in a vector unless a call says otherwise. `None`: as many as the API gives by itself.
    pub dimensions: Option<u32>,
    /// The prompts that the model wants, by name: `input_type` is one of them. Without, `input_type` is refused.
    pub prompts: BTreeMap<String, String>,
    /// The limits of the API.
    pub limits: OpenAiLimits,
    /// Most requests that run at once, of all calls.
    pub max_concurrent: usize,
    /// How often a request is sent again after it failed.
    pub max_retries: u32,
    /// The time after which an attempt without an answer has failed.
    pub request_timeout: Duration,
}

impl Default for OpenAiOptions {
    fn default() -> Self {
        Self {
            base_url: None,
            key: None,
            dimensions: None,
            prompts: BTreeMap::new(),
            limits: OpenAiLimits::default(),
            max_concurrent: 4,
            max_retries: 4,
            request_timeout: Duration::from_secs(60),
        }
    }
}

impl OpenAiOptions {
    /// Set [`base_url`](Self::base_url).
    #[must_use]
    pub fn with_base_url(mut self, base_url: impl Into<String>) -> Self {
        self.base_url = Some(base_url.into());
        self
    }

    /// Set the key; without, `OPENAI_API_KEY` holds. It is in no message and no `Debug`.
    #[must_use]
    pub fn with_api_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(Key::new(key.into()));
        self
    }

    /// Set [`dimensions`](Self::dimensions).
    #[must_use]
    pub fn with_dimensions(mut self, dimensions: u32) -> Self {
        self.dimensions = Some(dimensions);
        self
    }

    /// Add one of the [`prompts`](Self::prompts).
    #[must_use]
    pub fn with_prompt(mut self, name: impl Into<String>, prompt: impl Into<String>) -> Self {
        self.prompts.insert(name.into(), prompt.into());
        self
    }

    /// Set [`limits`](Self::limits).
    #[must_use]
    pub fn with_limits(mut self, limits: OpenAiLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Set [`max_concurrent`](Self::max_concurrent); 0 counts as 1.
    #[must_use]
    pub fn with_max_concurrent(mut self, requests: usize) -> Self {
        self.max_concurrent = requests.max(1);
        self
    }

    /// Set [`max_retries`](Self::max_retries).
    #[must_use]
    pub fn with_max_retries(mut self, retries: u32) -> Self {
        self.max_retries = retries;
        self
    }

    /// Set [`request_timeout`](Self::request_timeout).
    #[must_use]
    pub fn with_request_timeout(mut self, limit: Duration) -> Self {
        self.request_timeout = limit;
        self
    }
}
