"""A generative model in a GGUF file, which llama.cpp runs; all of it belongs to the owner thread but its format."""

from __future__ import annotations

import codecs
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from akidb_mlx.backends.llama_cpp.context import GenerationContext
from akidb_mlx.backends.llama_cpp.runtime import LoadedGguf
from akidb_mlx.backends.llama_cpp.vocabulary import Vocabulary
from akidb_mlx.checkpoint.gguf import GgufHeader
from akidb_mlx.checkpoint.gguf_model import read_model_header
from akidb_mlx.checkpoint.jinja import template_environment
from akidb_mlx.errors import ConfigurationError, ModelLoadError
from akidb_mlx.runtime import cpu_runtime
from akidb_mlx.settings import DeviceName
from akidb_mlx.summarization.writing import MEMORY_SHARE, LanguageModelFacts, is_loop

_TEMPLATE = "tokenizer.chat_template"
# Tokens of a prompt that are read before anybody is asked whether the answer is still wanted.
_STRETCH = 256
_LARGEST_SIZE = 1 << 20


class GgufFormat:
    """The tokenizer and the chat template of a file; see `TokenFormat`."""

    thinking = ("<think>", "</think>")

    def __init__(self, header: GgufHeader, vocabulary: Vocabulary) -> None:
        """Compile the template, and try it.

        Raises:
            ModelLoadError: it is malformed.
            ConfigurationError: Jinja is not installed.
        """
        self._vocabulary = vocabulary
        control = vocabulary.control_tokens()
        longest_first = sorted({re.escape(text) for text in control.values()}, key=len, reverse=True)
        self._control = re.compile("|".join(longest_first)) if longest_first else None
        steering = {token for token in control if vocabulary.is_control(token)}
        ending = {token for token in range(vocabulary.size) if vocabulary.ends_answer(token)}
        self.stop_ids = frozenset(ending | {token for token in steering if control[token] not in self.thinking})
        self.has_template = _TEMPLATE in header.metadata
        self._template: Any = None
        self._names = {f"{kind}_token": vocabulary.name(kind) for kind in ("bos", "eos")}
        if self.has_template:
            self._template = _compile(header)
            self.render("a")

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text; marks of the chat template in it become control tokens."""
        ids: list[int] = self._vocabulary.tokenize(text, control=True).tolist()
        return ids

    def encode_from_start(self, text: str) -> list[int]:
        """Return the tokens of a text that stands at the beginning of a prompt without a template."""
        return self._vocabulary.first() + self.encode(text)

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text has."""
        return [len(self._vocabulary.tokenize(text, control=True)) for text in texts]

    def cut(self, text: str, tokens: int) -> list[str]:
        """Cut a text into halves, and those again, until each has at most so many tokens."""
        if len(text) < 2 or self.count([text])[0] <= tokens:
            return [text]
        middle = len(text) // 2
        return [*self.cut(text[:middle], tokens), *self.cut(text[middle:], tokens)]

    def inert(self, text: str) -> str:
        """Change a text so that no part of it becomes a control token: "<|im_end|>" to "< |im_end|>"."""
        if self._control is None:
            return text
        while self._control.search(text):
            text = self._control.sub(lambda mark: f"{mark[0][0]} {mark[0][1:]}" if len(mark[0]) > 1 else " ", text)
        return text

    def render(self, content: str) -> str:
        """Render a conversation in which the user says `content`, up to the model's answer; thinking is switched off.

        Raises:
            ModelLoadError: the model's template fails on it.
        """
        try:
            rendered: str = self._template.render(
                messages=[{"role": "user", "content": content}],
                tools=None,
                add_generation_prompt=True,
                enable_thinking=False,
                **self._names,
            )
        except Exception as error:
            raise ModelLoadError(
                f"the model's chat template failed: {type(error).__name__}: {str(error)[:200]}; use another model"
            ) from error
        return rendered


