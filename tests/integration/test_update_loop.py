"""Changing the loop of a running network, workers that wait for one, and different loops side by side."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness import SOURCE
from rushlight import Rush, RushWorker, worker_loop
from rushlight._wire import command
from rushlight.errors import ConfigError, EncodeError, UnknownKey

Wait = Callable[..., None]


def loop(name: str) -> Callable[..., None]:
    """A loop that signs its results with a name."""

    def serve(worker, suffix=""):
        import os
        import threading
        from pathlib import Path

        while not worker.terminated and not worker.should_stop_when_idle:
            task = worker.pop_task(timeout=60)
            if task is None:
                continue
            if "touch" in task.xs:
                Path(task.xs["touch"]).touch()
            while "until" in task.xs and not Path(task.xs["until"]).exists():
                threading.Event().wait(0.01)
            if "die" in task.xs:
                os._exit(7)
            worker.finish_task(task.key, {"by": name + suffix, "pid": os.getpid()})

    return serve


def start(rush: Rush, which: Callable[..., None], n: int = 1, **options: Any) -> dict[str, int]:
    """Workers that are running, and their processes."""
    ids = rush.start_workers(which, n, **options)
    rush.wait_for_workers(worker_ids=ids, timeout=60)
    return {worker_id: pids(rush)[worker_id] for worker_id in ids}


def pids(rush: Rush) -> dict[str, int]:
    """The process of each worker."""
    return {info.worker_id: info.pid for info in rush.fetch_workers(as_="tasks")}


def asked(rush: Rush, ids: list[str]) -> dict[str, dict[str, Any]]:
    """What each worker answers now. Waits for workers that are about to begin again."""
    keys = rush.push_tasks([{"x": 1}] * len(ids), workers=ids)
    result = rush.wait_for_tasks(keys, timeout=60)
    assert "done" == result.reason
    tasks = [rush.task(key) for key in result.done]
    return {task.worker_id or "": task.ys or {} for task in tasks}


def changed(rush: Rush, before: dict[str, int], wait: Wait) -> None:
    """All of these workers run again, each in a new process."""
    wait(lambda: all(pids(rush)[worker_id] != pid for worker_id, pid in before.items()), 60)
    wait(lambda: set(before) <= set(rush.running_worker_ids), 60)


def test_idle_workers_change_at_once(rush: Rush, wait_until: Wait) -> None:
    """Same ids, new processes, new loop, with its own arguments."""
    before = start(rush, loop("old"), 2)
    assert sorted(before) == sorted(rush.update_loop(loop("new"), kwargs={"suffix": "!"}))
    changed(rush, before, wait_until)
    answers = asked(rush, list(before))
    assert dict.fromkeys(before, "new!") == {w: ys["by"] for w, ys in answers.items()}
    assert {worker_id: ys["pid"] for worker_id, ys in answers.items()} == pids(rush)
    wait_until(lambda: not any(map(psutil.pid_exists, before.values())))
    assert [] == rush.lost_worker_ids == rush.terminated_worker_ids


def test_the_task_at_hand_is_finished_first(rush: Rush, tmp_path: Path, wait_until: Wait) -> None:
    """By the loop that began it; the next one is the new loop's."""
    (worker_id,) = before = start(rush, loop("old"))
    keys = rush.push_tasks([{"touch": str(tmp_path / "started"), "until": str(tmp_path / "go")}])
    wait_until((tmp_path / "started").exists)
    rush.update_loop(loop("new"))
    # Its supervisor asks it to leave; until then it might begin another task.
    store = rush._store
    wait_until(lambda: store.link.call(command("HEXISTS", store.keys["control"], f"u:{worker_id}")))
    keys += rush.push_tasks([{"x": 1}], workers=worker_id)
    (tmp_path / "go").touch()
    # Nobody else is there: that the worker comes back is known.
    assert "done" == rush.wait_for_tasks(keys, timeout=60).reason
    first, second = (rush.task(key) for key in keys)
    assert (worker_id, {"by": "old", "pid": before[worker_id]}) == (first.worker_id, first.ys)
    assert (worker_id, "new") == (second.worker_id, (second.ys or {})["by"])


def test_some_change_and_others_do_not(rush: Rush, wait_until: Wait) -> None:
    """Named ones only; several loops do their tasks side by side, and a restart keeps each its own."""
    one = start(rush, loop("a"), 2)
    two = start(rush, loop("b"))
    first, second = one
    (third,) = two
    assert [first] == rush.update_loop(loop("c"), [first])
    changed(rush, {first: one[first]}, wait_until)
    expected = {first: "c", second: "a", third: "b"}
    answers = asked(rush, list(expected))
    assert expected == {worker_id: ys["by"] for worker_id, ys in answers.items()}
    assert (one[second], two[third]) == (answers[second]["pid"], answers[third]["pid"])
    rush.restart_workers(list(expected))
    answers = asked(rush, list(expected))
    rush.wait_for_workers(worker_ids=list(expected), timeout=60)
    late = asked(rush, list(expected))
    assert expected == {worker_id: ys["by"] for worker_id, ys in late.items()}
    assert not set(answers) - set(expected)


