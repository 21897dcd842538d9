"""What can be configured, from the environment (`AKIDB_*`) or a TOML file.

Precedence: an argument in code, then the environment, then the file, then the default. The file is `$AKIDB_CONFIG`,
else `akidb/mlx.toml` in `$XDG_CONFIG_HOME` or `~/.config`; services started by launchd or systemd do not see the
shell's environment and use it instead.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from akidb_mlx.errors import ConfigurationError

DeviceName = Literal["auto", "gpu", "cpu"]
Precision = Literal["auto", "float32", "float16", "bfloat16"]
BackendName = Literal["auto", "mlx"]
SummaryMode = Literal["auto", "abstractive", "extractive"]


def config_file() -> Path:
    """The TOML file that settings are read from, whether or not it exists."""
    if explicit := os.environ.get("AKIDB_CONFIG"):
        return Path(explicit).expanduser()
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "akidb" / "mlx.toml"


class Settings(BaseSettings):
    """All settings; each is also an environment variable, `AKIDB_` and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="AKIDB_", env_ignore_empty=True, extra="forbid", frozen=True)

    cache_dir: Path | None = Field(None, description="Folder of the cache; models lie in its models/.")
    cache_max_bytes: NonNegativeInt | None = Field(
        None, description="Most bytes of models before the least recently used go; 0: never; a quarter of the disk."
    )
    device: DeviceName = Field("auto", description="Where MLX computes; auto takes a GPU if any.")
    precision: Precision = Field(
        "auto",
        description="Type of the activations; auto is float32 on a CPU and the checkpoint's own type on a GPU.",
    )
    token_budget: PositiveInt | None = Field(
        None, description="Most tokens in one batch, padding included; the device's measured best if unset."
    )
    max_queued_requests: PositiveInt = Field(4096, description="Most calls that wait or run; beyond, refused at once.")
    max_queued_tokens: PositiveInt = Field(
        4_000_000, description="Most tokens that wait; a single call with more is taken when nothing else waits."
    )
    coalesce_delay_ms: NonNegativeFloat = Field(
        0, le=1000, description="How long the first call after an idle time waits for others to share its batch."
    )
    stuck_after_s: PositiveFloat = Field(120, description="When a running forward pass counts as hanging.")
    allow_untrained_dimensions: bool = Field(
        False, description="Let `dimensions` cut the vectors of a model that was not trained for it (Matryoshka)."
    )
    ner_model: str | None = Field(None, description="Model for entities, where a call names neither it nor a language.")
    ner_language: str | None = Field(
        None, description="Language that the model for entities is chosen for; auto tells each text's."
    )
    summary_model: str | None = Field(None, description="Generative model of summaries: a name, org/repo or directory.")
    summary_mode: SummaryMode = Field(
        "auto", description="How summaries are made; auto is abstractive where a model is named, else extractive."
    )

    @property
    def models_dir(self) -> Path | None:
        """Folder that models lie in, or None for the cache's own default."""
        return self.cache_dir.expanduser() / "models" if self.cache_dir else None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings passes it by name
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - likewise
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then the TOML file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=config_file())


def load_settings() -> Settings:
    """Read the environment and the TOML file.

    Raises:
        ConfigurationError: a value is not usable, or the file cannot be read or holds an unknown name.
    """
    try:
        return Settings()
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']} (found {e['input']!r})" for e in error.errors())
        raise ConfigurationError(f"settings from AKIDB_* or {config_file()} are not usable: {faults}") from error
    except (SettingsError, OSError, ValueError) as error:
        raise ConfigurationError(f"{config_file()} cannot be read: {error}") from error
