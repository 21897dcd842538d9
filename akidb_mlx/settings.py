"""Settings from arguments, the environment (`AKIDB_*`) and a TOML file.

An argument goes first, then the environment, then the file, then the default. The file is `$AKIDB_CONFIG`, else
`akidb/mlx.toml` in `$XDG_CONFIG_HOME` or `~/.config`; services started by launchd or systemd do not see the shell's
environment and use it instead.
"""

from __future__ import annotations

import logging
import os
import reprlib
import stat
from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from akidb_mlx.errors import ConfigurationError
from akidb_mlx.toml_file import read_toml
from model_cache import CacheConfig, ModelCache, ModelCacheError
from model_cache.config import cache_dir_from_environment, max_bytes_from_environment

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

logger = logging.getLogger(__name__)

DeviceName = Literal["auto", "gpu", "cpu"]
Precision = Literal["auto", "float32", "float16", "bfloat16"]
BackendName = Literal["auto", "mlx", "onnx", "llama.cpp"]
SummaryMode = Literal["auto", "abstractive", "extractive"]

# Variables that are no settings: what they mean is on the page of the settings.
_OTHER_VARIABLES = frozenset({"AKIDB_CONFIG", "AKIDB_MODEL", "AKIDB_PYTHON", "AKIDB_TEST_MODELS"})
# From this similarity on, by difflib's measure, a variable's name is taken for a setting's with a slip in it.
_SIMILAR = 0.85
# Most bytes of the settings file.
_MAX_FILE_BYTES = 1 << 20
_LONGEST_SHOWN = 100
_SHORT_REPR = reprlib.Repr()
_SHORT_REPR.maxstring = _SHORT_REPR.maxlong = _SHORT_REPR.maxother = _LONGEST_SHOWN
# What the names of variables begin with.
_PREFIX = "AKIDB_"


def config_file() -> Path | None:
    """Return the TOML file that settings are read from, whether or not it exists; None without a home folder.

    Raises:
        ConfigurationError: `$AKIDB_CONFIG` or `$XDG_CONFIG_HOME` is in the home folder of a user who is not known.
    """
    for variable, below in (("AKIDB_CONFIG", ""), ("XDG_CONFIG_HOME", "akidb/mlx.toml")):
        if folder := os.environ.get(variable):
            try:
                return Path(folder).expanduser() / below
            except RuntimeError as error:
                raise ConfigurationError(f"{variable} is {folder!r}, and this home folder is not known") from error
    try:
        return Path("~/.config/akidb/mlx.toml").expanduser()
    except RuntimeError:  # HOME is unset, and the user has no name
        return None


class Settings(BaseModel):
    """All settings; each is also an environment variable, `AKIDB_` and its name in capitals.

    Raises:
        ConfigurationError: a name is unknown or a value unusable, whether it is an argument or comes from the
            environment or the file; or the file cannot be read, or `$AKIDB_CONFIG` names one that does not exist.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cache_dir: Path | None = Field(None, description="Folder of the cache; models lie in its models/.")
    cache_max_bytes: NonNegativeInt | None = Field(
        None,
        description="Most bytes that models may take before the least recently used are deleted; 0 for no limit, a "
        "quarter of the disk if unset.",
    )
    device: DeviceName = Field("auto", description="Device that MLX computes on; auto takes a GPU if there is one.")
    backend: BackendName = Field(
        "auto",
        description="Library that computes embedding models; auto is llama.cpp for a GGUF file; else MLX, or on a "
        "plain CPU ONNX Runtime where it is installed and the model has an ONNX file.",
    )
    onnx_file: str | None = Field(
        None,
        description="Name of the model's ONNX file, as model_fp16.onnx; the exported one, else model.onnx if unset.",
    )
    openai_base_url: str | None = Field(
        None, description="Address of the API of models openai:NAME; that of OPENAI_BASE_URL, else OpenAI's, if unset."
    )
    precision: Precision = Field(
        "auto",
        description="Type of the activations; auto is float32 on a CPU and the checkpoint's own type on a GPU.",
    )
    allow_tf32: bool = Field(
        False,
        description="Let a GPU from the M5 on round the factors of float32 products to 10 bits, which is faster; the "
        "first model of a process decides, and MLX_ENABLE_TF32 goes first.",
    )
    token_budget: PositiveInt | None = Field(
        None, description="Most tokens in one batch, padding included; the device's measured best if unset."
    )
    max_queued_requests: PositiveInt = Field(
        4096, description="Most calls that wait or run; one more is refused at once."
    )
    max_queued_tokens: PositiveInt = Field(
        4_000_000, description="Most tokens that wait; a single call with more is accepted when nothing else waits."
    )
    coalesce_delay_ms: NonNegativeFloat = Field(
        0, le=1000, description="How long the first call after an idle time waits for others to share its batch."
    )
    stuck_after_s: PositiveFloat = Field(
        120, description="Seconds after which a running forward pass counts as hanging."
    )
    dimensions: PositiveInt | None = Field(
        None, description="How many values a vector has unless the service or a call says otherwise."
    )
    allow_untrained_dimensions: bool = Field(
        False, description="Let `dimensions` cut the vectors of a model that was not trained for it (Matryoshka)."
    )
    allow_unstated_pooling: bool = Field(
        False, description="Load a causal model whose files do not say that it is an embedding model."
    )
    known_answers: bool = Field(
        True,
        description="Ask a model for its known answers when it is loaded, and refuse it where it gives others.",
    )
    ner_model: str | None = Field(
        None, description="Model for entities, where a call names neither a model nor a language."
    )
    ner_language: str | None = Field(
        None, description="Language to choose the model for entities by; auto detects the language of each text."
    )
    summary_model: str | None = Field(
        None, description="Generative model for summaries: a name, org/repo, a directory or openai:NAME."
    )
    summary_mode: SummaryMode = Field(
        "auto", description="How summaries are made; auto is abstractive where a model is named, else extractive."
    )

    if not TYPE_CHECKING:  # type checkers see the parameters that pydantic derives from the fields

        def __init__(self, **arguments: Any) -> None:
            _warn_of_slips(tuple(sorted(name for name in os.environ if name.upper().startswith(_PREFIX))))
            arguments = _by_setting(arguments)
            try:
                super().__init__(**{**_from_file(), **_from_environment(arguments), **arguments})
            except ValidationError as error:
                faults = "; ".join(_describe_fault(fault, arguments) for fault in error.errors())
                raise ConfigurationError(f"settings are not usable: {faults}") from error
            except ModelCacheError as error:
                raise ConfigurationError(f"settings are not usable: {error}") from error
            except (OSError, ValueError, RecursionError) as error:
                raise ConfigurationError(f"settings file {config_file()} cannot be read: {error}") from error

    def open_cache(self) -> ModelCache:
        """Return the model cache in the folder and with the limit of these settings."""
        config = CacheConfig.resolve(self.cache_dir, self.cache_max_bytes)
        return ModelCache(config.root, max_bytes=config.max_bytes)

    def exact(self) -> Settings:
        """Return these settings for vectors in float32, of products in full precision: those of a reference."""
        return self.model_copy(update={"precision": "float32", "allow_tf32": False})

    def without_dimensions(self) -> Settings:
        """Return these settings for a model that the user did not choose, and which need not have `dimensions`."""
        return self.model_copy(update={"dimensions": None})


def load_settings() -> Settings:
    """Return the settings of the environment and the TOML file; the same as `Settings()`."""
    return Settings()


def _by_setting(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return values by the names of settings, which may be written in any case, as variables may.

    Raises:
        ConfigurationError: one is there in two cases with two values, of which neither goes first.
    """
    found: dict[str, Any] = {}
    written: dict[str, str] = {}
    for name, value in values.items():
        setting = name.lower().removeprefix(prefix)
        key = setting if setting in Settings.model_fields else name
        if key in found and found[key] != value:
            raise ConfigurationError(
                f"settings are not usable: {written[key]} and {name} are one setting with two values: leave one out"
            )
        found[key], written[key] = value, name
    return found


