"""The parts of the command line that decide and format, without a server."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import click
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushlight._inputs import loop_of
from rushlight._records import TaskState
from rushlight.cli._app import app
from rushlight.cli._follow import GRACE, next_order
from rushlight.cli._loading import load_loop, parse_kwargs
from rushlight.cli._output import cell, columns_of, jsonable, span
from rushlight.cli._progress import Ending, Goal, Picture, Progress, casualties
from rushlight.cli._read import last
from rushlight.errors import ConfigError

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.datetimes()
    | st.decimals(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.frozensets(st.integers() | st.text())
    ),
    max_leaves=10,
)


@given(VALUES)
def test_every_value_becomes_valid_json(value: Any) -> None:
    """Whatever a task may hold, the output is JSON that a strict parser reads."""
    text = json.dumps(jsonable(value), allow_nan=False)
    json.loads(text, parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.nan, None),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (2**80, 2**80),
        (b"\x00\xff", "AP8="),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05+00:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (timedelta(minutes=1.5), 90.0),
        (Decimal("1.10"), "1.10"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ({2, 1}, [1, 2]),
        ((1, [math.nan]), [1, [None]]),
        ({1: "a", (1, 2): "b"}, {"1": "a", "[1, 2]": "b"}),
        (TaskState.FAILED, "failed"),
        (np.float32("nan"), None),
        (np.int64(3), 3),
        (np.array([[1.0, np.inf]]), [[1.0, "Infinity"]]),
        (np.array(5), 5),
        (pl.DataFrame({"a": [1, None]}), [{"a": 1}, {"a": None}]),
        (pd.DataFrame({"a": [1.5]}), [{"a": 1.5}]),
        (pa.table({"a": [1]}), [{"a": 1}]),
    ],
)
def test_values_json_does_not_know_have_one_form(value: Any, expected: Any) -> None:
    """Each kind of value has the documented form."""
    assert expected == jsonable(value)


def test_cells_are_short_and_on_one_line() -> None:
    """A table for people shows the beginning of what is long."""
    assert "" == cell(None)
    assert "0.333333" == cell(1 / 3)
    assert "a b" == cell("a\n b")
    assert "…" == cell(list(range(100)))[-1]


def test_columns_keep_their_order_and_drop_what_is_never_filled() -> None:
    """Empty columns would only push the others off the screen."""
    rows = [{"key": "k", "x": 1, "empty": None}, {"x": 2, "y": "", "z": 0}]
    assert ["x", "z"] == columns_of(rows, leave_out=["key"])


@pytest.mark.parametrize(("seconds", "text"), [(4.25, "4.2 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")])
def test_durations_read_naturally(seconds: float, text: str) -> None:
    """Seconds, minutes or hours, as fits."""
    assert text == span(seconds)


def test_a_limit_keeps_the_last_rows() -> None:
    """The newest tasks are the interesting ones; none is a limit, too."""
    rows = [{"i": i} for i in range(5)]
    assert [{"i": 3}, {"i": 4}] == last(rows, 2)
    assert [] == last(rows, 0)
    assert rows == last(rows, None)
    assert rows == last(rows, 9)


@pytest.mark.parametrize(
    ("stops", "seconds", "timeout", "broken", "expected"),
    [
        (0, 5.0, None, False, ("", "done")),
        (1, 5.0, None, False, ("terminate", "interrupted")),
        (2, 5.0, None, False, ("kill", "killed")),
        (0, 5.0, 5.0, False, ("terminate", "timeout")),
        (0, 4.9, 5.0, False, ("", "done")),
        (0, 5.0 + GRACE, 5.0, False, ("kill", "killed")),
        (1, 6.0, 5.0, False, ("terminate", "interrupted")),
        (0, 1.0, None, True, ("kill", "died")),
    ],
)
def test_what_workers_are_told(
    stops: int, seconds: float, timeout: float | None, broken: bool, expected: tuple[str, str]
) -> None:
    """One Ctrl-C or the timeout terminates; two, the grace's end, or a failed start kill."""
    assert expected == next_order(stops, seconds, timeout, broken=broken)


@pytest.mark.parametrize(("maximize", "best"), [(False, [-3.0, 1.0]), (True, [7.0, 1.0])])
def test_the_best_rows_come_first(maximize: bool, best: list[float]) -> None:
    """Rows without a finite number for the goal never win; what was there before may."""
    progress = Progress(Goal("y", maximize), 2, 0.0)
    progress.adopt([{"y": 1.0}])
    progress.add([{"y": math.nan}, {"y": None}, {"y": "low"}, {"y": 7.0}, {"y": True}, {"x": 1}], 1.0)
    progress.add([{"y": -3.0}] if not maximize else [{"y": 0.0}], 2.0)
    assert best == [row["y"] for row in progress.rows()]
    assert best[0] == progress.best_value
    assert (7, 8) == (progress.n_finished, progress.n_seen)


