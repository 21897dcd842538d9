"""The steps that all classes which run a model take alike, from their arguments to a loaded model."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from os import PathLike, fspath
from pathlib import Path

from akidb_mlx.backends.llama_cpp import runtime as llama_cpp_runtime
from akidb_mlx.backends.onnx import runtime as onnx_runtime
from akidb_mlx.catalog import ALL_MODELS, ModelRecord, Task
from akidb_mlx.checkpoint.checkpoint import Checkpoint
from akidb_mlx.checkpoint.onnx_files import find_onnx_file, hub_pattern, parse_onnx_file, require_onnx_file
from akidb_mlx.closeable import Closeable
from akidb_mlx.engine.backend import Model, ModelFacts
from akidb_mlx.engine.engine import Engine
from akidb_mlx.engine.life import EngineLimits
from akidb_mlx.errors import ConfigurationError, InvalidInputError, ModelLoadError
from akidb_mlx.reports import Health, RunningModelInfo, ServiceMetrics
from akidb_mlx.resolve import acquire_directory, acquire_gguf, fetch_files, resolve_backend, resolve_device
from akidb_mlx.runtime import mlx_import
from akidb_mlx.runtime.descriptors import open_standard_descriptors
from akidb_mlx.runtime.finalizers import clean_up_after
from akidb_mlx.settings import BackendName, DeviceName, Settings, load_settings
from model_cache import Weights
from model_cache.names import is_commit

# The models of each task, and the classes that load them.
_TASKS: dict[Task, tuple[str, str]] = {
    "embedding": ("an embedding model", "EmbeddingService"),
    "reranking": ("a reranker", "Reranker"),
    "sparse": ("a sparse model", "SparseEmbedder"),
    "multi-vector": ("a multi-vector model", "MultiVectorEmbedder"),
}


@dataclass(frozen=True)
class Opening:
    """A model that was found and is to be loaded.

    Attributes:
        directory: its files, which stay while the model runs.
        device: where it runs.
        backend: the library that was asked for.
        onnx_file: the ONNX file that ONNX Runtime is to compute; None where another library is.
        gguf_file: the GGUF file that llama.cpp is to compute; None where another library is.
        settings: the settings that count.
        resources: the files and the engine, released in reverse.
    """

    directory: Path
    device: DeviceName
    backend: BackendName
    onnx_file: Path | None
    gguf_file: Path | None
    settings: Settings
    resources: ExitStack


class RunningModel(Closeable):
    """A model that an engine runs: its work, its health and its end."""

    _model_name: str
    _revision: str | None
    _checkpoint: Checkpoint
    _facts: ModelFacts
    _engine: Engine
    # Closes the engine and gives the model's files back.
    _release: Callable[[], None]

    @contextmanager
    def _opening(
        self,
        model_name: str | PathLike[str],
        task: Task,
        known: Mapping[str, ModelRecord],
        *,
        device: str | None,
        backend: str | None,
        auto_download: bool,
        settings: Settings | None,
        onnx_file: str | None = None,
    ) -> Iterator[Opening]:
        """Check arguments and find a model, which the block then loads.

        Its files and its engine are released if the block raises, and else by `close`, or when the object is collected.
        """
        self._model_name = parse_name(model_name)
        settings = parse_settings(settings)
        chosen_device = resolve_device(device, settings)
        if not isinstance(auto_download, bool):
            raise InvalidInputError(f"auto_download must be True or False, found {auto_download!r}")
        chosen_backend = resolve_backend(self._model_name, backend, settings, onnx_file)
        onnx_name = parse_onnx_file(settings.onnx_file if onnx_file is None else onnx_file)
        check_task(self._model_name, ALL_MODELS, task)
        check_backend(chosen_backend, task)  # before a model is downloaded that could not run
        open_standard_descriptors()  # before a file that is open only for a while has one of their numbers
        resources = ExitStack()
        self._release = resources.close
        try:
            file: Path | None = None
            gguf_file: Path | None = None
            if chosen_backend == "llama.cpp":
                gguf_file = acquire_gguf(resources, self._model_name, settings, auto_download)
                directory = gguf_file.parent
            else:
                weights = weights_for(chosen_backend, chosen_device, settings, task)
                acquire = partial(acquire_directory, resources, self._model_name, known, settings, auto_download)
                directory = acquire(weights)
                if weights != "required":
                    file = find_onnx_file(directory, onnx_name)
                if file is None and chosen_backend == "onnx":
                    if auto_download:
                        fetch_files(directory, hub_pattern(onnx_name), settings)
                    file = require_onnx_file(directory, onnx_name)
                if file is None:
                    mlx_import.check_installed()
                    directory = directory if weights == "required" else acquire("required")
            self._revision = directory.name if is_commit(directory.name) else None
            yield Opening(directory, chosen_device, chosen_backend, file, gguf_file, settings, resources)
        except BaseException:
            resources.close()
            raise
        clean_up_after(self, resources.close)

    def _start(self, opening: Opening, checkpoint: Checkpoint) -> None:
        """Begin to load a model on an engine's thread."""
        self._checkpoint = checkpoint
        file = opening.onnx_file
        if checkpoint.towers or checkpoint.static is not None:
            if opening.backend == "onnx":
                kind = "several encoders" if checkpoint.towers else "no encoder but a table"
                raise ConfigurationError(f"backend onnx: {self._model_name} has {kind}: use auto")
            file = None
        load = partial(load_model, checkpoint, opening.device, opening.settings, file)
        self._engine = Engine(load, engine_limits(opening.settings), type(self).__name__)
        opening.resources.callback(self._engine.close)

    @property
    def model_name(self) -> str:
        """Return the name that the model was asked for by."""
        return self._model_name

    @property
    def max_tokens(self) -> int:
        """Return the most tokens of one text, or of one pair of texts, special tokens included."""
        return self._checkpoint.max_tokens

    def _describe(self, prompts: Iterable[str], default_prompt: str | None) -> RunningModelInfo:
        """Return the part of the model's report that does not depend on what it computes."""
        checkpoint, facts = self._checkpoint, self._facts
        return {
            "model_name": self._model_name,
            "max_tokens": checkpoint.max_tokens,
            "backend": facts.backend,
            "device": facts.device,
            "precision": facts.precision,
            "allow_tf32": facts.allow_tf32,
            "quantization": checkpoint.quantization_summary,
            "prompts": sorted(prompts),
            "default_prompt": default_prompt,
            "architecture": checkpoint.architectures,
            "revision": self._revision,
            "path": str(checkpoint.directory),
            "weight_bytes": facts.weight_bytes,
            "memory": self._engine.memory,
            "status": self._engine.status,
        }

    def get_metrics(self) -> ServiceMetrics:
        """Report the work that was done since the model was asked for, as plain types; waits for nothing."""
        return {
            **self._engine.metrics.report(),
            "queue": self._engine.queue_depth(),
            "memory": self._engine.memory,
        }

    def health_check(self) -> Health:
        """Report whether a call can be taken; never raises or waits, even while a forward pass hangs."""
        status, reason = self._engine.health()
        return {"status": status, "reason": reason, "engine": self._engine.status}

    def close(self, drain: bool = False) -> None:
        """Finish the batches that are running, fail the calls that wait, and free the model. Idempotent.

        Args:
            drain: first finish every call that was made, however long that takes; new calls are refused meanwhile.
        """
        self._engine.close(drain)
        self._release()


