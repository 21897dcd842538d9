"""The part of the database that reports the enrichment and steers it."""

from __future__ import annotations

import time

from akidb_mlx.deadline import Deadline
from akidb_mlx.embedder import Embedder
from akidb_mlx.options import parse_timeout
from embedded_db import jobs, nodes, reports
from embedded_db.activity import ActivityLevel
from embedded_db.checks import parse_name
from embedded_db.errors import EnrichmentError, InvalidRecordError, excerpt
from embedded_db.models import load_embedder
from embedded_db.reembed import Progress, Reembedding, ReembedReport
from embedded_db.store import Store


class EnrichmentStore(Store):
    """Waits for the weaver, reports and steers it, and changes the model of the vectors."""

    def wait_until_enriched(self, node_id: str, timeout: float | None = None) -> None:
        """Wait until a message has its vector and its entities.

        Args:
            node_id: the message.
            timeout: seconds to wait at most; None waits for as long as it takes.

        Raises:
            NodeNotFoundError: there is no such node.
            EnrichmentError: the weaver has given it up, or this process's cannot do it at present; the message holds
                the cause.
            DeadlineExceededError: `timeout` passed.
        """
        deadline = Deadline(parse_timeout(timeout))
        pause = 0.002
        while True:
            with self._connections.read() as tx:
                open_jobs = jobs.enrichment_of(tx, nodes.key_of(tx, parse_name("node_id", node_id)))
            pauses = self._weaver.pauses()
            for kind, failed, error in open_jobs:
                if failed:
                    raise EnrichmentError(
                        f"{kind} of {excerpt(node_id)} failed: {error}; correct the cause and call retry_failed()"
                    )
                if kind in pauses and not pauses[kind].is_transient:
                    raise EnrichmentError(
                        f"{kind} of {excerpt(node_id)} waits: {pauses[kind].reason}; it is done once the cause is "
                        "corrected"
                    )
            if not open_jobs:
                return
            deadline.check()
            time.sleep(pause)
            pause = min(pause * 1.2, 0.05)

    def weaver_status(self) -> reports.WeaverStatus:
        """Report the work that is done, that waits and that has failed, as plain types."""
        with self._connections.read() as tx:
            return reports.weaver_status(tx, self._weaver, self._activity)

    def set_activity_level(self, level: ActivityLevel | None) -> None:
        """Keep a level of activity in this process, which decides what its weaver does; None goes back to that by time.

        Args:
            level: "HighActivity": vectors and entities of new messages; "LowActivity", after five minutes without a
                call: links between messages, too; "SleepMode", after thirty: summaries and maintenance, too.

        Raises:
            InvalidRecordError: there is no such level.
        """
        self._activity.set(level)
        self._weaver.wake()

    def retry_failed(self) -> int:
        """Queue the jobs that have failed for another round of attempts, and return their number."""
        retried = self._write(jobs.retry_failed)
        self._weaver.retry_now()
        return retried

    def reembed(self, model: Embedder | str, dry_run: bool = False, progress: Progress | None = None) -> ReembedReport:
        """Change the model of all vectors; the old ones answer until all new ones are there.

        An interrupted run is resumed by the same call; a call with another model, or with the present one, drops what
        was computed. Afterwards this database embeds with the new model, and others have to be opened with it.

        Args:
            model: an embedder, which stays the caller's, or the name of a model.
            dry_run: only report how many vectors, tokens and seconds a run would take, by a sample of the texts.
            progress: called with how many vectors are done, and how many there are.

        Raises:
            InvalidRecordError: a node has a vector and no content, or `model` is not usable.
            AkidbMlxError: the model cannot be loaded, or fails.
        """
        if not isinstance(model, (Embedder, str)):
            raise InvalidRecordError(f"model must be an Embedder or a model's name, found {excerpt(model)}")
        self._activity.touch()
        embedder = load_embedder(model) if isinstance(model, str) else model
        in_use: list[Embedder] = []

        def take_over() -> None:
            self._models.replace_embedder(model, embedder)
            in_use.append(embedder)
            self._weaver.retry_now()

        run = Reembedding(self._connections, embedder, progress, take_over)
        try:
            return run.estimate() if dry_run else run.run()
        finally:
            if isinstance(model, str) and not in_use:
                embedder.close()

    def stats(self) -> reports.Stats:
        """Report how much the database holds, as plain types."""
        with self._connections.read() as tx:
            return reports.stats(tx, self._connections.path, self._activity.kinds())
