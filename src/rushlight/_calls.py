"""A call as a task: which function, with which arguments, and what came of it, as fields of a record.

Owns their form. What calls share (functions, constants) is stored once, by content, and referred to. What
msgpack holds exactly stays readable data; all else is a sealed pickle.
"""

from __future__ import annotations

import inspect
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

import msgspec

from ._codec import Spilled
from ._disk_cache import digest_of
from ._ext_write import PLAIN, encode
from ._steady import Watch, watch
from ._store import Store
from .errors import ConfigError, DataMissing

FUNCTION, ARGUMENTS, VALUE, ERROR, CONSTANT = (
    "call function", "call arguments", "call value", "call error", "constant",
)  # fmt: skip
#: Functions and constants each side remembers.
_REMEMBERED: Final = 512
#: Containers up to this size are looked through for the user's own functions.
_SMALL: Final = 32
_NIL: Final = b"\xc0"
_WHERE: Final = "(args, kwargs)"


class Constant:
    """Stands for a value that was uploaded once (``Controller.constants``); a call is given the value."""

    __slots__ = ("digest", "name")

    def __init__(self, name: str, digest: str) -> None:
        self.name = name
        self.digest = digest

    def __repr__(self) -> str:
        return f"<Constant {self.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _constant, (self.name, self.digest)


class Shelf:
    """What calls of a network share, as those see it who make calls: kept on the server, each object once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        #: By identity: the function, what it depends on, and its reference.
        self._known: OrderedDict[int, tuple[Callable[..., Any], Watch, str]] = OrderedDict()
        self._sent: set[str] = set()
        self._epoch = ""

    def refer(self, fn: Callable[..., Any]) -> str:
        """The reference to a function, which is uploaded unless the server has it: name, colon, digest.

        A function that is the same object as before, and refers to the same values that cannot change, is
        not pickled again. Raises ConfigError for what is none, EncodeError for one that cannot be pickled,
        SecretRequired.
        """
        if not callable(fn):
            raise ConfigError(f"fn must be callable, got {fn!r}")
        with self._lock:
            known = self._known.get(id(fn))
            if known is not None and known[1].unchanged() and self._store.epoch == self._epoch:
                return known[2]
            sealed = self._store.require_trust("a function").dumps(FUNCTION, fn, where="fn")
            name = getattr(fn, "__qualname__", type(fn).__qualname__)
            ref = f"{name}:{self._keep(sealed)}"
            depends = watch(fn)
            if depends is not None:
                self._known[id(fn)] = (fn, depends, ref)
                while len(self._known) > _REMEMBERED:
                    self._known.popitem(last=False)
            return ref

    def constant(self, name: str, value: Any) -> Constant:
        """Uploads a value, unless the server has it. Raises EncodeError, SecretRequired."""
        sealed = self._store.require_trust("a constant").dumps(CONSTANT, value, where=name, by_value=False)
        with self._lock:
            return Constant(name, self._keep(sealed))

    def keep(self, purpose: str, body: bytes) -> str:
        """Uploads what is pickled already; its digest."""
        sealed = self._store.require_trust(purpose).seal(purpose, body, pickled=True)
        with self._lock:
            return self._keep(sealed)

    def _keep(self, sealed: bytes) -> str:
        digest = digest_of(sealed)
        if self._store.epoch != self._epoch:
            self._sent.clear()
        if digest not in self._sent:
            store = self._store
            store.write(lambda epoch: store.large.keep_code(epoch, digest, sealed, None))
            if store.epoch != self._epoch:
                self._known.clear()
                self._epoch = store.epoch
            self._sent.add(digest)
        return digest


class Objects:
    """The same, as a worker sees it: each object read and opened once per process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._trust = store.require_trust("calls")
        self._opened: OrderedDict[str, Any] = OrderedDict()
        self._by_ref: dict[str, Callable[..., Any]] = {}
        global _here  # noqa: PLW0603 - constants inside of arguments are found while these are unpickled
        _here = self

    def function(self, ref: str) -> Callable[..., Any]:
        """The function of a reference. Raises DataMissing, and what unpickling raises."""
        found = self._by_ref.get(ref)
        if found is None:
            if len(self._by_ref) >= _REMEMBERED:
                self._by_ref.clear()
            found = self._by_ref[ref] = self._open(FUNCTION, ref.rpartition(":")[2])
        return found

    def constant(self, digest: str) -> Any:
        """The value of a constant."""
        return self._open(CONSTANT, digest)

    def _open(self, purpose: str, digest: str) -> Any:
        if digest not in self._opened:
            self._opened[digest] = self._trust.loads(purpose, self._store.large.object("specs", digest))
            while len(self._opened) > _REMEMBERED:
                self._opened.popitem(last=False)
        return self._opened[digest]


