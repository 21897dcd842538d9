//! What the crate itself refuses or finds broken, in words.

#![cfg_attr(not(any(feature = "python", feature = "onnx", feature = "openai")), allow(dead_code))]

use std::time::Duration;

use crate::{EmbeddingError, EmbeddingResult, Failure};

/// Most calls that wait for one model, or for one thread of Python's.
pub(crate) const MAX_WAITING: usize = 4096;
/// The hint of a refusal.
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(crate) fn unavailable(message: impl Into<String>) -> EmbeddingError {
    EmbeddingError::ServiceUnavailable(message.into().into())
}

pub(crate) fn broken(message: impl Into<String>) -> EmbeddingError {
    EmbeddingError::Internal(message.into().into())
}

pub(crate) fn refused(message: impl Into<String>) -> EmbeddingError {
    EmbeddingError::InvalidInput(message.into().into())
}

/// A text that is not usable, by its index in the call.
pub(crate) fn bad_text(index: usize, message: impl Into<String>) -> EmbeddingError {
    EmbeddingError::InvalidInput(Failure { index: Some(index), ..message.into().into() })
}

/// As many calls wait as may, for what is named.
pub(crate) fn full(of: &str) -> EmbeddingError {
    let message = format!("{MAX_WAITING} calls {of} already; try again in {RETRY_AFTER:?}");
    EmbeddingError::ServiceUnavailable(Failure { retry_after: Some(RETRY_AFTER), ..message.into() })
}

pub(crate) fn late() -> EmbeddingError {
    unavailable("not done within the call's timeout, and dropped; allow more time or retry")
}

pub(crate) fn closed() -> EmbeddingError {
    unavailable("the provider is closed; create a new one")
}

/// Refuse a request for another model than the one that is held.
pub(crate) fn check_model(held: &str, asked: &str) -> EmbeddingResult<()> {
    if asked == held {
        return Ok(());
    }
    let asked = excerpt(asked, 200);
    Err(EmbeddingError::ModelNotFound(format!("this provider holds {held}, found a request for {asked}").into()))
}

/// The beginning of a text from outside, on one line.
pub(crate) fn excerpt(text: &str, characters: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(characters) {
        None => line,
        Some((end, _)) => format!("{}…", &line[..end]),
    }
}
