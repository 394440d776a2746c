"""The checklist names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAMED = re.compile(r"`(?P<home>F:|[a-z_]+/)?(?P<file>test_\w+\.py)::(?P<test>test_\w+)`")
FOLDERS = {None: "integration", "F:": "fundamentals"}


def names_in(path: Path) -> set[str]:
    """The names of a file's tests."""
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_test_of_the_checklist_exists() -> None:
    """A test that was renamed or removed is renamed or replaced in the checklist too."""
    text = (HERE / "CHECKLIST.md").read_text(encoding="utf-8")
    missing = []
    for named in NAMED.finditer(text):
        home = named["home"]
        path = HERE / (FOLDERS.get(home) or home.rstrip("/")) / named["file"]
        if not path.is_file() or named["test"] not in names_in(path):
            missing.append(named.group())
    assert [] == missing


def test_the_checklist_leaves_no_number_out() -> None:
    """From 1 to the last, without a gap."""
    text = (HERE / "CHECKLIST.md").read_text(encoding="utf-8")
    numbers: list[int] = []
    for first in re.findall(r"^\| ([\d, -]+) \|", text, re.MULTILINE):
        for part in first.split(","):
            low, _, high = part.strip().partition("-")
            numbers += range(int(low), int(high or low) + 1)
    assert list(range(1, max(numbers) + 1)) == numbers
    assert len(numbers) >= 126
