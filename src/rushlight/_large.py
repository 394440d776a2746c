"""Objects that are stored apart: values above the spill size, and large code and arguments of workers.

Owns how they lie on the server. What fits lies under its digest in one field. What is larger lies in
chunks (fields ``<digest>:0``, ``<digest>:1`` ...) or in a file of ``large_object_dir``, and a manifest
takes the place of the bytes: written last, so that an object is there whole or not at all. Everything is
addressed by content and sent once; nothing is believed that does not have its digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeVar

import msgspec

from ._codec import Codec, Spilled
from ._connect import StoreConfig
from ._disk_cache import DiskCache, digest_of
from ._keys import Keys
from ._names import random_token
from ._scripts import Scripts
from ._trust import Trust
from ._wire import Link, command
from .errors import ConfigError, DataMissing, DecodeError, RushlightError, SecretRequired, StoreError

Place = Literal["blobs", "specs"]
Data = bytes | bytearray
T = TypeVar("T")

#: The most one command carries of an object. Others wait for about 15 ms while a server stores so much.
CHUNK: Final = 4 << 20
#: From this size on it is worth a round trip to ask whether the server has an object already.
WORTH_ASKING: Final = 1 << 20
#: Opens what stands for an object: no msgpack element and no sealed envelope begins with this byte.
MARK: Final = b"\xc1"
#: In a file: a sealed (directory, name, digest, size). In chunks: (how many, size).
_FILE, _CHUNKS = MARK + b"F", MARK + b"C"
_PURPOSE: Final = "large object"

_log = logging.getLogger("rushlight")


class LargeObjects:
    """The objects of one network. Thread-safe like the link it sends on.

    ``directory``: where to put what one command cannot carry; None for chunks on the server. ``disk``: keeps
    what has been read, for all workers of the host; None reads from the server each time.
    """

    def __init__(self, link: Link, scripts: Scripts, keys: Keys, codec: Codec, config: StoreConfig) -> None:
        self._link = link
        self._scripts = scripts
        self._keys = keys
        self._codec = codec
        self.directory = config.large_object_dir
        self.disk: DiskCache | None = None

    def serve_worker(self, directory: str | None = None) -> None:
        """From now on for a worker: what it reads stays on disk for those beside it, and what it writes goes
        to ``directory``, or to this host's own where that is not there."""
        self.disk = DiskCache()
        if directory is not None and (self.directory is None or os.path.isdir(directory)):
            self.directory = directory

    # --- writing --------------------------------------------------------------------------------

    def keep(self, epoch: str, objects: Mapping[str, bytes]) -> list[bytes]:
        """Stores these values ahead of what refers to them, in a trip of their own: where the server refuses
        them (its memory is full) nothing must refer to them. Returns no calls to be sent with the others."""
        if sum(map(len, objects.values())) > WORTH_ASKING:
            self.send("blobs", epoch, objects)
        elif objects:
            calls = [self._scripts.keep_blobs(epoch, *pair) for pair in objects.items()]
            # Refused where the epoch is over, like what the caller sends next.
            self._link.call_many(b"".join(calls), len(calls))
        return []

    def keep_code(self, epoch: str, digest: str, data: bytes, directory: str | None) -> list[bytes]:
        """Sends code or arguments of workers; returns a call that tells whether the epoch still holds."""
        self.send("specs", epoch, {digest: data}, directory)
        return [self._scripts.keep_spec(epoch)]

    def send(
        self, place: Place, epoch: str, objects: Mapping[str, bytes], directory: str | None = None
    ) -> None:
        """Stores objects that the server does not have, a bounded part at a time. Stops where the epoch is
        over: whatever the caller sends next is refused for the same reason."""
        directory = directory or self.directory
        missing = self._missing(place, list(objects))
        large = [digest for digest in missing if len(objects[digest]) > CHUNK]
        if large and directory is not None:
            self._check_directory(directory)
        small = {digest: objects[digest] for digest in missing if len(objects[digest]) <= CHUNK}
        for group in _groups(small.items(), lambda pair: len(pair[1])):
            calls = [self._keep(place, epoch, *pair) for pair in group]
            if any(reply[0] != b"ok" for reply in self._link.call_many(b"".join(calls), len(calls))):
                return
        for digest in large:
            data = objects[digest]
            if directory is None:
                going_on = self._put_chunks(place, epoch, digest, data)
            else:
                going_on = self._put_file(place, epoch, digest, data, directory)
            if not going_on:
                return

    def _missing(self, place: Place, fields: Sequence[str]) -> list[str]:
        if not fields:
            return []
        asked = b"".join(command("HEXISTS", self._keys[place], field) for field in fields)
        there = self._link.call_many(asked, len(fields))
        return [field for field, known in zip(fields, there, strict=True) if not known]

    def _keep(self, place: Place, epoch: str, field: str, data: bytes) -> bytes:
        pack = self._scripts.keep_blobs if place == "blobs" else self._scripts.keep_spec
        return pack(epoch, field, data)

    def _put_chunks(self, place: Place, epoch: str, digest: str, data: bytes) -> bool:
        n = -(-len(data) // CHUNK)
        manifest = _CHUNKS + msgspec.msgpack.encode((n, len(data)))
        while True:
            try:
                if not self._put_missing(place, epoch, digest, data, n):
                    return False
                reply = self._link.call(self._scripts.chunks(place, epoch, digest, n, manifest))
            except StoreError as error:
                if not error.transient:
                    # The server has no room for all of it: what it has of it is in everybody's way.
                    self._link.call(self._scripts.chunks(place, epoch, digest, n, b""))
                raise
            # Else somebody who sent the same has given up, and taken parts away that were there before.
            if reply[0] != b"ok" or reply[1]:
                return bool(reply[0] == b"ok")

    def _put_missing(self, place: Place, epoch: str, digest: str, data: bytes, n: int) -> bool:
        """Sends the chunks that are not there: an upload that broke off goes on where it stopped."""
        view = memoryview(data)
        fields = [f"{digest}:{i}" for i in range(n)]
        missing = set(self._missing(place, fields))
        for i, field in enumerate(fields):
            part = bytes(view[i * CHUNK : (i + 1) * CHUNK]) if field in missing else None
            if part is not None and self._link.call(self._keep(place, epoch, field, part))[0] != b"ok":
                return False
        return True

    # --- files ----------------------------------------------------------------------------------

    def _check_directory(self, directory: str) -> None:
        if not os.path.isdir(directory) or not os.access(directory, os.W_OK | os.X_OK):
            raise ConfigError(
                f"large_object_dir={directory!r} is not a directory that can be written to: make it, or name "
                "another; it must be the same on all hosts",
                value=directory,
            )
        self._trust()

    def _trust(self) -> Trust:
        if self._codec.trust is None:
            raise SecretRequired(
                "references to files in large_object_dir are signed: set RUSHLIGHT_SECRET (or secret=) to "
                "the same value here and for the workers"
            )
        return self._codec.trust

    def _put_file(self, place: Place, epoch: str, digest: str, data: bytes, directory: str) -> bool:
        """A file of a name that is never used again, so that whoever removes it removes nothing else."""
        name = os.path.join(_folder(self._keys.network), f"{digest}.{random_token()}")
        told = msgspec.msgpack.encode((os.path.abspath(directory), name, digest, len(data)))
        manifest = _FILE + self._trust().seal(_PURPOSE, told)
        path = os.path.join(directory, name)
        _write(path, data)
        reply = self._link.call(self._scripts.refer(place, epoch, digest, manifest, f"{place}:{digest}"))
        if reply[0] == b"ok" and reply[1]:
            return True
        _remove(path)
        return bool(reply[0] == b"ok")

    def remove_files(self, manifests: Iterable[bytes]) -> None:
        """Removes the files of a network that was reset. A file this host does not have is left to nobody's
        care but the log's."""
        for manifest in manifests:
            try:
                directory, name, _digest, _size = self._told(manifest)
                _remove(os.path.join(self._where(directory, name), name))
            except (RushlightError, OSError) as error:
                _log.warning("a file in large_object_dir was not removed: %s", error)

    def _told(self, manifest: bytes) -> tuple[str, str, str, int]:
        return _told(self._trust().open(_PURPOSE, manifest[2:]), tuple[str, str, str, int])

    def _where(self, directory: str, name: str) -> str:
        """This host's own name of the directory, where it has one and the file is there."""
        own = self.directory
        return own if own is not None and os.path.exists(os.path.join(own, name)) else directory

    # --- reading --------------------------------------------------------------------------------

    def load(self, references: Sequence[Spilled]) -> list[Any]:
        """The values behind references, in order; one trip for every ``CHUNK`` bytes of them. Raises
        DataMissing where one is gone, DecodeError where it is not what was written."""
        found = zip(references, self.raw(references), strict=True)
        return [self._codec.decode_spilled(item, data) for item, data in found]

    def raw(self, references: Sequence[Spilled]) -> Iterator[Data | None]:
        """The encoded values behind references, in order, each read when it is taken; None for one that is
        gone."""
        for group in _groups(references, lambda item: item.size):
            if self.disk is not None and any(item.size >= WORTH_ASKING for item in group):
                yield from (self._from_disk("blobs", item.digest) for item in group)
                continue
            parts = ("HMGET", self._keys["blobs"], *(item.digest for item in group))
            for item, data in zip(group, self._link.call(command(*parts)), strict=True):
                yield self._whole("blobs", item.digest, data)

    def object(self, place: Place, digest: str) -> Data:
        """An object by digest. Raises DataMissing, DecodeError."""
        found = self._from_disk(place, digest)
        if found is None:
            message = f"an object of network {self._keys.network!r} is gone: was it reset?"
            raise DataMissing(message, keys=[digest])
        if digest_of(found) != digest:
            raise DecodeError("an object stored apart is not what was written", data=found[:64])
        return found

    def _from_disk(self, place: Place, digest: str) -> Data | None:
        def fetch() -> Data | None:
            return self._whole(place, digest, self._link.call(command("HGET", self._keys[place], digest)))

        return fetch() if self.disk is None else self.disk.get(digest, fetch)

    def _whole(self, place: Place, digest: str, data: bytes | None) -> Data | None:
        """The object itself, where what was stored under its digest may be a manifest."""
        if data is None or data[:1] != MARK:
            return data
        if data[:2] == _FILE:
            return self._from_file(data)
        return self._from_chunks(place, digest, *_told(data[2:], tuple[int, int]))

    def _from_chunks(self, place: Place, digest: str, n: int, size: int) -> Data | None:
        whole = bytearray()
        for i in range(n):
            part = self._link.call(command("HGET", self._keys[place], f"{digest}:{i}"))
            if part is None:
                return None
            whole += part
            if len(whole) > size:
                raise DecodeError(f"an object of {size} bytes has more in its chunks", data=bytes(part[:64]))
        return whole if len(whole) == size else None

    def _from_file(self, manifest: bytes) -> bytes:
        directory, name, _digest, size = self._told(manifest)
        path = os.path.join(self._where(directory, name), name)
        try:
            with open(path, "rb") as file:
                return file.read()
        except OSError as error:
            raise DataMissing(
                f"an object of {size} bytes cannot be read from {path}: {error.strerror}; is "
                "large_object_dir there on this host? RUSHLIGHT_LARGE_OBJECT_DIR names it where its "
                "path is another",
                keys=[path],
            ) from error


def chunk_fields(reference: Spilled) -> list[str]:
    """All fields that an object may lie in."""
    n = -(-reference.size // CHUNK) if reference.size > CHUNK else 0
    return [reference.digest, *(f"{reference.digest}:{i}" for i in range(n))]


def _told(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (ValueError, RecursionError) as error:
        raise DecodeError("what stands for a large object is not of Rushlight", data=data[:64]) from error


def _groups(items: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """The items in order, cut so that no group is larger than a chunk but for those of one item."""
    group: list[T] = []
    total = 0
    for item in items:
        if group and total + size(item) > CHUNK:
            yield group
            group, total = [], 0
        group.append(item)
        total += size(item)
    if group:
        yield group


def _folder(network: str) -> str:
    """The network's own directory in ``large_object_dir``: readable, and no other network's."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", network)[:40]
    return f"rushlight-{readable}-{hashlib.blake2b(network.encode(), digest_size=6).hexdigest()}"


def _write(path: str, data: bytes) -> None:
    """The whole file or none, for this user alone, and on the disk before anybody is told of it."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    spare = f"{path}.part"
    try:
        with open(os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(spare, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(spare)
        reason = error.strerror or error
        raise StoreError(f"an object of {len(data)} bytes cannot be written to {path}: {reason}") from error


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    # The last one out removes the directory.
    with contextlib.suppress(OSError):
        os.rmdir(os.path.dirname(path))
