"""The keys of those who may ask, and the check of the host that a request is addressed to."""

from __future__ import annotations

import hashlib
import hmac
import logging
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path

from starlette.datastructures import Headers

from akidb_mlx.errors import ConfigurationError
from akidb_mlx.server.config import ServerConfig
from akidb_mlx.server.problems import RequestError

logger = logging.getLogger(__name__)

_MAX_FILE_BYTES = 1 << 20


class ApiKeys:
    """The keys of a file, which is read again when it changes.

    Only digests are kept, and every key is compared in constant time, so that the time of an answer tells nothing.
    """

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            ConfigurationError: it cannot be read, or holds no key.
        """
        self._path = path
        self._state = self._stat()
        self._digests = self._read()

    def check(self, headers: Headers) -> None:
        """Refuse a request without one of the keys.

        Raises:
            RequestError: it has none.
        """
        self._refresh()
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = _digest(key.strip()) if scheme.lower() == "bearer" else b""
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]
        if not any(matches):
            raise RequestError(401, "invalid_api_key", "a key is needed: send it as `Authorization: Bearer KEY`")

    def _refresh(self) -> None:
        """Read a file that changed; one that cannot be read lets nobody in until it can."""
        try:
            state = self._stat()
            if state == self._state and self._digests:
                return
            self._digests, self._state = self._read(), state
        except ConfigurationError as error:
            if self._digests:
                logger.error("nobody is let in: %s", error)
            self._digests = []

    def _stat(self) -> tuple[int, int, int]:
        try:
            found = self._path.stat()
        except OSError as error:
            raise ConfigurationError(f"the file of keys {self._path} cannot be read: {error.strerror}") from error
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> list[bytes]:
        try:
            with self._path.open(encoding="utf-8") as file:
                lines = [line.strip() for line in file.read(_MAX_FILE_BYTES).splitlines()]
        except (OSError, UnicodeError) as error:
            raise ConfigurationError(f"the file of keys {self._path} cannot be read: {type(error).__name__}") from error
        keys = [line for line in lines if line and not line.startswith("#")]
        if not keys:
            raise ConfigurationError(f"the file of keys {self._path} holds none; write one on a line")
        return [_digest(key) for key in keys]


class HostCheck:
    """The names that requests may be addressed to; another one is that of a page that was rebound to this machine."""

    def __init__(self, config: ServerConfig) -> None:
        self._names = {name.lower() for name in config.allowed_hosts}
        self._loopback = config.is_local
        self._active = config.is_local or bool(config.allowed_hosts)

    def check(self, headers: Headers) -> None:
        """Refuse a request to another name.

        Raises:
            RequestError: it is addressed to one.
        """
        if self._active and not self._allows(_without_port(headers.get("host", ""))):
            raise RequestError(
                403,
                "host_not_allowed",
                "the Host header names another machine; list the name in allowed_hosts if it is this one's",
            )

    def _allows(self, name: str) -> bool:
        return name in self._names or (self._loopback and _is_loopback(name))


def _without_port(host: str) -> str:
    name, separator, port = host.rpartition(":")
    return (name if separator and port.isdecimal() else host).strip("[]").lower()


@lru_cache(maxsize=64)
def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
