//! The provider that AkiDB holds: an `akidb_mlx.EmbeddingService`, called from any number of tasks.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{Instrument, field, instrument};

use super::ANSWER_WITHIN;
use super::at_exit::close_at_exit;
use super::embed_call::{EmbedCall, Embedded, Layout, Submitted};
use super::exceptions::embedding_error;
use super::failures::{broken, closed, late, no_answer, no_thread};
use super::question::Question;
use super::service::{ServiceOptions, create_service, health, model_info};
use super::state::{SharedState, State};
use super::thread::{PythonThread, Task, reply, run_apart};
use crate::{
    BatchEmbeddingRequest, BatchEmbeddingResponse, EmbedOptions, EmbeddingError, EmbeddingProvider, EmbeddingResult,
    FlatEmbeddings, ModelInfo, Usage,
};

/// Calls of more texts or bytes than this are tokenised on a thread of their own, so that no small one waits for that.
const SMALL_TEXTS: usize = 64;
const SMALL_BYTES: usize = 1 << 16;

/// How long `close(false)` waits; the service itself gives up on a forward pass after 4 s.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

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
    service: Arc<Py<PyAny>>,
    info: ModelInfo,
    /// Whether the service is closed with the provider.
    owned: bool,
    state: SharedState,
    /// They bound the calls that wait to be submitted; the service bounds those that were.
    small: PythonThread<Task>,
    bulk: PythonThread<Task>,
    control: PythonThread<Task>,
    health: Question<EmbeddingResult<()>>,
}

impl fmt::Debug for MlxEmbeddingProvider {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = self.shared.state.now() == State::Open;
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
        let loaded = run_apart("akidb-load", move || Self::open(&model, &options)).await.map_err(no_thread)?;
        loaded.ok_or_else(|| broken("loading the model panicked"))?
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
        let info = Python::attach(|py| model_info(service.bind(py)).map_err(|error| embedding_error(py, &error)))?;
        close_at_exit();
        let thread = |name| PythonThread::of_tasks(name).map_err(no_thread);
        let service = Arc::new(service);
        let asked = Arc::clone(&service);
        let ask = move |py: Python<'_>| health(asked.bind(py)).map_err(|error| embedding_error(py, &error))?;
        Ok(Self {
            shared: Arc::new(Shared {
                service,
                info,
                owned,
                state: SharedState::open(),
                small: thread("akidb-embed")?,
                bulk: thread("akidb-bulk")?,
                control: thread("akidb-control")?,
                health: Question::new(ask),
            }),
        })
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
            usage: usage(began, &embedded.token_counts),
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
            usage: usage(began, &embedded.token_counts),
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
        let shared = &self.shared;
        shared.state.advance(if drain { State::Draining } else { State::Closing });
        if drain {
            for thread in [&shared.small, &shared.bulk] {
                let (passed, passing) = oneshot::channel();
                thread.run(move |_| reply(passed, ()));
                passing.await.map_err(|_| broken("a thread that runs Python has ended"))?;
            }
        }
        let (service, state) = (Arc::clone(&shared.service), shared.state.clone());
        let close = move || {
            let outcome = Python::attach(|py| {
                let keywords = PyDict::new(py);
                let closed = keywords
                    .set_item("drain", drain)
                    .and_then(|()| service.bind(py).call_method("close", (), Some(&keywords)));
                closed.map(drop).map_err(|error| embedding_error(py, &error))
            });
            state.advance(State::Closed);
            outcome
        };
        let closed = async {
            let closed = run_apart("akidb-close", close).await.map_err(no_thread)?;
            closed.ok_or_else(|| broken("closing the service panicked"))?
        };
        if drain {
            return closed.await;
        }
        let outcome = timeout(CLOSE_WITHIN, closed).await;
        shared.state.advance(State::Closed);
        outcome.unwrap_or_else(|elapsed| Err(no_answer(elapsed)))
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
        let shared = &self.shared;
        let BatchEmbeddingRequest { model, inputs: texts, normalize } = request;
        if model != shared.info.model {
            return Err(EmbeddingError::ModelNotFound(
                format!("this provider holds {}, found a request for {model}", shared.info.model).into(),
            ));
        }
        if shared.state.now() != State::Open {
            return Err(closed());
        }
        let small = texts.len() <= SMALL_TEXTS && texts.iter().map(String::len).sum::<usize>() <= SMALL_BYTES;
        let thread = if small { &shared.small } else { &shared.bulk };
        let place = thread.take_place()?;
        let limit = options.timeout;
        let (answer, answered) = oneshot::channel();
        let submitted = Submitted::default();
        let call = EmbedCall {
            texts,
            normalize,
            deadline: limit.and_then(|limit| Instant::now().checked_add(limit)),
            options,
            answer,
            submitted: submitted.clone(),
            place,
        };
        let (service, state) = (Arc::clone(&shared.service), shared.state.clone());
        thread.run(move |py| {
            if state.now() < State::Closing {
                call.submit(py, service.bind(py));
            } else {
                reply(call.answer, Err(closed()));
            }
        });
        let mut unfinished = CancelOnDrop(Some((thread, submitted)));
        let waited = async {
            tokio::select! {
                biased;
                outcome = answered => outcome.unwrap_or_else(|_| Err(broken("the service dropped the call"))),
                () = shared.state.closed() => Err(closed()),
            }
        };
        let outcome = match limit {
            None => waited.await,
            Some(limit) => timeout(limit, waited).await.unwrap_or_else(|_| Err(late())),
        };
        if outcome.is_ok() {
            unfinished.0 = None;
        }
        outcome
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
        match timeout(ANSWER_WITHIN, self.shared.health.answer(&self.shared.control)).await {
            Ok(health) => health.unwrap_or_else(|| Err(broken("a thread that runs Python has ended"))),
            Err(elapsed) => Err(no_answer(elapsed)),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.owned && self.state.now() == State::Open {
            let service = Arc::clone(&self.service);
            self.control.run(move |py| {
                if let Err(error) = service.bind(py).call_method0("close") {
                    tracing::error!("closing a service that was dropped failed: {error}");
                }
            });
        }
    }
}

/// Drops a call's work when nobody waits for it any more. The thread that submits it runs this after.
struct CancelOnDrop<'a>(Option<(&'a PythonThread<Task>, Submitted)>);

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if let Some((thread, submitted)) = self.0.take() {
            thread.run(move |py| submitted.cancel(py));
        }
    }
}

fn usage(began: Instant, token_counts: &[usize]) -> Usage {
    Usage { total_tokens: token_counts.iter().sum(), duration_ms: began.elapsed().as_millis() as u64 }
}
