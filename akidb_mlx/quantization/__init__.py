"""Quantisation of models: weights in a few bits, what they keep of the original's vectors, and their publication."""

from __future__ import annotations

from akidb_mlx.quantization.quantize import quantize_model
from akidb_mlx.quantization.report import QuantizationReport

__all__ = ["QuantizationReport", "quantize_model"]
