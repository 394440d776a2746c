"""Seeds of tasks: from a network's root and a task's number, or given explicitly.

Pure functions; never draws a number itself.
"""

from __future__ import annotations

from .errors import ConfigError


def encode(seed: object) -> str:
    """An explicit seed (an int of any size, at least 0) as a record's options hold it."""
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ConfigError(f"seeds: {seed!r} is not a seed: use whole numbers, at least 0")
    return f"{seed:x}"
