"""Checks arguments of the public methods before anything is encoded or sent."""

from __future__ import annotations

import inspect
import logging
import math
import numbers
import operator
import os
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from ._records import TaskState
from .errors import ConfigError, escaped

DEFAULT_CONDITION = "Task failed"
#: Characters of one text of a condition.
_LONGEST_MESSAGE = 32_768
_LARGEST = 2**53
#: Seconds; thirty years.
LONGEST = 1e9


def task_batch(values: object, name: str) -> list[Mapping[str, Any]]:
    """A list of dicts; raises ConfigError naming the item that is none."""
    if isinstance(values, (Mapping, str, bytes)) or not isinstance(values, Iterable):
        hint = f"; for one task write [{name[:-1]}]" if isinstance(values, Mapping) else ""
        raise ConfigError(f"{name} must be a list of dicts, one per task, got {_kind(values)}{hint}")
    batch = list(values)
    if not (set(map(type, batch)) <= {dict} and set(map(type, chain.from_iterable(batch))) <= {str}):
        for i, value in enumerate(batch):
            one_task(value, f"{name}[{i}]")
    return batch


def one_task(value: object, name: str) -> Mapping[str, Any]:
    """A dict of names to values."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} must be a dict of names to values, got {_kind(value)}")
    for key in value:
        if type(key) is not str:
            raise ConfigError(f"{name}: names must be str, got {key!r} ({type(key).__name__})")
    return value


def matching(values: object, n: int, name: str, to: str) -> list[Mapping[str, Any] | None]:
    """None or one dict for all tasks, or a list with one dict (or None) each."""
    if values is None:
        return [None] * n
    if isinstance(values, Mapping):
        return [one_task(values, name)] * n
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise ConfigError(f"{name} must be a dict, or a list of dicts, got {_kind(values)}")
    batch = list(values)
    same_length(batch, n, name, to)
    return [None if v is None else one_task(v, f"{name}[{i}]") for i, v in enumerate(batch)]


def same_length(values: Sequence[Any], n: int, name: str, to: str) -> None:
    """Raises ConfigError where two lists that belong together differ in length."""
    if len(values) != n:
        raise ConfigError(
            f"{name} has {len(values)} item(s) and {to} has {n}: give one per task", lengths=(len(values), n)
        )


def key_list(keys: object, name: str = "keys") -> list[str]:
    """A list of task keys or worker ids; raises ConfigError for anything that is none."""
    if isinstance(keys, (str, bytes)) or not isinstance(keys, Iterable):
        raise ConfigError(f"{name} must be a list of str, got {_kind(keys)}")
    found = list(keys)
    if not (set(map(type, found)) <= {str} and all(map(str.isascii, found))):
        for i, key in enumerate(found):
            one_key(key, f"{name}[{i}]")
    return found


def one_key(key: object, name: str = "key") -> str:
    """One task key."""
    if not isinstance(key, str):
        raise ConfigError(f"{name} must be a str, got {_kind(key)}")
    if not key.isascii():
        unicode(key, name)
    return key


def unicode(text: str, name: str) -> str:
    """Text that can be sent; raises ConfigError for a lone half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{name} is not valid Unicode: {text!a:.80}") from None
    return text


def state_list(states: object) -> list[TaskState]:
    """Task states from names; None is all of them."""
    if states is None:
        return list(TaskState)
    if isinstance(states, str):
        states = [states]
    if not isinstance(states, Iterable):
        raise ConfigError(f"states must be a list of states, got {_kind(states)}")
    return [one_state(state) for state in states]


def one_state(state: object) -> TaskState:
    """A task state from its name."""
    try:
        return TaskState(state)
    except ValueError as error:
        raise ConfigError(
            f"{state!r} is not a task state; there are {', '.join(TaskState)}", state=state
        ) from error


def plain(value: object) -> object:
    """NumPy's and others' numbers as Python's own; all else as it is."""
    if type(value) in (int, float, bool) or value is None:
        return value
    if isinstance(value, numbers.Integral):
        return operator.index(value)
    return float(value) if isinstance(value, numbers.Real) else value


