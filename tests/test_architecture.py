"""The shape of the code base: budgets, homes of names, and what the worker path may load.

The order of imports itself is a contract of import-linter (``pyproject.toml``); this file holds what
a linter cannot say.
"""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rushlight
from rushlight import _keys, _scripts, errors

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src" / "rushlight"
MODULES = sorted(SRC.rglob("*.py"))
LUA = sorted((SRC / "lua").glob("*.lua"))
LUA_PARTS = sorted((SRC / "lua" / "lib").glob("*.lua"))

MODULE_LINES = 400
FUNCTION_LINES = 50
CONSTRUCTOR_ARGUMENTS = 8
PUBLIC_METHODS = 25

#: Budgets that are exceeded on purpose: (file, name) -> (limit, why). Numbers only go down.
EXCEPTIONS: dict[tuple[str, str], tuple[int, str]] = {
    ("_wire.py", ""): (408, "one connection, one class: calls, parts, posts and waits share what comes back"),
    ("_inline.py", "InlineController"): (28, "a controller's constructor and verbs, in one place"),
    ("_controller.py", "Controller"): (
        22,
        "the contract's constructor; it makes frozen records of them at once",
    ),
    ("_manager.py", "Rush"): (60, "the contract's manager has this many verbs; it inherits the readers"),
}

#: Modules that may import ``redis``: those that connect.
REDIS_MODULES = {"_dial.py", "_sentinel.py"}
#: Libraries no worker may load before the user's own code asks for them.
HEAVY = {"asyncio", "click", "numpy", "opentelemetry", "pandas", "polars", "pyarrow", "redis", "rich", "ssl"}


def name_of(path: Path) -> str:
    """The module's path inside the package, with forward slashes."""
    return path.relative_to(SRC).as_posix()


def tree_of(path: Path) -> ast.Module:
    """The module as a syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"))


def functions_of(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method, nested ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def classes_of(tree: ast.AST) -> Iterator[ast.ClassDef]:
    """Every class, nested ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))


def length_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    doc = ast.get_docstring(function, clean=False)
    return (function.end_lineno or 0) - function.lineno + 1 - (doc.count("\n") + 1 if doc else 0)


def limit_of(path: Path, name: str, usual: int) -> int:
    """The budget of this name: the usual one, unless an exception says otherwise."""
    return EXCEPTIONS.get((name_of(path), name), (usual, ""))[0]


def imports_of(tree: ast.AST) -> set[str]:
    """Top-level names of the absolute imports anywhere in a module."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_modules_stay_small() -> None:
    """No module is longer than a reader can hold."""
    too_long = {
        name_of(path): lines
        for path in MODULES
        if (lines := path.read_text(encoding="utf-8").count("\n")) > limit_of(path, "", MODULE_LINES)
    }
    assert {} == too_long


def test_functions_stay_small() -> None:
    """No function is longer than a screen, docstring aside."""
    too_long = {
        f"{name_of(path)}:{function.name}": length_of(function)
        for path in MODULES
        for function in functions_of(tree_of(path))
        if length_of(function) > limit_of(path, function.name, FUNCTION_LINES)
    }
    assert {} == too_long


def test_constructors_take_few_arguments() -> None:
    """What takes many arguments takes a record instead."""
    too_many = {
        f"{name_of(path)}:{kind.name}": count
        for path in MODULES
        for kind in classes_of(tree_of(path))
        for function in kind.body
        if isinstance(function, ast.FunctionDef) and function.name == "__init__"
        if (count := len(function.args.args) + len(function.args.kwonlyargs) - 1)
        > limit_of(path, kind.name, CONSTRUCTOR_ARGUMENTS)
    }
    assert {} == too_many


def test_classes_have_few_public_methods() -> None:
    """A class with many verbs is two classes; the contract's manager is the documented exception."""
    too_many = {
        f"{name_of(path)}:{kind.name}": count
        for path in MODULES
        for kind in classes_of(tree_of(path))
        if (count := sum(isinstance(f, ast.FunctionDef) and not f.name.startswith("_") for f in kind.body))
        > limit_of(path, kind.name, PUBLIC_METHODS)
    }
    assert {} == too_many


def test_exceptions_to_the_budgets_are_needed() -> None:
    """An exception whose file or class has gone is deleted with it."""
    stale = [
        (file, name)
        for file, name in EXCEPTIONS
        if not (SRC / file).is_file()
        or (name and not any(getattr(node, "name", None) == name for node in ast.walk(tree_of(SRC / file))))
    ]
    assert [] == stale


def test_every_module_says_what_it_is_for() -> None:
    """Every module opens with a docstring; the version alone needs none."""
    silent = {name_of(path) for path in MODULES if not ast.get_docstring(tree_of(path))}
    assert set() == silent - {"_version.py"}


def test_every_public_class_has_a_docstring() -> None:
    """Also in private modules: public there means used by other modules."""
    undocumented = [
        f"{name_of(path)}:{node.name}"
        for path in MODULES
        for node in tree_of(path).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node)
    ]
    assert [] == undocumented


def test_keys_are_spelled_in_one_place() -> None:
    """No text that looks like a server key stands outside ``_keys``."""
    suffixes = "|".join(map(re.escape, _keys.CATALOGUE))
    key_like = re.compile(rf"^rl:|\{{[^{{}}]*\}}:({suffixes})\b|^({suffixes}):$")
    found = [
        f"{name_of(path)}:{node.lineno}: {node.value!r}"
        for path in MODULES
        if path.name != "_keys.py"
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and key_like.search(node.value)
    ]
    assert [] == found


