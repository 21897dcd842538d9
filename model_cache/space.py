"""Space for a model that comes in, on the disk and within the limit: looked at first, made last.

Models are removed for one that certainly fits and certainly comes, and no more of them than it needs:

1. Before anything is fetched, a model is refused that is larger than the limit, or than the disk's free space and what
   eviction could add to it.
2. Where the disk is too full, models are removed once the first bytes of a file arrive, for this file.
3. For the limit, models are removed just before the new one appears. Until then, the download lies beside them.
"""

from __future__ import annotations

import logging
import shutil
import sys

from model_cache.description import RemoteModel
from model_cache.errors import DiskSpaceError
from model_cache.eviction import EvictionPlan, Evictor
from model_cache.names import RepoName
from model_cache.store import Store

logger = logging.getLogger(__name__)

# Bytes that a download leaves free for other programs.
_RESERVED_BYTES = 64 << 20


class Space:
    """The space for one model that comes in.

    Args:
        store: where it will lie.
        evictor: what removes other models for it.
        model: the model; one of the same commit, which is damaged, is replaced by it.
    """

    def __init__(self, store: Store, evictor: Evictor, model: RemoteModel) -> None:
        self._store = store
        self._evictor = evictor
        self._size = model.size
        self._name = str(RepoName(model.repo_id, model.commit))

    def check_limit(self) -> None:
        """Refuse a model that is larger than all models together may be.

        Raises:
            DiskSpaceError: it is.
        """
        limit = self._evictor.limit()
        if limit is not None and self._size > limit:
            raise DiskSpaceError(
                f"{self._name} has {self._size} bytes and the cache is limited to {limit}: set AKIDB_CACHE_MAX_BYTES "
                "to more, or to 0 for no limit",
                needed=self._size,
                free=limit,
            )

    def check_disk(self, to_receive: int) -> None:
        """Refuse a model for which the disk has too little space, whatever is evicted.

        Raises:
            DiskSpaceError: it is.
        """
        self._plan_for_disk(to_receive)

    def make_on_disk(self, to_receive: int) -> None:
        """Evict models if the disk has too little space for bytes that are about to be received.

        Raises:
            DiskSpaceError: not even then it has enough.
        """
        self._evict(self._plan_for_disk(to_receive))

    def make_within_limit(self) -> None:
        """Evict models until the new one fits the limit, or the others must stay."""
        self._evict(self._evictor.plan(incoming=self._size, replaced=self._name))

    def _plan_for_disk(self, to_receive: int) -> EvictionPlan:
        free = shutil.disk_usage(self._store.root).free
        plan = self._evictor.plan_for_disk(to_receive + _RESERVED_BYTES - free, replaced=self._name)
        if plan.short:
            freed = f", of which eviction could add {plan.freed}" if plan.freed else ""
            raise DiskSpaceError(
                f"{self._name} needs {to_receive} bytes (and {_RESERVED_BYTES} to spare) and the disk of "
                f"{self._store.root} has {free} free{freed}{_about_purgeable()}: free some space, or set "
                "AKIDB_CACHE_DIR to a folder on another disk",
                needed=to_receive,
                free=free,
            )
        return plan

    def _evict(self, plan: EvictionPlan) -> None:
        for removal in self._evictor.carry_out(plan).removals:
            logger.warning(
                "removed %s (%d bytes) to make space for %s: %s", removal.name, removal.size, self._name, removal.reason
            )


def _about_purgeable() -> str:
    """Say what macOS leaves out of the free space, which the Finder shows as available."""
    if sys.platform != "darwin":
        return ""
    return ", not counting what macOS could purge (snapshots, caches, files that iCloud has too)"
