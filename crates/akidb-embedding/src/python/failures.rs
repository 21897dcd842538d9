//! What the crate itself refuses or finds broken, in words.

use std::io;
use std::time::Duration;

use tokio::time::error::Elapsed;

use super::MAX_WAITING;
use crate::{EmbeddingError, Failure};

/// The hint of a refusal: a queue before Python is full only while something keeps Python from running.
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(crate) fn unavailable(message: impl Into<String>) -> EmbeddingError {
    EmbeddingError::ServiceUnavailable(message.into().into())
}

pub(crate) fn broken(message: impl Into<String>) -> EmbeddingError {
    EmbeddingError::Internal(message.into().into())
}

pub(crate) fn full() -> EmbeddingError {
    let message = format!("{MAX_WAITING} calls of this kind wait for Python already; try again in {RETRY_AFTER:?}");
    EmbeddingError::ServiceUnavailable(Failure { retry_after: Some(RETRY_AFTER), ..message.into() })
}

pub(crate) fn late() -> EmbeddingError {
    unavailable("not done within the call's timeout, and dropped; allow more time or retry")
}

pub(crate) fn closed() -> EmbeddingError {
    unavailable("the provider is closed; create a new one")
}

pub(crate) fn no_answer(_: Elapsed) -> EmbeddingError {
    unavailable(
        "Python did not answer in time: the process is overloaded, or a thread of it keeps the GIL (docs/rust.md, the \
         mutex)",
    )
}

pub(crate) fn no_thread(error: io::Error) -> EmbeddingError {
    broken(format!("a thread for Python could not be started: {error}"))
}
