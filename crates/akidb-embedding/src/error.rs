//! What can go wrong: one [`Failure`] for both error enums, and what Python raised behind it.

use std::time::Duration;
use std::{error, fmt};

use thiserror::Error;

/// The result of an [`EmbeddingProvider`](crate::EmbeddingProvider)'s calls.
pub type EmbeddingResult<T> = Result<T, EmbeddingError>;

/// The result of an [`MlBridge`](crate::MlBridge)'s calls.
pub type MlBridgeResult<T> = Result<T, MlBridgeError>;

/// An exception, as Python raised it. Shown as its traceback, which ends with the type and the message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", traceback.trim_end())]
pub struct PythonError {
    /// The class and its bases by their full names, the class first: `"akidb_mlx.errors.InvalidInputError"`, ….
    pub types: Vec<String>,
    /// What `str()` makes of it.
    pub message: String,
    /// The traceback, with those of its causes.
    pub traceback: String,
}

impl PythonError {
    /// The full name of the exception's class.
    pub fn type_name(&self) -> &str {
        self.types.first().map_or("", String::as_str)
    }
}

/// What went wrong in a call: on one line the cause, what was found and what to do. Its source is a [`PythonError`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failure {
    /// The line.
    pub message: String,
    /// Position of the text at fault in the call, where it is one text's fault.
    pub index: Option<usize>,
    /// When to try again, where trying again helps.
    pub retry_after: Option<Duration>,
    /// What Python raised, if it raised anything.
    pub python: Option<Box<PythonError>>,
}

impl fmt::Display for Failure {
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

/// Why an embedding call failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EmbeddingError {
    /// The model is not on this machine and was not downloaded, or is not the one that the provider holds.
    #[error(transparent)]
    ModelNotFound(Failure),
    /// A text, an option or a setting is not usable; sent again it fails again.
    #[error(transparent)]
    InvalidInput(Failure),
    /// The call was not done: the queue is full, its time passed, or the service is closed or does not answer.
    #[error(transparent)]
    ServiceUnavailable(Failure),
    /// Python, the package, the model's files or the forward pass is broken.
    #[error(transparent)]
    Internal(Failure),
}

impl EmbeddingError {
    /// What went wrong, whichever variant it is.
    pub fn failure(&self) -> &Failure {
        match self {
            Self::ModelNotFound(failure)
            | Self::InvalidInput(failure)
            | Self::ServiceUnavailable(failure)
            | Self::Internal(failure) => failure,
        }
    }

    /// Position of the text at fault in the call, where it is one text's fault.
    pub fn index(&self) -> Option<usize> {
        self.failure().index
    }

    /// When to try again, where trying again helps.
    pub fn retry_after(&self) -> Option<Duration> {
        self.failure().retry_after
    }

    /// The one place where Python's error trees become variants.
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

/// Why a call of an [`MlBridge`](crate::MlBridge) failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MlBridgeError {
    /// Python was not found, is of another version than the one linked, or did not start.
    #[error(transparent)]
    PythonInit(Failure),
    /// The module was not found, could not be imported, or lacks a function.
    #[error(transparent)]
    ModuleImport(Failure),
    /// A function raised an exception, or was not called.
    #[error(transparent)]
    FunctionCall(Failure),
    /// A function returned something else than was agreed on.
    #[error(transparent)]
    TypeConversion(Failure),
}

impl MlBridgeError {
    /// What went wrong, whichever variant it is.
    pub fn failure(&self) -> &Failure {
        match self {
            Self::PythonInit(failure)
            | Self::ModuleImport(failure)
            | Self::FunctionCall(failure)
            | Self::TypeConversion(failure) => failure,
        }
    }
}

impl From<MlBridgeError> for EmbeddingError {
    fn from(error: MlBridgeError) -> Self {
        match error {
            MlBridgeError::FunctionCall(failure) if failure.retry_after.is_some() => Self::ServiceUnavailable(failure),
            MlBridgeError::FunctionCall(failure) => Self::from_python(failure),
            MlBridgeError::PythonInit(failure)
            | MlBridgeError::ModuleImport(failure)
            | MlBridgeError::TypeConversion(failure) => Self::Internal(failure),
        }
    }
}

impl From<EmbeddingError> for MlBridgeError {
    fn from(error: EmbeddingError) -> Self {
        match error {
            EmbeddingError::ModelNotFound(failure)
            | EmbeddingError::InvalidInput(failure)
            | EmbeddingError::ServiceUnavailable(failure)
            | EmbeddingError::Internal(failure) => Self::FunctionCall(failure),
        }
    }
}
