"""Finds the part of an object that cannot be pickled, for an error message a user can act on.

Owns that search and nothing else; never pickles anything to be kept, and never raises.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

#: Attempts at pickling a part; an object with more parts is blamed less precisely, not for longer.
_MAX_TRIES = 300
_MAX_DEPTH = 40


def label(key: object) -> str:
    """A dict key or index as it would be typed, or its type where that would be long or run user code."""
    if type(key) is str:
        return '"' + key[:40].encode("unicode_escape").decode("ascii").replace('"', '\\"') + '"'
    if type(key) in (float, bool, type(None)) or (type(key) is int and key.bit_length() <= 64):
        return repr(key)
    if type(key) is bytes:
        return repr(key[:40])
    return f"<{type(key).__qualname__}>"


def unpicklable_part(value: object, dumps: Callable[[object], object]) -> str:
    """The path, below ``value``, of the deepest part that ``dumps`` refuses; ``""`` is ``value`` itself."""
    path: list[str] = []
    seen = {id(value)}
    tries = 0
    for _ in range(_MAX_DEPTH):
        for step, part in _parts(value):
            if id(part) in seen:
                continue
            tries += 1
            if tries > _MAX_TRIES:
                return "".join(path)
            if not _accepts(dumps, part):
                seen.add(id(part))
                path.append(step)
                value = part
                break
        else:
            break
    return "".join(path)


def _accepts(dumps: Callable[[object], object], part: object) -> bool:
    try:
        dumps(part)
    except Exception:
        return False
    return True


def _parts(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, item in list(value.items()):
            yield f"[{label(key)}]", item
            yield f".key({label(key)})", key
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield f"[{index}]", item
    elif isinstance(value, set | frozenset):
        for item in list(value):
            yield f".element({label(item)})", item
    elif isinstance(value, partial):
        yield from ((".func", value.func), (".args", value.args), (".keywords", value.keywords))
    elif isinstance(value, types.MethodType):
        yield from ((".__self__", value.__self__), (".__func__", value.__func__))
    elif isinstance(value, types.FunctionType):
        yield from _parts_of_function(value)
        return
    for name, item in _state(value).items():
        yield f".{name}", item


def _parts_of_function(function: types.FunctionType) -> Iterator[tuple[str, object]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f".<closure {name}>", cell.cell_contents
        except ValueError:
            continue
    for name in function.__code__.co_names:
        if name in function.__globals__:
            yield f".<global {name}>", function.__globals__[name]
    yield ".<defaults>", function.__defaults__
    yield ".<keyword defaults>", function.__kwdefaults__


def _state(value: object) -> dict[str, Any]:
    """What pickling would look at, so that an attribute ``__getstate__`` leaves out is never blamed."""
    if isinstance(value, type | types.ModuleType):
        return {}
    try:
        reduced = value.__reduce_ex__(4)
    except Exception:
        if type(value).__reduce__ is not object.__reduce__:
            # It refuses, and says so better than what is found inside of it.
            return {}
        # User code; the object is looked at without its help.
        return dict(getattr(value, "__dict__", None) or {})
    state = reduced[2] if isinstance(reduced, tuple) and len(reduced) > 2 else None
    parts = state if isinstance(state, tuple) else (state,)
    return {str(name): item for part in parts if isinstance(part, dict) for name, item in part.items()}
