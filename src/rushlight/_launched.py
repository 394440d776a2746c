"""What a controller knows of launches: its own and those it has taken over, from launch to registration.

Plain records; what they mean for the number of workers is decided in ``_scaling``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

import msgspec

from ._scaling import LaunchFact
from ._store_calls import Crew
from .launchers import PENDING, Handle, HandleState


@dataclass(frozen=True, slots=True)
class Launch:
    """A worker that was launched and has not been running. ``handle``: None where another launcher did it,
    which cannot be asked here. ``adopted``: by another controller, maybe long ago."""

    worker_id: str
    handle: Handle | None
    since: float
    state: HandleState = PENDING
    running_since: float | None = None
    adopted: bool = False


@dataclass(slots=True)
class Known:
    """What has been seen so far. Times are of the monotonic clock."""

    epoch: str = ""
    launches: dict[str, Launch] = field(default_factory=dict)
    ours: set[str] = field(default_factory=set)
    #: Of each worker without a task: since when, and how many it had ended by then.
    idle: dict[str, tuple[float, int]] = field(default_factory=dict)
    next_poll: float = 0.0


def unused(launches: Iterable[Launch], crew: Crew) -> list[Launch]:
    """Those of whose process or job no worker is there."""
    there = crew.members.keys()
    return [
        one for one in launches if not there & {one.worker_id, *(one.handle.worker_ids if one.handle else ())}
    ]


def fact_of(launch: Launch) -> LaunchFact:
    group = launch.handle.id if launch.handle is not None else ""
    return LaunchFact(launch.worker_id, launch.state.phase, launch.since, launch.running_since, group)


def handles_of(launches: Iterable[Launch]) -> list[Handle]:
    """The handles of launches, each once."""
    return list({one.handle.id: one.handle for one in launches if one.handle is not None}.values())


def note_of(handle: Handle) -> bytes:
    """What other controllers are told of a launch."""
    return msgspec.msgpack.encode(asdict(handle))