def seconds(
    value: object, name: str, *, none: bool = False, least: float = 0.0, most: float = math.inf
) -> float | None:
    """A number of seconds; None only where it means something."""
    if type(value) is float and least <= value < most:
        return value
    value = plain(value)
    if value is None and none:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        extra = f" and at most {most:g}" if most < math.inf else " or None" if none else ""
        raise ConfigError(f"{name}={value!r} must be a number of seconds, at least {least:g}{extra}")
    return None if math.isinf(value) and none else float(value)


def lease(value: object) -> float:
    """Seconds for which a worker may be silent."""
    return patience(value, "lease", least=0.1)


def patience(value: object, name: str, least: float = 1e-3) -> float:
    """Seconds to wait for an answer: some, and not for ever."""
    found = seconds(value, name, least=least, most=LONGEST)
    assert found is not None
    return found


def ratio(value: object, name: str) -> float:
    """How many there are of one thing for one of another."""
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1e-6 <= value < math.inf:
        raise ConfigError(f"{name}={value!r} must be a number, at least 1e-06")
    return float(value)


def time_limits(values: object, n: int, name: str) -> list[float | None]:
    """Seconds each task may run, more than none; None and infinity for no limit. One for all, or a list."""
    found = each(values, n, name, float)
    return [None if value is None else _time_limit(value, name) for value in found]


def _time_limit(value: float, name: str) -> float | None:
    limit = seconds(value, name, none=True)
    if limit is not None and not 0 < limit <= LONGEST:
        raise ConfigError(
            f"{name}={value!r} must be a number of seconds, more than 0 and at most {LONGEST:g}"
        )
    return limit


def count(value: object, name: str, least: int = 0) -> int:
    """A whole number."""
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name}={value!r} must be a whole number, at least {least}")
    return _exact(value, name)


def _exact(value: int, name: str) -> int:
    """The number, if scripts can count with it: they know numbers as doubles."""
    if abs(value) > _LARGEST:
        raise ConfigError(f"{name}={value!r} is too large: at most 2**53")
    return value


def counts(values: object, n: int, name: str) -> list[int]:
    """One whole number for all tasks, or a list with one each."""
    values = plain(values)
    if isinstance(values, int):
        return [count(values, name)] * n
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise ConfigError(f"{name} must be a whole number or a list of them, got {_kind(values)}")
    batch = list(values)
    same_length(batch, n, name, "xss")
    return [count(value, f"{name}[{i}]") for i, value in enumerate(batch)]


def each(values: object, n: int, name: str, kind: type) -> list[Any]:
    """One value (or None) for all tasks, or a list with one each."""
    kinds = (int, float) if kind is float else (kind,)
    values = plain(values)
    if values is None or isinstance(values, kinds):
        return [_one_of(values, name, kinds)] * n
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise ConfigError(f"{name} must be {kind.__name__} or a list of them, got {_kind(values)}")
    found = list(values)
    same_length(found, n, name, "xss")
    return [_one_of(value, f"{name}[{i}]", kinds) for i, value in enumerate(found)]


def _one_of(value: object, name: str, kinds: tuple[type, ...]) -> Any:
    value = plain(value)
    if value is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
        raise ConfigError(f"{name} must be {kinds[-1].__name__} or None, got {_kind(value)}")
    if isinstance(value, str) and not value.isascii():
        unicode(value, name)
    return _exact(value, name) if kinds == (int,) and isinstance(value, int) else value


def seeds(values: object, n: int) -> list[Any]:
    """None for all tasks, or a list with one seed (or None) each."""
    if values is None:
        return [None] * n
    if isinstance(values, (str, bytes, int)) or not isinstance(values, Iterable):
        raise ConfigError(f"seeds must be a list with one seed per task, got {_kind(values)}")
    batch = list(values)
    same_length(batch, n, "seeds", "xss")
    return batch


