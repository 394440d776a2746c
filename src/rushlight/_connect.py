"""Where the server is and how to reach it: settings, URL, secret, checks on first contact.

``_dial`` opens the sockets, on which ``_wire`` sends. Never sends a command of the store.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis

from . import _server
from ._dial import NotLetIn, Place, ask, dial, reach
from ._trust import bound_for_network
from .errors import ConfigError, StoreError, StoreUnavailable, StoreVersion, StoreWarning, escaped

_SCHEMES = {
    "valkey": "redis",
    "valkeys": "rediss",
    "redis": "redis",
    "rediss": "rediss",
    "unix": "unix",
    "redis+sentinel": "redis+sentinel",
    "redis+cluster": "redis+cluster",
}
#: Commands that came with Redis 6.2; versions are no guide (Valkey reports odd ones), features are.
_FLOOR = ("BLMOVE", "GETEX", "XAUTOCLAIM")

#: Words of a URL's query that nobody else is to see.
_PASSWORDS = ("password", "sentinel_password", "ssl_password")


#: Answers that say "not now": the server restarts, fails over, is busy with a script, cannot write to its
#: disk or has lost its replicas.
_PASSING = (
    "LOADING",
    "BUSY",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "READONLY",
    "MOVED",
    "ASK",
    "UNBLOCKED",
    "MISCONF",
    "NOREPLICAS",
)


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """How to reach the server. ``url=None`` is the embedded server. Seconds throughout.

    ``connect_timeout`` bounds the first contact. Later on a call that gets no answer within ``timeout``
    is sent again on a new connection, and gives up after ``patience``: long enough for a server's
    restart. ``credential_provider``: asked for user and password at every connection, an object with
    redis-py's ``get_credentials`` or the ``module:name`` of one (or of what makes one), by which other
    processes can find it too. ``adaptive``: waiting for an answer looks a few times before it sleeps.
    Picklable; ``repr`` shows neither password nor secret. What is
    stored on a server holds neither: whoever reads it there has settings of his own to take them from.
    """

    url: str | None = field(default=None, repr=False)
    connect_timeout: float = 5.0
    timeout: float = 10.0
    patience: float = 30.0
    secret: bytes | None = field(default=None, repr=False)
    options: dict[str, Any] = field(default_factory=dict, repr=False)
    large_object_dir: str | None = None
    credential_provider: Any = field(default=None, repr=False)
    adaptive: bool = True

    def __reduce__(self) -> tuple[Any, ...]:
        told = {name: getattr(self, name) for name in self.__slots__}
        if not bound_for_network():
            return _rebuilt, (told,)
        told |= {"url": self.public_url, "secret": None, "options": {}}
        if not isinstance(self.credential_provider, str):
            told["credential_provider"] = None
        return _completed, (told,)

    @classmethod
    def find(cls, url: str | None = None, secret: str | bytes | None = None, **settings: Any) -> StoreConfig:
        """From the arguments, else the environment, else the embedded server."""
        where = (
            "url" if url is not None else "RUSHLIGHT_URL" if os.environ.get("RUSHLIGHT_URL") else "REDIS_URL"
        )
        url = url or os.environ.get("RUSHLIGHT_URL") or os.environ.get("REDIS_URL") or None
        if url is not None:
            url = _checked(url, where)
        raw = secret if secret is not None else os.environ.get("RUSHLIGHT_SECRET") or None
        if isinstance(raw, str) and escaped(raw) != raw:
            raise ConfigError("secret: not valid Unicode; give bytes, or text that begins with 'hex:'")
        if isinstance(raw, str):
            raw = _secret_bytes(raw)
        if raw is not None and (not isinstance(raw, bytes) or len(raw) < 8):
            raise ConfigError("secret: use a str or bytes of at least 8 bytes")
        settings["large_object_dir"] = (
            settings.get("large_object_dir") or os.environ.get("RUSHLIGHT_LARGE_OBJECT_DIR") or None
        )
        provider = (
            settings.get("credential_provider") or os.environ.get("RUSHLIGHT_CREDENTIAL_PROVIDER") or None
        )
        if provider is not None:
            _check_provider(provider, url)
        settings["credential_provider"] = provider
        settings["adaptive"] = _waits_adaptively(settings.get("adaptive"))
        return replace(cls(url=url, secret=raw), **settings)

    @property
    def address(self) -> str:
        """The URL without its password, for messages."""
        if self.url is None:
            return "the embedded server"
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        if parts.username:
            host = f"{parts.username}@{host}"
        return f"{parts.scheme}://{host}{parts.path}"

    @property
    def public_url(self) -> str | None:
        """The URL without its password, for others to connect by; None for the embedded server."""
        if self.url is None:
            return None
        words = urlsplit(self.url).query.split("&")
        query = "&".join(word for word in words if unquote(word.partition("=")[0]) not in _PASSWORDS)
        return f"{self.address}?{query}" if query else self.address

    def key(self) -> bytes | None:
        """The secret code and pickles are signed with; None where a remote server has neither secret nor
        password."""
        if self.secret is not None:
            return self.secret
        if self.url is None:
            return _server.key_file()
        parts = urlsplit(self.url)
        password = _password(self.url)
        if password:
            return hmac.new(
                password.encode(), b"rushlight secret from server password", hashlib.sha256
            ).digest()
        if parts.scheme == "unix" or parts.hostname in ("localhost", "127.0.0.1", "::1"):
            return _server.key_file()
        return None

    def connect(
        self, *, timeout: float | None = None, moved_to: tuple[str, int] | None = None
    ) -> socket.socket:
        """An open socket; raises OSError, of which NotLetIn, and StoreUnavailable. ``moved_to``: the node
        of a cluster that has the network's keys, as another node told."""
        limit = self.connect_timeout if timeout is None else timeout
        if self.url is None:
            return dial(Place(path=str(_server.ensure_server(timeout=max(limit, 10.0)))), limit)
        given = self.credential_provider
        provider = _named(given) if isinstance(given, str) else given
        return reach(self.url, limit, moved_to=moved_to, provider=provider, options=self.options)


