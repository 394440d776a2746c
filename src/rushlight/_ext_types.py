"""The registry of dataclasses and Enums that read back as themselves.

Owns ``register_type`` and what is rebuilt through it. Bytes can only pick among the classes this
process registered: an unknown name is plain data, and is never imported.
"""

from __future__ import annotations

import dataclasses
from enum import Enum
from typing import Any, TypeVar

from .errors import ConfigError

_T = TypeVar("_T", bound=type)

_classes: dict[str, type] = {}
_names: dict[type, str] = {}


def register_type(cls: _T) -> _T:
    """Let instances of this dataclass or Enum read back as themselves; usable as a decorator.

    Only the process that reads needs it for reading and the one that writes for writing, so put it
    where the class is defined. Classes are known by module and qualified name; registering another
    class under a known name (running a notebook's cell again) replaces it. A dataclass is rebuilt
    from its fields without calling ``__init__`` or ``__post_init__``. Raises ConfigError for
    anything but a dataclass or Enum class.
    """
    if not isinstance(cls, type) or not (issubclass(cls, Enum) or dataclasses.is_dataclass(cls)):
        shown = cls.__qualname__ if isinstance(cls, type) else f"an instance of {type(cls).__qualname__}"
        raise ConfigError(f"register_type takes a dataclass or an Enum class, got {shown}")
    name = f"{cls.__module__}:{cls.__qualname__}"
    _names[cls] = name
    _classes[name] = cls
    return cls


def registered_name(cls: type) -> str | None:
    return _names.get(cls)


def restore_enum(name: str, member: str | None, value: Any) -> Any:
    """The member, or ``value`` where the class or the member is not known here."""
    cls = _classes.get(name)
    if cls is None or not issubclass(cls, Enum):
        return value
    found = cls.__members__.get(member) if member is not None else None
    if found is not None:
        return found
    try:
        return cls(value)
    except (ValueError, TypeError):
        return value


def restore_dataclass(name: str, values: dict[str, Any]) -> Any:
    """The instance, or the dict of its fields where the class is not known here or has outgrown them."""
    cls = _classes.get(name)
    if cls is None or not dataclasses.is_dataclass(cls):
        return values
    instance = cls.__new__(cls)
    for field in dataclasses.fields(cls):
        if field.name in values:
            value = values[field.name]
        elif field.default is not dataclasses.MISSING:
            value = field.default
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        else:
            return values
        object.__setattr__(instance, field.name, value)
    return instance
