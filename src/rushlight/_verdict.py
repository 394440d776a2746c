"""What the end of a worker process means: its final state, its report, the fate of its tasks.

Pure decisions over what the supervisor knows; no system calls, no server.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ._children import Status
from ._records import Exit, WorkerState
from ._store_ends import CRASHED, KILLED

#: How a worker process ended by its own account; None without one.
Kind = Literal["returned", "stopped", "failed", "unready"]


@dataclass(frozen=True, slots=True)
class Report:
    """A worker process's last words: how its loop ended, and the error that escaped it."""

    kind: Kind
    reason: str = ""
    message: str = ""
    type: str = ""
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What goes to the network about an ended process, and whether it counts as a failure of the work."""

    state: WorkerState
    message: str
    exit: Exit
    failed: bool


def judge(
    status: Status, report: Report | None, killed: str | None, stderr: str, *, own_fault: bool = False
) -> Verdict:
    """``killed`` is why the supervisor itself killed the process, None where it did not; ``own_fault``: for
    what the process did, so that it counts as a crash."""
    said = Exit(status.exit_code, status.signal, stderr)
    if report is not None and report.kind == "returned":
        return Verdict(WorkerState.TERMINATED, CRASHED, _with(said, _late(status)), failed=False)
    if killed is not None:
        state, message = (WorkerState.LOST, CRASHED) if own_fault else (WorkerState.KILLED, KILLED)
        return Verdict(state, message, _with(said, killed), failed=own_fault)
    if report is None:
        reason = f"{status.text} without leaving the network"
        return Verdict(WorkerState.LOST, CRASHED, _with(said, reason), failed=True)
    if report.kind == "stopped":
        return Verdict(WorkerState.KILLED, KILLED, _with(said, report.reason), failed=False)
    details = {"type": report.type, "traceback": report.traceback}
    said = Exit(status.exit_code, status.signal, stderr, report.reason, details)
    return Verdict(WorkerState.LOST, report.message or CRASHED, said, failed=True)


def _late(status: Status) -> str:
    """A word on a process that ended badly after its loop had returned well."""
    return "" if status.exit_code == 0 else f"{status.text} after its loop had returned"


def _with(said: Exit, reason: str) -> Exit:
    return Exit(said.exit_code, said.signal, said.stderr, reason)
