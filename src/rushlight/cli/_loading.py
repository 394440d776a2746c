"""From ``FILE.py:LOOP`` on the command line to a function. Never starts anything."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

from rushlight.errors import ConfigError

Loop = Callable[..., Any]


def load_loop(target: str) -> Loop:
    """The function that ``FILE.py:LOOP`` names; ConfigError says what is wrong with the name.

    The file runs once, as a module of its own (``if __name__ == "__main__"`` does not apply). Its
    functions travel to the workers by value, so workers need not find the file; the modules beside
    it are found as they are by ``python FILE.py``, by local workers too, who get this ``sys.path``.
    """
    path, name = split_target(target)
    module = _run_file(path)
    found = getattr(module, name, None)
    if found is None:
        raise ConfigError(_no_such_function(path, name, module), value=target)
    if not callable(found):
        raise ConfigError(
            f"{name!r} in {path} is no function but {type(found).__name__}: a worker loop is "
            f"`def {name}(worker, ...)`",
            value=target,
        )
    loop: Loop = found
    return loop


def split_target(target: str) -> tuple[Path, str]:
    """The two parts of ``FILE.py:LOOP``, when the file exists."""
    file, colon, name = target.rpartition(":")
    if not colon or not file or not name.isidentifier():
        raise ConfigError(
            f"{target!r} does not name a worker loop: write FILE.py:LOOP, such as "
            "examples/random_search.py:random_search",
            value=target,
        )
    path = Path(file)
    if not path.exists():
        place = "" if path.is_absolute() else f" (looked in {Path.cwd()})"
        raise ConfigError(f"no such file: {file}{place}", value=target)
    if not path.is_file():
        raise ConfigError(f"{file} is not a file: write FILE.py:LOOP", value=target)
    return path, name


def functions_of(module: ModuleType) -> list[str]:
    """The public functions that ``module`` itself defines, in the order of the file."""
    return [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    ]


def parse_kwargs(text: str | None) -> dict[str, Any]:
    """The loop's keyword arguments from a JSON object."""
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"--kwargs {text!r} is not JSON ({error.msg} at character {error.pos + 1}): write an object, "
            "such as '{\"n\": 100}'",
            value=text,
        ) from error
    if not isinstance(value, dict):
        raise ConfigError(
            f"--kwargs {text!r} is not a JSON object: write one, such as '{{\"n\": 100}}'", value=text
        )
    return value


def _no_such_function(path: Path, name: str, module: ModuleType) -> str:
    functions = functions_of(module)
    if not functions:
        return f"no function {name!r} in {path}: it defines no public function"
    near = difflib.get_close_matches(name, functions, 1)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    return f"no function {name!r} in {path}: it has {', '.join(functions)}{guess}"


def _run_file(path: Path) -> ModuleType:
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module_name = _module_name(path)
    spec = importlib.util.spec_from_file_location(module_name, path.resolve())
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is not a Python file: write FILE.py:LOOP", value=str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[module_name]
        raise ConfigError(
            f"{path} cannot be loaded: {type(error).__name__}: {error}", value=str(path)
        ) from error
    cloudpickle.register_pickle_by_value(module)
    return module


def _module_name(path: Path) -> str:
    """The file's own name, unless that is another module's already."""
    stem = path.stem
    taken = stem in sys.modules or stem in sys.stdlib_module_names
    return f"{stem}_file" if taken or not stem.isidentifier() else stem
