"""What goes with calls, and what a controller was made with: checked once, then frozen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from . import _inputs
from ._call_scope import Limits, Reset
from ._scaling import ScaleLimits
from ._seeds import encode as encode_seed
from .errors import ConfigError

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
    worker: str | None = None

    @classmethod
    def checked(cls, **given: Any) -> CallOptions:
        name = given.get("name")
        if name is not None:
            _inputs.one_key(name, "name")
        _inputs.time_limit(given.get("timeout"), "timeout")
        _inputs.time_limit(given.get("queue_timeout"), "queue_timeout")
        _inputs.count(given.get("max_retries", 0), "max_retries")
        if given.get("seed") is not None:
            encode_seed(given["seed"])
        if not isinstance(given.get("priority", 0), int):
            raise ConfigError(f"priority={given['priority']!r} must be a whole number")
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


@dataclass(frozen=True, slots=True)
class Settings:
    """What a controller was made with."""

    launcher: Any
    scale: ScaleLimits
    limits: Limits
    reset: Reset
    max_crashes: int
    seed: Any
    on_worker_start: Callable[..., Any] | None
    packages: tuple[str, ...]
    lease: float
