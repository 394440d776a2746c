"""Asking Sentinel for the master. Owns the meaning of a ``redis+sentinel://`` URL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from .errors import ConfigError

_PORT = 26379


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """``redis+sentinel://[user:password@]host[:port],host[:port]/service[/db][?...]``, taken apart.

    User and password are the master's. Behind ``?``: ``sentinel_username`` and ``sentinel_password`` where
    the sentinels want them too, ``ssl=true`` and redis-py's ``ssl_...`` for TLS to all of them.
    """

    nodes: tuple[tuple[str, int], ...]
    service: str
    master: dict[str, Any]
    sentinels: dict[str, Any]
    tls: bool

    @classmethod
    def parse(cls, url: str) -> SentinelUrl:
        """Raises ConfigError for a URL without a service, or with a port that is none."""
        parts = urlsplit(url)
        account, _, hosts = parts.netloc.rpartition("@")
        user, _, password = account.partition(":")
        service, _, db = parts.path.strip("/").partition("/")
        if not service:
            raise ConfigError(
                "redis+sentinel:// needs the service's name: redis+sentinel://host:26379/mymaster/0"
            )
        try:
            nodes = tuple(_node(host) for host in hosts.split(","))
            settings: dict[str, Any] = {"db": int(db or 0)}
        except ValueError as error:
            raise ConfigError(f"redis+sentinel://{hosts}/{service}/{db}: {error}") from error
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        tls = {name: value for name, value in query.items() if name.startswith("ssl_")}
        if password:
            settings |= {"username": unquote(user) or None, "password": unquote(password)}
        own = {name: query[f"sentinel_{name}"] for name in _ACCOUNT if f"sentinel_{name}" in query}
        return cls(nodes, service, settings | tls, own | tls, query.get("ssl") == "true")

    def find_master(self, limit: float) -> dict[str, Any]:
        """How to reach the master as of now; ConnectionError where no sentinel tells of one."""
        from redis.backoff import NoBackoff
        from redis.retry import Retry
        from redis.sentinel import MasterNotFoundError, Sentinel

        asking = {
            "socket_timeout": limit,
            "socket_connect_timeout": limit,
            "retry": Retry(NoBackoff(), 0),
            "ssl": self.tls,
            **self.sentinels,
        }
        sentinel = Sentinel(self.nodes, sentinel_kwargs=asking)
        try:
            host, port = sentinel.discover_master(self.service)
        except MasterNotFoundError as error:
            raise ConnectionError(str(error)) from error
        finally:
            for client in sentinel.sentinels:
                client.close()
        return {"host": host, "port": port, **self.master}


_ACCOUNT = ("username", "password")


def _node(text: str) -> tuple[str, int]:
    name, found, port = text.rpartition(":")
    if not found or port.endswith("]"):
        return text, _PORT
    return name.strip("[]"), int(port)