@pytest.mark.parametrize("path", [*LUA, *LUA_PARTS], ids=lambda path: path.name)
def test_scripts_build_no_keys(path: Path) -> None:
    """A script touches only the keys it was given, so it runs on a cluster."""
    code = "\n".join(line.partition("--")[0] for line in path.read_text(encoding="utf-8").splitlines())
    assert not re.search(r"KEYS\[[^\]]+\]\s*\.\.|\.\.\s*KEYS\[|['\"]rl:", code)
    assert not re.search(r"redis\.p?call\(\s*'[A-Z]+'\s*,\s*['\"]", code), "a literal key"


@pytest.mark.parametrize("path", LUA, ids=lambda path: path.name)
def test_every_script_has_a_header_and_a_method(path: Path) -> None:
    """A script opens with why, KEYS, ARGV if any, and its reply, and has a typed face in ``_scripts``."""
    lines = path.read_text(encoding="utf-8").splitlines()
    header = list(itertools.takewhile(lambda line: line.startswith("--"), lines))
    text, code = "\n".join(header), "\n".join(lines[len(header) :])
    wanted = ["KEYS", "ARGV", "Reply"] if "ARGV" in code else ["KEYS", "Reply"]
    assert [] == [word for word in wanted if word.lower() not in text.lower()]
    prose = [h for h in header if not re.match(r"--\s*(include:|KEYS|ARGV|Reply)", h, re.IGNORECASE)]
    assert prose, "the header does not say what the script is for"
    faces = [name for name in dir(_scripts.Scripts) if name == path.stem or name.startswith(f"{path.stem}_")]
    assert faces


def test_every_declared_script_is_a_file() -> None:
    """The table of scripts and the folder agree."""
    assert sorted(path.stem for path in LUA) == sorted(_scripts.NAMES)


def test_redis_is_imported_only_where_connections_are_made() -> None:
    """The client library is known to those alone who open sockets."""
    users = {name_of(path) for path in MODULES if "redis" in imports_of(tree_of(path))}
    assert set() == users - REDIS_MODULES


def test_click_and_rich_are_imported_only_by_the_command_line() -> None:
    """Workers do not pay for the command line, nor for the bar of a controller's ``map``."""
    users = {name_of(path) for path in MODULES if imports_of(tree_of(path)) & {"click", "rich"}}
    assert set() == {name for name in users if not name.startswith("cli/")} - {"_mapping.py"}


def test_modules_do_not_import_the_front_door() -> None:
    """Only the command line takes names from ``rushlight`` itself; the rest names a module below it."""
    offenders = []
    for path in MODULES:
        if name_of(path).startswith(("cli/", "__main__")):
            continue
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ImportFrom) and node.module == "rushlight" and not node.level:
                names = [alias.name for alias in node.names if not (SRC / f"{alias.name}.py").is_file()]
                offenders += [f"{name_of(path)}: {name}" for name in names]
    assert [] == offenders


def test_own_modules_are_imported_at_the_top() -> None:
    """A function-local import of our own hides a circle; type-checking blocks hide one too."""
    hidden = []
    for path in MODULES:
        if path.name == "__main__.py":  # chooses between two programs, of which one must stay light
            continue
        tree = tree_of(path)
        top = set(tree.body)
        for node in ast.walk(tree):
            ours = isinstance(node, ast.ImportFrom) and (
                node.level or (node.module or "").partition(".")[0] == "rushlight"
            )
            if ours and node not in top and name_of(path) != "__init__.py":
                hidden.append(f"{name_of(path)}:{node.lineno}")
    assert [] == hidden


def test_exports_are_sorted_and_exist() -> None:
    """``__all__`` is sorted, has no stranger in it, and misses no public name."""
    exported = rushlight.__all__
    assert sorted(exported) == list(exported)
    assert [] == [name for name in exported if not hasattr(rushlight, name)]
    public = {
        name
        for name, value in vars(rushlight).items()
        if not name.startswith("_") and not hasattr(value, "__path__") and type(value).__name__ != "module"
    }
    assert set() == public - set(exported) - {"annotations"}


def test_errors_are_names_of_the_package() -> None:
    """Whoever has the name of an error from its traceback can write it behind ``rushlight.``."""
    raised = {name: value for name, value in vars(errors).items() if isinstance(value, type)}
    raised = {name: value for name, value in raised.items() if issubclass(value, (Exception, Warning))}
    assert raised == {name: getattr(rushlight, name, None) for name in raised}


def test_no_open_ends() -> None:
    """Nothing is left for later inside the code."""
    word = "TO" + "DO"
    open_ends = re.compile(
        rf"\b({word}|FIX" + r"ME|X" + r"XX)\b|raise NotImplementedError|^\s*pass\s*#", re.MULTILINE
    )
    texts = [*MODULES, *LUA, *LUA_PARTS, *(ROOT / "tests").rglob("*.py"), *(ROOT / "examples").rglob("*.py")]
    found = [path.name for path in texts if open_ends.search(path.read_text(encoding="utf-8"))]
    assert [] == [name for name in found if name != Path(__file__).name]


def test_tests_do_not_sleep() -> None:
    """A test waits for the event, with a deadline."""
    sleepers = []
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Attribute) and ast.unparse(called) == "time.sleep":
                sleepers.append(f"{path.name}:{node.lineno}")
    assert [] == sleepers


@pytest.mark.parametrize(
    "module", ["rushlight._entry", "rushlight._supervisor", "rushlight._worker", "rushlight"]
)
def test_the_worker_path_loads_no_heavy_library(module: str) -> None:
    """Every worker that is started pays for what this path imports."""
    code = f"import sys, {module}; print(*sorted(set({sorted(HEAVY)!r}) & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert "" == done.stdout.strip()


def test_the_readme_is_short() -> None:
    """A stranger reads the README to its end."""
    assert (ROOT / "README.md").read_text(encoding="utf-8").count("\n") <= 120