_here: Objects | None = None


class _Naming(threading.local):
    named: Callable[[str], str] | None = None


_elsewhere = _Naming()


@contextmanager
def elsewhere(named: Callable[[str], str]) -> Iterator[None]:
    """For the block, constants that this thread unpickles stay what they are, under the digests ``named``
    gives them; also in a worker."""
    _elsewhere.named = named
    try:
        yield
    finally:
        _elsewhere.named = None


def _constant(name: str, digest: str) -> Any:
    """In a worker the value, elsewhere what stands for it."""
    if _elsewhere.named is not None:
        return Constant(name, _elsewhere.named(digest))
    return Constant(name, digest) if _here is None else _here.constant(digest)


# --- arguments ----------------------------------------------------------------------------------


def encode_call(
    store: Store,
    ref: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    spilled: dict[str, bytes],
    *,
    many: bool = False,
    broadcast: str | None = None,
    own: str | None = None,
) -> bytes:
    """The inputs of a call, encoded; large ones go into ``spilled``. ``many``: the arguments of several calls
    of the function, one after the other. ``broadcast``: its number. ``own``: the call's key, where what is
    stored apart for it is to be its own, to be removed with it. Raises EncodeError, SecretRequired."""
    flags: dict[str, Any] = {} if own is None else {"own": True}
    if broadcast is not None:
        sealed = store.require_trust("arguments").dumps(ARGUMENTS, (args, dict(kwargs)), where=_WHERE)
        said = {"call": ref, "pickled": sealed, "broadcast": broadcast}
        return store.codec.encode_fields(said, "xs", spilled)
    if many:
        return _encode_many(store, {"call": ref, "many": True, **flags}, args, spilled, own)
    if PLAIN.issuperset(map(type, args)) and PLAIN.issuperset(map(type, kwargs.values())):
        fields = {"call": ref, "args": args, "kwargs": kwargs} if kwargs else {"call": ref, "args": args}
        if flags:
            fields |= flags
        try:
            data = encode(fields)
        except (OverflowError, UnicodeEncodeError):
            pass
        else:
            if len(data) <= store.spill_size:
                return data
    sealed = store.require_trust("arguments").dumps(
        ARGUMENTS, (args, dict(kwargs)), where=_WHERE, by_value=_small(args) and _small(kwargs), tail=own
    )
    return store.codec.encode_fields({"call": ref, "pickled": sealed, **flags}, "xs", spilled)


def _encode_many(
    store: Store,
    said: Mapping[str, Any],
    rows: tuple[tuple[Any, ...], ...],
    spilled: dict[str, bytes],
    own: str | None,
) -> bytes:
    if all(PLAIN.issuperset(map(type, args)) for args in rows):
        try:
            data = encode({**said, "args": rows})
        except (OverflowError, UnicodeEncodeError):
            pass
        else:
            if len(data) <= store.spill_size:
                return data
    trust = store.require_trust("arguments")
    sealed = trust.dumps(ARGUMENTS, (rows, {}), where="items", by_value=all(map(_small, rows)), tail=own)
    return store.codec.encode_fields({**said, "pickled": sealed}, "xs", spilled)


