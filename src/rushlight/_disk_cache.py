"""Large objects on this host's disk, so that all workers of a host fetch each once.

Owns a private directory whose files are named by the digest of their content, and believes no file
it has not hashed. A disk that is full or not there costs speed, never a result. Knows no server.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from . import _server_files as files
from ._server_home import home_dir
from .errors import ConfigError

if sys.platform != "win32":
    import fcntl

_log = logging.getLogger("rushlight")
_PLACE, _SIZE = "RUSHLIGHT_CACHE", "RUSHLIGHT_CACHE_SIZE"
#: Bytes all files together may take, where nobody said otherwise.
_LIMIT = 4 << 30
#: Lock files there are: objects that share one are fetched one after the other.
_LOCKS = 16
#: Seconds one process waits for another that fetches the same object: it may stand still for good.
_PATIENCE = 60.0


def digest_of(data: bytes | bytearray | memoryview) -> str:
    """The name of a content: BLAKE2b, 16 bytes, as hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


class DiskCache:
    """Objects by digest in ``RUSHLIGHT_CACHE``, else in the home; the oldest go when it is full.

    Safe for any number of processes at once. ``RUSHLIGHT_CACHE_SIZE`` is its limit in bytes, 0 for none kept.
    """

    def __init__(self) -> None:
        self._limit = _limit()
        self._folder: Path | None = None

    def get(self, digest: str, fetch: Callable[[], bytes | bytearray | None]) -> bytes | bytearray | None:
        """The object, from disk, or else from ``fetch``, which one process of this host calls at a time."""
        folder = self._folder = self._folder or (self._open() if self._limit else None)
        if folder is None:
            return fetch()
        path = folder / digest
        kept: bytes | bytearray | None = _read(path, digest)
        if kept is not None:
            return kept
        with _alone(folder / f"lock-{int(digest[:4], 16) % _LOCKS}"):
            found: bytes | bytearray | None = _read(path, digest)
            if found is None:
                found = fetch()
                if found is not None and digest_of(found) == digest:
                    self._write(path, found)
        return found

    def _open(self) -> Path | None:
        """The private directory; None, with a warning, where there can be none."""
        try:
            place = os.environ.get(_PLACE)
            base = Path(os.path.abspath(os.path.expanduser(place))) if place else home_dir()
            base.mkdir(parents=True, exist_ok=True)
            folder = base / (f"rushlight-{_user()}" if place else "cache")
            files.own_folder(str(folder))
        except (OSError, ConfigError) as error:
            _log.warning("large objects are not kept on disk here, and fetched by each worker: %s", error)
            self._limit = 0
            return None
        return folder

    def _write(self, path: Path, data: bytes | bytearray) -> None:
        if len(data) > self._limit:
            return
        spare = f"{path}.{os.getpid()}.{time.monotonic_ns()}"
        try:
            _make_room(path.parent, self._limit - len(data))
            with open(os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
            os.replace(spare, path)
        except OSError as error:
            _log.warning("a large object of %d bytes is not kept on disk: %s", len(data), error)
            files.remove(spare)


def _limit() -> int:
    text = os.environ.get(_SIZE, "")
    if not text:
        return _LIMIT
    if not text.isdecimal():
        raise ConfigError(f"{_SIZE}={text!r} must be a number of bytes; 0 keeps nothing on disk", value=text)
    return int(text)


def _user() -> int:
    return os.geteuid() if hasattr(os, "geteuid") else 0


def _read(path: Path, digest: str) -> bytes | None:
    try:
        data = path.read_bytes()
        if digest_of(data) == digest:
            os.utime(path)
            return data
        path.unlink()
    except OSError:
        # Not there, or cleared away by another process just now.
        return None
    return None


def _make_room(folder: Path, limit: int) -> None:
    """Removes what was used longest ago until the rest is within the limit."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith("lock-"):
                facts = entry.stat(follow_symlinks=False)
                found.append((facts.st_mtime_ns, facts.st_size, entry.path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= limit:
            return
        files.remove(path)
        total -= size


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """For the block nobody else on this host has the lock, or has had it for very long."""
    if sys.platform == "win32":
        yield
        return
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        # Somebody cleared the directory away: then everybody fetches for himself.
        yield
        return
    deadline = time.monotonic() + _PATIENCE
    try:
        while time.monotonic() < deadline:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.02)
            else:
                break
        yield
    finally:
        os.close(descriptor)