def check_backend(backend: BackendName, task: Task) -> None:
    """Refuse a backend that is not installed, or does not compute models of a task.

    Raises:
        ConfigurationError: it is, or does.
    """
    if backend in ("onnx", "llama.cpp"):
        if task != "embedding":
            raise ConfigurationError(f"backend {backend} computes embedding models, and not {_TASKS[task][0]}: use mlx")
        (onnx_runtime if backend == "onnx" else llama_cpp_runtime).check_installed()
    elif backend == "mlx" or task != "embedding" or not onnx_runtime.is_installed():
        mlx_import.check_installed()


def weights_for(backend: BackendName, device: DeviceName, settings: Settings, task: Task) -> Weights:
    """Return what is done about a model's weights, which ONNX Runtime does not read.

    With "auto", MLX computes on a GPU. On a plain CPU, ONNX Runtime is faster; it computes where it is installed and
    the model has a file in float32.
    """
    if backend == "onnx":
        return "omitted"
    plain = device == "cpu" or (device == "auto" and not mlx_import.may_have_gpu())
    if backend == "mlx" or task != "embedding" or not plain or settings.precision not in ("auto", "float32"):
        return "required"
    return "optional" if onnx_runtime.is_installed() else "required"


def check_task(model_name: str, known: Mapping[str, ModelRecord], task: Task) -> None:
    """Refuse a name of the catalogue whose model computes something else.

    Raises:
        ModelLoadError: it does; the message names the class that loads it.
    """
    record = known.get(model_name)
    if record is not None and record.task != task:
        found, name = _TASKS[record.task]
        raise ModelLoadError(f"{model_name} is {found}, and not {_TASKS[task][0]}: use akidb_mlx.{name}")


