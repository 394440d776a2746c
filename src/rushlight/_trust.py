"""The envelope that code and pickles travel in: sealed with a network's secret, opened only when it verifies.

Owns signing, verifying and the pickling behind it; never reads a pickle before its signature, and
never puts a secret, or anything made from it that could replace it, into a message, a repr or a pickle.

An envelope is ``b"RL" version flags | purpose | network | python | cloudpickle | fingerprint | body |
HMAC-SHA256``. The MAC covers everything before it, under a key of its own for each network and purpose,
so an envelope of one network or purpose is worthless in another.
"""

from __future__ import annotations

import hmac
import io
import pickle
import sys
import sysconfig
import threading
import types
from collections import ChainMap
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple, NoReturn

import cloudpickle

from ._blame import unpicklable_part
from .errors import ConfigError, DecodeError, EncodeError, SignatureMismatch

_MAGIC: Final = b"RL\x01"
_MAC_SIZE: Final = 32
_PICKLED: Final = 1
PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
_WAY_OUT: Final = "start manager and workers with the same secret= or RUSHLIGHT_SECRET"

#: Whether this thread pickles for a network: see ``bound_for_network``.
_sealing = threading.local()
#: cloudpickle's list of modules to send by value belongs to the process, so one dump at a time.
_by_value_lock = threading.Lock()


class _Envelope(NamedTuple):
    """What an envelope says about itself; to be believed only once its MAC has verified."""

    flags: int
    purpose: str
    network: str
    python: str
    cloudpickle: str
    fingerprint: str
    body: memoryview


class Trust:
    """Seals and opens envelopes for one network; thread-safe, and never pickled.

    ``secret`` is any bytes the participants share (32 random ones by choice); it is not kept, only
    a key derived from it.
    """

    __slots__ = ("_fingerprint", "_keys", "_root", "network")

    def __init__(self, secret: bytes, network: str) -> None:
        if not isinstance(secret, bytes) or not secret:
            what = "empty" if isinstance(secret, bytes) else type(secret).__name__
            raise ConfigError(f"a secret must be bytes and not empty, got {what}")
        if not isinstance(network, str) or not network:
            raise ConfigError(f"a network's name must be a str and not empty, got {network!r:.80}")
        self.network = network
        self._root = hmac.digest(b"rushlight/1", secret, "sha256")
        self._keys: dict[str, bytes] = {}
        self._fingerprint = self._key("fingerprint/").hex()[:8]

    def __repr__(self) -> str:
        return f"Trust(<secret>, network={self.network!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Trust holds the network's secret and is never pickled or copied; make one from the secret"
        )

    def seal(self, purpose: str, body: bytes, *, pickled: bool = False) -> bytes:
        """``body`` in an envelope; ``pickled`` binds it to this Python's minor version."""
        words = (purpose, self.network, PYTHON, cloudpickle.__version__, self._fingerprint)
        header = [_MAGIC, bytes([_PICKLED if pickled else 0])]
        for word in words:
            raw = word.encode("utf-8", "surrogatepass")
            if len(raw) > 0xFFFF:
                raise ConfigError(f"a purpose or network's name is {len(raw)} bytes long, the limit is 65535")
            header += (len(raw).to_bytes(2, "big"), raw)
        # In pieces: the body may be large, and a copy of it would be too.
        mac = hmac.new(self._key(purpose), digestmod="sha256")
        for part in (*header, body):
            mac.update(part)
        return b"".join((*header, body, mac.digest()))

    def open(self, purpose: str, sealed: bytes) -> bytes:
        """The body, once the signature has verified for this network and ``purpose``.

        Raises SignatureMismatch for anything else, and DecodeError for a genuine pickle of another
        Python minor version, whose bytecode this one cannot run.
        """
        return bytes(self._verified(purpose, sealed).body)

    def dumps(
        self,
        purpose: str,
        obj: object,
        *,
        where: str | None = None,
        by_value: bool | None = None,
        tail: str | None = None,
    ) -> bytes:
        """``obj`` pickled by cloudpickle and sealed.

        ``by_value`` sends functions and classes (also in a list, tuple, dict or partial) that live
        in a module of the user's, not installed and not of the standard library, with their code,
        as if they were in ``__main__``, so that the reader need not have the file; the default is
        to do so for every purpose but ``"value"``.
        ``where`` is what an EncodeError calls the object. ``tail`` stands behind the pickle, where no reader
        looks, and makes its bytes unlike all others.
        """
        _sealing.now = True
        homes = _homes(obj) if (purpose != "value" if by_value is None else by_value) else []
        try:
            body = _dumps_by_value(obj, homes) if homes else _dumps(obj)
        except Exception as error:
            path = (where or purpose) + unpicklable_part(obj, _dumps)
            reason = f"{type(error).__name__}: {error}"
            raise EncodeError(f"{path} cannot be stored or sent: {reason}", path=path) from error
        finally:
            _sealing.now = False
        return self.seal(purpose, body if tail is None else body + tail.encode(), pickled=True)

    def loads(self, purpose: str, sealed: bytes | bytearray) -> Any:
        """The object in a verified envelope. What unpickling raises (a missing module) passes through."""
        envelope = self._verified(purpose, sealed)
        try:
            return pickle.loads(envelope.body)
        except Exception as error:
            if envelope.cloudpickle != cloudpickle.__version__:
                versions = f"cloudpickle {envelope.cloudpickle}, read by {cloudpickle.__version__}"
                error.add_note(f"pickled by {versions}")
            raise

    def _key(self, purpose: str) -> bytes:
        key = self._keys.get(purpose)
        if key is None:
            network = self.network.encode("utf-8", "surrogatepass")
            info = len(network).to_bytes(4, "big") + network + purpose.encode("utf-8", "surrogatepass")
            key = self._keys[purpose] = hmac.digest(self._root, info + b"\x01", "sha256")
        return key

    def _verified(self, purpose: str, sealed: bytes | bytearray) -> _Envelope:
        view = memoryview(sealed)
        mac = hmac.digest(self._key(purpose), view[:-_MAC_SIZE], "sha256")
        if not hmac.compare_digest(mac, view[-_MAC_SIZE:]):
            raise self._mismatch(purpose, sealed)
        envelope = _parse(sealed)
        if envelope is None:
            raise SignatureMismatch("an envelope of another version of Rushlight; use one version everywhere")
        if envelope.flags & _PICKLED and envelope.python != PYTHON:
            raise DecodeError(
                f"{purpose} was pickled by Python {envelope.python} and cannot be read by {PYTHON}: "
                "run manager and workers on the same minor version",
                python=envelope.python,
            )
        return envelope

    def _mismatch(self, purpose: str, sealed: bytes | bytearray) -> SignatureMismatch:
        """The likeliest story of a bad signature. The header it reads is a forger's word: wording only."""
        claims = _parse(sealed)
        if claims is None:
            why = f"the {purpose} is truncated, or no envelope of Rushlight's"
        elif claims.network != self.network:
            why = f"signed for the network {claims.network!r:.80}, not for {self.network!r:.80}"
        elif claims.purpose != purpose:
            why = f"signed as {claims.purpose!r:.80}, not as {purpose!r:.80}"
        elif claims.fingerprint != self._fingerprint:
            why = f"the {purpose} is signed with another secret: {_WAY_OUT}"
        else:
            why = f"the {purpose} was changed or cut after it was signed"
        return SignatureMismatch(f"not to be trusted, and not read: {why}", purpose=purpose)


