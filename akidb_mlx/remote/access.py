"""The address of an API, its model's name, and the key, which appears in no message."""

from __future__ import annotations

import os
import re
import reprlib
from urllib.parse import urlsplit

from akidb_mlx.errors import ConfigurationError, InvalidInputError
from akidb_mlx.texts import check_string

# Marks a model's name as one of a remote API.
PREFIX = "openai:"
_DEFAULT_BASE_URL = "https://api.openai.com/v1"
_LONGEST_NAME, _LONGEST_MESSAGE = 200, 300
# Keys as services quote them back, also with stars in them.
_KEY = re.compile(r"\b(sk|rk)-[\w*-]+|(?<=Bearer )\S+", re.IGNORECASE)


class Access:
    """The way to an API.

    Attributes:
        base_url: the address before `/embeddings` or `/chat`.
        key: the key; None where the API needs none.
    """

    def __init__(self, base_url: str | None, key: str | None) -> None:
        """Check an address and a key; each is the environment's (`OPENAI_BASE_URL`, `OPENAI_API_KEY`) if None.

        Raises:
            ConfigurationError: one of them is not usable, or OpenAI's own API is asked without a key.
        """
        self.base_url = _parse_base_url(base_url or os.environ.get("OPENAI_BASE_URL") or _DEFAULT_BASE_URL)
        self.key = _parse_key(key or os.environ.get("OPENAI_API_KEY"))
        if self.key is None and self.is_openai:
            raise ConfigurationError(
                "OpenAI's API needs a key: set OPENAI_API_KEY, or give api_key; for another API, give base_url"
            )

    @property
    def is_openai(self) -> bool:
        """Return whether it is OpenAI's own API."""
        return urlsplit(self.base_url).hostname == urlsplit(_DEFAULT_BASE_URL).hostname

    def clean(self, message: object) -> str:
        """Return a message of the API or the network on one line, cut, and without the key."""
        text = str(message)
        if self.key is not None:
            text = text.replace(self.key, "…")
        text = " ".join(_KEY.sub("…", text).split())
        return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}…"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.base_url}, {'without' if self.key is None else 'with'} a key>"


def parse_model_name(name: object) -> str:
    """Return the name by which an API knows a model, without the prefix "openai:".

    Raises:
        InvalidInputError: it is no name.
    """
    if not isinstance(name, str):
        raise InvalidInputError(f"model_name must be a string, found {type(name).__name__}")
    check_string("model_name", name)
    name = name.removeprefix(PREFIX)
    if not name or len(name) > _LONGEST_NAME or not name.isprintable() or name != name.strip():
        raise InvalidInputError(f"model_name must name a model, as in 'openai:NAME', found {reprlib.repr(name)}")
    return name


def _parse_base_url(url: object) -> str:
    if not isinstance(url, str):
        raise ConfigurationError(f"base_url must be a string, found {type(url).__name__}")
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as error:
        raise ConfigurationError("base_url (OPENAI_BASE_URL) is no URL: its host or port cannot be read") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(
            f"base_url (OPENAI_BASE_URL) must begin with http:// or https:// and a host, as in {_DEFAULT_BASE_URL}; "
            f"found the scheme {reprlib.repr(parts.scheme)}"
        )
    # Their values may be secrets, so that they are neither kept nor shown.
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ConfigurationError(
            "base_url (OPENAI_BASE_URL) must have no user, password, query or fragment; give a key as api_key or "
            "OPENAI_API_KEY"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}"


def _parse_key(key: object) -> str | None:
    if key is None or key == "":
        return None
    if not isinstance(key, str):
        raise ConfigurationError(f"api_key must be a string, found {type(key).__name__}")
    key = key.strip()
    if not key.isascii() or not key.isprintable() or " " in key or not key:
        raise ConfigurationError(
            "the key (api_key or OPENAI_API_KEY), which is not shown here, must be printable ASCII without spaces"
        )
    return key
