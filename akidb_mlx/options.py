"""The keyword options of an embedding call, and their check."""

from __future__ import annotations

import reprlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, get_args

from typing_extensions import TypedDict

from akidb_mlx.errors import InvalidInputError
from akidb_mlx.texts import check_string

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from akidb_mlx.quantized import Ranges

OutputDtype = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]
OUTPUT_DTYPES: tuple[OutputDtype, ...] = get_args(OutputDtype)

OverflowPolicy = Literal["truncate", "error", "chunk"]
OVERFLOW_POLICIES: tuple[OverflowPolicy, ...] = get_args(OverflowPolicy)

# Arguments that `EmbeddingService` had in the first package, and what takes their place.
_FORMER_ARGUMENTS = {
    "pooling": "the model's own files say how it pools, and get_model_info()['pooling'] reports it",
    "normalize": "give it to the call, as in embed(texts, normalize=False)",
    "config": "use settings=Settings(…), the environment (AKIDB_*) or the settings file",
    "config_path": "use settings=Settings(…), the environment (AKIDB_*) or the settings file, which AKIDB_CONFIG names",
}


class EmbedOptions(TypedDict, total=False):
    """The keyword options that every embedding call takes.

    Attributes:
        input_type: None (default) adds nothing; "query", "document" or a prompt name of the model puts that prompt
            before each text.
        prompt: a string to put before each text, in place of a named prompt.
        dimensions: keep this many of the first values, then normalise again (Matryoshka); the service's if not given.
        normalize: whether vectors are divided by their length; True if not given.
        on_overflow: how a text is treated that is longer than the model takes. "truncate" (default) cuts it and says
            so in `truncated`; "error" refuses it; "chunk" embeds all of it in overlapping windows and averages their
            vectors by token count.
        timeout: seconds that the whole call may take, counted from the call: tokenising, waiting in the queue, loading
            the model again and computing. Then it fails with `DeadlineExceededError`, and what has not run is
            dropped. None (default) waits. A future of `submit` fails when its turn would come; its own
            `result(timeout=…)` fails at once.
        output_dtype: type of the vectors' values: "float32" (default), "float16", "int8", "uint8", or one bit for each,
            eight to a byte, as "binary" (int8) or "ubinary" (uint8). Vectors are cut and normalised before.
        ranges: for int8 and uint8, the smallest and the largest value of each dimension, (2, dimensions); see
            `akidb_mlx.calibration_ranges`.
    """

    input_type: str | None
    prompt: str | None
    dimensions: int | None
    normalize: bool
    on_overflow: OverflowPolicy
    timeout: float | None
    output_dtype: OutputDtype
    ranges: ArrayLike | None


@dataclass(frozen=True)
class CallOptions:
    """`EmbedOptions`, checked and complete; the prompt's name is still to be looked up among the model's.

    Attributes:
        timeout: seconds, or None for any timeout that is longer than a thread can wait.
    """

    input_type: str | None
    prompt: str | None
    dimensions: int
    normalize: bool
    on_overflow: OverflowPolicy
    timeout: float | None
    output_dtype: OutputDtype
    ranges: Ranges | None


@dataclass(frozen=True)
class DimensionRange:
    """The sizes that a model's vectors may have.

    Attributes:
        default: the size that calls get unless they say otherwise.
        native: the size that the model computes; None where that is not known yet.
        cuttable: whether shorter vectors may be made of them.
        model: the model's name, for messages.
    """

    default: int
    native: int | None
    cuttable: bool
    model: str


