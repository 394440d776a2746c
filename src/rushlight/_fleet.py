"""Starting, awaiting and stopping workers from a manager.

Owns the handles of what it launched. What a worker is and does is the network's knowledge: any manager can
stop any worker.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from . import _inputs, _names
from ._connect import secret_text
from ._plan import plan
from ._records import WorkerInfo, WorkerState
from ._spec import StartSpec, keep_spec, seal_code
from ._store import Store
from .errors import ConfigError, UnknownKey, WaitTimeout, WorkerStartError
from .launchers import Handle, Launcher, WorkerCommand, get_launcher

#: Seconds a kill waits for the processes to be gone, and a wait for workers lasts by default.
_KILL_TIME = 10.0
_START_TIME = 60.0
_STEP = 5.0


@dataclass(frozen=True, slots=True)
class _Launched:
    """Workers started together, and what the launcher knows them by."""

    launcher: Launcher
    handles: list[Handle]
    worker_ids: tuple[str, ...]


_fleets: weakref.WeakSet[Fleet] = weakref.WeakSet()


class Fleet:
    """The workers of a network, as a manager handles them."""

    _store: Store
    network: str
    detect_lost_workers: Callable[[], list[str]]

    def _begin_fleet(self) -> None:
        self._launched: list[_Launched] = []
        self._launchers: dict[str, Launcher] = {}
        self._launch_lock = threading.Lock()
        self._owner = os.getpid()
        _fleets.add(self)

    # --- starting -------------------------------------------------------------------------------

    def start_workers(
        self,
        loop: Callable[..., Any],
        n_workers: int | None = None,
        *,
        kwargs: Mapping[str, Any] | None = None,
        launcher: str | Launcher | None = None,
        packages: Sequence[str] = (),
        globals: Mapping[str, Any] | None = None,
        seed: Any = None,
        log_level: str | int | None = None,
        log_dir: str | os.PathLike[str] | None = None,
        max_restarts: int = 0,
        lease: float = 15.0,
        on_lost: Literal["fail", "requeue"] = "fail",
    ) -> list[str]:
        """Starts workers that each run ``loop(worker, **kwargs)``; returns their ids without waiting.

        ``loop`` travels by cloudpickle, ``packages`` are imported and ``globals`` set beside it. Local
        processes by default; they end with this process. ``log_level``: what of ``logging`` goes to the
        network's log. ``max_restarts``: how often a crashed worker is started again under its id. ``lease``:
        seconds after which a silent worker is lost; ``on_lost``: what then happens to its tasks
        (``"requeue"`` up to their ``max_retries``).
        Raises EncodeError for a loop that cannot be pickled, SecretRequired, LaunchError; nothing has been
        written then.
        """
        count = n_workers if n_workers is not None else plan.current().n_workers
        n = 1 if count is None else _inputs.count(count, "n_workers", least=1)
        chosen = self._launcher(launcher if launcher is not None else plan.current().launcher)
        spec = self._spec(
            loop,
            kwargs or {},
            globals or {},
            packages=packages,
            seed=seed,
            log_level=log_level if log_level is not None else plan.current().log_level,
            log_dir=log_dir,
            max_restarts=max_restarts,
            lease=lease,
            on_lost=on_lost,
        )
        worker_ids = tuple(_names.random_name() for _ in range(n))
        command = WorkerCommand.build(
            self._store.network,
            keep_spec(self._store, spec),
            environment=self._environment(),
            worker_ids=worker_ids,
        )
        handles = chosen.launch(command, n)
        with self._launch_lock:
            self._launched.append(_Launched(chosen, handles, worker_ids))
        return list(worker_ids)

    def _launcher(self, launcher: str | Launcher | None) -> Launcher:
        if launcher is not None and not isinstance(launcher, str):
            return get_launcher(launcher)
        name = launcher or "local"
        with self._launch_lock:
            if name not in self._launchers:
                self._launchers[name] = get_launcher(launcher)
            return self._launchers[name]

    def _spec(
        self, loop: Any, kwargs: Mapping[str, Any], globals_: Mapping[str, Any], **settings: Any
    ) -> StartSpec:
        if not callable(loop):
            raise ConfigError(f"loop must be a function loop(worker, **kwargs), got {loop!r}")
        _inputs.one_task(kwargs, "kwargs")
        _inputs.one_task(globals_, "globals")
        code, arguments = seal_code(self._store, loop, kwargs, globals_)
        if settings["on_lost"] not in ("fail", "requeue"):
            raise ConfigError(f"on_lost={settings['on_lost']!r} must be 'fail' or 'requeue'")
        _inputs.seconds(settings["lease"], "lease", least=0.1)
        _inputs.count(settings["max_restarts"], "max_restarts")
        log_dir = settings["log_dir"]
        return StartSpec(
            loop=code,
            arguments=arguments,
            packages=tuple(_inputs.key_list(settings["packages"], "packages")),
            paths=tuple(path for path in sys.path if path),
            directory=os.getcwd(),
            log_level=_inputs.log_level(settings["log_level"]),
            log_dir=None if log_dir is None else _inputs.directory(log_dir, "log_dir"),
            seed=settings["seed"],
            lease=float(settings["lease"]),
            on_lost=settings["on_lost"],
            max_restarts=settings["max_restarts"],
        )

    def _environment(self) -> dict[str, str]:
        """What the workers need to reach the same server: it may hold secrets, and so is never argv."""
        config = self._store.config
        found = {"RUSHLIGHT_URL": config.url or ""}
        if config.secret is not None:
            found["RUSHLIGHT_SECRET"] = secret_text(config.secret)
        if config.url is None:
            found["REDIS_URL"] = ""
        return found

    # --- waiting --------------------------------------------------------------------------------

    def wait_for_workers(
        self,
        n: int | None = None,
        worker_ids: Iterable[str] | None = None,
        timeout: float | None = None,
    ) -> None:
        """Waits until n workers of the network (of ``worker_ids``, where given) have been running; with only
        ``worker_ids``, all of them.

        Raises WorkerStartError at once when one of them ended before it ran, with the tail of what it said;
        WaitTimeout after ``timeout`` seconds (default: the plan's, else 60; 0 looks once).
        """
        named = None if worker_ids is None else _inputs.key_list(worker_ids, "worker_ids")
        needed = _needed(n, named)
        limit = timeout if timeout is not None else plan.current().start_timeout
        limit = _START_TIME if limit is None else _inputs.seconds(limit, "timeout") or 0.0
        deadline = time.monotonic() + limit
        while True:
            left = max(0.0, deadline - time.monotonic())
            standing = self._store.watch(min(left, _STEP) + 2.0)
            infos = self._store.workers()
            arrived, ended = _arrivals(infos, self._store.ran(), named)
            if len(arrived) >= needed:
                return
            self._raise_start_error(infos, named, ended)
            if left <= 0:
                missing = [wid for wid in named or [] if wid not in arrived]
                raise WaitTimeout(
                    f"{len(arrived)} of {needed} worker(s) had come to network {self._store.network!r} after "
                    f"{limit:g} s" + (f"; missing: {', '.join(missing[:5])}" if missing else ""),
                    timeout=limit,
                    remaining=needed - len(arrived),
                )
            # A launcher's process can die without a word to the server: look at it now and then.
            self._store.wait_event(standing.event, min(left, 0.25 if self._watching() else _STEP))

    def _watching(self) -> bool:
        return any(not _is_exited(batch) for batch in self._launched)

    def _raise_start_error(
        self, infos: list[WorkerInfo], named: list[str] | None, ended: list[WorkerInfo]
    ) -> None:
        if ended:
            first = ended[0]
            raise WorkerStartError(
                f"worker {first.worker_id!r} ended before it ran: {first.reason or first.state}",
                worker_id=first.worker_id,
                exit_code=first.exit_code,
                log_tail=first.reason or "",
            )
        known = {info.worker_id for info in infos}
        for batch in list(self._launched):
            silent = [wid for wid in batch.worker_ids if wid not in known and (named is None or wid in named)]
            if not silent:
                continue
            for handle, state in zip(batch.handles, batch.launcher.poll(batch.handles), strict=True):
                if state.phase == "exited":
                    # It may have registered its workers and ended between the two looks.
                    if silent[0] in self._store.worker_states():
                        return
                    tail = batch.launcher.log_tail(handle).strip()
                    raise WorkerStartError(
                        f"worker {silent[0]!r} was never heard of: its supervisor {state.reason}"
                        + (f": {tail.splitlines()[-1]}" if tail else ""),
                        worker_id=silent[0],
                        exit_code=state.code,
                        log_tail=tail,
                    )

    def _more_may_come(self) -> bool:
        """Whether workers may still appear: launched and not yet heard of, or nobody has ever been here."""
        known = self._store.worker_states()
        if not known:
            return True
        return any(
            any(wid not in known for wid in batch.worker_ids) and not _is_exited(batch)
            for batch in list(self._launched)
        )

    # --- stopping -------------------------------------------------------------------------------

    def stop_workers(
        self, type: Literal["kill", "terminate"] = "kill", worker_ids: Iterable[str] | None = None
    ) -> list[str]:
        """Stops workers, all or the named ones, whoever started them and wherever they run; returns the ids
        of those that were live.

        ``"terminate"``: they finish the task at hand and leave; does not wait. ``"kill"``: they are members
        no more, their running tasks fail ``Worker was killed``, and their processes are killed; waits up to
        ten seconds for those to be gone. Raises UnknownKey for ids the network never had.
        """
        if type not in ("kill", "terminate"):
            raise ConfigError(f"type={type!r} must be 'kill' or 'terminate'")
        states = self._store.worker_states()
        if worker_ids is None:
            wanted = [wid for wid, state in states.items() if state in _LIVE]
        else:
            wanted = _inputs.key_list(worker_ids, "worker_ids")
            unknown = [wid for wid in wanted if wid not in states]
            if unknown:
                raise UnknownKey(f"network {self.network!r} has no worker {unknown[0]!r}", keys=unknown)
        if not wanted:
            return []
        stopped, _idle = self._store.stop(wanted, kill=type == "kill")
        if type == "kill" and stopped:
            self._await_ends(stopped)
        return stopped

    def _await_ends(self, worker_ids: list[str]) -> None:
        """Waits for the supervisors' reports that killed workers' processes are gone."""
        deadline = time.monotonic() + _KILL_TIME
        while (left := deadline - time.monotonic()) > 0:
            standing = self._store.watch(min(left, _STEP) + 2.0)
            if not self._store.unburied(worker_ids):
                return
            self._store.wait_event(standing.event, min(left, _STEP))

    def _forget_handles(self) -> None:
        with self._launch_lock:
            self._launched.clear()

    def _end_fleet(self) -> None:
        """Ends local processes this object started. A forked copy leaves its parent's alone."""
        if os.getpid() != self._owner:
            return
        with self._launch_lock:
            launchers, self._launchers = list(self._launchers.values()), {}
            self._launched.clear()
        for launcher in launchers:
            close = getattr(launcher, "close", None)
            if close is not None:
                close()


_LIVE = (WorkerState.STARTING, WorkerState.RUNNING)


def _needed(n: int | None, named: list[str] | None) -> int:
    if n is None and named is None:
        raise ConfigError("give n, worker_ids or both")
    if n is None:
        return len(named or [])
    _inputs.count(n, "n", least=0)
    if named is not None and n > len(named):
        raise ConfigError(f"n={n} workers cannot come of the {len(named)} in worker_ids")
    return n


def _arrivals(
    infos: list[WorkerInfo], ran: set[str], named: list[str] | None
) -> tuple[set[str], list[WorkerInfo]]:
    """The workers that have been running, and those that ended before they ever were."""
    mine = [info for info in infos if named is None or info.worker_id in named]
    ended = [info for info in mine if info.worker_id not in ran and info.state not in _LIVE]
    return {info.worker_id for info in mine if info.worker_id in ran}, ended


def _is_exited(batch: _Launched) -> bool:
    return all(state.phase == "exited" for state in batch.launcher.poll(batch.handles))


def _end_all() -> None:
    for fleet in list(_fleets):
        fleet._end_fleet()


atexit.register(_end_all)
