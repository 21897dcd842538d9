"""A random log of messages, whose queries plain NumPy can answer: what `benchmarks.database` measures on.

The vectors are random unit vectors, since half a million of a model's would take hours. The graph is shaped like that
of chats: 50 messages a chat, entities mentioned as often as Zipf's law has it, and a link from every second message.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from embedded_db import EmbeddedDB

DIMENSION = 384
MODEL = "minilm-l6-v2"
IN_CHAT = 50
SENDERS = 20
_WORDS = 2000
_WORDS_EACH = 12
_TOGETHER = 1000

Mask = NDArray[np.bool_]


@dataclass
class RandomLog:
    """Messages by their numbers; message 7 has the id "m7", chat 3 "c3" and entity 5 "e5"."""

    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    vectors: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, DIMENSION), np.float32))
    words: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, _WORDS_EACH), np.int64))
    senders: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    entities: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))  # one for each message
    links: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))  # to an earlier message, or -1

    def __len__(self) -> int:
        return len(self.senders)

    def grow(self, db: EmbeddedDB, size: int, progress: Callable[[int, int], object]) -> None:
        """Add messages, with their chats, vectors, entities and links, until there are `size`."""
        while (first := len(self)) < size:
            count = min(_TOGETHER, size - first)
            self._draw(first, count)
            numbers = range(first, first + count)
            chats = sorted({number // IN_CHAT for number in numbers if number % IN_CHAT == 0})
            entities = sorted(set(self.entities[first:].tolist()) - set(self.entities[:first].tolist()))
            db.insert_nodes(
                [
                    *({"type": "Chat", "id": f"c{chat}", "title": f"chat {chat}"} for chat in chats),
                    *({"type": "Entity", "id": f"e{entity}", "label": f"name{entity}"} for entity in entities),
                    *map(self.message, numbers),
                ]
            )
            db.insert_embeddings([(f"m{number}", self.vectors[number]) for number in numbers], MODEL)
            db.insert_edges(
                [
                    *(self._edge(number, f"e{self.entities[number]}", "MENTIONS") for number in numbers),
                    *(
                        self._edge(number, f"m{self.links[number]}", "IS_SEMANTICALLY_SIMILAR_TO")
                        for number in numbers
                        if self.links[number] >= 0
                    ),
                ]
            )
            progress(len(self), size)

    def message(self, number: int) -> dict[str, object]:
        """Return a message as `create_node` takes it."""
        return {
            "type": "Message",
            "id": f"m{number}",
            "chat_id": f"c{number // IN_CHAT}",
            "content": " ".join(f"word{word}" for word in self.words[number]),
            "sender": f"s{self.senders[number]}",
            "metadata": {"n": number},
        }

    def with_words(self, words: list[int]) -> Mask:
        """Return the messages that hold all words."""
        return np.logical_and.reduce([(self.words == word).any(axis=1) for word in words])

    def within_two(self, chat: int) -> Mask:
        """Return the messages that two edges from a chat reach, outbound: its own, and those that these link to."""
        found = np.arange(len(self)) // IN_CHAT == chat
        linked = self.links[found]
        found[linked[linked >= 0]] = True
        return found

    def nearest(self, vector: NDArray[np.float32], mask: Mask | None = None, most: int = 10) -> list[tuple[str, float]]:
        """Return the ids and cosines of the nearest messages."""
        numbers = np.arange(len(self)) if mask is None else np.flatnonzero(mask)
        wide = vector.astype(np.float64) / np.linalg.norm(vector.astype(np.float64))
        scores = self.vectors[numbers] @ wide.astype(np.float32)
        best = numbers[np.argsort(-scores, kind="stable")[: most + 20]]
        exact = self.vectors[best].astype(np.float64) @ wide
        return [(f"m{best[i]}", float(exact[i])) for i in np.argsort(-exact, kind="stable")[:most]]

    def _draw(self, first: int, count: int) -> None:
        vectors = self.rng.standard_normal((count, DIMENSION), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        self.vectors = np.concatenate([self.vectors, vectors])
        self.words = np.concatenate([self.words, _zipf(self.rng, _WORDS, (count, _WORDS_EACH))])
        self.senders = np.append(self.senders, self.rng.integers(0, SENDERS, count))
        self.entities = np.append(self.entities, _zipf(self.rng, 20_000, count))
        links = self.rng.integers(0, np.maximum(1, np.arange(first, first + count)))
        self.links = np.append(self.links, np.where(np.arange(first, first + count) % 2, links, -1))

    def _edge(self, number: int, to_id: str, kind: str) -> dict[str, object]:
        return {"from_id": f"m{number}", "to_id": to_id, "type": kind}


def _zipf(rng: np.random.Generator, values: int, shape: int | tuple[int, ...]) -> NDArray[np.int64]:
    """Return numbers below `values`, of which the n-th is drawn in proportion to 1 / n."""
    cumulated = np.cumsum(1 / np.arange(1, values + 1))
    return np.searchsorted(cumulated / cumulated[-1], rng.random(shape)).astype(np.int64)
