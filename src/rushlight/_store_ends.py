"""Verbs about the ends of workers: what is reported of them, and what becomes of what they had in hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ._journal import Left
from ._records import Exit, WorkerState
from ._scripts import claim_number
from ._store_reads import packed_worker
from ._store_tasks import TaskVerbs

_FINAL = {WorkerState.TERMINATED: "t", WorkerState.KILLED: "k", WorkerState.LOST: "l"}
CRASHED = "Worker has crashed or was killed"
KILLED = "Worker was killed"


@dataclass(frozen=True, slots=True)
class WorkerEnd:
    """How one life of a worker ended, and the message its unfinished tasks fail with. ``comes_back``: its
    supervisor is about to start it again, so that the network goes on expecting it. ``left``: what it was
    at, where that is known: results are recorded, and what it had not begun is queued again."""

    worker_id: str
    token: str
    state: WorkerState
    message: str = CRASHED
    exit: Exit = Exit()  # noqa: RUF009 - frozen
    comes_back: bool = False
    left: Left | None = None


class EndVerbs(TaskVerbs):
    """Burying workers."""

    def bury(self, ends: Sequence[WorkerEnd]) -> list[str]:
        """Ends workers whose process ended or that leave; returns those that had not ended before: of
        one whose end is said twice, nothing the second time."""
        return self.bury_or_replace(ends, come_back=False)[0]

    def bury_or_replace(
        self, ends: Sequence[WorkerEnd], *, come_back: bool = True
    ) -> tuple[list[str], list[str]]:
        """Like ``bury``; but workers that were interrupted, because their task was stopped, stay expected
        with ``come_back``, and are returned apart: their supervisor is to start them again."""
        args: list[Any] = []
        calls: list[bytes] = []
        for end in ends:
            report = {
                "exit_code": end.exit.exit_code,
                "signal": end.exit.signal,
                "stderr": end.exit.stderr,
                "reason": end.exit.reason,
            }
            told = {name: value for name, value in report.items() if value not in (None, "")}
            condition = self.encode_condition({"message": end.message, **told, **end.exit.extra})
            args += (
                end.worker_id,
                end.token,
                "i" if end.comes_back else _FINAL[end.state],
                condition,
                msgspec.msgpack.encode(report),
                "" if end.left is None else claim_number(end.left.number),
                "" if end.left is None else "\0".join(end.left.unbegun),
            )
            if end.left is not None and end.left.results:
                calls.append(self._results_of(end.worker_id, end.token, end.left))
        calls.append(self.scripts.bury(self.epoch, come_back, *args))
        reply = self.link.call_many(b"".join(calls), len(calls))[-1]
        if reply[0] == b"EPOCH":
            if not reply[1]:
                return [], []
            self.epoch = self.heard(reply[1])
            return self.bury_or_replace(ends, come_back=come_back)
        return [wid.decode() for wid in reply[1]], [wid.decode() for wid in reply[4]]

    def _results_of(self, worker_id: str, token: str, left: Left) -> bytes:
        """The call that records what a worker had done and not told."""
        flat: list[str | bytes] = []
        for key, attempt, kind, payload in left.results:
            flat += (kind, packed_worker(worker_id, attempt), key, payload)
        return self.scripts.settle((self.epoch, worker_id, token, True), *flat)
