//! The provider whose model ONNX Runtime computes.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Instant;

use async_trait::async_trait;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::spawn_blocking;
use tracing::{Instrument, field, instrument};

use super::queue::{Call, Message, spawn};
use super::session::Model;
use super::text::{Description, TextTokenizer, Tokenized};
use super::vectors::{Form, finish};
use super::{inspection, location, text};
use crate::failures::{broken, check_model, closed, refused};
use crate::gate::{Gate, within};
use crate::{
    BatchEmbeddingRequest, BatchEmbeddingResponse, EmbedOptions, EmbeddingProvider, EmbeddingResult, FlatEmbeddings,
    ModelInfo, Usage,
};

/// Most texts of a call that are tokenised before another call has its turn.
const TOKENIZED_AT_ONCE: usize = 64;

/// The options of an [`OnnxEmbeddingProvider`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OnnxOptions {
    /// The file of ONNX Runtime, 1.23 or newer. `None`: that of `ORT_DYLIB_PATH`, else the one that the system's loader
    /// finds. A process has one: the first that is loaded.
    pub library: Option<PathBuf>,
    /// The number of values in a vector unless a call says otherwise. `None`: the model's own.
    pub dimensions: Option<u32>,
}

impl OnnxOptions {
    /// Set [`library`](Self::library).
    #[must_use]
    pub fn with_library(mut self, library: impl Into<PathBuf>) -> Self {
        self.library = Some(library.into());
        self
    }

    /// Set [`dimensions`](Self::dimensions).
    #[must_use]
    pub fn with_dimensions(mut self, dimensions: u32) -> Self {
        self.dimensions = Some(dimensions);
        self
    }
}

/// Embeddings of a model that `akidb-mlx export` wrote, computed by ONNX Runtime in this process, without Python.
///
/// One thread owns the model. A clone is another handle to it; when the last one is dropped, the model is freed. Calls
/// need a tokio runtime.
#[derive(Clone)]
pub struct OnnxEmbeddingProvider {
    shared: Arc<Shared>,
}

struct Shared {
    info: ModelInfo,
    sizes: Sizes,
    /// Whether the model's vectors have length 1 already.
    normalized: bool,
    tokenizer: Arc<TextTokenizer>,
    owner: mpsc::UnboundedSender<Message>,
    gate: Gate,
    /// As many threads tokenise as there are cores; calls take turns.
    cores: Semaphore,
}

impl fmt::Debug for OnnxEmbeddingProvider {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = formatter.debug_struct("OnnxEmbeddingProvider");
        fields.field("info", &self.shared.info).field("open", &self.is_open()).finish_non_exhaustive()
    }
}

impl OnnxEmbeddingProvider {
    /// Load a model: a directory with a file `onnx/exported.onnx` or `onnx/model.onnx`, or `org/repo` or
    /// `org/repo@revision` in the model cache. Nothing is downloaded. It blocks: in async code, use [`load`](Self::load).
    ///
    /// # Errors
    ///
    /// `ModelNotFound` where there is no such file, `Internal` where it is refused or there is no ONNX Runtime.
    pub fn new(model: &str) -> EmbeddingResult<Self> {
        Self::open(model, &OnnxOptions::default())
    }

