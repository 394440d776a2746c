"""Launchers: how supervisors are started, here or elsewhere.

Owns the names launchers go by. Third parties add theirs through the entry-point group
``rushlight.launchers``; it is read only when a name is asked for that is not in the box.
"""

from __future__ import annotations

import inspect
from typing import Any, cast

from ..errors import ConfigError, LauncherError
from ._base import (
    PENDING,
    RUNNING,
    Handle,
    HandleState,
    Launcher,
    WorkerCommand,
    exited,
    read_environment,
)
from .local import LocalLauncher

__all__ = [
    "PENDING",
    "RUNNING",
    "Handle",
    "HandleState",
    "Launcher",
    "LocalLauncher",
    "WorkerCommand",
    "exited",
    "get_launcher",
    "read_environment",
]

GROUP = "rushlight.launchers"
_BUILT_IN: dict[str, type[Any]] = {"local": LocalLauncher}
_METHODS = ("launch", "poll", "terminate", "log_tail")


def get_launcher(launcher: str | Launcher | type[Any] | None = None) -> Launcher:
    """The launcher of this name, class or object; None is local processes."""
    if launcher is None:
        return LocalLauncher()
    found: Any = _by_name(launcher) if isinstance(launcher, str) else launcher
    if inspect.isclass(found):
        found = found()
    missing = [method for method in _METHODS if not callable(getattr(found, method, None))]
    if missing or not isinstance(getattr(found, "name", None), str):
        raise ConfigError(
            f"launcher={launcher!r} is not a launcher: it lacks {', '.join(missing) or 'a name'}; "
            "give a name, or an object with launch, poll, terminate and log_tail",
            value=launcher,
        )
    return cast(Launcher, found)


def _by_name(name: str) -> Any:
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    # Costs a worker's start a tenth of its time, and workers never ask for a launcher.
    from importlib.metadata import entry_points

    known = entry_points(group=GROUP)
    for point in known:
        if point.name == name:
            try:
                return point.load()
            except Exception as error:
                raise LauncherError(
                    f"launcher={name!r} is registered as {point.value!r}, which cannot be imported: {error}",
                    command=point.value,
                    output=str(error),
                ) from error
    names = sorted({*_BUILT_IN, *(point.name for point in known)})
    raise ConfigError(f"launcher={name!r} is not known; there are {', '.join(names)}", value=name)
