"""Reranker, which loads a model into this process that scores pairs of a query and a document."""

from __future__ import annotations

import reprlib
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from itertools import groupby
from os import PathLike

import numpy as np
from typing_extensions import Unpack

from akidb_mlx.catalog import RERANKERS
from akidb_mlx.checkpoint.pairs import Pair, TokenizedPair, common_beginning, pair_tokenizer
from akidb_mlx.checkpoint.reranker import read_reranker
from akidb_mlx.deadline import Deadline
from akidb_mlx.embedder import wait_async, wait_for
from akidb_mlx.engine.backend import BatchKey
from akidb_mlx.engine.batching import MIN_PREFIX
from akidb_mlx.engine.life import EngineCall
from akidb_mlx.errors import AkidbMlxError, InvalidInputError
from akidb_mlx.fidelity.report import report_card
from akidb_mlx.loading import RunningModel
from akidb_mlx.options import OverflowPolicy, parse_timeout
from akidb_mlx.reranking.options import (
    RerankOptions,
    check_options,
    choose_prompt,
    list_pairs,
    parse_max_length,
    parse_top_k,
)
from akidb_mlx.reranking.reports import RerankerInfo
from akidb_mlx.reranking.scores import ScoreBatch, finish_scores
from akidb_mlx.settings import Settings
from akidb_mlx.texts import check_string, expected_tokens, list_texts, slices
from akidb_mlx.vectors import TokenIds, Vectors


