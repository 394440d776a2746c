"""What a controller knows of launches: its own and those it has taken over, from launch to registration.

Plain records; what they mean for the number of workers is decided in ``_scaling``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Final

import msgspec

from ._scaling import LaunchFact
from ._store_calls import Crew
from .launchers import PENDING, Handle, HandleState

_OWNER: Final = "controller"


@dataclass(frozen=True, slots=True)
class Launch:
    """A worker that was launched and has not been running. ``handle``: None where another launcher did it,
    which cannot be asked here. ``adopted``: by another controller, maybe long ago. ``owner``: the token of
    the controller that did it."""

    worker_id: str
    handle: Handle | None
    since: float
    state: HandleState = PENDING
    running_since: float | None = None
    adopted: bool = False
    owner: str = ""


@dataclass(slots=True)
class Known:
    """What has been seen so far. Times are of the monotonic clock."""

    epoch: str = ""
    launches: dict[str, Launch] = field(default_factory=dict)
    #: Workers that controllers launched, with the controllers' tokens.
    owners: dict[str, str] = field(default_factory=dict)
    #: Of each worker without a task: since when, and how many it had ended by then.
    idle: dict[str, tuple[float, int]] = field(default_factory=dict)
    next_poll: float = 0.0


def unused(launches: Iterable[Launch], crew: Crew) -> list[Launch]:
    """Those of whose process or job no worker is there."""
    there = crew.members.keys()
    return [
        one for one in launches if not there & {one.worker_id, *(one.handle.worker_ids if one.handle else ())}
    ]


def fact_of(launch: Launch, there: Collection[str]) -> LaunchFact:
    """``there``: the tokens of controllers that look after their launches themselves."""
    if launch.owner in there:
        return LaunchFact(launch.worker_id, "pending", launch.since, kept=True)
    group = launch.handle.id if launch.handle is not None else ""
    return LaunchFact(launch.worker_id, launch.state.phase, launch.since, launch.running_since, group)


def handles_of(launches: Iterable[Launch]) -> list[Handle]:
    """The handles of launches, each once."""
    return list({one.handle.id: one.handle for one in launches if one.handle is not None}.values())


def note_of(handle: Handle, owner: str) -> bytes:
    """What other controllers are told of a launch. Of whose it is among the handle's details, where those of
    earlier releases expect nothing that they know."""
    return msgspec.msgpack.encode(asdict(replace(handle, details={**handle.details, _OWNER: owner})))


def told_of(note: bytes) -> tuple[Handle, str]:
    """What a note tells: the handle, whose ``id`` is empty until it was launched, and the owner."""
    told = {"launcher": "", "id": "", "worker_ids": (), "details": {}} | msgspec.msgpack.decode(note)
    owner = told["details"].pop(_OWNER, "")
    return Handle(**told | {"worker_ids": tuple(told["worker_ids"])}), owner
