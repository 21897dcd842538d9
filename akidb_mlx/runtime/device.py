"""The device that this process computes on: find it, claim it, get its streams, describe it."""

from __future__ import annotations

import threading

import mlx.core as mx

from akidb_mlx.errors import ConfigurationError
from akidb_mlx.runtime import cpu_runtime
from akidb_mlx.settings import DeviceName

_thread = threading.local()
_claim_lock = threading.Lock()
_claimed: mx.Device | None = None


def find_device(name: DeviceName) -> mx.Device:
    """Return the device of that name; "auto" takes a GPU where there is one.

    Raises:
        ConfigurationError: there is no GPU.
    """
    if name == "cpu":
        return mx.Device(mx.cpu)
    if mx.is_available(mx.gpu):
        return mx.Device(mx.gpu)
    if name == "gpu":
        raise ConfigurationError("device gpu: MLX finds none on this machine; use cpu or auto")
    return mx.Device(mx.cpu)


def claim(device: mx.Device) -> None:
    """Make a device the one that this process computes on.

    MLX's default device belongs to the process and not to a thread, so services on different devices would move each
    other's work; the first one decides.

    Raises:
        ConfigurationError: a service of this process computes on another device.
    """
    global _claimed
    with _claim_lock:
        if _claimed is not None and _claimed != device:
            raise ConfigurationError(
                f"device {device.type.name}: this process already computes on its {_claimed.type.name}, and MLX has "
                "one device for each process; use another process, or the same device for all services"
            )
        mx.set_default_device(device)
        _claimed = device


def lane_streams(device: mx.Device, count: int) -> list[mx.Stream]:
    """Return a stream of this thread for each lane.

    MLX never frees a stream, so a thread that is used again keeps its own.
    """
    streams: list[mx.Stream] = _thread.__dict__.setdefault("streams", [mx.default_stream(device)])
    streams.extend(mx.new_stream(device) for _ in range(count - len(streams)))
    return streams[:count]


def describe(name: DeviceName) -> dict[str, str]:
    """Describe the device of that name: its kind, model and architecture, and the BLAS that a CPU uses.

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
    }