def decode_call(store: Store, xs: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    """Positional and keyword arguments. Raises DataMissing, SignatureMismatch, what unpickling raises."""
    if "pickled" not in xs:
        return xs["args"], xs.get("kwargs") or {}
    args, kwargs = store.require_trust("arguments").loads(ARGUMENTS, _bytes(store, xs["pickled"]))
    return args, kwargs


def _small(values: Any) -> bool:
    return len(values) <= _SMALL and all(
        len(v) <= _SMALL
        for v in (values.values() if isinstance(values, Mapping) else values)
        if isinstance(v, list | tuple | dict)
    )


def _bytes(store: Store, value: Any) -> bytes:
    if type(value) is Spilled:
        (value,) = store.load_spilled([value])
    if type(value) is not bytes:
        raise DataMissing("a pickled part of a call is not there")
    return value


# --- values -------------------------------------------------------------------------------------


def encode_value(store: Store, value: Any, spilled: dict[str, bytes], own: str | None = None) -> bytes:
    """The results of a call that returned, encoded; ``own`` as in ``encode_call``. Raises EncodeError."""
    if type(value) in PLAIN:
        try:
            data = encode({"value": value})
        except (OverflowError, UnicodeEncodeError):
            pass
        else:
            if len(data) <= store.spill_size:
                return data
    sealed = store.require_trust("a value").dumps(VALUE, value, where="the result", by_value=False, tail=own)
    return store.codec.encode_fields({"pickled_value": sealed}, "ys", spilled)


def decode_value(store: Store, ys: Mapping[str, Any]) -> Any:
    """What the call returned."""
    if "pickled_value" not in ys:
        return ys["value"]
    return store.require_trust("a value").loads(VALUE, _bytes(store, ys["pickled_value"]))


def encode_told(told: Mapping[str, Any]) -> bytes:
    """What a worker tells of a call beside its result: plain data."""
    return msgspec.msgpack.encode(told) if told else _NIL


def seal_error(store: Store, error: BaseException) -> bytes | None:
    """The exception itself; None for one that cannot be pickled.

    Many cannot be made again from their ``args``, as their constructor takes more, and some have an attribute
    that cannot be pickled: these are made again in parts.
    """
    for told in (error, _Parts(store, error)):
        with suppress(Exception):
            sealed = store.require_trust("an exception").dumps(ERROR, told, by_value=False)
            if open_error(store, sealed) is not None:
                return sealed
    return None


class _Parts:
    """Pickles as an exception that is made again without its constructor, of what can be pickled of it."""

    def __init__(self, store: Store, error: BaseException) -> None:
        self._store = store
        self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        kept = {name: value for name, value in vars(self._error).items() if self._goes(value)}
        return _put_together, (type(self._error), self._error.args, kept)

    def _goes(self, value: Any) -> bool:
        try:
            self._store.require_trust("an exception").dumps(ERROR, value, by_value=False)
        except Exception:
            return False
        return True


def _put_together(kind: type[BaseException], args: tuple[Any, ...], kept: dict[str, Any]) -> BaseException:
    error = kind.__new__(kind, *args)
    vars(error).update(kept)
    return error


def open_error(store: Store, sealed: bytes) -> BaseException | None:
    """The exception, where it can be made here."""
    try:
        found = store.require_trust("an exception").loads(ERROR, sealed)
    except (Exception, SystemExit, GeneratorExit):
        return None
    return found if isinstance(found, BaseException) else None


def call_hook(fn: Callable[..., Any], worker: Any) -> None:
    """``on_worker_start``: with the worker, where it takes an argument."""
    try:
        inspect.signature(fn).bind()
    except TypeError:
        fn(worker)
    except ValueError:
        # Some functions written in C do not tell what they take.
        fn()
    else:
        fn()
