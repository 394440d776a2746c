"""What workers log and print: in the network's log, as a table, as text, in files."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from rushlight import Rush, RushWorker
from rushlight.errors import ConfigError

Wait = Callable[..., None]
COLUMNS = ["worker_id", "level", "timestamp", "logger", "caller", "msg"]


def talk(worker):
    """Log what each task says, at its level; one task after the other."""
    log = logging.getLogger("lab.bench")
    while not worker.terminated:
        task = worker.pop_task(timeout=5)
        if task is not None:
            log.log(task.xs["level"], task.xs["say"], extra={"unsendable": object()})
            worker.finish_task(task.key, {"y": 1})


def say(rush: Rush, *texts: str, level: int = logging.INFO) -> None:
    """Have the workers log, and wait until it is in the log: errors go at once, with what was before."""
    keys = rush.push_tasks([{"say": text, "level": level} for text in texts])
    keys += rush.push_tasks([{"say": "that was it", "level": logging.ERROR}])
    assert "done" == rush.wait_for_tasks(keys, timeout=60).reason


def messages(rush: Rush) -> list[str]:
    """What has been logged but the full stops of ``say``."""
    return [msg for msg in rush.read_log()["msg"].to_list() if msg != "that was it"]


def test_logged_messages_are_a_table(rush: Rush) -> None:
    """One row each, oldest first: who, how bad, when, where, what."""
    (worker_id,) = rush.start_workers(talk, log_level="info")
    say(rush, "one", "two")
    table = rush.read_log()
    assert COLUMNS == table.columns
    rows = table.filter(pl.col("logger") == "lab.bench").to_dicts()
    said = [(row["msg"], row["level"]) for row in rows]
    assert [("one", "INFO"), ("two", "INFO"), ("that was it", "ERROR")] == said
    assert {worker_id} == {row["worker_id"] for row in rows}
    assert all("talk" in row["caller"] and row["timestamp"] > 1e9 for row in rows)
    assert sorted(table["timestamp"]) == table["timestamp"].to_list()


def test_lines_are_printed_in_the_order_of_their_times(
    rush: Rush, worker: RushWorker, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a worker printed and what it logged come by two ways, and may cross."""
    plain = {"level": "INFO", "logger": "me", "caller": ""}
    for at in (2.0, 1.0, 3.0):
        worker._store.add_logs(worker.worker_id, [plain | {"t": at, "msg": f"said at {at:g}"}])
    rush.print_log()
    printed = capsys.readouterr().out.splitlines()
    assert ["said at 1", "said at 2", "said at 3"] == [line.partition("me: ")[2] for line in printed]


def test_more_tasks_make_more_rows(rush: Rush) -> None:
    """The log grows as the workers go on."""
    rush.start_workers(talk, log_level="info")
    say(rush, "first")
    before = rush.read_log().height
    say(rush, "second")
    assert ["first", "second"] == messages(rush)
    assert before < rush.read_log().height


def test_times_between_entries(rush: Rush) -> None:
    """``time_difference``: seconds since the same worker's entry before, 0 for its first."""
    rush.start_workers(talk, log_level="info")
    say(rush, "one", "two")
    table = rush.read_log(time_difference=True)
    assert [*COLUMNS, "time_difference"] == table.columns
    assert 0 == table["time_difference"][0]
    assert pytest.approx(table["timestamp"].diff().to_list()[1:]) == table["time_difference"].to_list()[1:]


def test_the_level_is_a_threshold(rush: Rush) -> None:
    """What is below ``log_level`` is not sent."""
    rush.start_workers(talk, log_level="warning")
    say(rush, "too quiet", level=logging.INFO)
    say(rush, "loud enough", level=logging.WARNING)
    assert ["loud enough"] == messages(rush)


def test_the_log_of_some_workers(rush: Rush) -> None:
    """Entries of the workers named, no others; nobody's is empty, with all its columns."""
    one, two = rush.start_workers(talk, 2, log_level="info")
    rush.wait_for_workers(2)
    say(rush, *map(str, range(20)))
    both = rush.read_log()
    for name in (one, two):
        assert both.filter(pl.col("worker_id") == name).equals(rush.read_log([name]))
    assert (COLUMNS, 0) == (rush.read_log([]).columns, rush.read_log([]).height)


