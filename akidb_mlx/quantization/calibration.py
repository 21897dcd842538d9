"""A model in float32 whose matrices can be packed for a trial, and whose layers' inputs can be measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from akidb_mlx.backends.mlx.encoders import TokenBatch, build_encoder
from akidb_mlx.backends.mlx.layers import Embedding, Linear, QuantizedMatrix
from akidb_mlx.backends.mlx.model import build_all_heads
from akidb_mlx.backends.mlx.weights import WeightReader
from akidb_mlx.checkpoint.checkpoint import Checkpoint
from akidb_mlx.checkpoint.prompts import choose_prompt, choose_route
from akidb_mlx.checkpoint.quantization import Quantization
from akidb_mlx.checkpoint.tokenizer import TextTokenizer
from akidb_mlx.errors import InvalidInputError, ModelLoadError
from akidb_mlx.quantization.packing import unpacked_rows
from akidb_mlx.quantization.source import plain_plan
from akidb_mlx.runtime.locks import device_lock
from akidb_mlx.vectors import TokenIds, Vectors

# Calibration texts are cut here: what the layers see does not change much beyond.
_MAX_TOKENS = 256
# The harm of a layer alone is measured on so many texts, cut here.
_FEW_TEXTS, _FEW_TOKENS = 32, 64
# Most tokens of one batch.
_BATCH_TOKENS = 640
# Keeps the length of a vector of zeros from being divided by.
_TINY = 1e-20
# The roles whose prompts the texts take in turn.
_ROLES = (None, "query", "document")
# Called with the steps that are done and their number.
Progress = Callable[[int, int | None], None]


class _Batch(NamedTuple):
    route: str
    ids: NDArray[np.int32]


class _Sample(NamedTuple):
    batches: list[_Batch]
    original: Vectors


class TrialLinear(Linear):
    """A linear layer whose weight can be replaced, and whose inputs can be watched."""

    def __init__(self, weight: mx.array, bias: mx.array | None) -> None:
        super().__init__(weight, bias, exact=True)
        self._plain = weight
        self.watch: Callable[[mx.array], None] | None = None

    def __call__(self, x: mx.array) -> mx.array:
        """Map (..., inputs) to (..., outputs)."""
        if self.watch is not None:
            self.watch(x)
        return super().__call__(x)

    def use(self, packing: Quantization | None, dtype: mx.Dtype) -> None:
        """Compute with the weight as it is once packed; None for the original one."""
        weight = self._plain if packing is None else unpacked_rows(self._plain, packing, dtype)
        mx.eval(weight)
        self._weight = weight.swapaxes(0, 1)


class TrialTable(Embedding):
    """A table whose entries can be packed when they are looked up."""

    def __init__(self, table: mx.array) -> None:
        super().__init__(table)
        self._packing: tuple[Quantization, mx.Dtype] | None = None

    def __call__(self, indices: mx.array) -> mx.array:
        """Map (...) integers to (..., size)."""
        found = super().__call__(indices)
        if self._packing is None:
            return found
        return unpacked_rows(found.reshape(-1, found.shape[-1]), *self._packing).reshape(found.shape)

    def use(self, packing: Quantization | None, dtype: mx.Dtype) -> None:
        """Look up the entries as they are once packed; None for the original ones."""
        self._packing = None if packing is None else (packing, dtype)


class _TrialReader(WeightReader):
    """Hands out layers that can be replaced.

    Attributes:
        layers: those made of the matrices of these names.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint, plain_plan())
        self.layers: dict[tuple[str, ...], list[TrialLinear | TrialTable]] = defaultdict(list)

    def _linear(self, names: Sequence[str], weight: QuantizedMatrix | mx.array, bias: mx.array | None = None) -> Linear:
        assert isinstance(weight, mx.array)
        layer = TrialLinear(weight, bias)
        self.layers[tuple(names)].append(layer)
        return layer

    def _embedding(self, name: str, table: QuantizedMatrix | mx.array) -> Embedding:
        assert isinstance(table, mx.array)
        layer = TrialTable(table)
        self.layers[(name,)].append(layer)
        return layer


