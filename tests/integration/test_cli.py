"""The command line as a user meets it: real processes, the embedded server, signals, pipes, a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rushlight import Rush
from rushlight._server import stop_server

ROOT = Path(__file__).resolve().parent.parent.parent
LOOPS = Path(__file__).with_name("cli_loops.py")
SEARCH = ROOT / "examples" / "random_search.py"
DEADLINE = 60.0

TASK_COLUMNS = {"key", "state", "worker_id", "created_at", "started_at", "finished_at"}
WORKER_COLUMNS = [
    "worker_id", "pid", "hostname", "state", "launcher", "heartbeat", "started_at", "current_task",
    "n_finished", "n_failed", "exit_code", "reason",
]  # fmt: skip


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What stands on stdout, as strict JSON."""
        return json.loads(self.out, parse_constant=pytest.fail)


def rushlight(*arguments: str) -> Said:
    """Run a command to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "rushlight", *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE, cwd=ROOT, check=False,
    )  # fmt: skip
    return Said(done.returncode, done.stdout, done.stderr)


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on, in a process group of its own as a shell would start it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "rushlight", *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=DEADLINE)


def ctrl_c(process: subprocess.Popen[str]) -> None:
    """What a terminal does: the signal goes to the whole foreground group."""
    os.killpg(process.pid, signal.SIGINT)


def end_of(process: subprocess.Popen[str]) -> Said:
    """The rest of what a running command says."""
    out, err = process.communicate(timeout=DEADLINE)
    return Said(process.returncode, out, err)


def wait_for_finished(network: str, n: int = 1) -> None:
    """Block until n tasks have finished, woken by the server."""
    with Rush(network) as rush:
        seen = 0
        while seen < n:
            fresh = len(rush.fetch_new_tasks(timeout=DEADLINE, as_="dicts"))
            assert fresh, f"{seen} of {n} tasks finished within {DEADLINE} s"
            seen += fresh


def run_loop(name: str, network: str, *more: str, workers: int = 2) -> Said:
    """`rushlight run` with a loop of ours."""
    return rushlight("run", f"{LOOPS}:{name}", "--network", network, "--workers", str(workers), *more)


# --- run ----------------------------------------------------------------------------------------


def test_a_search_runs_to_its_end_and_shows_the_best(network: str) -> None:
    """The README's main job: four workers, a table with the best first, everything stored."""
    said = rushlight(
        "run", f"{SEARCH}:random_search", "--network", network, "--workers", "4",
        "--kwargs", '{"n": 40, "cost": 0.0}', "--minimize", "y",
    )  # fmt: skip
    assert (0, "") == (said.code, re.sub(r"(?m)^(\[|note|.*: 4 workers).*\n?", "", said.err))
    header, *rows = [line.split() for line in said.out.splitlines() if re.search(r"x1|\d\.\d+ +\d", line)]
    assert ["x1", "x2", "y", "worker_id"] == header
    values = [float(row[2]) for row in rows]
    assert 10 == len(values)
    assert sorted(values) == values
    counts = rushlight("status", "--network", network, "--json").json
    assert 40 <= counts["tasks"]["finished"] <= 43
    assert 4 == counts["workers"]["terminated"]


def test_json_is_alone_on_stdout(network: str) -> None:
    """A program reads one object; what is for people stays on stderr."""
    said = run_loop("count_up", network, "--json", "--maximize", "y", "--rows", "3")
    closing = said.json
    assert 0 == said.code
    assert (network, "done", True) == (closing["network"], closing["reason"], closing["ok"])
    assert {"queued": 0, "running": 0, "finished": 10, "failed": 0} == closing["tasks"]
    assert {"finished": 10, "failed": 0} == closing["run"]
    assert 4.0 == closing["best"]["y"]
    assert [4.0, 4.0, 3.0] == [row["y"] for row in closing["rows"]]
    assert "2 workers" in said.err