def _rebuilt(told: Mapping[str, Any]) -> StoreConfig:
    return StoreConfig(**told)


def _completed(told: Mapping[str, Any]) -> StoreConfig:
    """A config that came by way of a server, with password and secret as this process has them for it."""
    config = StoreConfig(**told)
    own = StoreConfig.find()
    if own.public_url != config.public_url:
        return config
    provider = config.credential_provider or own.credential_provider
    return replace(config, url=own.url, secret=own.secret, credential_provider=provider)


def _waits_adaptively(asked: bool | None) -> bool:
    if asked is not None:
        return asked
    said = os.environ.get("RUSHLIGHT_WAIT") or "adaptive"
    if said not in ("adaptive", "block"):
        raise ConfigError(f"RUSHLIGHT_WAIT={said!r} is neither 'adaptive' nor 'block'")
    return said == "adaptive"


def secret_text(secret: bytes) -> str:
    """The secret as ``RUSHLIGHT_SECRET`` can hold it."""
    try:
        text = secret.decode("ascii")
    except UnicodeDecodeError:
        return f"hex:{secret.hex()}"
    return text if text.isprintable() and not text.startswith("hex:") else f"hex:{secret.hex()}"


def _secret_bytes(text: str) -> bytes:
    if not text.startswith("hex:"):
        return text.encode()
    try:
        return bytes.fromhex(text[4:])
    except ValueError as error:
        raise ConfigError("secret: what follows 'hex:' must be pairs of hexadecimal digits") from error


def _password(url: str) -> str:
    parts = urlsplit(url)
    return parts.password or parse_qs(parts.query).get("password", [""])[0]


def _check_provider(provider: object, url: str | None) -> None:
    if url is None:
        raise ConfigError(
            "credential_provider: the embedded server has no accounts; give the url of a server"
        )
    if _password(url):
        raise ConfigError("credential_provider and a password in the URL: give one of them")
    if isinstance(provider, str):
        _named(provider)
    elif not callable(getattr(provider, "get_credentials", None)):
        raise ConfigError(
            f"credential_provider={type(provider).__name__} object: it needs a method get_credentials() that "
            "returns (user, password), or be the text 'module:name'"
        )