    /// Load a model with options; see [`new`](Self::new).
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), and `InvalidInput` for `dimensions` that the model does not have.
    #[instrument(name = "load", skip_all, fields(model = %model))]
    pub fn open(model: &str, options: &OnnxOptions) -> EmbeddingResult<Self> {
        let file = location::find(model)?;
        let (description, tokenizer) = text::read(&file, &inspection::read_metadata(&file)?)?;
        let Description { dimension: native, matryoshka, default_dimension: default, .. } = description;
        let sizes = Sizes { native, matryoshka, default };
        let sizes = Sizes { default: sizes.choose(options.dimensions)?, ..sizes };
        let loaded = Model::load(&file, native, options.library.as_deref())?;
        let owner = spawn(loaded, native)
            .map_err(|error| broken(format!("a thread for the model could not be started: {error}")))?;
        let info =
            ModelInfo { model: model.to_owned(), dimension: sizes.default as u32, max_tokens: description.max_tokens };
        Ok(Self {
            shared: Arc::new(Shared {
                info,
                sizes,
                normalized: description.normalized,
                tokenizer: Arc::new(tokenizer),
                owner,
                gate: Gate::default(),
                cores: Semaphore::new(available_parallelism().map_or(1, usize::from)),
            }),
        })
    }

    /// Load a model on a thread for blocking work; see [`open`](Self::open).
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub async fn load(model: &str, options: OnnxOptions) -> EmbeddingResult<Self> {
        let (model, span) = (model.to_owned(), tracing::Span::current());
        let loaded = spawn_blocking(move || span.in_scope(|| Self::open(&model, &options))).await;
        loaded.map_err(|error| broken(format!("loading the model panicked: {error}")))?
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
        let flat = self.embed_flat(request, options).await?;
        Ok(BatchEmbeddingResponse {
            embeddings: flat.rows().map(<[f32]>::to_vec).collect(),
            model: flat.model,
            usage: flat.usage,
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
        let span = tracing::debug_span!(
            "embed", model = %self.shared.info.model, texts = request.inputs.len(), tokens = field::Empty
        );
        let limit = options.timeout;
        let call = self.call(request, options).instrument(span.clone());
        let outcome = within(limit, call).await;
        if let Ok(embedded) = &outcome {
            span.record("tokens", embedded.usage.total_tokens);
        }
        outcome
    }

    /// Take no more calls, end those that are pending, and free the model. Idempotent.
    ///
    /// With `drain`, every call that was made is finished first, however long that takes. Without, the batch that is
    /// running is finished and all calls fail as unavailable.
    ///
    /// # Errors
    ///
    /// None; the result is that of the other providers.
    #[instrument(skip(self), fields(model = %self.shared.info.model))]
    pub async fn close(&self, drain: bool) -> EmbeddingResult<()> {
        self.shared.gate.close();
        if drain {
            self.shared.gate.drained().await;
        }
        let (answer, answered) = oneshot::channel();
        // Where the thread has gone already, both fail.
        let _ = self.shared.owner.send(Message::Close(answer));
        let _ = answered.await;
        Ok(())
    }

    fn is_open(&self) -> bool {
        self.shared.gate.is_open() && !self.shared.owner.is_closed()
    }

    async fn call(&self, request: BatchEmbeddingRequest, options: EmbedOptions) -> EmbeddingResult<FlatEmbeddings> {
        let began = Instant::now();
        let BatchEmbeddingRequest { model, inputs, normalize } = request;
        let Shared { info, sizes, .. } = &*self.shared;
        check_model(&info.model, &model)?;
        if !self.is_open() {
            return Err(closed());
        }
        if !normalize && self.shared.normalized {
            return Err(refused(format!(
                "{model} was exported with --normalize, so that its vectors have length 1: ask for that, or export it \
                 without"
            )));
        }
        let dimension = sizes.choose(options.dimensions)?;
        let form = Form { dimensions: dimension, normalize };
        self.shared.tokenizer.prompt(&options)?;
        let mut texts = Texts::default();
        let mut values = Vec::new();
        if !inputs.is_empty() {
            let pooled;
            (texts, pooled) = self.pooled(inputs, options).await?;
            values = finish(&pooled, sizes.native, &texts.windows, form)?;
        }
        Ok(FlatEmbeddings {
            model,
            values,
            dimension,
            usage: Usage::since(began, &texts.token_counts),
            token_counts: texts.token_counts,
            truncated: texts.truncated,
        })
    }

    /// Return the vectors of all windows of texts, as the model computes them.
    async fn pooled(&self, inputs: Vec<String>, options: EmbedOptions) -> EmbeddingResult<(Texts, Vec<f32>)> {
        let Shared { sizes, tokenizer, owner, gate, cores, .. } = &*self.shared;
        let place = gate.enter("wait for the model")?;
        let options = Arc::new(options);
        let (mut texts, mut sequences) = (Texts::default(), Vec::new());
        let mut rest = inputs.into_iter().enumerate();
        loop {
            let piece: Vec<(usize, String)> = rest.by_ref().take(TOKENIZED_AT_ONCE).collect();
            if piece.is_empty() {
                break;
            }
            let _core = cores.acquire().await;
            let (tokenizer, options) = (Arc::clone(tokenizer), Arc::clone(&options));
            let tokenized = spawn_blocking(move || {
                let prompt = tokenizer.prompt(&options)?;
                let one =
                    |(index, text): &(usize, String)| tokenizer.tokenize(*index, prompt, text, options.on_overflow);
                piece.iter().map(one).collect::<EmbeddingResult<Vec<Tokenized>>>()
            });
            for text in tokenized.await.map_err(|error| broken(format!("the tokenizer panicked: {error}")))?? {
                sequences.extend(texts.keep(text));
            }
        }
        let (answer, answered) = oneshot::channel();
        // A thread that has ended drops it, with the channel that it answers over.
        let _ = owner.send(Message::Embed(Call::new(sequences, sizes.native, answer, place)));
        let ended = |_| if self.is_open() { broken("the model's thread has ended") } else { closed() };
        let pooled = answered.await.map_err(ended)??;
        Ok((texts, pooled))
    }
}

/// What is known of a call's texts besides their vectors.
#[derive(Default)]
struct Texts {
    /// The token counts of each text's windows.
    windows: Vec<Vec<usize>>,
    token_counts: Vec<usize>,
    truncated: Vec<bool>,
}

impl Texts {
    /// Note a text, and return its windows.
    fn keep(&mut self, text: Tokenized) -> Vec<text::Ids> {
        self.windows.push(text.windows.iter().map(Vec::len).collect());
        self.token_counts.push(text.token_count);
        self.truncated.push(text.truncated);
        text.windows
    }
}

/// The sizes that vectors may have.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    native: usize,
    /// Whether the model was trained for shorter ones.
    matryoshka: bool,
    /// The size unless a call says otherwise.
    default: usize,
}

impl Sizes {
    /// Return the size that is asked for, or the default.
    fn choose(self, asked: Option<u32>) -> EmbeddingResult<usize> {
        let Self { native, matryoshka, default } = self;
        match asked.map_or(default, |asked| asked as usize) {
            size if size == native || (matryoshka && (1..native).contains(&size)) => Ok(size),
            size if (1..native).contains(&size) => Err(refused(format!(
                "dimensions {size}: the model was not trained for vectors shorter than {native}, and cutting them loses \
                 quality"
            ))),
            size => Err(refused(format!("dimensions must be 1 to {native}, found {size}"))),
        }
    }
}

#[async_trait]
impl EmbeddingProvider for OnnxEmbeddingProvider {
    async fn embed_batch(&self, request: BatchEmbeddingRequest) -> EmbeddingResult<BatchEmbeddingResponse> {
        self.embed_with(request, EmbedOptions::default()).await
    }

    async fn model_info(&self) -> EmbeddingResult<ModelInfo> {
        Ok(self.shared.info.clone())
    }

    /// Waits for nothing.
    async fn health_check(&self) -> EmbeddingResult<()> {
        if !self.is_open() {
            return Err(closed());
        }
        self.shared.gate.enter("wait for the model").map(drop)
    }
}