def test_changes_follow_one_another(rush: Rush, wait_until: Wait) -> None:
    """However quickly: the last one stays."""
    before = start(rush, loop("0"), 2)
    for name in "12345":
        rush.update_loop(loop(name))
    wait_until(lambda: {ys["by"] for ys in asked(rush, list(before)).values()} == {"5"}, 60)


def test_a_loop_that_cannot_be_had_here_changes_nothing(rush: Rush, worker: RushWorker) -> None:
    """Refused where it is asked for: what is no function, cannot be sent, or is for nobody known."""
    before = start(rush, loop("old"))
    import threading

    lock = threading.Lock()

    def held(worker):
        lock.acquire()

    with pytest.raises(ConfigError, match="loop"):
        rush.update_loop("new")  # type: ignore[arg-type]
    with pytest.raises(EncodeError):
        rush.update_loop(held)
    with pytest.raises(UnknownKey, match="nobody"):
        rush.update_loop(loop("new"), [*before, "nobody"])
    with pytest.raises(ConfigError, match="on_lost"):
        rush.update_loop(loop("new"), on_lost="forget")  # type: ignore[typeddict-item]
    assert [] == rush.update_loop(loop("new"), [worker.worker_id])
    (answer,) = asked(rush, list(before)).values()
    assert ("old", *before.values()) == (answer["by"], answer["pid"])


