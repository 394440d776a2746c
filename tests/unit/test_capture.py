"""What workers print: lines, the tail of stderr, bounds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushlight._capture import (
    LINE_LIMIT,
    PENDING_LINES,
    TAIL_BYTES,
    TAIL_LINES,
    Capture,
    Lines,
    Tail,
    make_log_directory,
    open_log_file,
)
from rushlight.errors import ConfigError


class Worker:
    """The writing ends of a capture's pipes."""

    def __init__(self, folder: Path | None = None) -> None:
        out, self.out = os.pipe()
        err, self.err = os.pipe()
        file = open_log_file(None if folder is None else str(folder), "w")
        self.capture = Capture(out, err, file, clock=lambda: 1.5)

    def close(self) -> None:
        os.close(self.out)
        os.close(self.err)
        self.capture.abandon()


@pytest.fixture
def worker() -> Iterator[Worker]:
    """A worker that prints."""
    made = Worker()
    yield made
    made.close()


def said(capture: Capture) -> list[tuple[str, str]]:
    """Logger and text of the waiting entries."""
    return [(entry["logger"], entry["msg"]) for entry in capture.take()]


@given(st.lists(st.text(alphabet=st.characters(exclude_characters="\r\n", codec="utf-8"))), st.data())
def test_lines_do_not_depend_on_how_they_were_cut(lines: list[str], data: st.DataObject) -> None:
    """Whatever pieces a pipe delivers, the same lines come out, characters whole."""
    raw = "".join(f"{line}\n" for line in lines).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    splitter = Lines()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        found += splitter.feed(raw[start:end])
    assert lines == found
    assert [] == splitter.close()


def test_a_line_without_an_end_comes_when_the_stream_ends() -> None:
    """Nothing printed is lost for want of a line's end."""
    lines = Lines()
    assert ["one"] == lines.feed(b"one\ntwo")
    assert ["two"] == lines.close()
    assert [] == lines.close()


def test_a_progress_bar_counts_as_its_last_state() -> None:
    """Carriage returns rewrite a line, also over many deliveries, and never pile up."""
    lines = Lines()
    for percent in range(100):
        assert [] == lines.feed(b"\r%3d %% %s" % (percent, b"#" * 500))
    assert ["100 %"] == lines.feed(b"\r100 %\r\n")


def test_long_lines_are_cut_into_pieces() -> None:
    """A line longer than the limit is whole in pieces, and no character is torn."""
    text = "\u20ac" * LINE_LIMIT
    for raw in (text.encode(), text.encode() + b"\n"):
        lines = Lines()
        pieces = lines.feed(raw) + lines.close()
        assert text == "".join(pieces)
        assert all(len(piece.encode()) <= LINE_LIMIT for piece in pieces)


def test_bytes_that_are_no_text_are_shown() -> None:
    """Binary junk becomes text that shows it."""
    assert ["\\xff\\x80a\x00"] == Lines().feed(b"\xff\x80a\0\n")


def test_the_tail_is_bounded_in_lines_and_bytes() -> None:
    """The exit report shows the last of stderr, however much there was, from a line's beginning."""
    tail = Tail()
    for number in range(10_000):
        tail.feed(b"line %d\n" % number)
    assert [f"line {number}" for number in range(10_000 - TAIL_LINES, 10_000)] == tail.text().splitlines()[
        -50:
    ]
    tail.feed(b"y" * 5 * TAIL_BYTES)
    assert TAIL_BYTES == len(tail.text())


def test_short_tails_are_whole() -> None:
    """A short message is shown completely."""
    tail = Tail()
    tail.feed(b"Traceback\n  here\nValueError: x\n")
    assert "Traceback\n  here\nValueError: x" == tail.text()


