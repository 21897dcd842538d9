//! What stands between the crate and Python, in words.

use std::io;

use tokio::time::error::Elapsed;

pub(crate) use crate::failures::{broken, closed, late, unavailable};
use crate::{EmbeddingError, failures};

pub(crate) fn full() -> EmbeddingError {
    failures::full("of this kind wait for Python")
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
