//! The provider whose model another server runs.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{Instrument, field, instrument};

use super::answers::{self, Answer};
use super::api::Api;
use super::failures::Failed;
use super::options::OpenAiOptions;
use crate::failures::{bad_text, broken, check_model, closed, excerpt, refused, unavailable};
use crate::gate::{Gate, within};
use crate::{
    BatchEmbeddingRequest, BatchEmbeddingResponse, EmbedOptions, EmbeddingError, EmbeddingProvider, EmbeddingResult,
    Failure, ModelInfo, Overflow, Usage,
};

/// A text that every model takes.
const PROBE: &str = "probe";
const BYTES_PER_TOKEN: usize = 4;
/// How long closing waits for requests that are told to end.
const END_WITHIN: Duration = Duration::from_secs(10);

/// Embeddings of a model that a server with an OpenAI-compatible API runs.
///
/// Each call sends requests of its own, so that a text that the API refuses fails no other call. Vectors have length 1.
/// A clone is another handle.
#[derive(Clone)]
pub struct OpenAiEmbeddingProvider {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) api: Api,
    pub(super) gate: Gate,
    options: OpenAiOptions,
    info: ModelInfo,
    native: usize,
    /// The model's name as the API gave it first; every answer must have it.
    answered_by: OnceLock<Option<String>>,
}

impl fmt::Debug for OpenAiEmbeddingProvider {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { api, info, gate, .. } = &*self.shared;
        let mut fields = formatter.debug_struct("OpenAiEmbeddingProvider");
        fields.field("address", &api.access.address).field("info", info).field("open", &gate.is_open());
        fields.finish_non_exhaustive()
    }
}

