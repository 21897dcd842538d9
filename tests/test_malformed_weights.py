"""Weight files that lie about themselves: an error that names the file, in memory that does not grow (fault 13)."""

import json
import os
import shutil
from pathlib import Path

import pytest

from akidb_mlx import EmbeddingService
from akidb_mlx.errors import ModelLoadError
from tests.support import GOLDENS, run_python

TINY = GOLDENS / "tiny-bert"
TENSOR = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
LOAD = f"""
import resource, sys
from pathlib import Path
from akidb_mlx import EmbeddingService
from akidb_mlx.errors import ModelLoadError
EmbeddingService({str(TINY)!r}, device="cpu").close()
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20),) * 2)
for folder in sys.argv[1:]:
    try:
        EmbeddingService(folder, device="cpu")
    except ModelLoadError as error:
        assert "model.safetensors" in str(error) or "config.json" in str(error), error
        print("refused")
"""


def safetensors(header: object, data: bytes = bytes(16)) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


MALFORMED = {
    "giant header": (90 << 20).to_bytes(8, "little") + b"{" + b" " * 1000,
    "header beyond the format's bound": (1 << 40).to_bytes(8, "little") + b"{}",
    "overlapping": safetensors({"a": TENSOR, "b": TENSOR}),
    "a gap": safetensors({"a": TENSOR, "b": {**TENSOR, "data_offsets": [32, 48]}}, bytes(48)),
    "backwards": safetensors({"a": {**TENSOR, "data_offsets": [16, 0]}}),
    "overflowing offsets": safetensors({"a": {**TENSOR, "data_offsets": [0, (1 << 64) - 1]}}),
    "overflowing shape": safetensors({"a": {**TENSOR, "shape": [1 << 62, 1 << 62, 4]}}),
    "a shape that is not its bytes": safetensors({"a": {**TENSOR, "shape": [1 << 40]}}),
    "unknown type": safetensors({"a": {**TENSOR, "dtype": "F7"}}),
    "many entries": safetensors(
        {f"t{i}": {**TENSOR, "data_offsets": [16 * i, 16 * i + 16]} for i in range(100_000)}, bytes(1_600_000)
    ),
}


def with_weights(content: bytes, into: Path) -> Path:
    shutil.copytree(TINY, into)
    (into / "model.safetensors").write_bytes(content)
    return into


@pytest.mark.parametrize("fault", MALFORMED)
def test_malformed_weights_are_refused(tmp_path, fault):
    with pytest.raises(ModelLoadError, match=r"model\.safetensors|does not fit its config\.json"):
        EmbeddingService(str(with_weights(MALFORMED[fault], tmp_path / "model")), device="cpu")


@pytest.mark.skipif(not os.path.isfile("/proc/self/statm"), reason="the address space is bounded on Linux only")  # noqa: PTH113
def test_malformed_weights_take_no_memory(tmp_path):
    """With 256 MB more than a tiny model needs; a header of 90 MB is really there."""
    folders = [with_weights(content, tmp_path / str(index)) for index, content in enumerate(MALFORMED.values())]
    os.truncate(folders[0] / "model.safetensors", 95 << 20)
    done = run_python(LOAD, 120, *map(str, folders))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["refused"] * len(MALFORMED)
