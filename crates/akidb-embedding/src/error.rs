//! The two error enums, the [`Failure`] that each variant holds, and the Python exception behind it.

use std::time::Duration;
use std::{error, fmt};

use thiserror::Error;

/// The result of an [`EmbeddingProvider`](crate::EmbeddingProvider)'s calls.
pub type EmbeddingResult<T> = Result<T, EmbeddingError>;

/// The result of an [`MlBridge`](crate::MlBridge)'s calls.
pub type MlBridgeResult<T> = Result<T, MlBridgeError>;

/// An exception that Python raised. It is displayed as its traceback, which ends with the type and the message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Error)]
#[error("{}", traceback.trim_end())]
#[non_exhaustive]
pub struct PythonError {
    /// The full names of the class and its bases, the class first: `"akidb_mlx.errors.InvalidInputError"`, ….
    pub types: Vec<String>,
    /// The message, as `str()` returns it.
    pub message: String,
    /// The traceback, with those of its causes.
    pub traceback: String,
}

impl PythonError {
    /// Return the full name of the exception's class.
    pub fn type_name(&self) -> &str {
        self.types.first().map_or("", String::as_str)
    }
}

/// The reason why a call failed. Its `source()` is a [`PythonError`], if Python raised one.
///
/// `Failure::from("a message")` makes one for an implementation of your own.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// One line with the cause, the value that was found and the remedy.
    pub message: String,
    /// The position of the text at fault in the call, if a single text is at fault.
    pub index: Option<usize>,
    /// The time to wait before the next attempt, if another attempt may succeed.
    pub retry_after: Option<Duration>,
    /// The exception, if Python raised one.
    pub python: Option<Box<PythonError>>,
    /// The variant of `EmbeddingError` that this was in, while it is in one of `MlBridgeError`.
    pub(crate) kind: Option<Kind>,
}

/// The variants of [`EmbeddingError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    ModelNotFound,
    InvalidInput,
    ServiceUnavailable,
    Internal,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

/// The message alone: `main` prints the error that it returns in this form.
impl fmt::Debug for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

// By hand: thiserror would make the box the source, and nobody could downcast it.
impl error::Error for Failure {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.python.as_deref().map(|python| python as _)
    }
}

impl<M: Into<String>> From<M> for Failure {
    fn from(message: M) -> Self {
        Self { message: message.into(), ..Self::default() }
    }
}

/// Implements for an enum of failures what both enums have.
macro_rules! failures {
    ($name:ident { $($variant:ident),+ }) => {
        impl $name {
            /// Return the failure, whichever variant this is.
            pub fn failure(&self) -> &Failure {
                match self {
                    $(Self::$variant(failure))|+ => failure,
                }
            }

            /// Return the position of the text at fault in the call, if a single text is at fault.
            pub fn index(&self) -> Option<usize> {
                self.failure().index
            }

            /// Return the time to wait before the next attempt, if another attempt may succeed.
            pub fn retry_after(&self) -> Option<Duration> {
                self.failure().retry_after
            }

            fn variant(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => stringify!($variant)),+
                }
            }
        }

        /// One line, as in `InvalidInput: text 7 is empty`: `main` prints the error that it returns in this form.
        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{}: {}", self.variant(), self.failure())
            }
        }
    };
}

/// The error of an embedding call.
#[derive(Clone, PartialEq, Eq, Error)]
#[error(transparent)]
#[non_exhaustive]
pub enum EmbeddingError {
    /// The model is not on this machine and was not downloaded, or the provider holds another one.
    ModelNotFound(Failure),
    /// A text, an option or a setting is not usable. The same call would fail again.
    InvalidInput(Failure),
    /// The call was not done: the queue is full, its time passed, or the service is closed or does not answer.
    ServiceUnavailable(Failure),
    /// Python, the package, the model's files or the forward pass is broken.
    Internal(Failure),
}

failures!(EmbeddingError { ModelNotFound, InvalidInput, ServiceUnavailable, Internal });

impl EmbeddingError {
    /// Return the variant that stands for an exception of Python. This is the only place that knows their classes.
    pub(crate) fn from_python(failure: Failure) -> Self {
        let types = failure.python.iter().flat_map(|python| &python.types);
        for name in types.map(String::as_str) {
            return match name {
                "akidb_mlx.errors.InvalidInputError" | "akidb_mlx.errors.ConfigurationError" => {
                    Self::InvalidInput(failure)
                }
                "akidb_mlx.errors.ServiceOverloadedError"
                | "akidb_mlx.errors.ServiceClosedError"
                | "akidb_mlx.errors.DeadlineExceededError" => Self::ServiceUnavailable(failure),
                "model_cache.errors.CorruptModelError" => Self::Internal(failure),
                "akidb_mlx.errors.ModelNotFoundError" | "model_cache.errors.ModelCacheError" => {
                    Self::ModelNotFound(failure)
                }
                _ => continue,
            };
        }
        Self::Internal(failure)
    }
}

/// The error of a call of an [`MlBridge`](crate::MlBridge).
#[derive(Clone, PartialEq, Eq, Error)]
#[error(transparent)]
#[non_exhaustive]
pub enum MlBridgeError {
    /// Python was not found, has another version than the one that this program is linked to, or did not start.
    PythonInit(Failure),
    /// The module was not found, could not be imported, or lacks a function.
    ModuleImport(Failure),
    /// A function raised an exception, or was not called.
    FunctionCall(Failure),
    /// A function returned a value of another type or form than agreed.
    TypeConversion(Failure),
    /// This kind of bridge has no such function; the same call would fail again.
    Unsupported(Failure),
}

failures!(MlBridgeError { PythonInit, ModuleImport, FunctionCall, TypeConversion, Unsupported });

impl From<MlBridgeError> for EmbeddingError {
    fn from(error: MlBridgeError) -> Self {
        match error {
            MlBridgeError::FunctionCall(mut failure) => match failure.kind.take() {
                Some(Kind::ModelNotFound) => Self::ModelNotFound(failure),
                Some(Kind::InvalidInput) => Self::InvalidInput(failure),
                Some(Kind::ServiceUnavailable) => Self::ServiceUnavailable(failure),
                Some(Kind::Internal) => Self::Internal(failure),
                None if failure.retry_after.is_some() => Self::ServiceUnavailable(failure),
                None => Self::from_python(failure),
            },
            MlBridgeError::Unsupported(failure) => Self::InvalidInput(failure),
            MlBridgeError::PythonInit(failure)
            | MlBridgeError::ModuleImport(failure)
            | MlBridgeError::TypeConversion(failure) => Self::Internal(failure),
        }
    }
}

impl From<EmbeddingError> for MlBridgeError {
    fn from(error: EmbeddingError) -> Self {
        let (kind, failure) = match error {
            EmbeddingError::ModelNotFound(failure) => (Kind::ModelNotFound, failure),
            EmbeddingError::InvalidInput(failure) => (Kind::InvalidInput, failure),
            EmbeddingError::ServiceUnavailable(failure) => (Kind::ServiceUnavailable, failure),
            EmbeddingError::Internal(failure) => (Kind::Internal, failure),
        };
        Self::FunctionCall(Failure { kind: Some(kind), ..failure })
    }
}
