"""The documentation runs: every Python block of the tutorial and the how-to pages, as a user would run it.

The blocks of a page make one script, each on the lines it has in the page, so that a traceback points into
the page. A ``text`` block right behind a Python block is what that block prints; ``...`` stands for anything.
A block that cannot run here says so and why: ``python no-run: <reason>``.
"""

from __future__ import annotations

import contextlib
import doctest
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conftest import SETTINGS
from rushlight._server import stop_server

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = [DOCS / "tutorial.md", *sorted((DOCS / "how-to").glob("*.md"))]
MARK = "\x1e"
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
#: Seconds a page may take.
LIMIT = 100


@dataclass(frozen=True)
class Block:
    """A fenced block: what stands behind the fence, its lines, and the number of the first of them."""

    info: str
    lines: tuple[str, ...]
    start: int

    @property
    def runs(self) -> bool:
        return self.info == "python"


def blocks_of(text: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        opening = re.fullmatch(r"```(\S.*)", lines[at])
        at += 1
        if opening is None:
            continue
        end = lines.index("```", at)
        found.append(Block(opening[1].strip(), tuple(lines[at:end]), at))
        at = end + 1
    return found


def script_of(text: str) -> str:
    """The page's script: its Python blocks on their own lines, a mark printed behind each."""
    made = [""] * (len(text.splitlines()) + 1)
    for block in blocks_of(text):
        if block.runs:
            made[block.start : block.start + len(block.lines)] = block.lines
            made[block.start + len(block.lines)] = f"print({MARK!r}, flush=True)"
    return "\n".join(made) + "\n"


def expectations(text: str) -> list[tuple[Block, str | None]]:
    """The blocks that run, each with what the page says it prints."""
    lines, found = text.splitlines(), blocks_of(text)
    pairs: list[tuple[Block, str | None]] = []
    for i, block in enumerate(found):
        if block.runs:
            after = found[i + 1] if i + 1 < len(found) else None
            between = lines[block.start + len(block.lines) + 1 : after.start - 1] if after else ["no block"]
            said = after is not None and after.info == "text" and not any(between)
            pairs.append((block, "\n".join(after.lines) + "\n" if after is not None and said else None))
    return pairs


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user who has nothing yet: a home and a directory of their own, and no settings."""
    folder = Path(tempfile.mkdtemp(prefix="rl-docs-", dir="/tmp")).resolve()
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RUSHLIGHT_HOME", str(folder / "home"))
    (folder / "work").mkdir()
    try:
        yield folder / "work"
    finally:
        with contextlib.suppress(FileNotFoundError):
            stop_server(folder / "home")
        shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs(
    page: Path, place: Path, wait_until: Callable[..., None], processes: Callable[[str], list[Any]]
) -> None:
    """All blocks of a page, in one fresh process: it prints what the page says and leaves nothing."""
    text = page.read_text(encoding="utf-8")
    script = place / "page.py"
    script.write_text(script_of(text), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script.name],
        cwd=place,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    outputs = [part.removeprefix("\n") for part in done.stdout.split(MARK)]
    for (block, expected), got in zip(expectations(text), outputs, strict=False):
        if expected is not None:
            fits = doctest.OutputChecker().check_output(expected, got, FLAGS)
            assert fits, f"{page.name}:{block.start} prints\n{got}\nand the page says\n{expected}"
    networks = set(re.findall(r"\bRush\(\"([^\"]+)\"", text))
    wait_until(lambda: not [process for name in networks for process in processes(f"--network={name}")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_block_that_does_not_run_says_why(page: Path) -> None:
    """Python that is only to be read is marked, with a reason; no fence is indented: it would not run."""
    text = page.read_text(encoding="utf-8")
    infos = [block.info for block in blocks_of(text)]
    odd = [info for info in infos if info.startswith("python") and info != "python"]
    assert [] == [info for info in odd if not re.fullmatch(r"python no-run: \S.*", info)]
    assert [] == re.findall(r"^[ >]+```python.*$", text, re.MULTILINE)