impl OpenAiEmbeddingProvider {
    /// Ask the API for one vector, which tells the model's dimension and that address, name and key are right.
    ///
    /// `model` is the API's name of the model. With [`dimensions`](OpenAiOptions::dimensions), a second request is sent.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for an option that is not usable or a key that is refused, `ModelNotFound`, `ServiceUnavailable`
    /// where the API cannot be reached or takes no requests, `Internal` for an answer that is not a vector.
    #[instrument(name = "load", skip_all, fields(model = %model))]
    pub async fn connect(model: &str, options: OpenAiOptions) -> EmbeddingResult<Self> {
        if model.trim() != model || model.is_empty() || model.len() > 200 || model.chars().any(char::is_control) {
            return Err(refused(format!("the model's name must not be empty or odd, found {:?}", excerpt(model, 60))));
        }
        if options.dimensions == Some(0) {
            return Err(refused("dimensions must be 1 or more, found 0"));
        }
        let info = ModelInfo { model: model.to_owned(), dimension: 0, max_tokens: options.limits.max_text_tokens };
        let (api, gate) = (Api::new(&options)?, Gate::default());
        let mut shared = Shared { api, gate, options, info, native: 0, answered_by: OnceLock::new() };
        shared.native = shared.ask(&[PROBE.to_owned()], None, None, None).await?.vectors[0].len();
        let dimension = shared.options.dimensions.map_or(shared.native, |asked| asked as usize);
        if dimension != shared.native {
            shared.ask(&[PROBE.to_owned()], Some(dimension), Some(dimension), None).await?;
        }
        shared.info.dimension = dimension as u32;
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Embed texts with options; see [`embed_batch`](EmbeddingProvider::embed_batch).
    ///
    /// # Errors
    ///
    /// As `embed_batch`; `ServiceUnavailable` when the timeout passed or the API fails after all attempts;
    /// `InvalidInput` for an option that cannot be honoured over an API: `normalize = false`, another `on_overflow` than
    /// `Truncate`, or an `input_type` that is none of the provider's prompts.
    pub async fn embed_with(
        &self,
        request: BatchEmbeddingRequest,
        options: EmbedOptions,
    ) -> EmbeddingResult<BatchEmbeddingResponse> {
        let (model, texts) = (&self.shared.info.model, request.inputs.len());
        let span = tracing::debug_span!("embed", %model, texts, tokens = field::Empty);
        let limit = options.timeout;
        let call = async {
            tokio::select! {
                biased;
                () = self.shared.gate.ended() => Err(closed()),
                outcome = self.call(request, options) => outcome,
            }
        };
        let outcome = within(limit, call.instrument(span.clone())).await;
        if let Ok(response) = &outcome {
            span.record("tokens", response.usage.total_tokens);
        }
        outcome
    }

    /// Take no more calls, and end those that run. Idempotent.
    ///
    /// With `drain`, every call that was made is finished first, however long that takes.
    ///
    /// # Errors
    ///
    /// `ServiceUnavailable` when the requests that run did not end in time.
    #[instrument(skip(self), fields(model = %self.shared.info.model))]
    pub async fn close(&self, drain: bool) -> EmbeddingResult<()> {
        let gate = &self.shared.gate;
        gate.close();
        if drain {
            gate.drained().await;
        }
        gate.end();
        timeout(END_WITHIN, gate.drained()).await.map_err(|_| unavailable("the requests that run did not end in time"))
    }

    async fn call(
        &self,
        request: BatchEmbeddingRequest,
        options: EmbedOptions,
    ) -> EmbeddingResult<BatchEmbeddingResponse> {
        let began = Instant::now();
        let Shared { gate, info, native, .. } = &*self.shared;
        check_model(&info.model, &request.model)?;
        let _place = gate.enter("wait for the API")?;
        if !request.normalize {
            return Err(refused(
                "normalize = false cannot be honoured over an API, which may have normalised its vectors already",
            ));
        }
        if options.on_overflow != Overflow::Truncate {
            return Err(refused(
                "on_overflow cannot be honoured by an API, which alone decides about texts that are too long: set \
                 max_text_tokens of the limits",
            ));
        }
        let dimension = options.dimensions.map_or(info.dimension as usize, |asked| asked as usize);
        if dimension == 0 {
            return Err(refused("dimensions must be 1 or more, found 0"));
        }
        let prompt = self.shared.prompt(&options)?;
        let texts: Arc<[String]> = request.inputs.into_iter().map(|text| format!("{prompt}{text}")).collect();
        let work = Work {
            shared: Arc::clone(&self.shared),
            batches: self.shared.batches(&texts)?,
            texts,
            dimension,
            sent: (dimension != *native).then_some(dimension),
            deadline: options.timeout.and_then(|limit| began.checked_add(limit)),
        };
        let (embeddings, tokens) = work.run().await?;
        Ok(BatchEmbeddingResponse { model: request.model, embeddings, usage: Usage::since(began, &[tokens]) })
    }
}

impl Shared {
    /// Return the answer to one request. `sent` is the field `dimensions`, `expected` the size that vectors must have.
    async fn ask(
        &self,
        texts: &[String],
        sent: Option<usize>,
        expected: Option<usize>,
        deadline: Option<Instant>,
    ) -> Result<Answer, Failed> {
        let mut request = json!({ "model": self.info.model, "input": texts, "encoding_format": "base64" });
        if let Some(dimensions) = sent {
            request["dimensions"] = Value::from(dimensions);
        }
        let body = self.api.ask("/embeddings", &request, deadline).await?;
        let answer = answers::parse(&body, texts.len(), expected)?;
        let first = self.answered_by.get_or_init(|| answer.model.clone());
        if *first != answer.model {
            let name = |name: &Option<String>| self.api.access.clean(name.as_deref().unwrap_or("none"));
            return Err(broken(format!(
                "{} answered with the model {:?}, and before with {:?}: their vectors cannot be compared; name a model \
                 that stays the same",
                self.api.access.address,
                name(&answer.model),
                name(first)
            ))
            .into());
        }
        Ok(answer)
    }

    fn prompt(&self, options: &EmbedOptions) -> EmbeddingResult<String> {
        if let Some(prompt) = &options.prompt {
            return Ok(prompt.clone());
        }
        let Some(wanted) = &options.input_type else { return Ok(String::new()) };
        self.options.prompts.get(wanted).cloned().ok_or_else(|| {
            let known: Vec<&str> = self.options.prompts.keys().map(String::as_str).collect();
            refused(format!(
                "input_type {:?} is none of the prompts that OpenAiOptions::with_prompt gave: {}",
                excerpt(wanted, 60),
                if known.is_empty() { "there are none".to_owned() } else { known.join(", ") }
            ))
        })
    }