class CalibrationModel:
    """An embedding model and the texts that it is measured on. Belongs to one thread."""

    def __init__(
        self, checkpoint: Checkpoint, prompts: Mapping[str, str], texts: Sequence[str], dtype: mx.Dtype
    ) -> None:
        """Load the model, and compute the vectors of the texts.

        Args:
            checkpoint: a model of one encoder, which is not quantised.
            prompts: its prompts; the texts take those of queries and documents, and none, in turn.
            texts: the texts.
            dtype: the type that scales and biases are to be stored in.

        Raises:
            ModelLoadError: it is none that vectors can be compared of.
            InvalidInputError: there are no texts.
        """
        others = checkpoint.towers or checkpoint.scoring or checkpoint.sparse or checkpoint.multi_vector
        if others is not None and others != ():
            raise ModelLoadError(
                f"{checkpoint.directory} is no embedding model of one encoder: calibration and targets compare its "
                "vectors; use bits or recipe without texts"
            )
        if not texts:
            raise InvalidInputError("there are no texts to calibrate on: give a hundred or more, a line each")
        self._dtype = dtype
        reader = _TrialReader(checkpoint)
        with device_lock, mx.stream(mx.cpu):
            self._encoder = build_encoder(checkpoint, reader, plain_plan())
            self._heads = build_all_heads(checkpoint, reader, plain_plan(), self._encoder.hidden_size)
        reader.check_complete()
        reader.evaluate()
        self._layers = dict(reader.layers)
        few = texts[:: -(-len(texts) // _FEW_TEXTS)]
        self._all = self._sample(_batches(checkpoint, prompts, texts, _MAX_TOKENS))
        self._few = self._sample(_batches(checkpoint, prompts, few, _FEW_TOKENS))

    @property
    def products(self) -> list[tuple[str, ...]]:
        """Return the names of the matrices of each product and each table, in the order of the model."""
        return list(self._layers)

    def use(self, product: tuple[str, ...], packing: Quantization | None) -> None:
        """Compute with matrices as they are once packed; None for the original ones."""
        with device_lock, mx.stream(mx.cpu):
            for layer in self._layers[product]:
                layer.use(packing, self._dtype)

    def cosine(self, few: bool = False) -> float:
        """Return the mean cosine of the vectors to the original ones, of all texts or of the beginnings of a few."""
        sample = self._few if few else self._all
        return float((self._embed(sample.batches) * sample.original).sum(axis=1).mean())

    def _sample(self, batches: list[_Batch]) -> _Sample:
        return _Sample(batches, self._embed(batches))

    def _embed(self, batches: Sequence[_Batch], progress: Progress | None = None) -> Vectors:
        """Return the vectors of texts, of unit length."""
        found = []
        for done, batch in enumerate(batches):
            if progress is not None:
                progress(done, len(batches))
            lengths = mx.full((len(batch.ids),), batch.ids.shape[1], mx.int32)
            with device_lock, mx.stream(mx.cpu):
                tokens = TokenBatch(mx.array(batch.ids), lengths, padded=False)
                found.append(np.array(self._heads[batch.route](self._encoder, tokens)))
        vectors = np.concatenate(found)
        unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit

    def input_moments(self, progress: Progress | None = None) -> dict[tuple[str, ...], NDArray[np.float32]]:
        """Return the sum of x xᵀ over the inputs of each product, in which all texts count alike."""
        sums: dict[tuple[str, ...], mx.array] = {}

        def watching(product: tuple[str, ...]) -> Callable[[mx.array], None]:
            def watch(x: mx.array) -> None:
                rows = x.reshape(-1, x.shape[-1]).astype(mx.float32)
                # A few tokens of some models are thousands of times as long as others, and count no more than those.
                rows = rows * mx.rsqrt(mx.square(rows).sum(axis=-1, keepdims=True) + _TINY)
                moment = rows.swapaxes(0, 1) @ rows
                sums[product] = moment if product not in sums else sums[product] + moment
                mx.eval(sums[product])

            return watch

        watched = {product: layers[0] for product, layers in self._layers.items()}
        linear = {product: layer for product, layer in watched.items() if isinstance(layer, TrialLinear)}
        for product, layer in linear.items():
            layer.watch = watching(product)
        try:
            self._embed(self._all.batches, progress)
        finally:
            for layer in linear.values():
                layer.watch = None
        return {product: np.array(moment) for product, moment in sums.items()}


def _batches(checkpoint: Checkpoint, prompts: Mapping[str, str], texts: Sequence[str], max_tokens: int) -> list[_Batch]:
    """Return the tokens of the texts, those of one length and route together, so that none are padded."""
    tokenizer = TextTokenizer(checkpoint).limited(min(max_tokens, checkpoint.max_tokens))
    roles = [role for role in _ROLES if role in checkpoint.routes and (role is None or role in prompts)]
    ways = list(dict.fromkeys((choose_prompt(prompts, r, None), choose_route(checkpoint.routes, r)) for r in roles))
    alike: dict[tuple[str, int], list[TokenIds]] = defaultdict(list)
    for (prompt, route), text in zip(cycle(ways), texts, strict=False):
        (ids,) = tokenizer([text], prompt, "truncate")[0].windows
        alike[route, len(ids)].append(ids)
    found = []
    for (route, length), rows in sorted(alike.items()):
        step = max(1, _BATCH_TOKENS // length)
        found += [_Batch(route, np.stack(rows[i : i + step])) for i in range(0, len(rows), step)]
    return found
