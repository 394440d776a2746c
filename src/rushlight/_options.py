"""What a supervisor is told when it is started, and what it says of the workers it makes."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from ._names import random_token
from ._spec import StartSpec
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

    def card(self, spec: StartSpec, worker_id: str, pid: int) -> WorkerCard:
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
            spec=self.spec_id,
        )
