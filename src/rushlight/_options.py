"""What a supervisor is told when it is started, and what it says of the workers it makes."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from ._capture import make_log_directory
from ._names import random_token
from ._spec import StartSpec, load_spec
from ._store import Store
from ._store_roster import WorkerCard


@dataclass(frozen=True, slots=True)
class Options:
    """What a supervisor is told on its command line. ``parent``: the process it must not outlive."""

    network: str
    spec_id: str
    worker_ids: tuple[str, ...]
    launcher: str = "process"
    parent: int | None = None
    grace: float = 20.0
    spawn: bool = False

    def card(self, spec_id: str, spec: StartSpec, worker_id: str, pid: int) -> WorkerCard:
        """How a new life of a worker registers."""
        host = socket.gethostname()
        return WorkerCard(
            worker_id=worker_id,
            token=random_token(),
            pid=pid,
            hostname=host,
            launcher=self.launcher,
            supervisor=f"{host}:{os.getpid()}",
            on_lost=spec.on_lost,
            spec=spec_id,
            crashes=spec.max_crashes,
        )


class Specs:
    """Start arguments by id, each read once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read: dict[str, StartSpec] = {}

    def load(self, spec_id: str) -> StartSpec:
        """Raises what ``load_spec`` does, and ConfigError for a log directory that cannot be made."""
        if spec_id not in self._read:
            spec = load_spec(self._store, spec_id)
            make_log_directory(spec.log_dir)
            self._read[spec_id] = spec
        return self._read[spec_id]

    def known(self, spec_id: str) -> StartSpec:
        """Those read before, else empty ones: for workers that could not even be told what to do."""
        return self._read.get(spec_id, StartSpec(b"", b""))