def parse_name(model_name: str | PathLike[str]) -> str:
    """Return a model's name as a string.

    Raises:
        InvalidInputError: it is none.
    """
    if not isinstance(model_name, (str, PathLike)) or not isinstance(name := fspath(model_name), str) or not name:
        raise InvalidInputError(
            f"model_name must be a catalogue name, 'org/repo' or a directory, found {reprlib.repr(model_name)}"
        )
    return name


def parse_settings(settings: Settings | None) -> Settings:
    """Return the settings that a caller gave, or else those of the environment and the TOML file.

    Raises:
        InvalidInputError: they are something else.
    """
    if settings is not None and not isinstance(settings, Settings):
        raise InvalidInputError(f"settings must be akidb_mlx.Settings or None, found {type(settings).__name__}")
    return settings or load_settings()


def engine_limits(settings: Settings) -> EngineLimits:
    """Return the bounds of an engine that the settings ask for."""
    return EngineLimits(
        max_queued_requests=settings.max_queued_requests,
        max_queued_tokens=settings.max_queued_tokens,
        coalesce_delay_s=settings.coalesce_delay_ms / 1000,
        stuck_after_s=settings.stuck_after_s,
    )


def load_model(checkpoint: Checkpoint, device: DeviceName, settings: Settings, onnx_file: Path | None = None) -> Model:
    """Load the model on the owner thread, where MLX or another library is imported for the first time."""
    if checkpoint.gguf is not None:
        from akidb_mlx.backends.llama_cpp.model import LlamaCppModel

        return LlamaCppModel(checkpoint, device, settings.token_budget)
    if onnx_file is not None:
        from akidb_mlx.backends.onnx.model import OnnxModel

        return OnnxModel(checkpoint, onnx_file, device, settings.precision, settings.token_budget)
    if checkpoint.towers:
        from akidb_mlx.backends.towers import TowersModel

        towers = {tuple(one.heads): partial(load_model, one, device, settings) for one in checkpoint.towers}
        return TowersModel(towers, str(checkpoint.directory))
    if checkpoint.static is not None:
        from akidb_mlx.backends.static import StaticModel

        return StaticModel(checkpoint.static)
    mlx_import.prepare(settings.allow_tf32)
    from akidb_mlx.backends.mlx.model import EmbeddingModel
    from akidb_mlx.backends.mlx.plan import execution_plan

    plan = execution_plan(
        device,
        settings.precision,
        settings.token_budget,
        stored_dtype=checkpoint.dtype,
        float16_overflows=checkpoint.architecture.float16_overflows,
        hidden_size=checkpoint.encoder_config.hidden_size,
    )
    return EmbeddingModel(checkpoint, plan)