def bound_for_network() -> bool:
    """True while this thread pickles what others may read: a seal is no lock, so objects that hold a secret
    leave it out then."""
    return getattr(_sealing, "now", False)


def unverified_body(sealed: bytes) -> bytes:
    """The body of an envelope nobody has verified: plain data only, never code or a pickle."""
    envelope = _parse(sealed)
    if envelope is None or envelope.flags & _PICKLED:
        raise SignatureMismatch("an envelope that cannot be read without its signature")
    return bytes(envelope.body)


def _parse(sealed: bytes | bytearray) -> _Envelope | None:
    view = memoryview(sealed)
    end = len(view) - _MAC_SIZE
    if end < 4 or bytes(view[:3]) != _MAGIC:
        return None
    words: list[str] = []
    at = 4
    for _ in range(5):
        start = at + 2
        at = start + int.from_bytes(view[at:start], "big")
        if at > end:
            return None
        words.append(bytes(view[start:at]).decode("utf-8", "replace"))
    purpose, network, python, by, fingerprint = words
    return _Envelope(view[3], purpose, network, python, by, fingerprint, view[at:end])


def _dumps(obj: object) -> bytes:
    with io.BytesIO() as file:
        _Pickler(file, protocol=5).dump(obj)
        return file.getvalue()


def _reduce_code(code: types.CodeType) -> tuple[Any, ...]:
    """As cloudpickle does, but with the file's name, which it leaves out from 3.1.2 on: tracebacks of workers
    are to show the lines."""
    make, parts = cloudpickle.CloudPickler.dispatch_table[types.CodeType](code)
    # A copy, as the name may be interned: equal code is to make equal bytes.
    name = "".join(code.co_filename)
    return make, tuple(name if part == "<dynamic-code>" else part for part in parts)


class _Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
    dispatch_table: ClassVar[Any] = ChainMap(
        {types.CodeType: _reduce_code}, cloudpickle.CloudPickler.dispatch_table
    )


def _dumps_by_value(obj: object, homes: list[types.ModuleType]) -> bytes:
    with _by_value_lock:
        known = cloudpickle.list_registry_pickle_by_value()
        added = [module for module in homes if module.__name__ not in known]
        for module in added:
            cloudpickle.register_pickle_by_value(module)
        try:
            return _dumps(obj)
        finally:
            for module in added:
                cloudpickle.unregister_pickle_by_value(module)


def _homes(obj: object, depth: int = 3) -> list[types.ModuleType]:
    """The modules of the user's that define the functions and classes in a (container of) code."""
    parts: list[object] = []
    if isinstance(obj, partial):
        parts = [obj.func, obj.args, obj.keywords]
    elif isinstance(obj, types.MethodType):
        parts = [obj.__func__, type(obj.__self__)]
    elif isinstance(obj, dict):
        parts = list(obj.values())
    elif isinstance(obj, list | tuple):
        parts = list(obj)
    elif isinstance(obj, types.FunctionType | type):
        module = sys.modules.get(obj.__module__)
        return [module] if module is not None and _is_the_users(module) else []
    elif callable(obj):
        parts = [type(obj)]
    found = [module for part in parts for module in _homes(part, depth - 1)] if depth else []
    return list({id(module): module for module in found}.values())


def _is_the_users(module: types.ModuleType) -> bool:
    """Whether it is neither installed nor ``__main__``, which cloudpickle sends by value anyway."""
    file = getattr(module, "__file__", None)
    if file is None or module.__name__.partition(".")[0] in ("__main__", "__mp_main__", "rushlight"):
        return False
    path = Path(file)
    installed = not {"site-packages", "dist-packages"}.isdisjoint(path.parts)
    return not (installed or path.is_relative_to(sysconfig.get_path("stdlib")))
