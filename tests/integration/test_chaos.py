"""The chaos driver in short, and the proof that its account can fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from chaos.checker import Final, Ledgers, check
from chaos.work import answer

ROOT = Path(__file__).resolve().parents[2]


def chaos(*arguments: str, seconds: float) -> subprocess.CompletedProcess[str]:
    """A run in a process of its own; killed with all it started where it does not end."""
    with subprocess.Popen(
        [sys.executable, "-m", "chaos", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_nothing_is_lost_whatever_fails() -> None:
    """Processes, network, server, disk, memory and clocks fail for half a minute: every task that was
    acknowledged is there once, everybody works again, nothing is left over."""
    run = chaos("--seed", "7", "--seconds", "30", seconds=220)
    assert 0 == run.returncode, run.stdout[-4000:] + run.stderr[-4000:]
    report = json.loads(run.stdout[: run.stdout.rindex("}") + 1])
    assert (0, 0) == (report["lost"], report["twice"])
    assert report["acknowledged"] > 200
    assert sum(report["faults"].values()) > 10


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("how", "said"), [("forge", "lost: never-was"), ("delete", "lost: "), ("double", "books do not agree")]
)
def test_the_account_can_fail(how: str, said: str) -> None:
    """An acknowledgement too many, a task deleted from the server and a result stored twice are noticed."""
    run = chaos("--seconds", "2", "--managers", "1", "--machines", "1", "--break", how, seconds=200)
    assert 1 == run.returncode, run.stdout[-4000:] + run.stderr[-4000:]
    assert said in run.stdout


# --- the account itself ---------------------------------------------------------------------------------

INTENDED = {"what": "intend", "ids": ["a", "b", "c"]}
PUSHED = {"what": "pushed", "ids": ["a", "b"], "keys": ["ka", "kb"]}


def finished(name: str, **changes: object) -> Final:
    """A finished task, but for the changes."""
    return Final(
        **{
            "key": f"k{name}",
            "state": "finished",
            "xs": {"id": name, "kind": "plain"},
            "ys": {"y": answer(name)},
            **changes,
        }
    )


GOOD = [finished("a"), finished("b", state="queued", ys=None)]


def test_a_true_account_is_accepted() -> None:
    """What was acknowledged is there; what was wanted and not acknowledged may be there or not."""
    said = [INTENDED, PUSHED, {"what": "finished", "key": "ka"}]
    assert [] == check(Ledgers.of(said), GOOD)
    assert [] == check(Ledgers.of(said), [*GOOD, finished("c")])


@pytest.mark.parametrize(
    ("said", "tasks", "wrong"),
    [
        ([], GOOD[:1], "lost: kb"),
        ([{"what": "finished", "key": "kb"}], GOOD, "lost: a result of kb"),
        ([{"what": "finished", "key": "kc"}], GOOD, "lost: a result of kc"),
        ([{"what": "finished", "key": "ka"}] * 2, GOOD, "decided twice"),
        ([], [*GOOD, finished("a")], "twice: ka"),
        ([], [*GOOD, finished("a", key="other")], "twice: 2 tasks"),
        ([], [*GOOD, finished("z")], "made up"),
        ([], [finished("a", ys={"y": 1}), GOOD[1]], "wrong: ka"),
        ([], [finished("a", state="running"), GOOD[1]], "left running"),
        ([], [finished("b", key="ka"), finished("a", key="kb")], "mixed up"),
        ([{"what": "saw", "reader": "r", "keys": ["ka", "ka"]}], GOOD, "seen twice"),
        ([{"what": "saw", "reader": "r", "keys": ["kb"]}], GOOD, "lost: r was given kb"),
        (
            [{"what": "saw", "reader": "r", "keys": []}, {"what": "closed", "reader": "r"}],
            GOOD,
            "missed: r was never given 1",
        ),
    ],
)
def test_each_kind_of_fault_is_noticed(said: list[dict], tasks: list[Final], wrong: str) -> None:
    """Lost, twice, made up, mixed up, left behind, seen twice or never."""
    found = check(Ledgers.of([INTENDED, PUSHED, *said]), tasks)
    assert any(sentence.startswith(wrong) for sentence in found), found


@pytest.mark.parametrize(
    ("condition", "events"),
    [
        ({"message": "boom b"}, []),
        (
            {"message": "Task timed out after 1 seconds"},
            [{"what": "intend", "ids": ["b"], "limited": True}],
        ),
        ({"message": "Cancelled"}, [{"what": "cancel", "keys": ["kb"]}]),
        ({"message": "Worker was killed"}, [{"what": "stop", "how": "kill"}]),
        (
            {"message": "Worker has crashed or was killed", "signal": 9},
            [{"what": "kill", "role": "supervisors"}],
        ),
        ({"message": "Worker has crashed or was killed"}, [{"what": "fault", "name": "stop_server"}]),
        ({"message": "OOM command not allowed", "type": "StoreError"}, [{"what": "fault", "name": "fill"}]),
    ],
)
def test_a_reason_is_true_where_it_has_happened(condition: dict, events: list[dict]) -> None:
    """With the event the failure is accepted, without it is noticed."""
    said = [INTENDED, PUSHED]
    kind = "boom" if condition["message"].startswith("boom") else "plain"
    task = finished("b", state="failed", ys=None, condition=condition, xs={"id": "b", "kind": kind})
    assert [] == check(Ledgers.of([*said, *events]), [GOOD[0], task])
    if events:
        assert ["failed without a true reason"] == [
            sentence.partition(":")[0] for sentence in check(Ledgers.of(said), [GOOD[0], task])
        ]
