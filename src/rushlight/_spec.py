"""Start arguments of worker loops: what a manager seals once and every worker opens.

Owns their form on the wire. Code is sealed under the network's secret and unpickled only in a worker
process, never in its supervisor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import msgspec

from ._store import Store
from .errors import SignatureMismatch

_SPEC, _LOOP, _ARGUMENTS = "start arguments", "worker loop", "loop arguments"


@dataclass(frozen=True, slots=True)
class StartSpec:
    """What workers started together share. ``loop`` and ``arguments`` are sealed pickles.

    ``paths`` and ``directory`` are the manager's own import path beyond Python's and its working
    directory: the worker takes of them what exists where it runs. ``log_dir``: a file per worker there
    gets all it prints. ``max_crashes``: how many crashes of its workers a task may survive, beside its
    retries. ``max_memory``: bytes a worker may have before it is killed. ``max_restarts``: how often a worker
    that crashed is started again.
    ``large_object_dir``: where its large results go; ``max_value_size``: bytes one of them may have. Once
    stored, ``loop`` and ``arguments`` that are large are references to objects beside.
    """

    loop: bytes
    arguments: bytes
    packages: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    directory: str = ""
    log_level: str | int | None = None
    log_dir: str | None = None
    seed: str | None = None
    lease: float = 15.0
    on_lost: str = "fail"
    max_restarts: int = 0
    large_object_dir: str | None = None
    max_value_size: int | None = None
    max_crashes: int = 0
    max_memory: int | None = None


def seal_code(
    store: Store, loop: Callable[..., Any], kwargs: Mapping[str, Any], globals_: Mapping[str, Any]
) -> tuple[bytes, bytes]:
    """``loop`` and ``arguments`` of a StartSpec. Raises EncodeError naming what cannot be pickled, and
    SecretRequired."""
    trust = store.require_trust("a worker loop")
    arguments = {"kwargs": dict(kwargs), "globals": dict(globals_)}
    return trust.dumps(_LOOP, loop, where="loop"), trust.dumps(_ARGUMENTS, arguments, where="arguments")


def keep_spec(store: Store, spec: StartSpec) -> str:
    """Stores start arguments and returns their id: the same for the same arguments."""
    loop, arguments = (store.keep_code(code, spec.large_object_dir) for code in (spec.loop, spec.arguments))
    spec = replace(spec, loop=loop, arguments=arguments)
    body = msgspec.msgpack.encode(asdict(spec))
    sealed = store.require_trust("start arguments").seal(_SPEC, body)
    spec_id = _id_of(sealed)
    store.keep_spec(spec_id, sealed)
    return spec_id


def _id_of(sealed: bytes) -> str:
    return hashlib.sha256(sealed).hexdigest()[:32]


def load_spec(store: Store, spec_id: str) -> StartSpec:
    """Start arguments by id. Raises DataMissing, SignatureMismatch, SecretRequired."""
    sealed = store.spec(spec_id)
    body = store.require_trust("start arguments").open(_SPEC, sealed)
    if _id_of(sealed) != spec_id:
        raise SignatureMismatch(
            f"not to be trusted, and not read: {spec_id!r} are other start arguments than were stored there",
            purpose=_SPEC,
        )
    return msgspec.msgpack.decode(body, type=StartSpec)


def open_code(store: Store, spec: StartSpec) -> tuple[Callable[..., Any], dict[str, Any], dict[str, Any]]:
    """The loop, its keyword arguments and the globals: runs code of the manager's, so workers only.

    What unpickling raises, such as a missing module, passes through.
    """
    trust = store.require_trust("a worker loop")
    arguments = trust.loads(_ARGUMENTS, store.load_code(spec.arguments))
    return trust.loads(_LOOP, store.load_code(spec.loop)), arguments["kwargs"], arguments["globals"]
