"""The benchmarks run and print what the table is made of. What they measure is not looked at."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
#: Programs of rows, by what their last line calls.
ROWS = sorted(path.name for path in FOLDER.glob("bench_*.py") if "kit.main(" in path.read_text())


def run(program: str, *arguments: str) -> str:
    """What it printed, after it has ended well."""
    done = subprocess.run(
        [sys.executable, str(FOLDER / program), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout


def keys_of(program: str, name: str) -> list[str]:
    """The keys of a table at the top of a program, which is no module of a package."""
    for node in ast.parse((FOLDER / program).read_text()).body:
        if isinstance(node, ast.Assign) and name == ast.unparse(node.targets[0]):
            assert isinstance(node.value, ast.Dict)
            return [ast.literal_eval(key) for key in node.value.keys if key is not None]
    raise AssertionError(f"no {name} in {program}")


@pytest.mark.slow
@pytest.mark.timeout(320)
@pytest.mark.parametrize("program", ROWS)
def test_a_program_of_rows_prints_well_formed_rows(program: str) -> None:
    """Each row names a target and has a figure and a verdict; the machine is told."""
    found = json.loads(run(program, "--small", "--json").splitlines()[-1])
    known = keys_of("targets.py", "TARGETS")
    assert found["rows"]
    for row in found["rows"]:
        assert row["target"] in known
        assert row["figure"] > 0
        assert isinstance(row["reached"], bool)
        assert row["setting"]
        if row["spread"] is not None:
            low, high = row["spread"]
            assert low <= high
    assert {"cores", "kernel", "python", "server", "rushlight"} <= found["machine"].keys()
    assert {"load_at_start", "cores_used_by_others"} <= found["quiet"].keys()


@pytest.mark.slow
@pytest.mark.timeout(320)
def test_operations_on_one_task_stand_beside_their_floors() -> None:
    """Pings, empty scripts, the fewest commands and our calls by hand were measured for each, in its unit."""
    found = json.loads(run("bench_core.py", "--small", "--json").splitlines()[-1])
    floors = {row["target"]: row["floors"] for row in found["rows"] if row["floors"]}
    adaptive = {"create_finish_adaptive", "step_adaptive"}
    blocking = {"create_finish", "create_finish_cpu", "step", "write_behind", "pop_finish", "finish_and_pop"}
    assert adaptive | blocking == floors.keys()
    for below in floors.values():
        names = ["pings", "calls of an empty script", "fewest commands", "our calls by hand"]
        assert names == list(below)
        assert 0 < min(below.values())


def test_every_program_of_rows_is_in_the_table() -> None:
    """The one command of the whole table runs all of them."""
    assert [] == [name for name in ROWS if name not in keys_of("table.py", "PROGRAMS")]


@pytest.mark.slow
@pytest.mark.timeout(320)
def test_the_table_is_made_of_programs_that_ran_and_of_those_that_did_not() -> None:
    """The page has a line for each program, with the cores that others used or with what went wrong."""
    found = run("table.py", "--small", "--format", "markdown", "workers")
    assert "| `bench_workers.py --small` |" in found
    assert "failed:" not in found


@pytest.mark.slow
@pytest.mark.timeout(320)
def test_simulated_workers_work_in_every_style() -> None:
    """A small scale test has a point for each style and length of sleep, tasks were done in it, and no worker
    worked more than all of its time."""
    found = json.loads(run("scale.py", "--small", "--json").splitlines()[-1])
    points = found["points"]
    assert {(style, sleep) for style in ("search", "queue", "archive") for sleep in (0.5, 0.1)} == {
        (point["style"], point["sleep"]) for point in points
    }
    assert [] == [point for point in points if not 0 <= point["utilisation"] <= 1]
    assert 0 < sum(point["tasks_per_second"] for point in points)
    assert 0 < sum(point["rows_read_per_second"] for point in points)


@pytest.mark.slow
@pytest.mark.timeout(320)
def test_curves_are_data_and_pictures(tmp_path: Path) -> None:
    """A curve has times above zero at several sizes, as JSON and CSV, and a picture of its operations."""
    run("curves.py", "--small", "--save", "--folder", str(tmp_path))
    points = json.loads((tmp_path / "curves.json").read_text())["points"]
    assert len(points) == len((tmp_path / "curves.csv").read_text().splitlines()) - 1
    for curve in ("archive", "payload", "workers"):
        mine = [point for point in points if point["curve"] == curve]
        assert 2 <= len({point["x"] for point in mine})
        assert 0 < min(point["us"] for point in mine)
        picture = (tmp_path / f"curve-{curve}.svg").read_text()
        assert [] == [point["operation"] for point in mine if point["operation"] not in picture]


def test_the_table_of_peers_says_who_leads_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line for each column; where somebody is ahead of ours, in whichever, a reason is named and written
    out below, whatever the peer."""
    monkeypatch.syspath_prepend(str(FOLDER))
    peers = importlib.import_module("peers")
    leaders = importlib.import_module("leaders")

    def queue(peer: str, variant: str, scale: float) -> dict[str, Any]:
        """Figures that are all so many times as good as 1."""
        task = {"per_second": [1000 * scale], "cpu_us": [100 / scale]}
        single = {"p50_ms": 1 / scale, "p95_ms": 2 / scale}
        told = {"noop": task, "spin": task, "noop_latency": single, "spin_latency": single}
        return {"peer": peer, "variant": variant, "again": False, "first_result_seconds": 1 / scale, **told}

    def store(peer: str, variant: str, scale: float) -> dict[str, Any]:
        load, both = {"ms": 1 / scale}, {"per_second": scale}
        told = {"trial_us": {"us": [1 / scale]}, "two_processes": both, "load": load}
        return {"peer": peer, "variant": variant, "again": False, **told}

    ours = [queue("rushlight", "queue", 1), queue("rushlight", "controller, chunks of 64", 1)]
    ours += [store("rushlight", "search", 1)]
    for peer in peers.PEERS[1:]:
        for scale in (0.5, 2):
            made = store if peer.name == "optuna" else queue
            whole = [*ours, *(made(peer.name, variant, scale) for variant in peer.variants)]
            head, _, *rows = leaders.lines(whole, peers.KIND)
            assert head.startswith("| column")
            rows, reasons = rows[: rows.index("")], rows[rows.index("") + 1 :]
            assert rows
            for row in rows:
                _, _, _, ahead, why, behind, _ = row.split("|")
                assert (scale > 1) == (peer.name in ahead) == bool(why.strip())
                assert (scale < 1) == (peer.name in behind) == ("nobody" in ahead)
            assert {n for row in rows for n in row.split("|")[4].replace(" ", "").split(",") if n} == {
                reason.partition(".")[0] for reason in reasons
            }


@pytest.mark.slow
@pytest.mark.timeout(320)
def test_peers_are_measured_as_we_are() -> None:
    """Ours and the standard library's pool, which need no environment of their own, each have throughput and
    latency for both tasks; stores of trials have their time per trial."""
    found = json.loads(run("peers.py", "--small", "--json", "rushlight", "pool").splitlines()[-1])["peers"]
    assert [] == [one["error"] for one in found if "error" in one]
    queues = [one for one in found if "noop" in one]
    assert {"rushlight", "pool"} == {one["peer"] for one in queues}
    for one in queues:
        assert 0 < min(one["noop"]["per_second"] + one["spin"]["per_second"])
        assert 0 < one["noop_latency"]["p50_ms"] <= one["noop_latency"]["p95_ms"]
    assert 0 < min(us for one in found if "trial_us" in one for us in one["trial_us"]["us"])
