"""Every error this package raises on purpose.

    AkidbMlxError
    ├── ConfigurationError        a setting, in the environment, the TOML file or an argument, is not usable
    ├── InvalidInputError         a text or an option of one call is not usable (also a ValueError)
    ├── ModelNotFoundError        no directory holds the model that was asked for (also a ValueError)
    ├── ModelLoadError            the model's files are there and cannot be used
    ├── InferenceError            the forward pass failed, or produced something that is not a vector
    ├── RemoteServiceError        an API that computes or writes could not be reached, or failed
    ├── NotTrainedError           a selector was saved before it was trained, and cannot choose
    ├── DeadlineExceededError     the call's timeout passed (also a TimeoutError)
    ├── ServiceOverloadedError    the queue is full: try again later
    ├── ReentrantCallError        the call would wait for the thread that it was made on (also a RuntimeError)
    └── ServiceClosedError        the service was closed, its thread died, or the process was forked

A message says what is wrong, what was found and what to do about it, on one line.
"""

from __future__ import annotations


class AkidbMlxError(Exception):
    """The root of the tree: catching it catches everything below.

    Attributes:
        index: position in the call of the text that failed, or None when the fault is not a single text's.
    """

    def __init__(self, message: str = "", index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


class ConfigurationError(AkidbMlxError):
    """A setting is not usable; the message names it and where it came from."""


class InvalidInputError(AkidbMlxError, ValueError):
    """A text (`index`) or an option of one call is not usable."""


class ModelNotFoundError(AkidbMlxError, ValueError):
    """No directory holds the model that was asked for; the message says how to get it."""


class ModelLoadError(AkidbMlxError):
    """The model's files are there and cannot be used; the message names the file, key or tensor."""


class InferenceError(AkidbMlxError):
    """The forward pass failed, or produced a row (`index`) that is not finite or not of unit length."""


class RemoteServiceError(AkidbMlxError):
    """An API that computes or writes could not be reached, or failed, also when it was asked again."""


class NotTrainedError(AkidbMlxError):
    """A selector was saved before it was trained, and cannot choose."""


class DeadlineExceededError(AkidbMlxError, TimeoutError):
    """The call's `timeout` passed; what had not run of it was dropped."""

    @classmethod
    def after(cls, seconds: float) -> DeadlineExceededError:
        """Return the error of a call that is dropped `seconds` after it was made."""
        return cls(f"not done within the call's timeout: dropped after {seconds:.2f} s; allow more time or retry")


class ServiceOverloadedError(AkidbMlxError):
    """The queue is full; nothing was done with the call's texts, which may be sent again later.

    Attributes:
        retry_after_s: when there will be room, in seconds from now, by estimate.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ReentrantCallError(AkidbMlxError, RuntimeError):
    """The call was refused because it would wait for the thread that it was made on, and so for ever.

    Raised for a blocking call from a done-callback, which runs on the thread that owns the model, and for a call from a
    signal handler or a finalizer that interrupted the same service on the same thread.
    """


class ServiceClosedError(AkidbMlxError):
    """The service no longer takes calls: closed, its owner thread died, or this is a forked child."""


def load_error(error: BaseException) -> AkidbMlxError:
    """Return the error that loading a model ended with as one of this package."""
    if isinstance(error, AkidbMlxError):
        return error
    failure = ModelLoadError(f"loading the model failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