def test_a_second_run_adds_to_the_network_and_says_so(network: str) -> None:
    """Results of before compete for the best, and do not count as done by this run."""
    run_loop("count_up", network, "--kwargs", '{"n": 9}', workers=1)
    said = run_loop("count_up", network, "--maximize", "y", "--json", workers=1)
    assert "holds 9 tasks from before" in said.err
    assert 8.0 == said.json["best"]["y"]
    assert {"finished": 5, "failed": 0} == said.json["run"]


def test_workers_that_crash_make_the_run_fail(network: str) -> None:
    """Exit code 1, the reason of each, and the end of the log with the traceback."""
    said = run_loop("crash", network)
    assert 1 == said.code
    assert "RuntimeError: no luck today" in said.err
    assert "about to fail" in said.err
    assert 'raise RuntimeError("no luck\\ntoday")' in said.err
    assert "error: 2 of 2 workers died" == said.err.splitlines()[-1]


def test_a_worker_that_cannot_start_ends_the_run(network: str) -> None:
    """Its log says why, as for a crash; nothing waits for it."""
    said = run_loop("cannot_start", network)
    assert 1 == said.code
    assert "exit code 1, ImportError: not on this machine" in said.err
    assert said.err.splitlines()[-1].startswith("error: ")


def test_a_worker_that_vanishes_is_seen(network: str) -> None:
    """Without a traceback there is still the exit code, and its task has failed."""
    said = run_loop("vanish", network, workers=1)
    assert 1 == said.code
    assert "exit code 3" in said.err
    assert 1 == rushlight("status", "--network", network, "--json").json["tasks"]["failed"]


def test_a_run_whose_tasks_all_failed_has_failed(network: str) -> None:
    """Each kind of failure is listed once, with its count."""
    said = run_loop("all_fail", network)
    assert 1 == said.code
    assert "4 failed: bad value 0" in said.err
    assert "2 failed: bad value 1" in said.err
    assert "error: all 6 tasks failed" == said.err.splitlines()[-1]


def test_ctrl_c_stops_the_workers_and_keeps_the_results(network: str) -> None:
    """The task at hand is finished, the table is printed, the exit code is 0."""
    with running("run", f"{LOOPS}:endless", "--network", network, "--workers", "2", "--json") as process:
        wait_for_finished(network, 5)
        ctrl_c(process)
        said = end_of(process)
    closing = json.loads(said.out)
    assert (0, "interrupted") == (said.code, closing["reason"])
    assert "Traceback" not in said.err
    assert {"starting": 0, "running": 0, "terminated": 2, "killed": 0, "lost": 0} == closing["workers"]
    assert closing["tasks"]["finished"] >= 5
    assert (0, 0) == (closing["tasks"]["running"], closing["tasks"]["failed"])
    assert closing["tasks"] == rushlight("status", "--network", network, "--json").json["tasks"]


def test_ctrl_c_twice_kills(network: str) -> None:
    """Workers that do not listen are killed: their tasks fail, the others stay, the exit code is 1."""
    with running("run", f"{LOOPS}:stubborn", "--network", network, "--workers", "2") as process:
        wait_for_finished(network, 2)
        assert process.stderr is not None
        ctrl_c(process)
        assert any("Ctrl-C again" in line for line in process.stderr)
        ctrl_c(process)
        said = end_of(process)
    assert 1 == said.code
    assert "2 failed: Worker was killed" in said.err
    counts = rushlight("status", "--network", network, "--json").json
    assert (2, 2) == (counts["tasks"]["finished"], counts["tasks"]["failed"])
    assert 2 == counts["workers"]["killed"]


def test_a_timeout_ends_an_endless_loop(network: str) -> None:
    """That is what it is for, so the run counts as done."""
    said = run_loop("endless", network, "--timeout", "0.5", "--json")
    assert (0, "timeout") == (said.code, said.json["reason"])
    assert 2 == said.json["workers"]["terminated"]


def test_a_terminal_shows_the_run_live(network: str) -> None:
    """Workers, counts, speed and the best result are drawn while it goes on; the table stays."""
    said = in_terminal(
        "run", f"{SEARCH}:random_search", "--network", network, "--workers", "2", "--minimize", "y",
        "--kwargs", '{"n": 60, "cost": 0.02}',
    )  # fmt: skip
    assert 0 == said.code
    assert re.search(r"2 running .*\d+ finished .*tasks/s.*best y +-?\d", said.out, re.DOTALL)
    assert "The 10 tasks with the smallest y" in said.out


