"""What goes with calls, and what a controller was made with: checked once, then frozen."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import msgspec

from . import _inputs
from ._call_scope import Limits, Reset
from ._plan import plan
from ._scaling import ScaleLimits
from ._seeds import Seed
from ._seeds import encode as encode_seed
from .errors import ConfigError
from .launchers import Launcher

T = TypeVar("T")
NIL = b"\xc0"


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What goes with calls: ``Controller.options``."""

    name: str | None = None
    timeout: float | None = None
    queue_timeout: float | None = None
    priority: int = 0
    seed: Any = None
    max_retries: int = 0
    resources: tuple[Any, ...] = ()
    worker: str | None = None

    @classmethod
    def checked(cls, **given: Any) -> CallOptions:
        unknown = [option for option in given if option not in cls.__slots__]
        if unknown:
            raise ConfigError(f"{unknown[0]!r} is no option of a call: there are {', '.join(cls.__slots__)}")
        name = given.get("name")
        if name is not None and (_inputs.one_key(name, "name") == "" or "\x1f" in name):
            raise ConfigError(f"name={name!r} must be a text that is not empty, without \\x1f", name=name)
        for limit in ("timeout", "queue_timeout"):
            (given[limit],) = _inputs.time_limits(given.get(limit), 1, limit)
        given["max_retries"] = _inputs.count(given.get("max_retries", 0), "max_retries")
        if given.get("seed") is not None:
            encode_seed(given["seed"])
        (given["priority"],) = _inputs.each(given.get("priority", 0), 1, "priority", int)
        given["resources"] = checked_resources(given.get("resources"))
        return cls(**given)

    def packed(self) -> bytes:
        """As a task's record has them."""
        found = {
            "p": self.priority, "t": self.timeout, "q": self.queue_timeout,
            "r": self.max_retries, "w": self.worker,
            "s": None if self.seed is None else encode_seed(self.seed),
        }  # fmt: skip
        said = {name: value for name, value in found.items() if value}
        return msgspec.msgpack.encode(said) if said else NIL


PLAIN = CallOptions()


def checked_resources(resources: Any) -> tuple[Any, ...]:
    """What a call needs: one setting, or several to be tried one after the other as it crashes. Each a dict
    of arguments of ``Controller``, or a launcher."""
    if resources is None:
        return ()
    several = resources if isinstance(resources, Sequence) and not isinstance(resources, str) else [resources]
    for one in several:
        if isinstance(one, Mapping):
            unknown = [name for name in one if name not in _RESOURCES]
            if unknown:
                raise ConfigError(f"resources: {unknown[0]!r} is none of {', '.join(_RESOURCES)}")
        elif not isinstance(one, Launcher):
            raise ConfigError(f"resources={one!r} must be a dict of settings, or a launcher")
    return tuple(several)


#: Settings of a controller that calls may ask for.
_RESOURCES = (
    "launcher", "max_memory", "max_workers", "max_crashes", "packages", "idle_timeout", "launch_timeout",
)  # fmt: skip


#: What becomes of results that were collected.
RETENTIONS = ("collect", "archive")
#: What a controller is made with, beside its place.
SETTINGS = (
    "launcher", "min_workers", "max_workers", "idle_timeout", "max_tasks_per_worker", "max_lifetime",
    "launch_timeout", "max_crashes", "seed", "on_worker_start", "packages", "max_memory", "reset",
    "tasks_per_worker", "max_queued", "max_queued_bytes", "lease", "retention",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Settings:
    """What a controller was made with; ``Controller`` says what each means."""

    launcher: Any
    scale: ScaleLimits
    limits: Limits
    reset: Reset
    max_crashes: int
    seed: Any
    on_worker_start: Callable[..., Any] | None
    packages: tuple[str, ...]
    lease: float
    max_queued: int | None
    max_queued_bytes: int | None
    retention: str
    #: As they were given.
    arguments: dict[str, Any]

    @classmethod
    def checked(cls, *, launcher: Any, seed: Any, **given: Any) -> Settings:
        """Raises ConfigError for what cannot work."""
        least, most = _numbers(given["min_workers"], given["max_workers"])
        given["max_crashes"] = _inputs.count(given["max_crashes"], "max_crashes")
        for name in ("max_tasks_per_worker", "max_memory", "max_queued", "max_queued_bytes"):
            if given[name] is not None:
                given[name] = _inputs.count(given[name], name, least=1)
        idle = _inputs.seconds(given["idle_timeout"], "idle_timeout", none=True)
        lifetime = _inputs.seconds(given["max_lifetime"], "max_lifetime", none=True, least=1e-3)
        patience = _inputs.seconds(given["launch_timeout"], "launch_timeout", least=0.1) or 60.0
        ratio = _inputs.ratio(given["tasks_per_worker"], "tasks_per_worker")
        if seed is not None:
            encode_seed(seed)
        if given["retention"] not in RETENTIONS:
            raise ConfigError(
                f"retention={given['retention']!r} must be 'collect' (a result is removed once it was "
                "collected) or 'archive'"
            )
        on_start = given["on_worker_start"]
        if on_start is not None and not callable(on_start):
            raise ConfigError(f"on_worker_start={on_start!r} must be a function")
        return cls(
            launcher=launcher if launcher is not None else plan.current().launcher,
            scale=ScaleLimits(least, most, ratio, math.inf if idle is None else idle, patience),
            limits=Limits(given["max_tasks_per_worker"], lifetime, idle, given["max_memory"], kept=least > 0),
            reset=Reset.of(given["reset"]),
            max_crashes=given["max_crashes"],
            seed=seed,
            on_worker_start=on_start,
            packages=tuple(_inputs.key_list(given["packages"], "packages")),
            lease=_inputs.lease(given["lease"]),
            max_queued=given["max_queued"],
            max_queued_bytes=given["max_queued_bytes"],
            retention=given["retention"],
            arguments={"launcher": launcher, "seed": seed, **given},
        )


def _numbers(least: Any, most: Any) -> tuple[int, int]:
    least = _inputs.count(least, "min_workers")
    wanted = most if most is not None else plan.current().n_workers
    if wanted is None:
        return least, max(
            least, len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        )
    wanted = _inputs.count(wanted, "max_workers", least=1)
    if least > wanted:
        raise ConfigError(f"min_workers={least} is more than max_workers={wanted}")
    return least, wanted


class Submitting(Protocol):
    """What makes calls with options."""

    def _submit(
        self,
        options: CallOptions,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        /,
    ) -> Future[Any]:
        """Makes one."""


class Options:
    """The verbs of a controller that make calls, with options for these."""

    def __init__(self, controller: Submitting, options: CallOptions) -> None:
        self._controller = controller
        self._options = options

    def push(self, name: str, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """As ``Controller.push``."""
        options = replace(self._options, name=CallOptions.checked(name=name).name)
        return self._controller._submit(options, fn, args, kwargs)

    def walk(self, fn: Callable[..., T], *iterables: Iterable[Any]) -> list[Future[T]]:
        """As ``Controller.walk``; a name is the beginning of the names: ``name-1``, ``name-2`` ..., a seed
        of their seeds: those that ``SeedSequence.spawn`` makes."""
        name, seed = self._options.name, self._options.seed
        return [
            self._controller._submit(
                replace(
                    self._options,
                    name=None if name is None else f"{name}-{i}",
                    seed=None if seed is None else Seed.of(seed).child(i - 1),
                ),
                fn,
                args,
                {},
            )
            for i, args in enumerate(zip(*iterables, strict=False), 1)
        ]

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """As ``Controller.submit``."""
        return self._controller._submit(self._options, fn, args, kwargs)
