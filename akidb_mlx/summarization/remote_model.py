"""A language model behind an OpenAI-compatible API."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from typing import Literal

from akidb_mlx.deadline import Deadline
from akidb_mlx.engine.metrics import Metrics
from akidb_mlx.errors import AkidbMlxError, InferenceError
from akidb_mlx.remote.access import Access, parse_model_name
from akidb_mlx.remote.api import Api
from akidb_mlx.remote.chat import ChatApi
from akidb_mlx.remote.loop_thread import LoopThread
from akidb_mlx.runtime.owner import check_may_wait
from akidb_mlx.runtime.process import CLOSE_TIMEOUT_S
from akidb_mlx.settings import Settings
from akidb_mlx.summarization.generator import Answer
from akidb_mlx.summarization.prompts import Prompt
from akidb_mlx.summarization.reports import BackendInfo

logger = logging.getLogger(__name__)

# The context that every server has, Ollama's default; some of them cut longer prompts without saying so.
_CONTEXT_TOKENS = 4096
# The share of the context, as one part in so many, that is left for the thoughts of models that think.
_THOUGHTS_SHARE = 4
# Bytes of UTF-8 for which a token is counted: no more than a tokenizer makes of it in most languages.
_BYTES_PER_TOKEN = 3
_MAX_CONCURRENT, _MAX_RETRIES, _REQUEST_TIMEOUT_S = 4, 4, 60.0
# Marks of the usual templates, which a server's tokenizer may take for control tokens: <|im_end|>, also with full-width
# bars, <end_of_turn>, </s>, [INST], <think>.
_CONTROL = re.compile(r"<(?=[|\uff5c]|/?(?:s|bos|eos|pad|think|(?:start|end)_of_\w+)>)|\[(?=/?INST\])", re.IGNORECASE)


class RemoteFormat:
    """The format of a model whose template and tokenizer the API alone has: tokens are estimated by bytes."""

    has_template = True
    thinking = ("<think>", "</think>")

    def render(self, content: str) -> str:
        """Return the content, which the API renders."""
        return content

    def inert(self, text: str) -> str:
        """Change a text so that it holds no mark of the usual templates: "<|im_end|>" to "< |im_end|>"."""
        return _CONTROL.sub(lambda mark: f"{mark[0]} ", text)

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return about how many tokens each text has."""
        return [len(text.encode()) // _BYTES_PER_TOKEN + 1 for text in texts]

    def cut(self, text: str, tokens: int) -> list[str]:
        """Cut a text between characters into pieces of at most so many tokens."""
        written, size = text.encode(), max(4, (tokens - 1) * _BYTES_PER_TOKEN)
        pieces: list[str] = []
        start = 0
        while start < len(written):
            end = start + size
            while end < len(written) and written[end] & 0xC0 == 0x80:  # inside a character
                end -= 1
            pieces.append(written[start:end].decode())
            start = end
        return pieces


class _RemoteAnswer(Answer):
    """An answer whose request ends with its `with` block."""

    request: Future[bool] | None = None

    def __exit__(self, *arguments: object) -> None:
        super().__exit__(*arguments)
        if self.request is not None:
            self.request.cancel()


class RemoteChatModel:
    """Asks an API for answers; safe to use from any thread.

    Attributes:
        tokenizer: the estimate of its tokens.
        context_tokens: most tokens of a prompt and its answer together, without those that it thinks.
    """

    def __init__(self, model_name: str, base_url: str | None, context_tokens: int | None, settings: Settings) -> None:
        """Create the client; nothing is sent before the first question.

        Args:
            model_name: the API's name of the model, with or without "openai:" before it.
            base_url: the API's address; the settings' if None, else `OPENAI_BASE_URL`, else OpenAI's.
            context_tokens: most tokens that the model reads and writes for one answer.
            settings: the settings that count.

        Raises:
            ConfigurationError: the extra `openai` is not installed, or the address or the key is not usable.
            InvalidInputError: the name is none.
        """
        name = parse_model_name(model_name)
        context = min(context_tokens or _CONTEXT_TOKENS, sys.maxsize)
        self._thought_tokens = context // _THOUGHTS_SHARE
        self.context_tokens = context - self._thought_tokens
        self.tokenizer = RemoteFormat()
        self._api = Api(
            Access(base_url or settings.openai_base_url, None),
            name,
            Metrics(),
            max_concurrent=_MAX_CONCURRENT,
            max_retries=_MAX_RETRIES,
            request_timeout_s=_REQUEST_TIMEOUT_S,
        )
        self._chat = ChatApi(self._api, name)
        self._loop = LoopThread(self._api.close, "summariser")

    @property
    def address(self) -> str:
        """Return the API's address."""
        return self._api.address

    def answer(self, prompt: Prompt, max_tokens: int, deadline: Deadline) -> Answer:
        """Ask for the answer to a prompt; see `ChatModel`."""
        check_may_wait()
        answer = _RemoteAnswer([], max_tokens, deadline)

        def emit(piece: str) -> bool:
            answer.add(piece)
            return answer.wanted

        work = self._chat.write(prompt.text, max_tokens + self._thought_tokens, emit, deadline)
        answer.request = self._loop.start(work)
        answer.request.add_done_callback(partial(_end, answer))
        return answer

    def info(self) -> BackendInfo:
        """Report the model, as plain types; what only the API knows is "unknown"."""
        return {
            "backend": "openai",
            "context_tokens": self.context_tokens,
            "device": "remote",
            "precision": "unknown",
            "quantization": None,
            "weight_bytes": 0,
            "status": "ready" if self._loop.is_open else "closed",
        }

    def health(self) -> tuple[Literal["ok", "degraded", "failed"], str]:
        """Report the outcome of the latest request; sends none."""
        if not self._loop.is_open:
            return "failed", "this process was forked from the one that has it" if self._loop.is_forked else "closed"
        if self._api.last_failure is not None:
            return "degraded", self._api.last_failure
        return "ok", "ready"

    def close(self) -> None:
        """End the requests that run, and close the connections. Idempotent."""
        self._loop.stop()
        if not self._loop.join(CLOSE_TIMEOUT_S):
            logger.warning("the requests that run did not end within %.0f s", CLOSE_TIMEOUT_S)


def _end(answer: Answer, request: Future[bool]) -> None:
    """End an answer as its request did; on the loop's thread, or on one that cancels."""
    if request.cancelled():  # by the answer itself, which nobody reads any more
        return
    error = request.exception()
    if error is None:
        answer.ended_itself = request.result()
        answer.end()
    elif isinstance(error, AkidbMlxError):
        answer.end(error)
    else:
        failure = InferenceError(f"writing the summary failed: {type(error).__name__}: {error}")
        failure.__cause__ = error
        answer.end(failure)