def test_what_is_printed_is_in_the_log(rush: Rush, wait_until: Wait) -> None:
    """Lines on stdout and stderr, under the name of the stream."""

    def loop(worker):
        import sys

        print("hello out")
        print("hello err", file=sys.stderr)
        worker.pop_task(timeout=60)

    rush.start_workers(loop)
    wait_until(lambda: {"hello out", "hello err"} <= set(messages(rush)))
    found = {row["msg"]: row["logger"] for row in rush.read_log(as_="dicts")}
    assert ("stdout", "stderr") == (found["hello out"], found["hello err"])


def test_a_dying_workers_log_is_not_lost(rush: Rush) -> None:
    """A worker whose loop ends or fails sends what it has logged before it goes."""

    def loop(worker):
        import logging

        logging.getLogger("lab").info("last words")
        task = worker.pop_task(timeout=30)
        raise RuntimeError(task.key)

    keys = rush.push_tasks([{"x": 1}])
    rush.start_workers(loop, log_level="info")
    rush.wait_for_tasks(keys, timeout=60)
    assert "last words" in messages(rush)


def test_the_log_is_printed_once(rush: Rush, capsys: pytest.CaptureFixture[str]) -> None:
    """``print_log`` prints what is new, nothing twice; after a reset it begins anew."""
    (worker_id,) = rush.start_workers(talk, log_level="info")
    say(rush, "first")
    rush.print_log()
    out = capsys.readouterr().out
    assert "first" in out and worker_id in out and "lab.bench" in out
    rush.print_log()
    assert "" == capsys.readouterr().out
    say(rush, "second")
    rush.print_log()
    out = capsys.readouterr().out
    assert "second" in out and "first" not in out
    rush.reset()
    rush.start_workers(talk, log_level="info")
    say(rush, "third")
    rush.print_log()
    assert "third" in capsys.readouterr().out


def test_the_log_can_be_followed(rush: Rush) -> None:
    """Lines as they come, woken by them; ends when it has been silent for long enough."""
    rush.start_workers(talk, log_level="info")
    lines: list[str] = []

    def follow() -> None:
        for line in rush.follow_log(timeout=60):
            lines.append(line)
            if "second" in line:
                return

    following = threading.Thread(target=follow)
    following.start()
    say(rush, "first")
    say(rush, "second")
    following.join(60)
    text = "\n".join(lines)
    assert -1 < text.index("first") < text.index("second")
    assert 1 == text.count("second")
    assert "second" not in "\n".join(rush.follow_log(timeout=0.1))


def test_the_log_of_one_worker_can_be_followed(rush: Rush) -> None:
    """Only its entries, as ``read_log`` has them; those of others do not keep it going."""
    one, other = rush.start_workers(talk, 2, log_level="info")
    rush.wait_for_workers(2)
    words = [{"say": text, "level": logging.ERROR} for text in ("mine", "yours", "mine too")]
    rush.wait_for_tasks(rush.push_tasks(words, workers=[one, other, one]))
    found = list(rush.follow_log(timeout=0, worker_ids=[one], as_="dicts"))
    assert ["mine", "mine too"] == [row["msg"] for row in found]
    assert found == rush.read_log([one], as_="dicts")
    with pytest.raises(ConfigError, match="as_='rows' must be 'lines' or 'dicts'"):
        rush.follow_log(as_="rows")


@pytest.mark.parametrize("form", ["polars", "pandas", "arrow", "dicts"])
def test_the_log_comes_in_every_form(rush: Rush, form: str) -> None:
    """Also when it is empty."""
    assert 0 == len(rush.read_log(as_=form))


def test_output_goes_to_files_where_asked(rush: Rush, tmp_path: Path, wait_until: Wait) -> None:
    """``log_dir``: a file per worker with all that it prints."""

    def loop(worker):
        print("for the file")
        worker.pop_task(timeout=60)

    (worker_id,) = rush.start_workers(loop, log_dir=tmp_path)
    rush.wait_for_workers(1)
    wait_until(lambda: [True] == [worker_id in path.name for path in tmp_path.iterdir()])
    (path,) = tmp_path.iterdir()
    wait_until(lambda: "for the file" in path.read_text())


def test_log_settings_that_cannot_be_are_refused(rush: Rush, server, tmp_path: Path) -> None:
    """A level nobody knows, a directory that is not there: said before anything is written."""
    with pytest.raises(ConfigError, match="chatty"):
        rush.start_workers(talk, log_level="chatty")
    with pytest.raises(ConfigError, match="nowhere"):
        rush.start_workers(talk, log_dir=tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="worker_ids"):
        rush.read_log("one")
    assert 0 == server.dbsize()
