"""What a launcher is: argv and text in, handles out.

Owns the command that starts workers, how it is written for a shell, and what a launcher says about
what it started. Never talks to a server, and never knows what a worker does.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from ..errors import ConfigError

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Variables whose values no other user of the host may see, as they would on a command line.
_SECRETS = ("RUSHLIGHT_URL", "RUSHLIGHT_SECRET")
Phase = Literal["pending", "running", "exited"]


@dataclass(frozen=True, slots=True)
class WorkerCommand:
    """One supervisor to start: its argument list, and the environment it needs besides the usual one.

    ``argv`` says everything but which workers; ``for_workers`` adds those. ``environment`` is where
    secrets go: ``repr`` hides it, and no rendering puts a value of it on a command line.
    ``outlive``: the workers go on after the process that launched them has ended.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    worker_ids: tuple[str, ...] = ()
    outlive: bool = False

    def __post_init__(self) -> None:
        for text in (*self.argv, *self.environment.values()):
            if not isinstance(text, str) or "\0" in text:
                raise ConfigError(f"a worker's command holds {text!r:.40}: give str without NUL characters")
        for name in self.environment:
            if not _VARIABLE.fullmatch(name):
                raise ConfigError(f"environment: {name!r} cannot be the name of a variable")
        for name in _SECRETS:
            value = self.environment.get(name)
            if value and any(value in text for text in self.argv):
                raise ConfigError(f"the value of {name} stands on the command line, for every user to read")
        if not self.argv:
            raise ConfigError("a worker's command needs an argument list")

    @classmethod
    def build(
        cls,
        network: str,
        spec_id: str,
        *,
        environment: Mapping[str, str] | None = None,
        worker_ids: Sequence[str] = (),
        python: str = sys.executable,
        outlive: bool = False,
        options: Mapping[str, str] | None = None,
    ) -> WorkerCommand:
        """The command of ``python -m rushlight worker``.

        ``options`` become ``--name=value``. Every value is glued to its option by ``=``, so that one
        that begins with a dash stays a value. ``-P`` keeps files of the current directory from
        standing in for modules of the standard library.
        """
        pairs = {"network": network, "spec": spec_id, **(options or {})}
        given = (f"--{name}={value}" for name, value in pairs.items())
        argv = (python, "-P", "-m", "rushlight", "worker", *given)
        return cls(argv, dict(environment or {}), tuple(worker_ids), outlive)

    def with_option(self, name: str, value: str) -> WorkerCommand:
        """The same command with one more option."""
        return replace(self, argv=(*self.argv, f"--{name}={value}"))

    def for_workers(self, n: int, worker_ids: Sequence[str] | None = None) -> list[str]:
        """The argument list that starts these workers, or n that name themselves."""
        ids = self.worker_ids if worker_ids is None else tuple(worker_ids)
        if not isinstance(n, int) or isinstance(n, bool) or n < 1:
            raise ConfigError(f"n={n!r}: launch at least one worker")
        if ids and len(ids) != n:
            raise ConfigError(f"n={n} does not match the {len(ids)} worker ids of the command")
        wanted = [f"--worker-id={worker_id}" for worker_id in ids] or [f"--workers={n}"]
        return [*self.argv, *wanted, *(["--outlive"] if self.outlive else [])]

    def shell_line(self, n: int = 1, *, environment_file: str | None = None) -> str:
        """The command as one line for any POSIX shell, whatever its values contain.

        Holds nothing of ``environment``: the supervisor finds that in its own environment, or in the
        ``environment_file`` that ``write_environment`` wrote.
        """
        argv = self.for_workers(n)
        if environment_file is not None:
            argv.append(f"--env-file={environment_file}")
        return shlex.join(argv)

    def write_environment(self, path: str | os.PathLike[str]) -> Path:
        """Writes ``environment`` to a new file that only this user can read (mode 0600)."""
        target = Path(path)
        try:
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise ConfigError(f"cannot write the workers' environment to {str(target)!r}: {error}") from error
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(dict(self.environment), file)
        return target


def read_environment(path: str | os.PathLike[str]) -> dict[str, str]:
    """Reads what ``write_environment`` wrote; refuses a file that others could read or change."""
    try:
        with open(path, encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            loaded = json.load(file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the environment file {os.fspath(path)!r}: {error}") from error
    if mode & 0o077:
        raise ConfigError(f"the environment file {os.fspath(path)!r} is open to others: chmod 600 it")
    if not isinstance(loaded, dict) or not all(isinstance(value, str) for value in loaded.values()):
        raise ConfigError(f"the environment file {os.fspath(path)!r} must hold a JSON object of strings")
    return loaded


@dataclass(frozen=True, slots=True)
class Handle:
    """One thing a launcher started: a process, a job, an element of a job array.

    ``id`` is the launcher's own name for it (process id, job id), ``worker_ids`` the workers it
    stands for, where they were chosen beforehand. ``details`` is the launcher's business.
    """

    launcher: str
    id: str
    worker_ids: tuple[str, ...] = ()
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HandleState:
    """What a launcher knows about a handle; ``code`` and ``reason`` once it has exited.

    ``code`` is negative for a signal, None where the launcher cannot know it.
    """

    phase: Phase
    code: int | None = None
    reason: str = ""


PENDING = HandleState("pending")
RUNNING = HandleState("running")


def exited(code: int | None, reason: str = "") -> HandleState:
    """The state of something that has ended."""
    return HandleState("exited", code, reason)


@runtime_checkable
class Launcher(Protocol):
    """Starts supervisors somewhere, and knows what became of them.

    The truth about a worker is its lease; a launcher only tells "still waiting" from "gone".

    ``launch`` raises LaunchError when nothing was started and returns without waiting for workers to
    come up. ``poll`` asks once for all handles and answers in their order. ``terminate`` ends what
    still runs, at once, together with everything it started; ended handles are left alone.
    ``log_tail`` is the end of what the supervisor itself said, '' where that cannot be had.
    A launcher may have two more: ``wait(handles, timeout)``, where it can tell at once that what it started
    has ended, and ``close()``, to let go of what it holds.
    """

    name: str

    def launch(self, command: WorkerCommand, n: int) -> list[Handle]:
        """Starts supervisors for n workers."""

    def poll(self, handles: Sequence[Handle]) -> list[HandleState]:
        """The states of the handles, in their order."""

    def terminate(self, handles: Sequence[Handle]) -> None:
        """Ends what still runs."""

    def log_tail(self, handle: Handle) -> str:
        """The end of what the supervisor said."""