@cache
def _named(name: str) -> Any:
    """The provider a text ``module:name`` stands for. One per process: it may keep a token for a while."""
    module, found, attribute = name.partition(":")
    try:
        if not found:
            raise ValueError("there is no colon in it")
        provider = getattr(import_module(module), attribute)
        if not hasattr(provider, "get_credentials") or isinstance(provider, type):
            provider = provider()
        if not callable(getattr(provider, "get_credentials", None)):
            raise TypeError(f"{type(provider).__name__} has no method get_credentials()")
    except Exception as error:
        raise ConfigError(
            f"credential_provider={name!r} must name an importable object as 'module:name': {error}",
            value=name,
        ) from error
    return provider


def _checked(url: str, where: str) -> str:
    if not isinstance(url, str):
        raise ConfigError(f"{where}={url!r} is not a URL: give a str such as 'redis://host:6379/0'")
    if escaped(url) != url:
        raise ConfigError(f"{where} is not valid Unicode: write what is special in it as %XX")
    scheme, found, rest = url.partition("://")
    if not found or scheme not in _SCHEMES:
        raise ConfigError(
            f"{where}: {scheme!r} is not a scheme Rushlight knows; use one of "
            + ", ".join(f"{name}://" for name in _SCHEMES)
        )
    url = f"{_SCHEMES[scheme]}://{rest}"
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigError(
            f"{where}: its host cannot be read; an address of IPv6 stands in brackets"
        ) from error
    try:
        _ = parts.port
    except ValueError as error:
        # urllib's text would show the whole netloc, password included.
        if scheme != "redis+sentinel" or "," not in parts.netloc:
            raise ConfigError(f"{where}: the port is not a number between 0 and 65535") from error
    database = parts.path.strip("/") if parts.scheme in ("redis", "rediss") else ""
    if database and not database.isdecimal():
        raise ConfigError(
            f"{where}: {parts.path!r} is no database: write its number, such as redis://host:6379/0"
        )
    if parts.scheme == "unix" and not parts.path:
        raise ConfigError(f"{where}: unix:// needs the socket's path, such as unix:///run/redis.sock")
    return url


def check_server(sock: socket.socket, config: StoreConfig) -> None:
    """First contact: StoreVersion for a server that lacks what Redis 6.2 has, a StoreWarning for one that
    may evict our data. A server that forbids asking is taken as it is."""
    known, memory = ask(sock, ("COMMAND", "INFO", *_FLOOR), ("INFO", "memory"))
    for reply in (known, memory):
        if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOAUTH"):
            raise NotLetIn(str(reply))
    if isinstance(known, list):
        missing = [name for name, entry in zip(_FLOOR, known, strict=True) if not entry]
        if missing:
            raise StoreVersion(
                f"the server at {config.address} does not know {', '.join(missing)}: Rushlight needs "
                "Redis 6.2 or later, or Valkey",
                missing=missing,
            )
    if isinstance(memory, bytes):
        fields = dict(line.split(":", 1) for line in memory.decode().splitlines() if ":" in line)
        policy = fields.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            warnings.warn(
                f"the server at {config.address} may throw data away when memory is short: "
                f"maxmemory-policy is {policy}, set it to noeviction",
                StoreWarning,
                stacklevel=2,
            )


def unavailable(config: StoreConfig, error: BaseException, doing: str = "reach") -> StoreUnavailable:
    """The one way a lost or refused connection is told."""
    detail = str(error) or type(error).__name__
    return StoreUnavailable(
        f"cannot {doing} the server at {config.address}: {detail}", address=config.address
    )


def passes(fault: Exception) -> bool:
    """Whether the server's error says "not now", so that the call is to be sent again."""
    text = str(fault)
    if text.startswith("ERR Error running script"):
        # Redis 6.2 puts its own words around what a command of the script was told.
        text = text.rpartition(": -")[2]
    return text.startswith(_PASSING)


def refusal(fault: Exception, config: StoreConfig) -> StoreError:
    """The server's error as ours, with a way out where there is one."""
    text = str(fault)
    if text.startswith(("NOAUTH", "WRONGPASS")):
        return unavailable(config, fault)
    if "OOM" in text[:60] or "used memory > 'maxmemory'" in text:
        text = (
            f"{text}: raise maxmemory on the server at {config.address}, or reset networks no longer needed"
        )
    elif text.startswith("NOPERM"):
        text = f"{text}: the account in the URL may not do this on the server at {config.address}"
    error = StoreError(text, code=text.partition(" ")[0])
    error.__cause__ = fault
    return error
