"""Starting workers from a manager: what they run, and through which launcher.

Owns the launchers it made; those of local processes end with this process.
"""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Unpack

from . import _inputs, _names
from ._connect import secret_text
from ._loopspec import LoopSettings, make_spec
from ._muster import LIVE, Launched, Muster
from ._plan import plan
from ._seeding import fix_root
from ._spec import StartSpec, keep_spec
from .errors import ConfigError
from .launchers import Launcher, WorkerCommand, get_launcher

_fleets: weakref.WeakSet[Fleet] = weakref.WeakSet()


class Fleet(Muster):
    """The workers a manager launches, and all others it awaits and stops."""

    def _begin_fleet(self) -> None:
        self._begin_muster()
        self._launchers: dict[str, Launcher] = {}
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
        globals: Mapping[str, Any] | None = None,  # noqa: A002 - a public name
        seed: Any = None,
        log_level: str | int | None = None,
        log_dir: str | os.PathLike[str] | None = None,
        large_object_dir: str | os.PathLike[str] | None = None,
        max_value_size: int | None = None,
        max_restarts: int = 0,
        lease: float = 15.0,
        on_lost: Literal["fail", "requeue"] = "fail",
    ) -> list[str]:
        """Starts workers that each run ``loop(worker, **kwargs)``; returns their ids without waiting.

        ``loop`` travels by cloudpickle, ``packages`` are imported and ``globals`` set beside it. Local
        processes by default; they end with this process. ``log_level``: what of ``logging`` goes to the
        network's log. ``max_restarts``: how often a crashed worker is started again under its id. ``lease``:
        seconds after which a silent worker is lost; ``on_lost``: what then happens to its tasks
        (``"requeue"`` up to their ``max_retries``). ``large_object_dir``: a directory that all hosts share,
        for what one command to the server cannot carry; without it such objects are sent in chunks.
        ``max_value_size``: bytes that one value of a worker's may have, encoded; a larger one raises
        EncodeError in its loop (which fails the task in a ``worker_loop``).
        ``seed``: the network's root seed, a whole number or a ``numpy.random.SeedSequence``: every task then
        has random numbers of its own, the same whoever runs it (``worker_loop``, ``worker.seeded``). The
        first one given stays; another raises ConfigError.
        Raises EncodeError for a loop that cannot be pickled, SecretRequired, LaunchError; nothing has been
        written then.
        """
        count = n_workers if n_workers is not None else plan.current().n_workers
        n = 1 if count is None else _inputs.count(count, "n_workers", least=1)
        chosen = self._launcher(launcher if launcher is not None else plan.current().launcher)
        spec = make_spec(
            self._store,
            loop,
            kwargs=kwargs,
            globals=globals,
            packages=packages,
            seed=seed,
            log_level=log_level if log_level is not None else plan.current().log_level,
            log_dir=log_dir,
            large_object_dir=large_object_dir,
            max_value_size=max_value_size,
            max_restarts=max_restarts,
            lease=lease,
            on_lost=on_lost,
        )
        worker_ids = tuple(_names.random_name() for _ in range(n))
        environment = self._environment()
        self._launch(chosen, self._keep(spec), worker_ids, environment)
        return list(worker_ids)

    def worker_script(
        self,
        loop: Callable[..., Any] | None = None,
        n_workers: int = 1,
        *,
        python: str = sys.executable,
        **settings: Unpack[LoopSettings],
    ) -> str:
        """One line for a POSIX shell that starts ``n_workers`` workers on any host that reaches the server.

        Stores the loop now, with the same settings as ``start_workers``; without a loop the workers wait for
        ``update_loop``. Holds neither password nor secret: where the server or the code needs one, set
        ``RUSHLIGHT_URL`` and ``RUSHLIGHT_SECRET`` there. The workers go on when this process ends.
        ``python``: the interpreter to call on that host.
        """
        n = _inputs.count(n_workers, "n_workers", least=1)
        if loop is None and settings:
            raise ConfigError(f"{', '.join(settings)}: these go with a loop; give them to update_loop")
        spec_id = "" if loop is None else self._keep(make_spec(self._store, loop, **settings))
        url = self._store.config.url
        options = {"url": url} if url is not None and url == self._store.config.public_url else {}
        command = WorkerCommand.build(
            self._store.network, spec_id, python=python, outlive=True, options=options
        )
        return command.shell_line(n)

    def update_loop(
        self,
        loop: Callable[..., Any],
        worker_ids: Iterable[str] | None = None,
        **settings: Unpack[LoopSettings],
    ) -> list[str]:
        """Changes the loop of running workers, all or the named; returns their ids without waiting.

        Each finishes the task at hand, as its loop looks at ``terminated``, and begins again under its id
        with the new loop and ``settings`` as in ``start_workers``. Workers that were started without a loop
        and wait
        for one begin with it. Workers no launcher started (a plain ``RushWorker``) stay as they are.
        Raises UnknownKey.
        """
        spec = make_spec(self._store, loop, **settings)
        cards = self._store.cards()
        states = self._store.worker_states()
        wanted = list(cards) if worker_ids is None else _inputs.key_list(worker_ids, "worker_ids")
        self._check_known(wanted, cards)
        ids = [wid for wid in wanted if states[wid] in LIVE and cards[wid].supervisor]
        self._store.name_spec(self._keep(spec), ids)
        return ids

    def restart_workers(
        self, worker_ids: Iterable[str], *, launcher: str | Launcher | None = None
    ) -> list[str]:
        """Starts workers again under the same ids, with the loop they were started with; those still live are
        killed first. ``launcher``: else the one they came from, where it can be had by name.

        Raises UnknownKey for ids the network never had, ConfigError for workers no launcher started.
        """
        wanted = list(dict.fromkeys(_inputs.key_list(worker_ids, "worker_ids")))
        cards = self._store.cards()
        self._check_known(wanted, cards)
        groups: dict[tuple[str, str], list[str]] = {}
        for wid in wanted:
            if not cards[wid].spec:
                raise ConfigError(
                    f"worker {wid!r} was not started by a launcher: start it where it came from"
                )
            groups.setdefault((cards[wid].spec, cards[wid].launcher), []).append(wid)
        chosen = {name: self._launcher(launcher if launcher is not None else name) for _, name in groups}
        environment = self._environment()
        self.stop_workers("kill", wanted)
        lives = {info.worker_id: info.started_at for info in self._store.workers()}
        self._past |= {wid: lives.get(wid) for wid in wanted}
        for (spec_id, name), ids in groups.items():
            self._launch(chosen[name], spec_id, tuple(ids), environment)
        return wanted

    def _launch(
        self, chosen: Launcher, spec_id: str, worker_ids: tuple[str, ...], environment: Mapping[str, str]
    ) -> None:
        command = WorkerCommand.build(
            self._store.network, spec_id, environment=environment, worker_ids=worker_ids
        )
        self._forget_launches()
        handles = chosen.launch(command, len(worker_ids))
        with self._launch_lock:
            self._launched.append(Launched(chosen, handles, worker_ids))

    def _launcher(self, launcher: str | Launcher | None) -> Launcher:
        if launcher is not None and not isinstance(launcher, str):
            return get_launcher(launcher)
        name = launcher or "local"
        with self._launch_lock:
            if name not in self._launchers:
                self._launchers[name] = get_launcher(launcher)
            return self._launchers[name]

    def _keep(self, spec: StartSpec) -> str:
        """Stores start arguments, and gives the network its root seed where they name one."""
        if spec.seed is not None:
            fix_root(self._store, spec.seed)
        return keep_spec(self._store, spec)

    def _environment(self) -> dict[str, str]:
        """What the workers need to reach the same server: it may hold secrets, and so is never argv."""
        config = self._store.config
        found = {"RUSHLIGHT_URL": config.url or ""}
        if config.secret is not None:
            found["RUSHLIGHT_SECRET"] = secret_text(config.secret)
        if config.url is None:
            found["REDIS_URL"] = ""
        if config.credential_provider is not None:
            found["RUSHLIGHT_CREDENTIAL_PROVIDER"] = self._named_provider()
        return found

    def _named_provider(self) -> str:
        given = self._store.config.credential_provider
        if not isinstance(given, str):
            raise ConfigError(
                f"workers cannot have the {type(given).__name__} object of this process as their "
                "credential_provider: give it as 'module:name', where they can import it"
            )
        return given

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


def _end_all() -> None:
    for fleet in list(_fleets):
        fleet._end_fleet()


atexit.register(_end_all)
