"""The server's configuration, from the command line and a TOML file."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, ValidationError

from akidb_mlx.catalog import RERANKERS
from akidb_mlx.errors import ConfigurationError
from akidb_mlx.toml_file import read_toml

# Most bytes of the configuration file.
_MAX_FILE_BYTES = 1 << 20
_LONGEST_SHOWN = 60


class ServerConfig(BaseModel):
    """All that the server is told at its start; each field is also a key of the TOML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: list[str] = Field(
        [], description="Embedding models, and rerankers of the catalogue, that may be asked for."
    )
    rerankers: list[str] = Field([], description="Rerankers that may be asked for.")
    entities: str | None = Field(None, description="Model for entities; auto detects the language of each text.")
    summaries: str | None = Field(None, description="Generative model for summaries, or extractive.")
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    api_key_file: Path | None = Field(None, description="File of keys, one a line; it is read again when it changes.")
    allow_no_key: bool = Field(False, description="Serve other machines although there is no key.")
    allowed_hosts: list[str] = Field([], description="Names that requests may be addressed to, beside this machine's.")
    cors_origins: list[str] = Field([], description="Origins whose pages may read the answers.")
    preload: bool = Field(False, description="Load all models at the start, not when they are first asked for.")
    keep_alive_s: NonNegativeFloat | None = Field(
        None, description="Seconds after which a model that nobody used is unloaded; never if unset."
    )
    max_model_bytes: PositiveInt | None = Field(None, description="Most bytes of weights in memory.")
    timeout_s: PositiveFloat = Field(60, description="Seconds that a request may take once its model is loaded.")
    load_timeout_s: PositiveFloat = Field(120, description="Seconds that a request waits for its model to load.")
    body_timeout_s: PositiveFloat = Field(30, description="Seconds in which a request's head, and its body, must come.")
    max_requests: PositiveInt = Field(1024, description="Most requests at once; one more is refused with 429.")
    max_body_bytes: PositiveInt = Field(32 << 20, description="Most bytes of a request's body.")
    max_items: PositiveInt = Field(2048, description="Most texts in a request.")
    max_tokens: PositiveInt = Field(
        1_000_000, description="Most tokens in a request, estimated as four characters each."
    )
    tokenizer_threads: PositiveInt = Field(2, description="Threads that make tokens of texts.")
    shutdown_timeout_s: PositiveFloat = Field(10, description="Seconds that running requests have after SIGTERM.")

    @property
    def embedders(self) -> list[str]:
        """Return the names of the embedding models, the default first."""
        return list(dict.fromkeys(name for name in self.models if name not in RERANKERS))

    @property
    def all_rerankers(self) -> list[str]:
        """Return the names of the rerankers, the default first."""
        return list(dict.fromkeys([*self.rerankers, *(name for name in self.models if name in RERANKERS)]))

    @property
    def is_local(self) -> bool:
        """Return whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def check(self) -> None:
        """Refuse a server that has nothing to serve, or that would serve everybody unasked.

        Raises:
            ConfigurationError: it is one.
        """
        if not (self.models or self.rerankers or self.entities or self.summaries):
            raise ConfigurationError("no model is named: name one with -m, as in `akidb-mlx serve -m minilm-l6-v2`")
        if not self.is_local and self.api_key_file is None and not self.allow_no_key:
            raise ConfigurationError(
                f"host {self.host} can be reached from other machines and there is no key: name a file of keys with "
                "--api-key-file, or serve everybody with --allow-no-key"
            )


def load_config(path: Path | None, flags: Mapping[str, Any]) -> ServerConfig:
    """Return the configuration of a TOML file, and of flags, which go first where they are not None.

    Raises:
        ConfigurationError: the file cannot be read, or a value is not usable.
    """
    values = ({} if path is None else _read(path)) | {name: flag for name, flag in flags.items() if flag is not None}
    try:
        config = ServerConfig(**values)
    except ValidationError as error:
        faults = "; ".join(_describe(fault["loc"], fault["msg"], fault["input"]) for fault in error.errors())
        raise ConfigurationError(f"the server's configuration is not usable: {faults}") from error
    config.check()
    return config


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ConfigurationError(f"{path} has more than {_MAX_FILE_BYTES} bytes")
        return read_toml(path)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error


def _describe(place: tuple[int | str, ...], problem: str, found: object) -> str:
    return f"{'.'.join(map(str, place))[:_LONGEST_SHOWN]}: {problem} (found {repr(found)[:_LONGEST_SHOWN]})"
