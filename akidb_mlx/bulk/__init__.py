"""Files of any size into vectors, in shards that an interrupted job does not compute again.

from akidb_mlx.bulk import embed_files

embed_files(["texts.parquet"], column="text", output="vectors", model="minilm-l6-v2")
"""

from __future__ import annotations

from importlib.util import find_spec

from akidb_mlx.errors import ConfigurationError

_missing = [name for name in ("pyarrow", "fsspec") if find_spec(name) is None]
if _missing:
    raise ConfigurationError(
        f"embedding files needs {' and '.join(_missing)}, which is not installed: run `pip install 'akidb-mlx[bulk]'`"
    )

from akidb_mlx.bulk.job import embed_files  # noqa: E402 - once it is known that it can be imported
from akidb_mlx.bulk.reports import BulkSummary, Event  # noqa: E402

__all__ = ["BulkSummary", "Event", "embed_files"]