def test_without_a_goal_the_last_rows_are_shown() -> None:
    """In the order they finished."""
    progress = Progress(None, 2, 0.0)
    progress.add([{"i": i} for i in range(5)], 1.0)
    assert [{"i": 3}, {"i": 4}] == progress.rows()
    assert progress.best is None


def test_a_result_named_like_an_input_is_found() -> None:
    """The table calls it ``y_ys``; the user calls it y."""
    assert 2.0 == Goal("y").value({"y_xs": 1.0, "y_ys": 2.0})


def test_the_rate_is_of_late() -> None:
    """What happened long ago does not hide that nothing happens now."""
    progress = Progress(None, 1, 0.0)
    progress.add([{}] * 100, 1.0)
    assert 100.0 == progress.rate(1.0)
    for second in range(2, 30):
        progress.add([], float(second))
    assert 0.0 == progress.rate(29.0)


def test_a_picture_says_what_is_worth_saying() -> None:
    """Lost workers are named where there are any, the best only with a goal."""
    picture = Picture(1.0, {"finished": 3}, {"running": 1, "lost": 2, "killed": 0}, 1.5, best=0.25)
    assert "best y 0.25" in picture.line(Goal("y"))
    line = picture.line(None)
    assert "2 lost" in line and "killed" not in line and "best" not in line


@pytest.mark.parametrize(
    ("ending", "ok"),
    [
        (Ending("done"), True),
        (Ending("done", n_finished=1, n_failed=9), True),
        (Ending("done", n_failed=9), False),
        (Ending("timeout", n_finished=1), True),
        (Ending("interrupted"), True),
        (Ending("killed", n_finished=5), False),
        (Ending("died", n_finished=5), False),
    ],
)
def test_when_a_run_counts_as_done(ending: Ending, ok: bool) -> None:
    """Not when workers died or were killed, nor when every task failed."""
    assert ok == ending.ok


def test_casualties_are_those_that_did_not_leave_by_themselves() -> None:
    """Lost, killed, or left with an exit code."""
    workers = [
        {"worker_id": "a", "state": "terminated", "exit_code": 0},
        {"worker_id": "b", "state": "lost", "exit_code": None},
        {"worker_id": "c", "state": "killed", "exit_code": None},
        {"worker_id": "d", "state": "terminated", "exit_code": 1},
    ]
    assert ["b", "c", "d"] == [w["worker_id"] for w in casualties(workers)]


def test_a_loop_is_loaded_with_the_modules_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``python FILE.py`` would, without running what belongs to a script."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "neighbour_of_loop.py").write_text("LIMIT = 3\n", encoding="utf-8")
    file = tmp_path / "json.py"
    file.write_text(
        "from neighbour_of_loop import LIMIT\n"
        "def loop(worker, n=LIMIT):\n    return n\n"
        "if __name__ == '__main__':\n    raise SystemExit('ran as a script')\n",
        encoding="utf-8",
    )
    assert 3 == load_loop(f"{file}:loop")(None)
    assert [] == json.loads("[]"), "a file named like a module does not replace it"


@pytest.mark.parametrize("text", ["{", "[1]", "3", "null"])
def test_kwargs_must_be_a_json_object(text: str) -> None:
    """Anything else is refused with an example of what would do."""
    with pytest.raises(ConfigError, match="write"):
        parse_kwargs(text)


def test_kwargs_must_fit_the_loop() -> None:
    """Before any worker starts, not as a crash of each of them."""

    def loop(worker: Any, a: int, b: int = 1) -> None: ...

    assert loop is loop_of(loop, {"a": 1})
    loop_of(lambda worker, **more: None, {"anything": 1})
    for wrong in ({}, {"a": 1, "c": 2}, {"a": 1, "worker": 2}):
        with pytest.raises(ConfigError, match="cannot be called"):
            loop_of(loop, wrong)


def commands() -> list[tuple[str, click.Command]]:
    """Every command of the command line by its full name, but `worker`, which parses for itself."""
    found: list[tuple[str, click.Command]] = []
    for name, command in app.commands.items():
        if isinstance(command, click.Group):
            found += [(f"{name} {inner}", c) for inner, c in command.commands.items()]
        elif name != "worker":
            found.append((name, command))
    return found


@pytest.mark.parametrize(("name", "command"), commands(), ids=[name for name, _ in commands()])
def test_every_command_explains_itself(name: str, command: click.Command) -> None:
    """Help for the command and for every visible option; --network, --url and --debug everywhere."""
    assert command.help
    options = [p for p in command.params if isinstance(p, click.Option)]
    assert [] == [o.name for o in options if not o.hidden and not o.help]
    flags = {flag for option in options for flag in option.opts}
    assert set() == {"--network", "--url", "--debug"} - flags
    if name.rpartition(" ")[2] in ("status", "tasks", "workers", "logs", "run"):
        assert "--json" in flags
