//! One API, asked with a bounded number of requests at once, and again where an attempt fails.

use std::error::Error;
use std::time::{Duration, Instant};

use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use serde_json::Value;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::access::Access;
use super::failures::{Failed, of_status};
use super::options::OpenAiOptions;
use crate::EmbeddingResult;
use crate::failures::{broken, closed};

/// An API that wants a caller to wait for longer than this is not waited for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);
/// Most bytes of an answer: ten times what the largest request has.
const LONGEST_ANSWER: usize = 1 << 30;
/// Most bytes of the description of an error.
const LONGEST_PROBLEM: usize = 1 << 16;

pub(crate) struct Api {
    pub(crate) access: Access,
    client: Client,
    slots: Semaphore,
    max_retries: u32,
    request_timeout: Duration,
    /// The message of the latest attempt, if it failed.
    last_failure: watch::Sender<Option<String>>,
}

impl Api {
    pub(crate) fn new(options: &OpenAiOptions) -> EmbeddingResult<Self> {
        // The process may have chosen another already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // A redirect would take the texts elsewhere.
        let client = Client::builder().redirect(Policy::none()).build();
        Ok(Self {
            access: Access::new(options)?,
            client: client.map_err(|error| broken(format!("the HTTP client cannot start: {error}")))?,
            slots: Semaphore::new(options.max_concurrent.clamp(1, Semaphore::MAX_PERMITS)),
            max_retries: options.max_retries,
            request_timeout: options.request_timeout,
            last_failure: watch::Sender::new(None),
        })
    }

    pub(crate) fn last_failure(&self) -> Option<String> {
        self.last_failure.borrow().clone()
    }

    /// Return the body of the answer to a request; an attempt that failed gives its place up while it waits.
    ///
    /// # Errors
    ///
    /// The last attempt failed, another would fail likewise, or would come too late.
    pub(crate) async fn ask(&self, path: &str, request: &Value, deadline: Option<Instant>) -> Result<Vec<u8>, Failed> {
        let mut attempt = 0;
        loop {
            let slot = self.slots.acquire().await.map_err(|_| closed())?;
            let outcome = timeout(self.request_timeout, self.attempt(path, request)).await;
            drop(slot);
            let outcome = outcome.unwrap_or_else(|_| {
                let (address, limit) = (&self.access.address, self.request_timeout);
                Err(Failed::transient(format!("{address} did not answer within {limit:?}")))
            });
            let failed = match outcome {
                Ok(body) => {
                    self.last_failure.send_replace(None);
                    return Ok(body);
                }
                Err(failed) => failed,
            };
            self.last_failure.send_replace(Some(failed.error.to_string()));
            let wait = failed.wait(attempt);
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let late = wait > LONGEST_RETRY_AFTER || left.is_some_and(|left| wait >= left);
            if !failed.retryable || attempt >= self.max_retries || late {
                return Err(failed);
            }
            sleep(wait).await;
            attempt += 1;
        }
    }

    async fn attempt(&self, path: &str, request: &Value) -> Result<Vec<u8>, Failed> {
        let mut sent = self.client.post(format!("{}{path}", self.access.address));
        if let Some(key) = &self.access.key {
            sent = sent.bearer_auth(key.secret());
        }
        let body = request.to_string();
        let response = sent.header("content-type", "application/json").body(body).send().await;
        let response = response.map_err(|error| self.unreachable(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        if status.is_success() {
            return self.read(response, LONGEST_ANSWER).await;
        }
        let body = self.read(response, LONGEST_PROBLEM).await.unwrap_or_default();
        let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
        let (message, code) = describe(&problem);
        let message = self.access.clean(message.unwrap_or("no description"));
        let model = request["model"].as_str().unwrap_or_default();
        Err(of_status(status.as_u16(), &headers, &message, code, &self.access.address, model))
    }

    /// Return the body of a response, part by part, so that its size is bounded.
    async fn read(&self, mut response: Response, longest: usize) -> Result<Vec<u8>, Failed> {
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            if body.len() + part.len() > longest {
                let message = format!("{} answered with more than {longest} bytes", self.access.address);
                return Err(broken(message).into());
            }
            body.extend_from_slice(&part);
        }
        Ok(body)
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failed {
        // The outermost names the address only.
        let mut cause: &dyn Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        let reason = self.access.clean(&cause.to_string());
        Failed::transient(format!("{} cannot be reached: {reason}", self.access.address))
    }
}

/// The message of an error and its code, in the forms that APIs give them.
fn describe(problem: &Value) -> (Option<&str>, Option<&str>) {
    let inner = &problem["error"];
    let messages = [&inner["message"], inner, &problem["message"], &problem["detail"]];
    (messages.into_iter().find_map(Value::as_str), inner["code"].as_str().or_else(|| problem["code"].as_str()))
}
