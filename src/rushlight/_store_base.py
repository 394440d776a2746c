"""The ground every verb of the store stands on: link, epoch, codec, transactions.

Knows nothing of tasks or workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import hiredis

from ._cancel import current
from ._codec import Codec, Spilled
from ._connect import StoreConfig
from ._disk_cache import digest_of
from ._keys import Keys, check_network
from ._large import MARK, WORTH_ASKING, LargeObjects
from ._names import random_token
from ._scripts import Call, Scripts
from ._trust import Trust
from ._wire import Link, command
from .errors import SecretRequired, StoreError, StoreVersion

#: Version of keys and records. A network written in another one is refused with StoreVersion.
FORMAT = 1
#: How the epochs of this format begin.
EPOCHS = f"{FORMAT}."
#: Waiting connections that are kept for the next wait.
_MOST_IDLE = 4
#: Milliseconds for which the answer to a call is kept beyond the time its caller may ask for it again.
_ANSWERS_KEPT = 60_000
_MULTI = command(b"MULTI")
_EXEC = command(b"EXEC")
T = TypeVar("T")


def _listed(made: bytes | list[bytes]) -> list[bytes]:
    return [made] if isinstance(made, bytes) else made


def pairs(flat: Sequence[T]) -> Iterator[tuple[T, T]]:
    """The fields and values of a hash, or members and scores, as the server tells them: in turns."""
    return zip(flat[::2], flat[1::2], strict=True)


def new_epoch() -> str:
    """A new epoch for a network. It begins with the format, so that whoever learns of an epoch, by reading or
    by writing, learns of the format, too."""
    return EPOCHS + random_token()


def format_of(epoch: str) -> int:
    """The format of a network in this epoch; 0 where it cannot be told."""
    form, found, _ = epoch.partition(".")
    return int(form) if found and form.isdecimal() else 0


class Borrowed:
    """A waiting connection of a store for a block: one that is at hand, else a new one."""

    __slots__ = ("_link", "_store", "_token")

    def __init__(self, store: StoreBase) -> None:
        self._store = store
        self._token = current.get()

    def __enter__(self) -> Link:
        store = self._store
        try:
            link = store._idle.pop()
        except IndexError:
            link = Link(store.config, store.link.whereabouts, checked=True)
        self._link = link
        if self._token is not None:
            try:
                self._token.begin(link.interrupt)
            except BaseException:
                self._give_back(whole=True)
                raise
        return link

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._token is not None:
            self._token.end()
        self._give_back(whole=kind is None and not self._link.interrupted)

    def _give_back(self, *, whole: bool) -> None:
        if whole and len(self._store._idle) < _MOST_IDLE:
            self._store._idle.append(self._link)
        else:
            self._link.close()


class StoreBase:
    """One network on one server.

    Thread-safe: calls share one connection under a lock, blocking waits borrow another. Fork-safe, and
    picklable as its settings. Every write carries the network's epoch: after a ``reset`` by anybody the
    next write of a manager starts the network anew, while a worker of the old one is refused.
    """

    def __init__(
        self, config: StoreConfig, network: str, *, spill_size: int = 65536, connect: bool = True
    ) -> None:
        self.network = check_network(network)
        self.config = config
        self.spill_size = spill_size
        self.keys = Keys(network)
        self.scripts = Scripts(self.keys)
        self.link = Link(config)
        if connect:
            self.link.connect()
        secret = config.key()
        self.trust = Trust(secret, network) if secret is not None else None
        self.codec = Codec(self.trust, spill_size=spill_size)
        self.large = LargeObjects(self.link, self.scripts, self.keys, self.codec, config)
        #: The network's epoch as last seen; empty while this client has not met one.
        self.epoch = ""
        #: The last one whose format was found to be ours.
        self._accepted = ""
        #: Waiting connections at hand; one operation on the list is atomic.
        self._idle: list[Link] = []

    def __getstate__(self) -> dict[str, Any]:
        return {"config": self.config, "network": self.network, "spill_size": self.spill_size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Connects on first use: whoever unpickles may not need it.
        self.__init__(**state, connect=False)  # type: ignore[misc]

    def close(self) -> None:
        """Closes the connections; the next call opens them again."""
        self.link.close()
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def waiting_link(self) -> Borrowed:
        """A connection for one blocking command, so that nobody else waits behind it, for a ``with`` block.
        Raises Interrupted where the call was given up (``_cancel``)."""
        return Borrowed(self)

    def new_call(self) -> Call:
        """What names a call that is to be carried out once, however often it arrives. Its answer is kept for
        as long as it may be asked for again, and then some."""
        return random_token(), int(1000 * (self.config.patience + self.config.timeout)) + _ANSWERS_KEPT

    def write(self, pack: Callable[[str], bytes | list[bytes]]) -> list[Any]:
        """Sends what ``pack(epoch)`` makes, all in one trip, and returns the last reply.

        Written again under the new epoch when a reset came between.
        """
        last: list[Any] = self._write(
            lambda epoch: self.link.call_many(b"".join(made := _listed(pack(epoch))), len(made))
        )[-1]
        return last

    def write_parts(self, parts: Callable[[str], Iterator[list[bytes]]]) -> None:
        """The same with what ``parts(epoch)`` makes, some commands at a time, which are sent before the next
        are made."""
        self._write(lambda epoch: self.link.call_parts((b"".join(made), len(made)) for made in parts(epoch)))

    def _write(self, send: Callable[[str], list[Any]]) -> list[Any]:
        for _ in range(5):
            replies = send(self.epoch or self._open())
            if not any(reply[0] == b"EPOCH" for reply in replies):
                return replies
            self.epoch = ""
        raise self._restless()

    def _open(self, *, create: bool = True) -> str:
        """The network's epoch; '' where it has none and none is to be made. One that was only proposed so far
        is confirmed, before anything is written under it."""
        for _ in range(5):
            told, unsure = self.link.call(self.scripts.open(new_epoch() if create else ""))
            epoch = self.heard(told)
            if unsure:
                told, _ = self.link.call(self.scripts.open(epoch, confirm=True))
                epoch = self.heard(told)
            if epoch or not create:
                self.epoch = epoch
                return epoch
        raise self._restless()

    def _restless(self) -> StoreError:
        return StoreError(f"network {self.network!r} is being reset over and over", network=self.network)

    def heard(self, epoch: bytes | None) -> str:
        """The epoch the server told; empty for a network that holds nothing. Raises StoreVersion for a
        network in a format this release does not know, before anything of it is read."""
        text = epoch.decode() if epoch else ""
        if text and text != self._accepted:
            form = format_of(text)
            if form != FORMAT:
                raise StoreVersion(
                    f"network {self.network!r} is in format {form}, this release of Rushlight reads format "
                    f"{FORMAT}: use the release that wrote it, or reset the network with that release",
                    found=form,
                    supported=FORMAT,
                )
            self._accepted = text
        return text

    def transaction(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Runs the commands at one instant, in one trip, and returns their replies."""
        packed = b"".join([_MULTI, *(command(*parts) for parts in commands), _EXEC])
        try:
            replies = self.link.call_many(packed, len(commands) + 2)
        except StoreError as error:
            if error.fields.get("code") != "OOM":
                raise
            # What is there must be readable, also to see what can go.
            flat = [part for name, _key, *rest in commands for part in (name, len(rest), *rest)]
            return list(self.link.call(self.scripts.together(tuple(parts[1] for parts in commands), *flat)))
        result: list[Any] | None = replies[-1]
        if result is None:
            raise StoreError("the server gave up a transaction", network=self.network)
        for item in result:
            if isinstance(item, hiredis.ReplyError):
                raise StoreError(str(item), network=self.network)
        return result

    def require_trust(self, what: str) -> Trust:
        """The envelope for code; SecretRequired where a remote server has neither password nor secret."""
        if self.trust is None:
            raise SecretRequired(
                f"{what} cannot be sent through {self.config.address} unsigned: set RUSHLIGHT_SECRET (or "
                "secret=) to the same value here and for the workers, or use a server with a password"
            )
        return self.trust

    def keep_code(self, sealed: bytes, directory: str | None = None) -> bytes:
        """What to store of sealed code or arguments of workers: themselves, or where they are large a
        reference to an object, which is sent now unless the server has it. ``directory``: see ``large``."""
        if len(sealed) <= WORTH_ASKING:
            return sealed
        digest = digest_of(sealed)
        self.write(lambda epoch: self.large.keep_code(epoch, digest, sealed, directory))
        return MARK + digest.encode()

    def load_code(self, kept: bytes) -> bytes | bytearray:
        """The sealed code or arguments. DataMissing if an object is gone."""
        return self.large.object("specs", kept[1:].decode()) if kept[:1] == MARK else kept

    def load_spilled(self, spilled: list[Spilled]) -> list[Any]:
        """The values behind references, in order; one trip unless large. DataMissing if one is gone."""
        return self.large.load(spilled)
