"""Write a sentence-transformers model as an ONNX file, with torch and ONNX Runtime's own optimizer only.

python -m benchmarks.contestants.onnx_export MODEL FOLDER

`model.onnx` is the graph as torch writes it, from token ids to vectors of length 1; `fused.onnx` is what ONNX Runtime's
optimizer of transformers makes of it, if that fuses any attention and computes the same.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.transformers import optimizer
from sentence_transformers import SentenceTransformer

_NAMES = ("input_ids", "attention_mask")
_LARGEST_DIFFERENCE = 1e-5


class _Network(torch.nn.Module):
    def __init__(self, network: SentenceTransformer) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.network({"input_ids": input_ids, "attention_mask": attention_mask})["sentence_embedding"]


def _inputs() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.arange(5, 5 + 3 * 12).reshape(3, 12)
    mask = torch.ones_like(ids)
    mask[1, 7:] = mask[2, 10:] = 0
    return ids * mask, mask


def write(model: str, file: Path) -> tuple[str, NDArray[np.float32]]:
    """Write the graph with torch's older exporter, whose graphs the optimizer knows best, or else with the newer one.

    Returns:
        The name of the exporter, and the vectors that torch computes for a few tokens.
    """
    options = {"dtype": "float32", "attn_implementation": "eager"}
    network = _Network(SentenceTransformer(model, device="cpu", model_kwargs=options)).eval()
    given = _inputs()
    names = {"input_names": list(_NAMES), "output_names": ["sentence_embedding"]}
    with torch.no_grad():
        try:
            _write_by_tracing(network, given, file, names)
            exporter = "torch.jit"
        except (RuntimeError, IndexError, ValueError, NotImplementedError) as error:
            print(f"torch.jit cannot write the graph: {error}", file=sys.stderr)
            _write_by_export(network, given, file, names)
            exporter = "torch.export"
        return exporter, network(*given).numpy()


def _write_by_tracing(
    network: _Network, given: tuple[torch.Tensor, ...], file: Path, names: dict[str, list[str]]
) -> None:
    axes = {name: {0: "batch", 1: "length"} for name in _NAMES} | {"sentence_embedding": {0: "batch"}}
    torch.onnx.export(network, given, str(file), dynamo=False, opset_version=17, dynamic_axes=axes, **names)


def _write_by_export(
    network: _Network, given: tuple[torch.Tensor, ...], file: Path, names: dict[str, list[str]]
) -> None:
    shape = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    program = torch.onnx.export(
        network, given, dynamo=True, opset_version=20, dynamic_shapes=dict.fromkeys(_NAMES, shape), **names
    )
    assert program is not None
    program.save(str(file), external_data=True)


def fuse(model: str, file: Path, fused: Path) -> dict[str, Any]:
    """Write the graph that the optimizer makes, and return the number of its operators."""
    config = json.loads((Path(model) / "config.json").read_text())
    made = optimizer.optimize_model(
        str(file),
        model_type="bert",
        num_heads=config["num_attention_heads"],
        hidden_size=config["hidden_size"],
        opt_level=1,
    )
    stored = sum(one.stat().st_size for one in file.parent.glob(f"{file.name}*"))
    made.save_model_to_file(str(fused), use_external_data_format=stored > 1 << 30)
    return {name: count for name, count in made.get_fused_operator_statistics().items() if count}


def compute(file: Path) -> NDArray[np.float32]:
    """Return what ONNX Runtime computes for the same tokens."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, dict(zip(_NAMES, (one.numpy() for one in _inputs()), strict=True)))[0])


def main(model: str, folder: Path) -> None:
    """Write both files, and say what was fused."""
    folder.mkdir(parents=True, exist_ok=True)
    plain, fused = folder / "model.onnx", folder / "fused.onnx"
    exporter, expected = write(model, plain)
    report: dict[str, Any] = {
        "onnx": onnx.__version__,
        "exporter": exporter,
        "difference": float(np.abs(compute(plain) - expected).max()),
    }
    if report["difference"] > _LARGEST_DIFFERENCE:
        raise SystemExit(f"the graph that torch wrote computes other vectors: {report['difference']}")
    report["fused"] = fuse(model, plain, fused)
    report["fused_difference"] = float(np.abs(compute(fused) - expected).max())
    if not report["fused"] or report["fused_difference"] > _LARGEST_DIFFERENCE:
        for one in folder.glob(f"{fused.name}*"):
            one.unlink()
    print(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