def prerequisites(values: object, n: int) -> list[list[str] | None]:
    """A key, or keys, all tasks wait for, or a list with the keys (or None) each waits for."""
    if values is None:
        return [None] * n
    if isinstance(values, str):
        values = [values]
    if isinstance(values, bytes) or not isinstance(values, Iterable):
        raise ConfigError(f"after must be a list of keys, or one such list per task, got {_kind(values)}")
    batch = list(values)
    if all(isinstance(value, str) for value in batch):
        return [list(dict.fromkeys(batch)) or None] * n
    same_length(batch, n, "after", "xss")
    return [
        None if v is None else list(dict.fromkeys(key_list(v, f"after[{i}]"))) for i, v in enumerate(batch)
    ]


def loop_of(value: object, kwargs: Mapping[str, Any]) -> Callable[..., Any]:
    """A function that can be called with a worker and these arguments."""
    if not callable(value):
        raise ConfigError(f"loop must be a function loop(worker, **kwargs), got {value!r}")
    if any(is_other(value) for is_other in _NO_LOOPS):
        raise ConfigError(
            f"loop must be a plain function loop(worker, **kwargs), as nobody awaits it: {value!r}"
        )
    try:
        check_call(value, None, kwargs)
    except TypeError as error:
        raise ConfigError(str(error), value=kwargs) from error
    return value


_NO_LOOPS = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)


def check_call(loop: Callable[..., Any], worker: object, kwargs: Mapping[str, Any]) -> None:
    """Raises TypeError where a loop cannot be called so."""
    try:
        signature = inspect.signature(loop)
    except ValueError:
        # Some functions written in C do not tell theirs.
        return
    try:
        signature.bind(worker, **kwargs)
    except TypeError as error:
        given = ", ".join(["worker", *(f"{name}=..." for name in kwargs)])
        name = getattr(loop, "__qualname__", repr(loop))
        raise TypeError(f"the loop {name}{signature} cannot be called with ({given}): {error}") from None


def log_level(value: object) -> str | None:
    """The name of a level of ``logging``."""
    if value is None:
        return None
    if isinstance(value, str) and value.upper() in logging.getLevelNamesMapping():
        return value.upper()
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ConfigError(
        f"log_level={value!r} is not a level of logging; use 'debug', 'info', 'warning', 'error'"
    )


def directory(value: object, name: str) -> str:
    """The absolute path of a directory that exists."""
    if not isinstance(value, (str, os.PathLike)):
        raise ConfigError(f"{name} must be a path, got {_kind(value)}")
    path = os.path.abspath(os.fspath(value))
    if not os.path.isdir(path):
        raise ConfigError(f"{name}={str(path)!r} is not a directory: make it first")
    return str(path)


def condition(value: object) -> dict[str, Any]:
    """What a failed task shall say of its failure: an exception, a text, or a dict with ``message``."""
    if value is None:
        return {"message": DEFAULT_CONDITION}
    if isinstance(value, str):
        return {"message": _message(value)}
    if isinstance(value, BaseException):
        return {
            "message": _message(str(value)) or type(value).__name__,
            "type": type(value).__qualname__,
            "traceback": _message("".join(traceback.format_exception(value))),
        }
    if isinstance(value, Mapping):
        said = dict(one_task(value, "condition"))
        if not isinstance(said.get("message"), str):
            raise ConfigError("condition: a dict must have a str under 'message'")
        return {name: _message(text) if isinstance(text, str) else text for name, text in said.items()}
    raise ConfigError(f"condition must be an exception, a str or a dict with 'message', got {_kind(value)}")


def _message(text: str) -> str:
    """Words for people, which every table has: valid Unicode, and cut where they are longer than anybody
    reads."""
    if len(text) > _LONGEST_MESSAGE:
        half = _LONGEST_MESSAGE // 2
        text = f"{text[:half]} ... ({len(text)} characters) ... {text[-half:]}"
    return escaped(text)


def conditions(values: object, n: int, to: str = "keys") -> list[dict[str, Any]]:
    """One condition for all tasks, or a list with one each."""
    if values is None or isinstance(values, (str, BaseException, Mapping)):
        return [condition(values)] * n
    if not isinstance(values, Iterable):
        raise ConfigError(f"conditions must be a list, one per task, got {_kind(values)}")
    batch = list(values)
    same_length(batch, n, "conditions", to)
    return [condition(value) for value in batch]


def _kind(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) < 60 else text[:57] + '...'}"