def in_terminal(*arguments: str, answer: str = "", cue: str = "") -> Said:
    """Run a command with a terminal for stdin, stdout and stderr; ``answer`` is typed after ``cue``."""
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(ROOT)
        os.execve(
            sys.executable, [sys.executable, "-m", "rushlight", *arguments], {**os.environ, "COLUMNS": "120"}
        )
    text = ""
    with contextlib.suppress(OSError):  # Linux says EIO where the other side has closed
        while data := os.read(terminal, 65536):
            text += data.decode(errors="replace")
            if answer and cue in text:
                os.write(terminal, answer.encode())
                answer = ""
    os.close(terminal)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return Said(code, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", text), "")


# --- reading ------------------------------------------------------------------------------------


def test_status_counts_every_state(network: str) -> None:
    """The object has exactly the documented keys, also for a network nobody used."""
    nothing = {
        "network": network,
        "tasks": {"queued": 0, "running": 0, "finished": 0, "failed": 0},
        "workers": {"starting": 0, "running": 0, "terminated": 0, "killed": 0, "lost": 0},
    }
    assert nothing == rushlight("status", "--network", network, "--json").json
    assert "is empty" in rushlight("status", "--network", network).out
    with Rush(network) as rush:
        rush.push_tasks([{"x": 1}, {"x": 2}])
        rush.push_failed_tasks([{"x": 3}])
    counts = rushlight("status", "--network", network, "--json").json
    assert {"queued": 2, "running": 0, "finished": 0, "failed": 1} == counts["tasks"]
    assert "2 queued, 0 running, 0 finished, 1 failed" in rushlight("status", "--network", network).out


def test_tasks_are_listed_with_the_columns_of_the_table(network: str) -> None:
    """By state, by number, for people and for programs; the last rows are kept."""
    with Rush(network) as rush:
        rush.push_finished_tasks([{"x": i} for i in range(30)], [{"y": i * 2} for i in range(30)])
        rush.push_failed_tasks([{"x": 99}], "too hot")
    rows = rushlight("tasks", "--network", network, "--json").json
    assert 31 == len(rows)
    assert set() == (TASK_COLUMNS | {"x", "y", "condition"}) - set(rows[0])
    failed = rushlight("tasks", "--network", network, "--json", "--state", "failed").json
    assert [(99, "too hot")] == [(row["x"], row["condition"]) for row in failed]
    finished = rushlight("tasks", "--network", network, "--json", "--state", "finished", "--limit", "2").json
    assert [(28, 56), (29, 58)] == [(row["x"], row["y"]) for row in finished]
    text = rushlight("tasks", "--network", network).out
    assert "The last 20 of 31 tasks" in text
    assert "too hot" in text


def test_values_json_does_not_know_are_still_valid_json(network: str) -> None:
    """NaN, arrays, bytes, times: every parser can read the list."""
    xs = {
        "n": float("nan"),
        "a": np.arange(3.0),
        "b": b"\x00\xff",
        "t": datetime(2026, 1, 1, tzinfo=UTC),
        "s": {1},
    }
    with Rush(network) as rush:
        rush.push_finished_tasks([xs], [{"y": float("inf"), "big": 2**100}])
    (row,) = rushlight("tasks", "--network", network, "--json").json
    assert (None, [0.0, 1.0, 2.0], "AP8=", [1]) == (row["n"], row["a"], row["b"], row["s"])
    assert ("2026-01-01T00:00:00+00:00", "Infinity", 2**100) == (row["t"], row["y"], row["big"])
    assert 0 == rushlight("tasks", "--network", network).code


def test_workers_are_listed_with_the_columns_of_worker_info(network: str) -> None:
    """How each ended included."""
    run_loop("count_up", network)
    rows = rushlight("workers", "--network", network, "--json").json
    assert [WORKER_COLUMNS, WORKER_COLUMNS] == [list(row) for row in rows]
    assert [("terminated", 5, 0)] * 2 == [(row["state"], row["n_finished"], row["n_failed"]) for row in rows]
    assert rows[0]["worker_id"] in rushlight("workers", "--network", network).out


def test_logs_show_what_workers_logged(network: str) -> None:
    """As lines, as objects, of one worker."""
    run_loop("crash", network)
    lines = rushlight("logs", "--network", network).out.splitlines()
    assert 2 == sum("WARNING loop: about to fail" in line for line in lines)
    records = rushlight("logs", "--network", network, "--json").json
    assert ["worker_id", "level", "timestamp", "logger", "caller", "msg"] == list(records[0])
    one = records[0]["worker_id"]
    mine = rushlight("logs", "--network", network, "--json", "--worker", one).json
    assert {one} == {record["worker_id"] for record in mine}


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_logs_follow_until_ctrl_c(network: str, form: Sequence[str]) -> None:
    """What comes later is shown when it comes; Ctrl-C is the way to end it, not an error."""
    with running("logs", "--follow", "--network", network, *form) as process:
        run_loop("crash", network, workers=1)
        assert process.stdout is not None
        line = next(line for line in process.stdout if "about to fail" in line)
        ctrl_c(process)
        said = end_of(process)
    assert (0, "") == (said.code, said.err)
    assert not form or "about to fail" == json.loads(line)["msg"]


def test_a_reader_that_leaves_is_no_error(network: str) -> None:
    """`rushlight tasks | head -1` says nothing about a broken pipe."""
    with Rush(network) as rush:
        rush.push_finished_tasks([{"x": "v" * 40} for _ in range(5000)], [{"y": 1.0}] * 5000)
    for form in (("--json",), ("--limit", "5000")):
        with running("tasks", "--network", network, *form) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.stdout.close()
            assert process.stderr is not None
            err = process.stderr.read()
            assert (0, "") == (process.wait(DEADLINE), err)


# --- changing -----------------------------------------------------------------------------------


def test_stop_ends_workers_from_another_process(network: str) -> None:
    """They finish what they do; when `stop` returns they have left, and the run ends by itself."""
    with running("run", f"{LOOPS}:endless", "--network", network, "--workers", "2", "--json") as process:
        wait_for_finished(network)
        stopped = rushlight("stop", "--network", network)
        assert 0 == stopped.code
        assert "2 workers" in stopped.out
        assert 2 == rushlight("status", "--network", network, "--json").json["workers"]["terminated"]
        said = end_of(process)
    assert (0, "done") == (said.code, json.loads(said.out)["reason"])


def test_stop_says_which_workers_do_not_listen_and_kill_ends_them(network: str) -> None:
    """A failure of the work with the way out; --kill does not ask them."""
    with running("run", f"{LOOPS}:stubborn", "--network", network, "--workers", "1") as process:
        wait_for_finished(network)
        said = rushlight("stop", "--network", network, "--timeout", "0.2")
        assert 1 == said.code
        assert "--kill" in said.err
        assert 0 == rushlight("stop", "--network", network, "--kill").code
        assert 1 == end_of(process).code
    counts = rushlight("status", "--network", network, "--json").json
    assert (1, 1) == (counts["workers"]["killed"], counts["tasks"]["failed"])


def test_reset_leaves_an_empty_network(network: str) -> None:
    """Tasks, workers and logs are gone; where nobody can be asked it does not ask."""
    run_loop("crash", network)
    assert 0 == rushlight("reset", "--network", network).code
    assert "is empty" in rushlight("status", "--network", network).out
    assert [] == rushlight("logs", "--network", network, "--json").json


def test_a_reset_ends_the_run_of_others(network: str) -> None:
    """Its workers are gone and so are its results: that is a failure, said in one line."""
    with running("run", f"{LOOPS}:endless", "--network", network, "--workers", "2") as process:
        wait_for_finished(network)
        assert 0 == rushlight("reset", "--network", network).code
        said = end_of(process)
    assert 1 == said.code
    assert said.err.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(("answer", "code", "left"), [("n\n", 1, 3), ("y\n", 0, 0)])
def test_reset_asks_on_a_terminal(network: str, answer: str, code: int, left: int) -> None:
    """It names how much would be lost, and no means no."""
    with Rush(network) as rush:
        rush.push_tasks([{"x": i} for i in range(3)])
        said = in_terminal("reset", "--network", network, answer=answer, cue="[y/N]")
        assert code == said.code
        assert "Delete 3 tasks" in said.out
        assert left == rush.n_tasks


def test_reset_can_keep_the_workers(network: str) -> None:
    """Only the tasks go."""
    run_loop("count_up", network)
    assert 0 == rushlight("reset", "--network", network, "--keep-workers").code
    counts = rushlight("status", "--network", network, "--json").json
    assert (0, 2) == (counts["tasks"]["finished"], counts["workers"]["terminated"])


def test_failed_tasks_can_be_retried(network: str) -> None:
    """Named ones or all; what is not failed stays as it is, and a key nobody knows is wrong usage."""
    with Rush(network) as rush:
        first, second, third = rush.push_failed_tasks([{"x": i} for i in range(3)])
        assert [first] == rushlight("retry", first, "--network", network, "--json").json
        assert "0 of 1 task went" in rushlight("retry", first, "--network", network).out
        assert "2 of 2 tasks went" in rushlight("retry", "--all", "--network", network).out
        assert ["queued"] * 3 == rush.states([first, second, third])
    for wrong in ([], ["nobody"], [first, "--all"]):
        assert 2 == rushlight("retry", *wrong, "--network", network).code


def test_a_script_starts_workers_from_any_shell(network: str) -> None:
    """The line is all a shell needs; the loop and its arguments are in the network."""
    said = rushlight(
        "script", f"{LOOPS}:count_up", "--network", network, "--workers", "2", "--kwargs", '{"n": 3}'
    )
    assert (0, 1) == (said.code, len(said.out.splitlines()))
    subprocess.run(["sh", "-c", said.out], timeout=DEADLINE, check=True, cwd="/")
    counts = rushlight("status", "--network", network, "--json").json
    assert (6, 2) == (counts["tasks"]["finished"], counts["workers"]["terminated"])


# --- the server, the worker command, the examples -----------------------------------------------


@pytest.fixture
def own_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home that no other test uses; its server has ended when the test has."""
    path = Path(tempfile.mkdtemp(prefix="rl-cli-", dir="/tmp")).resolve()
    monkeypatch.setenv("RUSHLIGHT_HOME", str(path))
    yield path
    stop_server(path)
    shutil.rmtree(path)


def test_the_embedded_server_starts_stops_and_keeps_its_data(own_home: Path) -> None:
    """`server status` starts nothing; a command that needs the server starts it again on the same data."""
    network, home = "kept", own_home
    assert {"stopped": False} == rushlight("server", "stop", "--json").json
    assert rushlight("server", "status", "--json").json["running"] is False
    with Rush(network) as rush:
        rush.push_tasks([{"x": 1}])
    assert {"stopped": True} == rushlight("server", "stop", "--json").json
    assert rushlight("server", "status", "--json").json["running"] is False
    assert 1 == rushlight("status", "--network", network, "--json").json["tasks"]["queued"]
    started = rushlight("server", "start", "--idle-timeout", "30", "--json").json
    assert (True, str(home), 30.0) == (started["running"], started["home"], started["idle_timeout"])
    assert "is running" in rushlight("server", "status").out
    rushlight("reset", "--network", network)


def test_the_worker_command_is_the_light_one() -> None:
    """`rushlight worker` is `python -m rushlight worker`, whichever way it is called."""
    direct = rushlight("worker", "--help")
    code = "import sys; from rushlight.cli import main; main(['worker', '--help'])"
    through = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE, check=True
    )
    assert 0 == direct.code
    assert "--spec" in direct.out
    assert direct.out == through.stdout


@pytest.mark.parametrize("source", ["README.md", "examples/queue_tasks.py"])
def test_examples_run(home: Path, tmp_path: Path, source: str) -> None:
    """What a stranger copies works, and leaves nothing in the server."""
    text = (ROOT / source).read_text(encoding="utf-8")
    if source.endswith(".md"):
        text = text.partition("```python\n")[2].partition("```")[0]
    file = tmp_path / "example.py"
    file.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(file)], capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert (0, "") == (done.returncode, done.stderr)
    assert "shape: (5, " in done.stdout


# --- errors -------------------------------------------------------------------------------------

WRONG_USAGE: list[tuple[list[str], str]] = [
    (["status"], "--network"),
    (["frobnicate"], "No such command 'frobnicate'"),
    (["status", "-n", "x", "--nope"], "--nope"),
    (["status", "-n", "{x}"], "network='{x}'"),
    (["status", "-n", "x", "--url", "http://x"], "'http' is not a scheme"),
    (["tasks", "-n", "x", "--state", "lost"], "'lost' is not one of"),
    (["tasks", "-n", "x", "--limit", "-1"], "-1 is not in the range"),
    (["stop", "-n", "x", "--worker", "nobody"], "no worker 'nobody'"),
    (["run", "-n", "x", "nowhere.py:loop"], "no such file: nowhere.py"),
    (["run", "-n", "x", f"{LOOPS}"], "write FILE.py:LOOP"),
    (["run", "-n", "x", f"{LOOPS}:"], "write FILE.py:LOOP"),
    (["run", "-n", "x", f"{ROOT}:loop"], "is not a file"),
    (["run", "-n", "x", f"{LOOPS}:count_upp"], "did you mean 'count_up'?"),
    (["run", "-n", "x", f"{LOOPS}:count_up", "--kwargs", "{"], "is not JSON"),
    (["run", "-n", "x", f"{LOOPS}:count_up", "--kwargs", '{"m": 1}'], "unexpected keyword argument 'm'"),
    (["run", "-n", "x", f"{LOOPS}:count_up", "--workers", "0"], "0 is not in the range"),
    (["run", "-n", "x", f"{LOOPS}:count_up", "--minimize", "y", "--maximize", "y"], "exclude each other"),
    (["server", "start", "--url", "redis://x"], "--url"),
]


@pytest.mark.parametrize(("arguments", "text"), WRONG_USAGE, ids=[text for _, text in WRONG_USAGE])
def test_wrong_usage_is_one_line_and_exit_code_2(home: Path, arguments: list[str], text: str) -> None:
    """It names the value and the way out, on stderr, before anything is started or written."""
    said = rushlight(*arguments)
    assert (2, "", 1) == (said.code, said.out, len(said.err.splitlines()))
    assert said.err.startswith("error: ")
    assert text in said.err


def test_a_server_that_is_not_there_is_one_line_without_the_password(home: Path) -> None:
    """Exit code 1: the usage was right."""
    said = rushlight("status", "--network", "x", "--url", "redis://:hunter2@127.0.0.1:1/0")
    assert (1, "", 1) == (said.code, said.out, len(said.err.splitlines()))
    assert "127.0.0.1:1" in said.err
    assert "hunter2" not in said.err


@pytest.mark.parametrize("place", ["before", "after"])
def test_debug_shows_the_traceback(home: Path, tmp_path: Path, place: str) -> None:
    """Of the user's own file, too; the one line still comes last."""
    file = tmp_path / "broken.py"
    file.write_text("import module_that_is_not_there\n", encoding="utf-8")
    command = ["run", f"{file}:loop", "--network", "x"]
    plain = rushlight(*command)
    assert (2, 1) == (plain.code, len(plain.err.splitlines()))
    said = rushlight(*(["--debug", *command] if place == "before" else [*command, "--debug"]))
    assert 2 == said.code
    assert f'File "{file}", line 1' in said.err
    assert "error: " in said.err.splitlines()[-1]


def test_the_version_and_the_help(home: Path) -> None:
    """Both are results, on stdout; without a command the help is a reminder, on stderr."""
    assert re.fullmatch(r"rushlight \d+\.\d+\.\d+\S*\n", rushlight("--version").out)
    said = rushlight("--help")
    assert 0 == said.code
    assert [] == [
        c for c in ("run", "worker", "status", "tasks", "workers", "stop", "reset") if c not in said.out
    ]
    assert (2, "") == (rushlight().code, rushlight().out)