class _Elsewhere:
    """Something that can be made in this process only."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _only_here, (os.getpid(),)


def _only_here(pid: int) -> Any:
    if pid != os.getpid():
        raise ModuleNotFoundError("No module named 'of_the_manager'")
    return _Elsewhere()


def test_a_loop_that_cannot_be_opened_there_is_told(rush: Rush, wait_until: Wait) -> None:
    """The worker that got it is lost, with the reason; others go on; a restart with a sound loop helps."""
    good = start(rush, loop("good"))
    bad = start(rush, loop("old"))
    thing = _Elsewhere()

    def broken(worker):
        print(thing)

    rush.update_loop(broken, list(bad))
    wait_until(lambda: rush.lost_worker_ids == list(bad), 60)
    (info,) = [info for info in rush.fetch_workers(as_="tasks") if info.worker_id in bad]
    assert "of_the_manager" in (info.reason or "")
    (answer,) = asked(rush, list(good)).values()
    assert ("good", *good.values()) == (answer["by"], answer["pid"])
    # What is left for the lost worker goes to others.
    assert list(good) == list(asked(rush, list(bad)))


def test_a_change_and_a_stopped_task(rush: Rush, tmp_path: Path, wait_until: Wait) -> None:
    """The task at hand is cancelled while its worker is to change: it comes back with the new loop, and
    leaves when it is asked to."""
    (worker_id,) = before = start(rush, loop("old"))
    keys = rush.push_tasks([{"touch": str(tmp_path / "started"), "until": str(tmp_path / "never")}])
    wait_until((tmp_path / "started").exists)
    rush.update_loop(loop("new"))
    rush.cancel_tasks(keys)
    changed(rush, before, wait_until)
    (answer,) = asked(rush, [worker_id]).values()
    assert "new" == answer["by"]
    rush.stop_workers("terminate")
    wait_until(lambda: rush.terminated_worker_ids == [worker_id])
    wait_until(lambda: not psutil.pid_exists(answer["pid"]))
    assert "no_workers" == rush.wait_for_tasks(rush.push_tasks([{"x": 1}]), timeout=60).reason


def test_a_time_limit_that_meets_a_change(rush: Rush, wait_until: Wait, tmp_path: Path) -> None:
    """Likewise where the task at hand never ends: its limit lets the change happen."""
    (worker_id,) = before = start(rush, loop("old"))
    (key,) = rush.push_tasks(
        [{"touch": str(tmp_path / "started"), "until": str(tmp_path / "never")}], timeout=1, max_retries=0
    )
    wait_until((tmp_path / "started").exists)
    rush.update_loop(loop("new"))
    changed(rush, before, wait_until)
    assert "Task timed out after 1 seconds" == (rush.task(key).condition or {})["message"]
    assert ["new"] == [ys["by"] for ys in asked(rush, [worker_id]).values()]


def test_restarts_are_those_of_the_new_loop(rush: Rush, wait_until: Wait) -> None:
    """``max_restarts`` comes with the loop, also where the old one allowed none."""
    (worker_id,) = before = start(rush, loop("old"))
    rush.update_loop(loop("new"), max_restarts=1)
    changed(rush, before, wait_until)
    rush.wait_for_tasks(rush.push_tasks([{"die": True}]), timeout=60)
    assert ["new"] == [ys["by"] for ys in asked(rush, [worker_id]).values()]
    rush.wait_for_tasks(rush.push_tasks([{"die": True}]), timeout=60)
    wait_until(lambda: rush.lost_worker_ids == [worker_id])


def test_private_tasks_wait_for_the_change(rush: Rush, tmp_path: Path, wait_until: Wait) -> None:
    """Tasks of a worker that changes stay its own: others do not get them meanwhile."""
    first, second = before = start(rush, loop("old"), 2)
    (key,) = rush.push_tasks(
        [{"touch": str(tmp_path / "started"), "until": str(tmp_path / "go")}], workers=first
    )
    wait_until((tmp_path / "started").exists)
    own = rush.push_tasks([{"x": 1}] * 5, workers=first)
    rush.update_loop(loop("new"), [first])
    (tmp_path / "go").touch()
    assert "done" == rush.wait_for_tasks([key, *own], timeout=60).reason
    assert {first} == {rush.task(task).worker_id for task in own}
    assert before[second] == pids(rush)[second]


@pytest.mark.parametrize("first", ["change", "leave"])
def test_asked_to_leave_and_to_change(rush: Rush, tmp_path: Path, wait_until: Wait, first: str) -> None:
    """In either order, with a task at hand: the worker finishes it and has left."""
    (worker_id,) = before = start(rush, loop("old"))
    keys = rush.push_tasks([{"touch": str(tmp_path / "started"), "until": str(tmp_path / "go")}])
    wait_until((tmp_path / "started").exists)
    if first == "change":
        rush.update_loop(loop("new"))
        rush.stop_workers("terminate")
    else:
        rush.stop_workers("terminate")
        rush.update_loop(loop("new"))
    (tmp_path / "go").touch()
    assert "done" == rush.wait_for_tasks(keys, timeout=60).reason
    wait_until(lambda: rush.terminated_worker_ids == [worker_id])
    wait_until(lambda: not psutil.pid_exists(before[worker_id]))
    assert "no_workers" == rush.wait_for_tasks(rush.push_tasks([{"x": 1}]), timeout=60).reason


# --- workers that wait for their loop ---------------------------------------------------------------


@contextmanager
def shell(line: str, home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """What a line for a shell starts, until the end of the block."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "RUSHLIGHT_HOME": str(home)}
    process = subprocess.Popen(line, shell=True, env=environment, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def test_workers_may_be_there_before_their_loop(rush: Rush, home: Path, wait_until: Wait) -> None:
    """Started by a line that names none they wait, as nobody, and begin with the first that comes; those who
    come later begin with it too."""
    line = rush.worker_script(n_workers=2)
    assert "--spec=" in shlex.split(line)
    with shell(line, home) as script:
        early = rush.push_tasks([{"x": i} for i in range(3)])
        assert "timeout" == rush.wait_for_tasks(early, timeout=0.5).reason
        assert 0 == rush.n_workers
        assert [] == rush.update_loop(loop("first"))
        rush.wait_for_workers(2, timeout=60)
        ids = rush.running_worker_ids
        assert "done" == rush.wait_for_tasks(early, timeout=60).reason
        assert {"first"} == {(rush.task(key).ys or {})["by"] for key in early}
        with shell(rush.worker_script(), home):
            rush.wait_for_workers(3, timeout=60)
            assert ["first"] * 3 == [ys["by"] for ys in asked(rush, rush.running_worker_ids).values()]
            rush.stop_workers("terminate")
            wait_until(lambda: rush.n_running_workers == 0)
        assert 0 == script.wait(60)
    assert sorted(ids) == sorted(set(ids) & set(rush.terminated_worker_ids))


def test_workers_that_wait_can_be_told_to_go(rush: Rush, home: Path, processes: Callable[[str], Any]) -> None:
    """A signal ends the wait."""
    with shell(rush.worker_script(), home):
        pass
    assert [] == processes(rush.network)


def test_a_line_has_a_loop_or_waits_for_it(rush: Rush) -> None:
    """Settings without a loop are refused; a loop's line names its arguments by digest, and no secret."""
    with pytest.raises(ConfigError, match="update_loop"):
        rush.worker_script(max_restarts=1)
    line = rush.worker_script(loop("a"))
    assert any(word.startswith("--spec=") for word in shlex.split(line))
    assert not {"--secret", "RUSHLIGHT_SECRET"} & set(line.replace("=", " ").split())


def test_several_loops_share_a_network(rush: Rush) -> None:
    """Producers, workers and ready-made loops at once, each with its own part."""

    def produce(worker, n):
        for i in range(n):
            worker.finish_task(worker.push_running_task({"made": i}), {"by": "producer"})

    def double(x: int) -> dict[str, int]:
        return {"twice": 2 * x}

    start(rush, produce, 2, kwargs={"n": 5})
    keys = rush.push_tasks([{"x": i} for i in range(6)])
    start(rush, worker_loop(double))
    assert "done" == rush.wait_for_tasks(keys, timeout=60).reason
    assert [2 * i for i in range(6)] == [(rush.task(key).ys or {})["twice"] for key in keys]
    for _ in rush.stream(timeout=60):
        if rush.n_finished_tasks == 16:
            break
    assert 10 == rush.fetch_finished_tasks()["by"].drop_nulls().len()