def test_both_streams_are_told_apart(worker: Worker) -> None:
    """Entries say which stream they came by."""
    os.write(worker.out, b"a\nb")
    os.write(worker.err, b"c\n")
    assert worker.capture.read("stdout")
    assert worker.capture.read("stderr")
    assert not worker.capture.read("stdout"), "nothing more to read, and it did not block"
    assert [
        {"t": 1.5, "level": "INFO", "logger": "stdout", "caller": "", "msg": "a"},
        {"t": 1.5, "level": "WARNING", "logger": "stderr", "caller": "", "msg": "c"},
    ] == worker.capture.take()
    worker.capture.finish()
    assert [("stdout", "b")] == said(worker.capture)
    assert "c" == worker.capture.tail()


def test_a_flood_is_bounded_and_counted(worker: Worker) -> None:
    """More lines than the log takes are counted, not kept."""
    for _ in range(PENDING_LINES // 100 + 5):
        os.write(worker.out, b"x\n" * 100)
        worker.capture.read("stdout")
    entries = said(worker.capture)
    assert PENDING_LINES + 1 == len(entries)
    assert entries[-1] == ("rushlight", "500 lines dropped: the worker printed faster than the log takes")
    assert not worker.capture.pending


def test_entries_given_back_come_first(worker: Worker) -> None:
    """What could not be sent is not lost, and stays in order."""
    os.write(worker.out, b"a\nb\n")
    worker.capture.read("stdout")
    entries = worker.capture.take()
    os.write(worker.out, b"c\n")
    worker.capture.read("stdout")
    worker.capture.give_back(entries)
    assert [("stdout", "a"), ("stdout", "b"), ("stdout", "c")] == said(worker.capture)


def test_the_end_does_not_wait_for_others(worker: Worker) -> None:
    """A process left behind that keeps the pipe open does not keep its reader."""
    os.write(worker.err, b"last words")
    worker.capture.finish()
    assert {} == worker.capture.descriptors
    assert "last words" == worker.capture.tail()


def test_the_file_gets_every_byte(tmp_path: Path) -> None:
    """The log file is what the worker printed, as it printed it; a second life appends."""
    for text in (b"one\xff\rtwo", b"three\n"):
        made = Worker(tmp_path)
        os.write(made.out, text)
        made.capture.finish()
        made.close()
    assert b"one\xff\rtwo\nthree\n" == (tmp_path / "w.log").read_bytes()


def test_lines_of_two_streams_do_not_mix(tmp_path: Path) -> None:
    """What comes by two pipes is put together line by line."""
    made = Worker(tmp_path)
    for descriptor, stream, text in [
        (made.out, "stdout", b"a"), (made.err, "stderr", b"b\n"), (made.out, "stdout", b"c\nd"),
    ]:  # fmt: skip
        os.write(descriptor, text)
        made.capture.read(stream)  # type: ignore[arg-type]
    made.capture.finish()
    made.close()
    assert b"b\nac\nd\n" == (tmp_path / "w.log").read_bytes()


def test_a_full_disk_is_said_once_and_stops_nothing() -> None:
    """A file that cannot be written any more costs the file, not the worker."""
    out, write = os.pipe()
    err, other = os.pipe()
    capture = Capture(out, err, os.open("/dev/full", os.O_WRONLY))
    for _ in range(2):
        os.write(write, b"line\n")
        capture.read("stdout")
    loggers = [logger for logger, _ in said(capture)]
    assert ["rushlight", "stdout", "stdout"] == loggers
    capture.finish()
    os.close(write)
    os.close(other)


def test_an_id_with_slashes_stays_in_the_directory(tmp_path: Path) -> None:
    """A worker's name cannot write elsewhere."""
    descriptor = open_log_file(str(tmp_path), "../../up")
    assert descriptor is not None
    os.close(descriptor)
    assert [".._.._up.log"] == os.listdir(tmp_path)


def test_a_directory_that_cannot_be_is_refused(tmp_path: Path) -> None:
    """A file in the place of log_dir is a ConfigError that names it."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="log_dir="):
        make_log_directory(str(tmp_path / "file" / "logs"))
