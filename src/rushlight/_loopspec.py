"""From what a user says about a loop to the start arguments its workers read. Checks everything first."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict, Unpack

from . import _inputs
from ._seeds import encode
from ._spec import StartSpec, seal_code
from ._store import Store
from .errors import ConfigError


class LoopSettings(TypedDict, total=False):
    """What goes with a loop; ``Rush.start_workers`` says what each means."""

    kwargs: Mapping[str, Any] | None
    packages: Sequence[str]
    globals: Mapping[str, Any] | None
    seed: Any
    log_level: str | int | None
    log_dir: str | os.PathLike[str] | None
    large_object_dir: str | os.PathLike[str] | None
    max_value_size: int | None
    max_restarts: int
    lease: float
    on_lost: Literal["fail", "requeue"]


def make_spec(store: Store, loop: Callable[..., Any], **settings: Unpack[LoopSettings]) -> StartSpec:
    """Start arguments, nothing stored yet. Raises ConfigError, EncodeError, SecretRequired."""
    kwargs = _inputs.one_task(_or_empty(settings.get("kwargs")), "kwargs")
    loop = _inputs.loop_of(loop, kwargs)
    names = _inputs.one_task(_or_empty(settings.get("globals")), "globals")
    on_lost = settings.get("on_lost", "fail")
    if on_lost not in ("fail", "requeue"):
        raise ConfigError(f"on_lost={on_lost!r} must be 'fail' or 'requeue'")
    log_dir, seed = settings.get("log_dir"), settings.get("seed")
    large = settings.get("large_object_dir") or store.large.directory
    most = settings.get("max_value_size")
    code, arguments = seal_code(store, loop, kwargs, names)
    return StartSpec(
        loop=code,
        arguments=arguments,
        packages=tuple(_inputs.key_list(settings.get("packages", ()), "packages")),
        paths=_own_paths(),
        directory=os.getcwd(),
        log_level=_inputs.log_level(settings.get("log_level")),
        log_dir=None if log_dir is None else _inputs.directory(log_dir, "log_dir"),
        large_object_dir=None if large is None else _inputs.directory(large, "large_object_dir"),
        max_value_size=None if most is None else _inputs.count(most, "max_value_size", least=1),
        seed=None if seed is None else encode(seed),
        lease=_inputs.lease(settings.get("lease", 15.0)),
        on_lost=on_lost,
        max_restarts=_inputs.count(settings.get("max_restarts", 0), "max_restarts"),
    )


def _or_empty(value: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return {} if value is None else value


def _own_paths() -> tuple[str, ...]:
    """Where the user's own modules come from: the import path without the interpreter's, which is another one
    where the worker runs."""
    ours = tuple({os.path.realpath(place) for place in (sys.prefix, sys.base_prefix, sys.exec_prefix)})
    found = dict.fromkeys(os.path.abspath(path or os.getcwd()) for path in sys.path)
    return tuple(path for path in found if not os.path.realpath(path).startswith(ours))
