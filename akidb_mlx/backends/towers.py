"""A model of several encoders, each for routes of its own: an asymmetric model's towers for queries and documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from akidb_mlx.checkpoint.known_keys import cut
from akidb_mlx.engine.backend import Model, ModelFacts, Step, TokenRows
from akidb_mlx.errors import ModelLoadError
from akidb_mlx.vectors import Rows


@dataclass(frozen=True)
class _TowersStep(Step):
    """Batches of several towers: the step of each, and the places of its batches."""

    steps: list[tuple[Step, list[int]]]

    def result(self) -> list[Rows]:
        """Wait for the device; see `Step`."""
        found = {
            place: vectors for step, places in self.steps for place, vectors in zip(places, step.result(), strict=True)
        }
        return [found[place] for place in sorted(found)]


class TowersModel(Model):
    """Several models on one device, of which each batch is for one."""

    def __init__(self, towers: Mapping[tuple[str, ...], Callable[[], Model]], name: str) -> None:
        """Load the towers.

        Args:
            towers: what loads each of them, by the routes that it is for.
            name: the model's, for errors.

        Raises:
            ModelLoadError: one cannot be loaded, or their vectors have different sizes.
        """
        with ExitStack() as loaded:
            self._towers: list[Model] = []
            self._of_route: dict[str, Model] = {}
            for routes, load in towers.items():
                tower = load()
                loaded.callback(tower.close)
                self._towers.append(tower)
                self._of_route |= dict.fromkeys(routes, tower)
            self._facts = _join([tower.facts for tower in self._towers])
            sizes = {route: tower.facts.dimension for route, tower in self._of_route.items()}
            if len(set(sizes.values())) > 1:
                found = ", ".join(f"{cut(route)}: {size}" for route, size in sizes.items())
                raise ModelLoadError(f"{name}: the vectors of its routes have different sizes ({found})")
            loaded.pop_all()

    @property
    def facts(self) -> ModelFacts:
        """Return what holds for every tower; the most tokens, and the tokens, are those of the largest."""
        return self._facts

    def start(self, batches: Sequence[TokenRows]) -> Step:
        """Hand each batch to its tower; see `Model`."""
        places: dict[Model, list[int]] = {}
        for place, batch in enumerate(batches):
            places.setdefault(self._of_route[batch.route], []).append(place)
        return _TowersStep(
            [(tower.start([_fit(batches[one], tower) for one in own]), own) for tower, own in places.items()]
        )

    def recover(self) -> None:
        """Recover every tower; see `Model`."""
        for tower in self._towers:
            tower.recover()

    def memory(self) -> dict[str, int]:
        """Return the bytes of the device's allocator, which the towers share."""
        return self._towers[0].memory()

    def release_memory(self) -> None:
        """Give back memory that is only kept for reuse."""
        self._towers[0].release_memory()

    def close(self) -> None:
        """Free the weights; the last call."""
        with ExitStack() as towers:
            for tower in self._towers:
                towers.callback(tower.close)


def _fit(batch: TokenRows, tower: Model) -> TokenRows:
    """Return a batch without the padding that lengthens it beyond what its tower takes."""
    return replace(batch, ids=batch.ids[:, : tower.facts.max_tokens - len(batch.prefix)])


def _join(facts: Sequence[ModelFacts]) -> ModelFacts:
    """Return the facts of a model that consists of others."""
    return replace(
        facts[0],
        max_tokens=max(one.max_tokens for one in facts),
        vocabulary_size=max(one.vocabulary_size for one in facts),
        token_budget=min(one.token_budget for one in facts),
        lanes=min(one.lanes for one in facts),
        pipelined=all(one.pipelined for one in facts),
        bucket_lengths=all(one.bucket_lengths for one in facts),
        shares_prefixes=all(one.shares_prefixes for one in facts),
        backend="; ".join(dict.fromkeys(one.backend for one in facts)),
        precision="; ".join(dict.fromkeys(one.precision for one in facts)),
        weight_bytes=sum(one.weight_bytes for one in facts),
    )