class Reranker(RunningModel):
    """Scores how well documents answer a query, with one model; safe to call from any thread.

        with Reranker("ms-marco-minilm-l6-v2") as reranker:
            best, score = reranker.rerank("capital of France", ["Paris is the capital.", "Hello!"])[0]

    The model is a cross-encoder, which reads the query and the document together, or a language model that is asked
    whether the document answers the query. It runs as an `EmbeddingService`'s does: on a thread of its own, in batches
    that the calls of all threads share.
    """

    def __init__(
        self,
        model_name: str | PathLike[str],
        *,
        max_length: int | None = None,
        device: str | None = None,
        backend: str = "auto",
        auto_download: bool = True,
        settings: Settings | None = None,
    ) -> None:
        """Find, check and load a model; returns when it is ready.

        Args:
            model_name: a catalogue name, "org/repo" or "org/repo@revision" on the Hub, or a local directory.
            max_length: most tokens of a pair; what the model's files say if None.
            device: "auto", "gpu" or "cpu"; the settings' if None.
            backend: the library that computes: "mlx", or "auto" to choose.
            auto_download: whether a model that is not on this machine may be downloaded.
            settings: instead of those from the environment and the TOML file.

        Raises:
            ModelNotFoundError: the model is not on this machine and was not downloaded.
            ModelLoadError: its files are damaged, not supported, or not a reranker's.
            ConfigurationError: a setting is not usable, or there is no such device or backend.
            InvalidInputError: another argument is not usable.
        """
        with self._opening(
            model_name,
            "reranking",
            RERANKERS,
            device=device,
            backend=backend,
            auto_download=auto_download,
            settings=settings,
        ) as opening:
            checkpoint = read_reranker(opening.directory)
            assert checkpoint.scoring is not None
            self._scoring = checkpoint.scoring
            self._fidelity = report_card(opening.directory)
            checkpoint = replace(checkpoint, max_tokens=parse_max_length(max_length, checkpoint.max_tokens))
            self._start(opening, checkpoint)
            self._tokenizer = pair_tokenizer(checkpoint)  # while the engine loads the weights
            self._facts = self._engine.wait_until_loaded()

    def rerank(
        self, query: str, documents: Iterable[str], top_k: int | None = None, **options: Unpack[RerankOptions]
    ) -> list[tuple[int, float]]:
        """Return the documents' indices and scores, the best first; of equal scores the earlier document's.

        Args:
            query: the question.
            documents: strings; an empty collection gives an empty list.
            top_k: how many to return at most; None for all.
            options: see `RerankOptions`.

        Raises:
            InvalidInputError: a text or an option is not usable (`index` holds which document), or the model has
                several labels.
            AkidbMlxError: as `score_detailed` raises.
        """
        most, pairs = self._check_rerank(query, documents, top_k)
        return _rank(self.score_detailed(pairs, **options), most)

    async def arerank(
        self, query: str, documents: Iterable[str], top_k: int | None = None, **options: Unpack[RerankOptions]
    ) -> list[tuple[int, float]]:
        """Do the same as `rerank` without blocking the event loop; cancelling the task drops what has not run."""
        most, pairs = self._check_rerank(query, documents, top_k)
        return _rank(await wait_async(partial(self.submit, pairs, **options)), most)

    def scores(self, pairs: Iterable[Pair], **options: Unpack[RerankOptions]) -> Vectors:
        """Return the scores of pairs of a query and a document; see `score_detailed`.

        Returns:
            float32: (pairs,) for a model of one label, (pairs, labels) for one of several.
        """
        return self.score_detailed(pairs, **options).scores

    def score_detailed(self, pairs: Iterable[Pair], **options: Unpack[RerankOptions]) -> ScoreBatch:
        """Score pairs, and report how many tokens of each were read and which were cut.

        Args:
            pairs: of a query and a document each; an empty collection gives an empty result.
            options: see `RerankOptions`.

        Raises:
            InvalidInputError: a pair or an option is not usable; `index` holds which pair.
            InferenceError: the model computed something that is not a score.
            DeadlineExceededError: `timeout` passed.
            ServiceOverloadedError: the queue is full; `retry_after_s` says when to try again.
            ServiceClosedError: the reranker takes no more calls.
            ReentrantCallError: the call would wait for the thread that it was made on.
        """
        return wait_for(partial(self.submit, pairs, **options), options.get("timeout"))

    def submit(self, pairs: Iterable[Pair], **options: Unpack[RerankOptions]) -> Future[ScoreBatch]:
        """Check and tokenise pairs now, while the first of them may already run; see `score_detailed`.

        Returns:
            A future, as of `EmbeddingService.submit`.
        """
        deadline = Deadline(parse_timeout(options.get("timeout")))
        self._engine.check_open()
        given = list_pairs(pairs)
        on_overflow = check_options(options, self._scoring.labels)
        prompt = choose_prompt(options, self._checkpoint.prompts, self._scoring.default_prompt)
        tokenized: list[TokenizedPair] = []

        def combine(parts: list[Vectors]) -> ScoreBatch:
            scores = np.concatenate([np.empty((0, self._scoring.labels), np.float32), *parts])
            return ScoreBatch(
                scores=scores[:, 0] if self._scoring.labels == 1 else scores,
                token_counts=[pair.token_count for pair in tokenized],
                truncated=[pair.truncated for pair in tokenized],
                model=self._model_name,
            )

        opened = self._engine.open_call(combine, _expected_tokens(given, prompt), deadline)
        try:
            for part in slices(given, _characters):
                if opened.future.done():
                    break
                tokenized += self._add(opened, part, len(tokenized), prompt, on_overflow, deadline)
            opened.end()
        except AkidbMlxError as error:
            opened.fail(error)
            raise
        except BaseException:
            opened.cancel()
            raise
        return opened.future

    def _add(
        self,
        opened: EngineCall,
        pairs: list[Pair],
        first: int,
        prompt: str,
        on_overflow: OverflowPolicy,
        deadline: Deadline,
    ) -> list[TokenizedPair]:
        """Tokenise some pairs of a call, the first of index `first`, and queue them."""
        began = time.monotonic()
        tokenized = self._tokenizer(pairs, prompt, on_overflow, first, deadline)
        self._engine.metrics.observe("tokenize", time.monotonic() - began)
        truncated = sum(pair.truncated for pair in tokenized)
        self._engine.metrics.count({"texts": len(pairs), "truncated_texts": truncated})
        for start, part in self._parts(pairs, tokenized):
            sequences = [window for pair in part for window in pair.windows]
            prefix = self._shared_prefix(sequences)
            opened.add(
                [ids[len(prefix) :] for ids in sequences],
                [first + start + number for number, pair in enumerate(part) for _ in pair.windows],
                BatchKey(prefix.tobytes()),
                partial(
                    finish_scores,
                    windows=[len(pair.windows) for pair in part],
                    activation=self._scoring.activation,
                    first=first + start,
                ),
                _expected_tokens(pairs[start : start + len(part)], prompt),
                [segment for pair in part for segment in pair.segments],
            )
        return tokenized

    def _parts(self, pairs: list[Pair], tokenized: list[TokenizedPair]) -> Iterator[tuple[int, list[TokenizedPair]]]:
        """Yield pairs that follow one another and have a beginning in common, with the index of the first."""
        if not self._facts.shares_prefixes:
            yield 0, tokenized
            return
        for _, run in groupby(range(len(pairs)), key=lambda index: pairs[index][0]):
            indices = list(run)
            yield indices[0], [tokenized[index] for index in indices]

    def _shared_prefix(self, sequences: list[TokenIds]) -> TokenIds:
        """Return the tokens that the model should compute once for all sequences, or none."""
        if self._facts.shares_prefixes and len(sequences) > 1:
            # A token of each must be left, whose vector is wanted.
            count = min(common_beginning(sequences), min(map(len, sequences)) - 1)
            if count >= MIN_PREFIX:
                return sequences[0][:count]
        return sequences[0][:0]

    def _check_rerank(self, query: str, documents: Iterable[str], top_k: int | None) -> tuple[int | None, list[Pair]]:
        most = parse_top_k(top_k)
        self.check_orders()
        if not isinstance(query, str):
            raise InvalidInputError(f"query must be a string, found {type(query).__name__}")
        check_string("query", query)
        return most, [(query, document) for document in list_texts(documents)]

    def check_orders(self) -> None:
        """Refuse a model that does not give one score for each pair, by which documents could be ordered.

        Raises:
            InvalidInputError: it gives several.
        """
        if self._scoring.labels != 1:
            raise InvalidInputError(
                f"rerank orders documents by one score, and {self._model_name} gives {self._scoring.labels} for each "
                "pair: use scores"
            )

    def get_model_info(self) -> RerankerInfo:
        """Report the model and how it runs, as plain types; takes no lock and waits for nothing."""
        return {
            **self._describe(self._checkpoint.prompts, self._scoring.default_prompt),
            "labels": list(self._scoring.label_names),
            "activation": self._scoring.activation,
            "scoring_source": self._scoring.source,
            "fidelity": self._fidelity,
        }

    def __repr__(self) -> str:
        try:
            info = self.get_model_info()
        except AttributeError:  # its constructor failed
            return f"<{type(self).__name__}, not loaded>"
        count = len(info["labels"])
        labels = f"{count} label{'' if count == 1 else 's'}"
        return f"<{type(self).__name__} {reprlib.repr(info['model_name'])}: {labels}, {info['status']}>"


def _rank(batch: ScoreBatch, most: int | None) -> list[tuple[int, float]]:
    ranked = sorted(enumerate(batch.scores.tolist()), key=lambda entry: entry[1], reverse=True)
    return ranked[:most]


def _characters(pair: Pair) -> int:
    return len(pair[0]) + len(pair[1])


def _expected_tokens(pairs: list[Pair], prompt: str) -> int:
    return expected_tokens([query + document for query, document in pairs], prompt)