def parse_options(options: EmbedOptions, dimensions: DimensionRange) -> CallOptions:
    """Check the options of one call, and fill in the defaults.

    Raises:
        InvalidInputError: a value is not usable; the message names the option.
        TypeError: there is no such option.
    """
    unknown = set(options) - EmbedOptions.__optional_keys__
    if unknown:
        known = ", ".join(EmbedOptions.__annotations__)
        raise TypeError(f"unknown option {', '.join(sorted(unknown))}; known: {known}")
    input_type, prompt = options.get("input_type"), options.get("prompt")
    for name, value in (("input_type", input_type), ("prompt", prompt)):
        if value is not None and not isinstance(value, str):
            raise InvalidInputError(f"{name} must be a string, found {type(value).__name__}")
    if prompt is not None:
        if input_type is not None:
            raise InvalidInputError("give input_type or prompt, not both: prompt is used literally in place of a name")
        check_string("prompt", prompt)
    normalize = options.get("normalize", True)
    if not isinstance(normalize, bool):
        raise InvalidInputError(f"normalize must be True or False, found {shown(normalize)}")
    on_overflow = options.get("on_overflow", "truncate")
    if on_overflow not in OVERFLOW_POLICIES:
        raise InvalidInputError(
            f"on_overflow must be one of {', '.join(OVERFLOW_POLICIES)}, found {shown(on_overflow)}"
        )
    output_dtype = options.get("output_dtype", "float32")
    if output_dtype not in OUTPUT_DTYPES:
        raise InvalidInputError(f"output_dtype must be one of {', '.join(OUTPUT_DTYPES)}, found {shown(output_dtype)}")
    size = parse_dimensions(options.get("dimensions"), dimensions)
    return CallOptions(
        input_type=input_type,
        prompt=prompt,
        dimensions=size,
        normalize=normalize,
        on_overflow=on_overflow,
        timeout=parse_timeout(options.get("timeout")),
        output_dtype=output_dtype,
        ranges=_parse_ranges(output_dtype, options.get("ranges"), size),
    )


def _parse_ranges(output_dtype: OutputDtype, ranges: Any, size: int) -> Ranges | None:
    if output_dtype == "float32" and ranges is None:
        return None
    from akidb_mlx.quantized import check_ranges  # which imports NumPy

    return check_ranges(output_dtype, ranges, size)


def refuse_arguments(arguments: Mapping[str, object]) -> None:
    """Refuse arguments that `EmbeddingService` does not have.

    Raises:
        TypeError: there are any; the message names them.
    """
    if arguments:
        instead = "; ".join(f"{name}: {hint}" for name, hint in _FORMER_ARGUMENTS.items() if name in arguments)
        names = ", ".join(map(shown, sorted(arguments)))
        raise TypeError(f"EmbeddingService has no argument {names}" + (f" ({instead})" if instead else ""))


def parse_timeout(timeout: Any) -> float | None:
    """Return a timeout in seconds; None for None and for one that is longer than a thread can wait.

    Raises:
        InvalidInputError: it is no number above 0.
    """
    if timeout is None:
        return None
    if not is_number(timeout, Real) or not timeout > 0:
        raise InvalidInputError(f"timeout must be a number of seconds above 0, or None, found {shown(timeout)}")
    return None if timeout > threading.TIMEOUT_MAX else float(timeout)


def parse_dimensions(dimensions: Any, allowed: DimensionRange) -> int:
    """Return how many values each vector of a call has; the default for None.

    Raises:
        InvalidInputError: the model has no vectors of that size.
    """
    if dimensions is None:
        return allowed.default
    most = allowed.native
    if not is_number(dimensions, Integral) or dimensions < 1 or (most is not None and dimensions > most):
        bounds = "of 1 or more" if most is None else f"from 1 to {most}"
        raise InvalidInputError(f"dimensions must be an integer {bounds}, found {shown(dimensions)}")
    if most is not None and dimensions != most and not allowed.cuttable:
        raise InvalidInputError(
            f"dimensions={dimensions}: {allowed.model} was not trained for vectors shorter than {allowed.native} and "
            "cutting them loses quality; insist with Settings(allow_untrained_dimensions=True) or, in the environment, "
            "AKIDB_ALLOW_UNTRAINED_DIMENSIONS=1"
        )
    return int(dimensions)


def is_number(value: object, kind: type) -> bool:
    """Return whether a value is a number of that kind; a truth value is none."""
    return isinstance(value, kind) and not isinstance(value, bool)


def shown(value: object) -> str:
    """Return a value as a message quotes it, cut short."""
    try:
        return reprlib.repr(value)
    except ValueError:  # an integer of more digits than Python prints
        return f"an {type(value).__name__} of too many digits"
