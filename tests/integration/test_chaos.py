"""The chaos driver in short, and the proof that its account can fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from chaos.calls_checker import CallLedgers, check_calls
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
    assert report["calls"]["submitted"] > 30


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("how", "said"),
    [
        (
            ["forge", "forge-call", "recollect"],
            ["lost: never-was", "call lost: never-called", "collected twice"],
        ),
        (["delete"], ["lost: "]),
        (["double"], ["books do not agree"]),
    ],
)
def test_the_account_can_fail(how: list[str], said: list[str]) -> None:
    """An acknowledgement too many, of a task or a call, a task deleted from the server, a result stored twice
    and one given out twice are noticed."""
    small = ("--seconds", "2", "--managers", "1", "--machines", "1", "--controllers", "1")
    run = chaos(*small, *(word for one in how for word in ("--break", one)), seconds=200)
    assert 1 == run.returncode, run.stdout[-4000:] + run.stderr[-4000:]
    assert [] == [words for words in said if words not in run.stdout]


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


# --- the account of calls -------------------------------------------------------------------------------

CALLED = [{"what": "call", "name": name, "kind": "plain"} for name in ("a", "b")]
SUBMITTED = {"what": "submitted", "names": ["a", "b"]}
KILLED = {"what": "kill", "role": "controllers", "pid": 1}


def took(pid: int, *names: str, **changes: object) -> dict:
    """A line of one that collected these, but for the changes."""
    results = [
        {"name": name, "status": "success", "y": answer(name), "why": "None", **changes} for name in names
    ]
    return {"what": "took", "pid": pid, "results": results}


def wrong_calls(*said: dict) -> list[str]:
    """What the account has to say of these lines, without names."""
    found = check_calls(CallLedgers.of([*CALLED, SUBMITTED, *said]), Ledgers.of(said).events)
    return [sentence.partition(":")[0] for sentence in found]


@pytest.mark.parametrize(
    "said",
    [
        [took(1, "a"), took(2, "b")],
        [took(1, "a"), {"what": "read", "name": "b", "y": answer("b")}],
        [took(1, "a"), KILLED, took(2, "a", "b")],
        [took(1, "a"), took(2, "b", status="crash", y=None), {"what": "kill", "role": "workers"}],
        [took(1, "a"), took(2, "b", status="cancel", y=None), {"what": "uncall", "name": "b"}],
    ],
)
def test_a_true_account_of_calls_is_accepted(said: list[dict]) -> None:
    """Each came to one, but for what a killed one had last; or ended for a reason."""
    assert [] == wrong_calls(*said)


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ([took(1, "a")], "call lost"),
        ([took(1, "a", "b"), took(2, "b")], "call collected twice"),
        ([took(1, "a"), took(1, "b"), KILLED, took(2, "a")], "call collected twice"),
        ([took(1, "a"), took(1), KILLED, took(2, "a", "b")], "call collected twice"),
        ([took(1, "a"), took(1, "b", y=1)], "call wrong"),
        ([took(1, "a"), {"what": "read", "name": "b", "y": 1}], "call wrong"),
        ([took(1, "a", "b", "z")], "call made up"),
        ([took(1, "a", "b", status="crash")], "call ended without a true reason"),
        ([took(1, "a", "b", status="cancel")], "call ended without a true reason"),
        ([took(1, "a", "b", status="timeout")], "call ended without a true reason"),
        ([took(1, "a", "b", status="error", why="ValueError")], "call ended without a true reason"),
        ([took(1, "a", "b"), {"what": "drained", "left": 1}], "calls left"),
        ([took(1, "a", "b"), {"what": "died", "name": "c1"}], "program died"),
    ],
)
def test_each_kind_of_fault_of_calls_is_noticed(said: list[dict], wrong: str) -> None:
    """Lost, twice, another's, made up, ended for no reason, left, or a program that does not stand it."""
    assert {wrong} == set(wrong_calls(*said))
