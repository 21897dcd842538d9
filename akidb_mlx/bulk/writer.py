"""The files of a shard: written under another name, flushed to the disk, then renamed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from akidb_mlx.bulk.chunks import Chunk
from akidb_mlx.bulk.manifest import JobFolder, ShardFile, ShardRecord, now
from akidb_mlx.bulk.options import BulkOptions
from akidb_mlx.bulk.reports import Rejected
from akidb_mlx.vectors import EmbeddingBatch
from model_cache.files import sha256, sync

_TYPES = {"float32": pa.float32(), "float16": pa.float16(), "int8": pa.int8(), "binary": pa.int8()}
_DTYPES = {"float32": "<f4", "float16": "<f2", "int8": "|i1", "binary": "|i1"}
# Bytes of the header of an .npy file, which is written again once the number of rows is known.
_HEADER_BYTES = 128


class NpyWriter:
    """Writes rows of vectors into an .npy file."""

    def __init__(self, path: Path, dtype: str, width: int) -> None:
        """Begin a file of rows of `width` values."""
        self._file = path.open("wb")
        self._dtype, self._width, self._rows = _DTYPES[dtype], width, 0
        self._file.write(b" " * _HEADER_BYTES)

    def write(self, vectors: np.ndarray[Any, Any]) -> None:
        """Add rows."""
        self._file.write(np.ascontiguousarray(vectors, self._dtype).data)
        self._rows += len(vectors)

    def close(self) -> None:
        """Write the header, and close the file."""
        fields = f"{{'descr': '{self._dtype}', 'fortran_order': False, 'shape': ({self._rows}, {self._width}), }}"
        magic = b"\x93NUMPY\x01\x00" + (_HEADER_BYTES - 10).to_bytes(2, "little")
        self._file.seek(0)
        self._file.write(magic + fields.encode().ljust(_HEADER_BYTES - 11) + b"\n")
        self._file.close()


class ShardWriter:
    """Writes one shard; nothing of it is seen under its own name before `publish`."""

    def __init__(self, folder: JobFolder, shard: int, options: BulkOptions, schema: pa.Schema, width: int) -> None:
        """Begin the files; `width` is the number of values, or of bytes with packed bits, of a vector."""
        self._folder, self._shard, self._began = folder, shard, time.monotonic()
        self._dtype, self._width = options.dtype, width
        self._counts = {"read": 0, "rows": 0, "skipped": 0, "tokens": 0, "truncated": 0}
        self._rejected: list[Rejected] = []
        self._paths: dict[Path, str] = {}
        self._npy: NpyWriter | None = None
        fields = [*schema]
        if options.format == "npy":
            self._npy = NpyWriter(self._begin("npy"), options.dtype, width)
        else:
            value = pa.field("item", _TYPES[options.dtype], nullable=False)
            fields.append(pa.field("embedding", pa.list_(value, width), nullable=False))
        fields += [
            pa.field("token_count", pa.int32(), nullable=False),
            pa.field("truncated", pa.bool_(), nullable=False),
        ]
        self._schema = pa.schema(fields)
        others = [name for name in self._schema.names if name != "embedding"]
        # Vectors neither shrink nor repeat, and bounds of their values tell nobody anything.
        self._parquet = pq.ParquetWriter(
            self._begin("parquet"),
            self._schema,
            compression=dict.fromkeys(others, "zstd") | {"embedding.list.element": "none"},
            use_dictionary=others,
            write_statistics=others,
        )

    def write(self, chunk: Chunk, batch: EmbeddingBatch) -> None:
        """Add the rows of a chunk, with their vectors."""
        self._counts["read"] += chunk.read
        self._counts["skipped"] += chunk.skipped
        self._rejected += chunk.rejected
        if not chunk.texts:
            return
        self._counts["rows"] += len(chunk.texts)
        self._counts["tokens"] += sum(batch.token_counts)
        self._counts["truncated"] += sum(batch.truncated)
        arrays: list[Any] = [column.combine_chunks() for column in chunk.columns.columns]
        if self._npy is not None:
            self._npy.write(batch.vectors)
        else:
            values = pa.array(batch.vectors.reshape(-1))
            arrays.append(pa.FixedSizeListArray.from_arrays(values, type=self._schema.field("embedding").type))
        arrays += [pa.array(batch.token_counts, pa.int32()), pa.array(batch.truncated)]
        self._parquet.write_table(pa.Table.from_arrays(arrays, schema=self._schema))

    def publish(self) -> ShardRecord:
        """Flush the files to the disk, give them their names, and note that the shard is done."""
        self._close()
        files = []
        for path, name in self._paths.items():
            sync(path)
            files.append(ShardFile(name, path.stat().st_size, sha256(path)))
        for path, name in self._paths.items():
            path.replace(self._folder.path / name)
        sync(self._folder.path)
        rejected = sorted(self._rejected, key=lambda one: (one.file, one.row))
        seconds = round(time.monotonic() - self._began, 3)
        record = ShardRecord(
            self._shard, **self._counts, files=tuple(files), seconds=seconds, finished=now(), rejected=tuple(rejected)
        )
        self._folder.write_record(record)
        return record

    def drop(self) -> None:
        """Delete what was written."""
        try:
            self._close()
        finally:
            for path in self._paths:
                path.unlink(missing_ok=True)

    def _begin(self, suffix: str) -> Path:
        """Return the place of a file until it is published."""
        name = f"shard-{self._shard:06}.{suffix}"
        path = self._folder.work / f"{name}.{uuid4().hex}.partial"
        self._paths[path] = name
        return path

    def _close(self) -> None:
        if self._npy is not None:
            self._npy.close()
        self._parquet.close()
