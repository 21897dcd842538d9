"""A generative model that mlx_lm runs; all of it belongs to the owner thread."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from akidb_mlx.errors import ModelLoadError
from akidb_mlx.runtime import allocator, cpu_runtime, device
from akidb_mlx.runtime.device_turns import evaluate_in_turns
from akidb_mlx.runtime.locks import device_lock
from akidb_mlx.summarization.chat import ChatTokenizer
from akidb_mlx.summarization.generation_plan import GenerationPlan
from akidb_mlx.summarization.mlx_lm_import import import_mlx_lm
from akidb_mlx.summarization.writing import MEMORY_SHARE, LanguageModelFacts, is_loop

# Added to the logit of a token that the model may not choose; half precision holds it, and a sum with it is finite.
_NEVER = -1e4


class _UnwantedError(Exception):
    """Nobody waits for the answer any more."""


class LanguageModel:
    """A model with its tokenizer, on its device.

    Attributes:
        facts: its properties, for any thread.
        tokenizer: its tokenizer, for any thread.
        computing_since: when the step that runs was given the device, by `time.monotonic`; None while none runs, also
            while one waits for its turn on the device. May be read on any thread.
    """

    def __init__(self, directory: Path, plan: GenerationPlan, context_tokens: int | None) -> None:
        """Load the weights and try the model on one token.

        The device is held for the evaluation of the weights, a bounded part of them at a time, and for the trial: not
        while packages are imported, and files read and checked.

        Args:
            directory: the checkpoint.
            plan: how the model runs.
            context_tokens: a bound on the context, beside those of the model and the memory.

        Raises:
            ModelLoadError: the checkpoint is not one that mlx_lm runs, or computes something that is not finite.
            ConfigurationError: mlx_lm is not installed, or this process computes on another device.
        """
        self._claim = device.claim(plan.device)
        self._plan = plan
        try:
            self._load(directory, context_tokens)
        except BaseException:
            self._claim.release()
            raise

    def _load(self, directory: Path, context_tokens: int | None) -> None:
        """Load the weights, and try the model."""
        plan = self._plan
        allocator.limit_memory(plan.device)
        self._stream = device.lane_streams(plan.device, 1)[0]
        self.computing_since: float | None = None
        self._generate_step, load, dequantize = import_mlx_lm()
        # Code that a checkpoint brings is never run: both loaders refuse one that needs it.
        loaded: Any = load(str(directory), {"trust_remote_code": False}, lazy=True, return_config=True)
        self._model, self._wrapper, config = loaded
        if plan.dequantized:
            self._model.set_dtype(mx.float32)
            self._model = dequantize(self._model)
        parameters: Any = tree_flatten(self._model.parameters())
        weight_bytes = evaluate_in_turns([array for _, array in parameters])
        self.tokenizer = ChatTokenizer(self._wrapper)
        with self._hold_device():
            logits = self._model(mx.array([[0]]))
            finite = mx.isfinite(logits.astype(mx.float32)).all().item()
        if not finite:
            raise ModelLoadError(f"{directory} computes values that are not finite: its weights are damaged")
        quantization = config.get("quantization")
        cost = kv_bytes_per_token(config, logits.dtype.size)
        affordable = int(allocator.available_memory(plan.device) * MEMORY_SHARE) // cost
        self.facts = LanguageModelFacts(
            context_tokens=min(_positions(config), affordable, context_tokens or sys.maxsize),
            device=str(plan.device.type.name),
            precision=str(logits.dtype).removeprefix("mlx.core."),
            quantization=f"{quantization['bits']}-bit" if quantization else None,
            weight_bytes=weight_bytes,
            kv_bytes_per_token=cost,
        )

    def generate(self, ids: list[int], max_tokens: int, emit: Callable[[str], bool]) -> bool:
        """Continue a prompt, always with the likeliest token, and never with nothing.

        The device is held while nobody else wants it, and given to all who wait after each token and each stretch of
        the prompt, once what runs on it is done.

        Args:
            ids: the prompt's tokens.
            max_tokens: most tokens of the answer.
            emit: takes the answer piece by piece ("" while the prompt is read), and returns whether to go on.

        Returns:
            Whether the model ended the answer itself, so neither `max_tokens` nor a loop nor `emit` did.
        """
        words = self._wrapper.detokenizer
        written: list[int] = []
        answer_bytes = (len(ids) + max_tokens) * self.facts.kv_bytes_per_token
        with allocator.wired(self._plan.device, answer_bytes), ExitStack() as turn:
            turn.enter_context(self._hold_device())

            def give_way() -> None:
                self.computing_since = time.monotonic()
                if device_lock.wanted:
                    mx.synchronize(self._stream)
                    turn.close()
                    turn.enter_context(self._hold_device())

            def after_stretch(*_: int) -> None:
                if not emit(""):
                    raise _UnwantedError
                give_way()

            steps = self._generate_step(
                mx.array(ids),
                self._model,
                self._stream,
                max_tokens=max_tokens,
                prefill_step_size=self._plan.prefill_tokens,
                prompt_progress_callback=after_stretch,
                logits_processors=[_beginning_without(self.tokenizer.stop_ids)],
            )
            try:
                for token, _ in steps:
                    if token in self.tokenizer.stop_ids:
                        words.finalize()
                        emit(words.last_segment)
                        return True
                    words.add_token(token)
                    written.append(token)
                    if not emit(words.last_segment) or is_loop(written):
                        return False
                    give_way()
                words.finalize()
                emit(words.last_segment)
            except _UnwantedError:
                pass
            finally:
                steps.close()
                mx.synchronize(self._stream)
        return False

    def release_memory(self) -> None:
        """Give back memory that is only kept for reuse."""
        allocator.release_memory()

    def close(self) -> None:
        """Free the weights; the last call."""
        del self._model, self._wrapper
        allocator.release_memory()
        self._claim.release()

    @contextmanager
    def _hold_device(self) -> Iterator[None]:
        with device_lock:
            cpu_runtime.set_blas_threads(cpu_runtime.cores())  # an embedder's step, too, says how many it wants
            self._claim.renew()
            self.computing_since = time.monotonic()
            try:
                yield
            finally:
                self.computing_since = None


def kv_bytes_per_token(config: dict[str, Any], bytes_per_value: int) -> int:
    """Return the memory that one more token takes: a key and a value for each head of each layer.

    2 · layers · key-value heads · head size · bytes of a value; an upper bound where layers see a window only.

    Raises:
        ModelLoadError: config.json lacks one of them.
    """
    config = {**config, **config.get("text_config", {})}
    layers = _number(config, "num_hidden_layers", "n_layers", "n_layer", "num_layers")
    heads = _number(config, "num_attention_heads", "n_heads", "n_head")
    kv_heads = config.get("num_key_value_heads") or heads
    head_size = config.get("head_dim") or _number(config, "hidden_size", "d_model", "n_embd") // heads
    return 2 * layers * int(kv_heads) * int(head_size) * bytes_per_value


def _positions(config: dict[str, Any]) -> int:
    config = {**config, **config.get("text_config", {})}
    return _number(config, "max_position_embeddings", "max_seq_len", "n_positions", "seq_length")


def _number(config: dict[str, Any], *names: str) -> int:
    for name in names:
        if isinstance(config.get(name), int) and config[name] > 0:
            return int(config[name])
    raise ModelLoadError(f"config.json holds no positive number under any of {', '.join(names)}")


def _beginning_without(tokens: frozenset[int]) -> Callable[[mx.array, mx.array], mx.array]:
    """Return a logits processor that keeps some tokens from being the first of an answer."""
    begun = False

    def process(_: mx.array, logits: mx.array) -> mx.array:
        nonlocal begun
        if not begun:
            begun = True
            # A tokenizer may have more tokens than its model; MLX checks no index.
            logits[:, mx.array([token for token in sorted(tokens) if token < logits.shape[-1]])] += _NEVER
        return logits

    return process
