"""From a URL to an open socket that has said who it is.

What asks for no more than a socket (a Unix socket or TCP, a password, a database) is done here, at once.
TLS, Sentinel, accounts whose password changes and settings behind a ``?`` are redis-py's, which is imported
only for them: that takes about as long as all else that a worker's start imports.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis

from ._sentinel import SentinelUrl
from .errors import ConfigError

if TYPE_CHECKING:
    from redis.connection import AbstractConnection

_PORT = 6379
#: A dead peer is noticed after half a minute of silence and three questions: seconds, seconds, number.
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


class NotLetIn(ConnectionError):
    """The server refuses the account, and would do so again."""


@dataclass(frozen=True, slots=True)
class Place:
    """A plain server and who asks it: a Unix socket's ``path``, or else ``host`` and ``port``."""

    path: str = ""
    host: str = "localhost"
    port: int = _PORT
    username: str = ""
    password: str = ""
    db: int = 0

    @classmethod
    def parse(cls, url: str) -> Place | None:
        """None where the URL asks for more than a plain socket."""
        parts = urlsplit(url)
        query = parse_qs(parts.query, keep_blank_values=True)
        if parts.scheme not in ("redis", "redis+cluster", "unix") or query.keys() - {"db"}:
            return None
        local = parts.scheme == "unix"
        db = query["db"][0] if query else "" if local else parts.path.strip("/")
        if db and not db.isdecimal():
            return None
        return cls(
            path=unquote(parts.path) if local else "",
            host=unquote(parts.hostname or "localhost"),
            port=parts.port or _PORT,
            username=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            db=int(db or 0),
        )


def reach(
    url: str, limit: float, *, moved_to: tuple[str, int] | None, provider: Any, options: Mapping[str, Any]
) -> socket.socket:
    """An open socket to the server of a URL; ``moved_to``: to another node of its cluster. OSError, of which
    NotLetIn, within about ``limit`` seconds. It then waits so long for an answer, too."""
    place = None if options or provider is not None else Place.parse(url)
    if place is not None:
        if moved_to is not None:
            place = replace(place, host=moved_to[0], port=moved_to[1])
        return dial(place, limit)
    return _by_redis_py(url, limit, moved_to, {"credential_provider": provider} if provider else {}, options)


def dial(place: Place, limit: float) -> socket.socket:
    """The same for a plain server."""
    try:
        sock = _opened(place, limit)
    except TimeoutError as error:
        raise TimeoutError(f"no answer within {limit:g} s") from error
    except OSError as error:
        raise ConnectionError(error.strerror or str(error)) from error
    except UnicodeError as error:
        raise ConnectionError(f"{place.host!r:.80} cannot be the name of a host") from error
    try:
        _say_who(sock, place)
    except BaseException:
        sock.close()
        raise
    return sock


def _opened(place: Place, limit: float) -> socket.socket:
    if place.path:
        return _connected(socket.AF_UNIX, place.path, limit)
    trouble: OSError | None = None
    for family, _, _, _, address in socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM):
        try:
            return _connected(family, address, limit)
        except OSError as error:
            trouble = error
    raise trouble or ConnectionError(f"{place.host} has no address")


def _connected(family: int, address: Any, limit: float) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _KEEPALIVE.items():
                if hasattr(socket, name):
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        sock.settimeout(limit)
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _say_who(sock: socket.socket, place: Place) -> None:
    said: list[tuple[str | int, ...]] = []
    if place.username or place.password:
        said.append(("AUTH", *([place.username] if place.username else []), place.password))
    if place.db:
        said.append(("SELECT", place.db))
    if not said:
        return
    for (word, *_), reply in zip(said, ask(sock, *said), strict=True):
        if isinstance(reply, hiredis.ReplyError):
            text = str(reply)
            refused = (word == "AUTH" and not text.startswith("LOADING")) or text.startswith("NOAUTH")
            raise NotLetIn(text) if refused else ConnectionError(text)


def ask(sock: socket.socket, *commands: tuple[str | int, ...]) -> list[Any]:
    """The replies to some commands, the first ones of a connection, in one trip; errors stand among them."""
    sock.sendall(b"".join(hiredis.pack_command(command) for command in commands))  # type: ignore[arg-type]
    reader = hiredis.Reader()
    replies: list[Any] = []
    while len(replies) < len(commands):
        try:
            reply = reader.gets()
        except hiredis.HiredisError as error:
            raise ConnectionError(f"what answers there speaks another language: {error}") from error
        if reply is not False:
            replies.append(reply)
            continue
        try:
            data = sock.recv(1 << 16)
        except TimeoutError as error:
            raise TimeoutError(f"no answer within {sock.gettimeout():g} s") from error
        if not data:
            raise ConnectionError("the server closed the connection")
        reader.feed(data)
    return replies


def _by_redis_py(
    url: str,
    limit: float,
    moved_to: tuple[str, int] | None,
    account: dict[str, Any],
    options: Mapping[str, Any],
) -> socket.socket:
    from redis import exceptions
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    try:
        kind, settings = _target(url, limit)
        if moved_to is not None:
            settings["host"], settings["port"] = moved_to
        settings |= account
        fixed = {
            "protocol": 2,
            "socket_connect_timeout": limit,
            # Until it is handed over: a server that takes connections and says nothing is not there.
            "socket_timeout": limit,
            "retry": Retry(NoBackoff(), 0),
        }
        try:
            connection: Any = kind(**{**settings, **fixed, **options})
        except TypeError as error:
            raise ConfigError(f"url: what stands behind its '?' cannot be used: {error}") from error
        connection.connect()
    except (exceptions.AuthenticationError, exceptions.AuthorizationError) as error:
        raise NotLetIn(str(error)) from error
    except exceptions.RedisError as error:
        raise ConnectionError(str(error)) from error
    # The socket is ours from now on: redis-py would close it with its own object.
    sock: socket.socket = connection._sock
    connection._sock = None
    return sock


def _target(url: str, limit: float) -> tuple[type[AbstractConnection], dict[str, Any]]:
    from redis.connection import Connection, SSLConnection, parse_url

    parts = urlsplit(url)
    if parts.scheme == "redis+sentinel":
        sentinel = SentinelUrl.parse(url)
        return SSLConnection if sentinel.tls else Connection, sentinel.find_master(limit)
    settings: dict[str, Any] = dict(parse_url(url.replace("redis+cluster", "redis", 1)))
    if parts.scheme == "unix":
        settings["path"] = settings.pop("path", parts.path)
    kind: type[AbstractConnection] = settings.pop("connection_class", None) or Connection
    settings.pop("max_connections", None)
    return kind, settings