def _from_environment(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the environment's settings but those that arguments give; an empty variable is none."""
    variables = {name: value for name, value in os.environ.items() if value and name.upper().startswith(_PREFIX)}
    values = {
        name: value for name, value in _by_setting(variables, _PREFIX.lower()).items() if name in Settings.model_fields
    }
    # The cache's are as `model_cache` reads them.
    for name, read in (("cache_dir", cache_dir_from_environment), ("cache_max_bytes", max_bytes_from_environment)):
        values.pop(name, None)
        if name not in arguments and (value := read()) is not None:
            values[name] = value
    return values


def _from_file() -> dict[str, Any]:
    """Return the settings of the TOML file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no TOML, or no file of settings.
    """
    file = config_file()
    if file is None or not _is_there(file):
        return {}
    return _by_setting(read_toml(file))


def _is_there(path: Path) -> bool:
    """Tell if there is a file of settings; refuse what is none: a pipe would be waited for, and `/dev/null` is empty.

    Raises:
        OSError: it cannot be looked at.
        ValueError: it is not a file, too large, or missing although `$AKIDB_CONFIG` names it.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        if os.environ.get("AKIDB_CONFIG"):
            raise ValueError("AKIDB_CONFIG names it, and it does not exist") from None
        return False
    if not stat.S_ISREG(found.st_mode) and not path.samefile(os.devnull):
        raise ValueError("it is not a file")
    if found.st_size > _MAX_FILE_BYTES:
        raise ValueError(f"it has more than {_MAX_FILE_BYTES} bytes")
    return True


@lru_cache(maxsize=1)  # warns again only when the variables change
def _warn_of_slips(variables: tuple[str, ...]) -> None:
    """Warn of variables that are no settings and have nearly the name of one; AkiDB has variables of its own."""
    for variable in variables:
        name = variable.upper().removeprefix(_PREFIX).lower()
        if name in Settings.model_fields or variable in _OTHER_VARIABLES:
            continue
        if similar := get_close_matches(name, Settings.model_fields, n=1, cutoff=_SIMILAR):
            meant = f"AKIDB_{similar[0].upper()}"
            logger.warning("the environment variable %s has no effect: is %s meant?", _shorten(variable), meant)


def _describe_fault(fault: ErrorDetails, arguments: Mapping[str, Any]) -> str:
    """Name a setting that was refused, what is allowed, what was found and where."""
    name = str(fault["loc"][0])
    variable = f"AKIDB_{name.upper()}"
    if fault["type"] == "extra_forbidden":
        problem = f"{_shorten(name)} is not a setting; settings are {', '.join(Settings.model_fields)}"
    else:
        problem = f"{name}: {fault['msg']}"
    if name in arguments:
        origin = "the arguments"
    elif name in Settings.model_fields and any(key.upper() == variable and value for key, value in os.environ.items()):
        origin = f"the environment variable {variable}"
    else:
        origin = str(config_file())
    return f"{problem} (found {_shorten(fault['input'])} in {origin})"


def _shorten(value: object) -> str:
    """Return a value as it is written in code, on one line, neither too long nor too deep."""
    text = " ".join(_SHORT_REPR.repr(value).split())
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
