"""The device that this process computes on: find it, claim it, get its streams, describe it."""

from __future__ import annotations

import threading

import mlx.core as mx
from typing_extensions import TypedDict

from akidb_mlx.errors import ConfigurationError
from akidb_mlx.runtime import cpu_runtime
from akidb_mlx.runtime.locks import device_lock
from akidb_mlx.settings import DeviceName

_thread = threading.local()
# More bits than TF32 keeps of a factor's fraction (10), and fewer than float32 (23).
_TF32_PROBE = 1 + 2**-12
# Enough for a product of matrices: MLX has another kernel for vectors, which never rounds.
_TF32_PROBE_SIZE = 128


class DeviceReport(TypedDict):
    """A device.

    Attributes:
        device: "cpu" or "gpu".
        device_name: its model.
        architecture: its generation.
        blas: the library that a CPU multiplies matrices with.
        allow_tf32: whether it rounds the factors of float32 products to TF32.
    """

    device: str
    device_name: str
    architecture: str
    blas: str
    allow_tf32: bool


def find_device(name: DeviceName) -> mx.Device:
    """Return the device of that name; "auto" takes a GPU where there is one.

    Raises:
        ConfigurationError: there is no GPU.
    """
    if name == "auto":
        return default_device()
    if name == "gpu" and not mx.is_available(mx.gpu):
        raise ConfigurationError("device gpu: MLX finds none on this machine; use cpu or auto")
    return mx.Device(getattr(mx, name))


def default_device() -> mx.Device:
    """Return the GPU where there is one, else the CPU."""
    return mx.Device(mx.gpu if mx.is_available(mx.gpu) else mx.cpu)


class Claim:
    """The hold of one model on the device that this process computes on."""

    def __init__(self, device: mx.Device) -> None:
        self.device = device

    def renew(self) -> None:
        """Make the device MLX's default again: a host that uses MLX on its own threads may have changed it."""
        mx.set_default_device(self.device)

    def release(self) -> None:
        """Give the hold up; the last one leaves the device that was MLX's default before the first. Idempotent."""
        with _claim_lock:
            if self not in _claims:
                return
            _claims.remove(self)
            if not _claims and _before is not None and mx.default_device() == self.device:
                mx.set_default_device(_before)


_claim_lock = threading.Lock()
_claims: list[Claim] = []
# MLX's default device before the first claim.
_before: mx.Device | None = None


def claim(device: mx.Device) -> Claim:
    """Make a device the one that this process computes on, until every claim is released.

    MLX's default device belongs to the process and not to a thread, so services on different devices would move each
    other's work; the first one decides.

    Raises:
        ConfigurationError: a service of this process computes on another device.
    """
    global _before
    with _claim_lock:
        if other := next((one.device for one in _claims if one.device != device), None):
            raise ConfigurationError(
                f"device {device.type.name}: this process already computes on its {other.type.name}, and MLX has "
                "one device for each process; use another process, use the same device for all services, or close "
                "those on the other device first"
            )
        if not _claims:
            _before = mx.default_device()
        mx.set_default_device(device)
        _claims.append(made := Claim(device))
        return made


def lane_streams(device: mx.Device, count: int) -> list[mx.Stream]:
    """Return a stream of this thread for each lane.

    MLX never frees a stream, so a thread that is used again keeps its own.
    """
    kept: dict[str, list[mx.Stream]] = _thread.__dict__.setdefault("streams", {})
    streams = kept.setdefault(str(device), [mx.default_stream(device)])
    streams.extend(mx.new_stream(device) for _ in range(count - len(streams)))
    return streams[:count]


def rounds_to_tf32(device: mx.Device) -> bool:
    """Return whether a device rounds the factors of float32 products to TF32.

    It is tried: MLX reads `MLX_ENABLE_TF32` at its first product, which a host may have made earlier, and only some
    GPUs heed it.
    """
    return bool(device.type.name == "gpu") and _product_is_rounded(device)


def _product_is_rounded(device: mx.Device) -> bool:
    """Return whether a number times 1 is another one."""
    size = _TF32_PROBE_SIZE
    factor = mx.full((size, size), _TF32_PROBE, dtype=mx.float32, stream=device)
    product = mx.matmul(factor, mx.eye(size, stream=device), stream=device)
    with device_lock:
        return bool(mx.max(product, stream=device).item() != _TF32_PROBE)


def describe(name: DeviceName) -> DeviceReport:
    """Describe the device of that name.

    Raises:
        ConfigurationError: there is no such device.
    """
    device = find_device(name)
    info = mx.device_info(device)
    return {
        "device": str(device.type.name),
        "device_name": str(info.get("device_name", "unknown")),
        "architecture": str(info.get("architecture", "unknown")),
        "blas": cpu_runtime.blas(),
        "allow_tf32": rounds_to_tf32(device),
    }
