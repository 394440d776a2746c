"""Whether a function still means what it meant when it was pickled.

A function drags along what it refers to: closed-over variables and globals. Pure; pickles nothing.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, Final

from ._trust import _is_the_users

#: Values that cannot change; a name that is bound anew is noticed.
_FIXED: Final = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    types.ModuleType,
    types.BuiltinFunctionType,
)
_DEPTH: Final = 4
_MISSING: Final = object()


class Watch:
    """The values a function refers to, where they were found."""

    __slots__ = ("_cells", "_names", "_nothing")

    def __init__(self, names: list[tuple[dict[str, Any], str, Any]], cells: list[tuple[Any, Any]]) -> None:
        self._names = names
        self._cells = cells
        self._nothing = not names and not cells

    def unchanged(self) -> bool:
        """True where each is still the same object."""
        if self._nothing:
            return True
        return all(space.get(name, _MISSING) is value for space, name, value in self._names) and all(
            _content(cell) is value for cell, value in self._cells
        )


def watch(fn: Callable[..., Any]) -> Watch | None:
    """What to look at to know whether the function has changed; None where that cannot be told, because it
    refers to something that can change in itself (a list, an object)."""
    names: list[tuple[dict[str, Any], str, Any]] = []
    cells: list[tuple[Any, Any]] = []
    return Watch(names, cells) if _gather(fn, names, cells, set(), _DEPTH) else None


def _gather(value: Any, names: list[Any], cells: list[Any], seen: set[int], depth: int) -> bool:
    if isinstance(value, _FIXED) or id(value) in seen:
        return True
    if isinstance(value, tuple):
        return len(value) <= 32 and all(_gather(item, names, cells, seen, depth) for item in value)
    if not isinstance(value, types.FunctionType | type):
        return False
    home = sys.modules.get(value.__module__)
    if home is not None and value.__module__ not in ("__main__", "__mp_main__") and not _is_the_users(home):
        # Sent by its name.
        return True
    if isinstance(value, type):
        return False
    seen.add(id(value))
    if depth == 0 or value.__dict__:
        return False
    defaults = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    if not all(_gather(item, names, cells, seen, depth - 1) for item in defaults):
        return False
    for cell in value.__closure__ or ():
        content = _content(cell)
        cells.append((cell, content))
        if content is not _MISSING and not _gather(content, names, cells, seen, depth - 1):
            return False
    space = value.__globals__
    for name in set(_names(value.__code__)):
        found = space.get(name, _MISSING)
        names.append((space, name, found))
        if found is not _MISSING and not _gather(found, names, cells, seen, depth - 1):
            return False
    return True


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _MISSING
