"""The soak program in its small form: it accounts for every task, and finds that nothing grows."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from harness import SOURCE

PROGRAM = Path(__file__).resolve().parents[2] / "chaos" / "soak.py"


def module() -> ModuleType:
    """The program as a module."""
    spec = importlib.util.spec_from_file_location("soak", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules["soak"] = made
    spec.loader.exec_module(made)
    return made


@pytest.mark.slow
def test_nothing_grows_in_a_short_soak() -> None:
    """Some thousand tasks and some dozens of lives: all counts agree, nobody and nothing is left."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--tasks", "6000", "--lives", "120", "--rounds", "6"],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    assert "nothing grew, nothing was lost, nothing is left" == done.stdout.splitlines()[-1]


def test_a_soak_sees_what_grows() -> None:
    """Memory, files, data, keys and a log without end are each told, with both figures."""
    soak = module()
    steady = [soak.Sample(i, i, 8, {"elder": 10**8}, {"elder": 6}, 10**7, 7, 20_000) for i in range(10)]
    assert [] == soak.judge(steady)
    for i, sample in enumerate(steady):
        sample.rss["elder"] += i * 2 * 10**6
        sample.files["elder"] += i
        sample.server_memory += i * 10**6
        sample.keys += i
        sample.log += 3000
    faults = soak.judge(steady)
    assert ["memory of elder", "open files of elder", "data on the server", "keys on the server"] == [
        fault.partition(" grew")[0] for fault in faults[:4]
    ]
    assert "the log has 23,000 lines" == faults[4]