class GgufLanguageModel:
    """A model with its format; see `WritingModel`.

    Attributes:
        facts: its properties, for any thread.
        tokenizer: its format, for any thread.
        computing_since: when the step that runs began, by `time.monotonic`; None while none runs.
    """

    def __init__(self, file: Path, device: DeviceName, context_tokens: int | None) -> None:
        """Load the weights.

        Args:
            file: the GGUF file.
            device: where it runs; "auto" takes a GPU if llama.cpp was built for one.
            context_tokens: a bound on the context, beside those of the file and the memory.

        Raises:
            ModelLoadError: the file is damaged, or llama.cpp refuses it.
            ConfigurationError: llama-cpp-python is not installed, or has no GPU.
        """
        header = read_model_header(file)
        name = header.architecture
        if header.metadata.get(f"{name}.pooling_type", 0) != 0:
            raise ModelLoadError(f"{file} holds an embedding model, and writes no texts: name a chat model")
        self._model = LoadedGguf(file, device)
        self.tokenizer = GgufFormat(header, Vocabulary(self._model))
        self.computing_since: float | None = None
        cost = kv_bytes_per_token(header)
        affordable = int(cpu_runtime.available_memory() * MEMORY_SHARE) // cost
        stated = header.number(f"{name}.context_length", 1, 1 << 24)
        self.facts = LanguageModelFacts(
            context_tokens=min(stated, affordable, context_tokens or sys.maxsize),
            device="gpu" if self._model.on_gpu else "cpu",
            precision="float32",
            quantization=header.quantization,
            weight_bytes=header.weight_bytes,
            kv_bytes_per_token=cost,
            backend="llama.cpp",
        )
        self._context = GenerationContext(self._model, cpu_runtime.cores())

    def generate(self, ids: list[int], max_tokens: int, emit: Callable[[str], bool]) -> bool:
        """Continue a prompt, always with the likeliest token, and never with nothing; see `WritingModel`."""
        vocabulary, stops = Vocabulary(self._model), self.tokenizer.stop_ids
        words = codecs.getincrementaldecoder("utf-8")(errors="replace")
        written: list[int] = []
        self._context.begin(len(ids) + max_tokens)
        try:
            for start in range(0, len(ids), _STRETCH):
                self._read(ids[start : start + _STRETCH])
                if not emit(""):
                    return False
            while len(written) < max_tokens:
                token = self._context.likeliest(() if written else stops)
                if token in stops:
                    emit(words.decode(b"", final=True))
                    return True
                written.append(token)
                if not emit(words.decode(vocabulary.piece(token))) or is_loop(written):
                    return False
                self._read([token])
            emit(words.decode(b"", final=True))
        finally:
            self.computing_since = None
        return False

    def release_memory(self) -> None:
        """Free the memory of the latest answer."""
        self._context.close()
        cpu_runtime.release_memory()

    def close(self) -> None:
        """Free the weights; the last call."""
        self._context.close()
        del self._model

    def _read(self, ids: list[int]) -> None:
        self.computing_since = time.monotonic()
        self._context.read(ids)


def kv_bytes_per_token(header: GgufHeader) -> int:
    """Return the memory that one more token takes: a key and a value in float16 for each head of each layer.

    Raises:
        ModelLoadError: the header lacks what that is worked out from.
    """
    name = header.architecture
    layers = header.number(f"{name}.block_count", 1, 1 << 10)
    size = header.number(f"{name}.embedding_length", 1, _LARGEST_SIZE)
    heads = header.number(f"{name}.attention.head_count", 1, size)
    kv_heads = header.number(f"{name}.attention.head_count_kv", 1, size, default=heads)
    values = (
        header.number(f"{name}.attention.{kind}_length", 1, _LARGEST_SIZE, default=size // heads)
        for kind in ("key", "value")
    )
    return layers * kv_heads * sum(values) * 2


def _compile(header: GgufHeader) -> Any:
    """Return the chat template of a file."""
    try:
        return template_environment().from_string(header.string(_TEMPLATE))
    except ImportError as error:
        raise ConfigurationError(
            f"{header.file}: its chat template needs Jinja: pip install 'akidb-mlx[llama-cpp]'"
        ) from error
    except ModelLoadError:
        raise
    except Exception as error:
        raise ModelLoadError(
            f"{header.file}: its chat template is malformed: {type(error).__name__}: {str(error)[:200]}"
        ) from error
