"""What the end of a worker process means."""

from __future__ import annotations

import pytest

from rushlight._children import Status
from rushlight._records import WorkerState
from rushlight._verdict import Report, judge

OK = Status(0, None)
CRASHED = "Worker has crashed or was killed"
KILLED = "Worker was killed"


@pytest.mark.parametrize(
    ("status", "report", "killed", "state", "message", "reason", "failed"),
    [
        (OK, Report("returned"), None, WorkerState.TERMINATED, CRASHED, "", False),
        (
            Status(3, None), Report("returned"), None, WorkerState.TERMINATED, CRASHED,
            "exited with code 3 after its loop had returned", False,
        ),
        (
            Status(None, 9), Report("returned"), "too slow", WorkerState.TERMINATED, CRASHED,
            "killed by SIGKILL after its loop had returned", False,
        ),
        (Status(None, 9), None, "stopped", WorkerState.KILLED, KILLED, "stopped", False),
        (Status(None, 9), Report("failed", "E", "x"), "stopped", WorkerState.KILLED, KILLED, "stopped",
        False), (Status(130, None), Report("stopped", "SIGINT"), None, WorkerState.KILLED, KILLED, "SIGINT",
        False), (
            Status(None, 11), None, None, WorkerState.LOST, CRASHED,
            "killed by SIGSEGV without leaving the network", True,
        ),
        (OK, None, None, WorkerState.LOST, CRASHED, "exited with code 0 without leaving the network", True),
        (Status(None, 99), None, None, WorkerState.LOST, CRASHED,
         "killed by signal 99 without leaving the network", True),
        (Status(1, None), Report("failed", "E: x", "x"), None, WorkerState.LOST, "x", "E: x", True),
        (Status(1, None), Report("unready", "E: x", "x"), None, WorkerState.LOST, "x", "E: x", True),
    ],
)  # fmt: skip
def test_verdicts(
    status: Status,
    report: Report | None,
    killed: str | None,
    state: WorkerState,
    message: str,
    reason: str,
    failed: bool,
) -> None:
    """A loop that returned has terminated; what was killed on purpose was killed; all else is a loss."""
    verdict = judge(status, report, killed, "tail")
    assert (state, message, reason, failed) == (
        verdict.state, verdict.message, verdict.exit.reason, verdict.failed,
    )  # fmt: skip
    assert (status.exit_code, status.signal, "tail") == (
        verdict.exit.exit_code, verdict.exit.signal, verdict.exit.stderr,
    )  # fmt: skip


def test_a_process_that_is_killed_for_what_it_did_has_crashed() -> None:
    """Such as taking too much memory: a loss, and a failure; unless its loop had returned by then."""
    verdict = judge(Status(None, 9), None, "too large", "tail", own_fault=True)
    assert (WorkerState.LOST, CRASHED, "too large", True) == (
        verdict.state, verdict.message, verdict.exit.reason, verdict.failed,
    )  # fmt: skip
    verdict = judge(Status(None, 9), Report("returned"), "too large", "", own_fault=True)
    assert (WorkerState.TERMINATED, False) == (verdict.state, verdict.failed)


def test_an_error_is_reported_with_type_and_traceback() -> None:
    """What failed the loop is kept for the tasks it held."""
    report = Report("failed", "E: x", "x", "m.E", "Traceback ...")
    verdict = judge(Status(1, None), report, None, "")
    assert {"type": "m.E", "traceback": "Traceback ..."} == verdict.exit.extra