    /// Divide texts into as few requests as the limits allow.
    fn batches(&self, texts: &[String]) -> EmbeddingResult<VecDeque<Range<usize>>> {
        let limits = self.options.limits;
        let (mut batches, mut start, mut tokens) = (VecDeque::new(), 0, 0);
        for (end, text) in texts.iter().enumerate() {
            let size = text.len() / BYTES_PER_TOKEN + 1;
            if size > limits.max_text_tokens {
                let (model, limit) = (&self.info.model, limits.max_text_tokens);
                let message = format!(
                    "text {end} has about {size} tokens, by its bytes, and {model} takes {limit}: shorten it, or change \
                     max_text_tokens of the limits"
                );
                return Err(bad_text(end, message));
            }
            if end > start && (end - start >= limits.max_texts || tokens + size > limits.max_request_tokens) {
                batches.push_back(start..end);
                (start, tokens) = (end, 0);
            }
            tokens += size;
        }
        if start < texts.len() {
            batches.push_back(start..texts.len());
        }
        Ok(batches)
    }
}

/// The requests of one call.
struct Work {
    shared: Arc<Shared>,
    texts: Arc<[String]>,
    batches: VecDeque<Range<usize>>,
    dimension: usize,
    sent: Option<usize>,
    deadline: Option<Instant>,
}

impl Work {
    /// Return the vectors and the tokens of all texts. The requests are cancelled when this is dropped.
    async fn run(mut self) -> EmbeddingResult<(Vec<Vec<f32>>, usize)> {
        let mut vectors: Vec<Vec<f32>> = vec![Vec::new(); self.texts.len()];
        let (mut tokens, mut fields_are_taken) = (0, None);
        let mut running = JoinSet::new();
        loop {
            // No more of a call's requests wait than may run, so that a long call does not keep others out.
            while running.len() < self.shared.options.max_concurrent {
                let Some(batch) = self.batches.pop_front() else { break };
                running.spawn(self.ask(batch).in_current_span());
            }
            let Some(done) = running.join_next().await else { return Ok((vectors, tokens)) };
            let (batch, outcome) = done.map_err(|error| broken(format!("a request panicked: {error}")))?;
            match outcome {
                Ok(answer) => {
                    tokens += answer.tokens;
                    vectors[batch].iter_mut().zip(answer.vectors).for_each(|(place, vector)| *place = vector);
                }
                Err(failed) if failed.texts_may_be_at_fault => {
                    if fields_are_taken.is_none() {
                        fields_are_taken = Some(self.takes_fields().await?);
                    }
                    self.divide(batch, failed.error, fields_are_taken == Some(true))?;
                }
                Err(failed) => return Err(of_call(failed.error, &batch)),
            }
        }
    }

    fn ask(&self, batch: Range<usize>) -> impl Future<Output = (Range<usize>, Result<Answer, Failed>)> + use<> {
        let (shared, texts) = (Arc::clone(&self.shared), Arc::clone(&self.texts));
        let (sent, dimension, deadline) = (self.sent, self.dimension, self.deadline);
        async move {
            let outcome = shared.ask(&texts[batch.clone()], sent, Some(dimension), deadline).await;
            (batch, outcome)
        }
    }

    /// Return whether the API takes a harmless text, so that a refusal is the fault of the call's texts.
    async fn takes_fields(&self) -> EmbeddingResult<bool> {
        match self.shared.ask(&[PROBE.to_owned()], self.sent, Some(self.dimension), self.deadline).await {
            Ok(_) => Ok(true),
            Err(failed) if failed.texts_may_be_at_fault => Ok(false),
            Err(failed) => Err(failed.error),
        }
    }

    /// Ask for each half of a batch that the API refused, down to the text that is at fault.
    fn divide(&mut self, batch: Range<usize>, refusal: EmbeddingError, fields_are_taken: bool) -> EmbeddingResult<()> {
        if !fields_are_taken {
            return Err(refusal);
        }
        if batch.len() == 1 {
            return Err(bad_text(batch.start, format!("text {}: {refusal}", batch.start)));
        }
        let middle = batch.start + batch.len() / 2;
        self.batches.push_front(middle..batch.end);
        self.batches.push_front(batch.start..middle);
        Ok(())
    }
}

/// Return an error about a text of a request with the text's index in the call.
fn of_call(error: EmbeddingError, batch: &Range<usize>) -> EmbeddingError {
    match error {
        EmbeddingError::Internal(Failure { index: Some(index), message, .. }) => {
            let of_call = batch.start + index;
            let message = message.replacen(&format!("text {index} "), &format!("text {of_call} "), 1);
            EmbeddingError::Internal(Failure { index: Some(of_call), ..message.into() })
        }
        error => error,
    }
}

#[async_trait]
impl EmbeddingProvider for OpenAiEmbeddingProvider {
    async fn embed_batch(&self, request: BatchEmbeddingRequest) -> EmbeddingResult<BatchEmbeddingResponse> {
        self.embed_with(request, EmbedOptions::default()).await
    }

    async fn model_info(&self) -> EmbeddingResult<ModelInfo> {
        Ok(self.shared.info.clone())
    }

    /// Report the outcome of the latest request; none is sent.
    async fn health_check(&self) -> EmbeddingResult<()> {
        drop(self.shared.gate.enter("wait for the API")?);
        self.shared.api.last_failure().map_or(Ok(()), |message| Err(unavailable(message)))
    }
}
