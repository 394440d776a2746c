"""The documentation's pages say what is there: made pages are current, links lead somewhere, names exist."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
import redis

from conftest import until
from rushlight import Rush, RushWorker
from rushlight._server import find_binary

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
SRC = ROOT / "src" / "rushlight"
PAGES = sorted(DOCS.rglob("*.md"))


def script(name: str) -> ModuleType:
    """The program ``scripts/<name>.py`` as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What a link can point to in a page, as its headings make it."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", ["keys_page", "cli_page"])
def test_a_made_page_is_current(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made from the code is what the code says today; run ``python scripts/<name>.py`` otherwise."""
    monkeypatch.setenv("COLUMNS", "100")
    made = script(name)
    assert made.page() == made.PAGE.read_text(encoding="utf-8")


def test_every_module_is_in_the_structure() -> None:
    """Every module has its line, none is of one that has gone (``scripts/structure_page.py``)."""
    text = (DOCS / "structure.md").read_text(encoding="utf-8")
    section = text.partition("<!-- modules:")[2].partition("<!-- end of modules -->")[0]
    listed = re.findall(r"^\| `([\w/]+\.py)` \|", section, re.MULTILINE)
    there = {path.relative_to(SRC).as_posix() for path in SRC.rglob("*.py")} - {"__init__.py"}
    assert sorted(there) == sorted(listed)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    """Every link to a file of ours, and to a heading in it."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        where = (page.parent / path).resolve() if path else page
        if not where.exists() or (anchor and anchor not in anchors(where)):
            broken.append(target)
    assert [] == broken


def test_every_page_is_on_the_map() -> None:
    """The index links to every page, except to single decisions."""
    linked = {
        (DOCS / target.partition("#")[0]).resolve()
        for target in re.findall(r"\]\(([^)\s]+)\)", prose(DOCS / "index.md"))
    }
    wanted = {page for page in PAGES if page.parent.name != "decisions" and page.name != "index.md"}
    assert set() == wanted - linked


def test_guarantees_name_tests_that_exist() -> None:
    """Each test a guarantee rests on is there, under the name given."""
    named = set(re.findall(r"`([\w/]+\.py)::(\w+)`", prose(DOCS / "explanation" / "guarantees.md")))
    missing = [
        f"{file}::{name}"
        for file, name in sorted(named)
        if not (ROOT / "tests" / file).is_file()
        or name
        not in {
            node.name
            for node in ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef)
        }
    ]
    assert named
    assert [] == missing


def test_states_name_scripts_that_exist() -> None:
    """Whatever a move is said to be made by is a script, and every script that moves something is named."""
    cells = re.findall(
        r"^\| [^|]+ \| [^|]+ \| [^|]+ \| ([^|]+) \|$", prose(DOCS / "explanation" / "states.md"), re.MULTILINE
    )
    named = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    there = {path.stem for path in (SRC / "lua").glob("*.lua")}
    assert set() == named - there
    assert {
        "begin",
        "push",
        "record",
        "claim",
        "settle",
        "step",
        "settle_claim",
        "drop",
        "retry",
        "reap",
    } <= named


def example() -> list[tuple[bytes, object]]:
    """The example of the page on records: the bytes of each line, and the value it says they are."""
    text = (DOCS / "explanation" / "records.md").read_text(encoding="utf-8")
    lines = re.findall(r"^((?:[0-9a-f]{2} )*[0-9a-f]{2}) {2,}(.+)$", text, re.MULTILINE)
    return [(bytes.fromhex(hexed), value) for hexed, value in lines]


def test_the_record_of_the_page_is_one(rush: Rush, network: str, server: redis.Redis) -> None:
    """Each line of the example is what it says, together they are a value, and a real record is like it."""
    head, *parts = example()
    assert b"\x9c" == head[0]
    said = [msgspec.json.decode(str(value).encode()) for _, value in parts]
    assert said == [msgspec.msgpack.decode(data) for data, _ in parts]
    assert said == msgspec.msgpack.decode(b"".join(data for data, _ in (head, *parts)))
    with RushWorker(network, worker_id="w1") as worker:
        keys = rush.push_tasks([{"x": 1}], xs_extra={"tag": "a"}, max_retries=2)
        worker.fail_task(worker.pop_task().key)
        worker.finish_task(worker.pop_task().key, {"y": 0.5})
    row = msgspec.msgpack.decode(server.lindex(f"rl:{{{network}}}:finished", 0))
    varying = (3, 6, 8, 9)
    assert keys == [row[3]]
    assert [v for i, v in enumerate(said) if i not in varying] == [
        v for i, v in enumerate(row) if i not in varying
    ]


@pytest.fixture
def guarded_url() -> Iterator[str]:
    """A server with nothing but the account that the page on servers shows; as its URL."""
    account = re.search(
        r"^(user rushlight on >(\S+) .+)$", (DOCS / "how-to" / "server.md").read_text("utf-8"), re.MULTILINE
    )
    assert account is not None
    with tempfile.TemporaryDirectory(prefix="rl-acl-", dir="/tmp") as folder:
        config = Path(folder, "server.conf")
        config.write_text(
            f"port 0\nunixsocket {folder}/s\ndir {folder}\nsave ''\nuser default off\n{account[1]}\n"
        )
        process = subprocess.Popen([find_binary(), str(config)], stdout=subprocess.DEVNULL)
        try:
            until(lambda: Path(folder, "s").exists())
            yield f"unix://rushlight:{account[2]}@{folder}/s"
        finally:
            process.kill()
            process.wait()


def test_the_account_of_the_page_is_enough(guarded_url: str, home: Path) -> None:
    """With the rights on the page a network works, and no more than that is allowed."""
    with Rush("study", guarded_url) as rush:

        def loop(worker):
            while not worker.terminated and not worker.should_stop_when_idle:
                task = worker.pop_task(timeout=1)
                if task is not None:
                    print("at it")
                    worker.finish_task(task.key, {"y": bytes(100_000)})

        rush.start_workers(loop, 2, log_level="info")
        rush.wait_for_workers(2)
        keys = rush.push_tasks([{"x": x} for x in range(4)], priority=[3, 2, 1, 0], timeout=60, max_retries=1)
        assert keys == rush.wait_for_tasks(keys, timeout=60).done
        assert 4 == len(rush.fetch_tasks())
        assert 2 == rush.n_running_workers
        rush.stop_workers()
        rush.reset()
        with pytest.raises(Exception, match="NOPERM"):
            rush.snapshot_schedule = [(60, 1)]
