"""Stand-ins for a Mac on other machines: its platform, the numbers that it tells, an MLX that is not there."""

import ctypes
import sys
from types import SimpleNamespace

import pytest

from akidb_mlx.runtime import macos


class Library:
    """The C library of a Mac, with `sysctlbyname` alone; each number has so many bytes."""

    def __init__(self, **numbers: tuple[int, int]) -> None:
        self._numbers = {name.replace("__", "."): number for name, number in numbers.items()}

    def sysctlbyname(self, name, value, size, _new, _new_size) -> int:
        if name.decode() not in self._numbers:
            return -1
        number, width = self._numbers[name.decode()]
        ctypes.memmove(ctypes.addressof(value._obj), number.to_bytes(width, "little"), width)
        size._obj.value = width
        return 0


def become_a_mac(monkeypatch: pytest.MonkeyPatch, **numbers: tuple[int, int]) -> None:
    """Let this process look like one on macOS, with these numbers of `sysctl` ("hw__memsize" stands for hw.memsize)."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(macos, "ctypes", SimpleNamespace(**{**vars(ctypes), "CDLL": lambda _: Library(**numbers)}))


# Runs the command line as on a Mac whose Python cannot import MLX: argv[1] is the class of the error, argv[2] its
# message, argv[3] the machine, and the rest the command.
WITHOUT_MLX = """
import builtins, platform, sys
from importlib.machinery import ModuleSpec

kind, message, machine, *command = sys.argv[1:]

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name == "mlx.core" and kind != "ModuleNotFoundError":
            return ModuleSpec(name, self)
        if name.split(".")[0] == "mlx" and kind == "ModuleNotFoundError":
            raise ModuleNotFoundError(message)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        raise getattr(builtins, kind)(message)

from akidb_mlx.cli import main
from akidb_mlx.runtime import macos

sys.meta_path.insert(0, Hidden())
sys.platform = "darwin"
platform.mac_ver = lambda: ("15.1", ("", "", ""), machine)
platform.machine = lambda: machine
macos.sysctl = {"sysctl.proc_translated": int(machine == "x86_64")}.get
sys.argv = ["akidb-mlx", *command]
main()
"""
