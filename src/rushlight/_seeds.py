"""Seeds: how they are written down, which sequence of random numbers a task gets, and putting it in force.

The words of a sequence are those of ``numpy.random.SeedSequence``, also where NumPy is not installed: what a
seed means does not depend on that. Pure but for ``in_force``; knows nothing of networks.
"""

from __future__ import annotations

import hashlib
import importlib.util
import operator
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from .errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from numpy.random import SeedSequence


@dataclass(frozen=True, slots=True)
class Seed:
    """What a ``SeedSequence`` is made from. ``entropy``: one number or several, not negative."""

    entropy: int | tuple[int, ...]
    spawn_key: tuple[int, ...] = ()

    @classmethod
    def of(cls, seed: Any, name: str = "seed") -> Self:
        """From what users pass: a whole number that is not negative, or a SeedSequence."""
        if isinstance(seed, cls):
            return seed
        if hasattr(seed, "spawn_key") and hasattr(seed, "entropy"):
            entropy = seed.entropy
            several = isinstance(entropy, Sequence) or hasattr(entropy, "__array__")
            if not several:
                return cls(_number(entropy, name), tuple(map(int, seed.spawn_key)))
            return cls(tuple(_number(n, name) for n in entropy), tuple(map(int, seed.spawn_key)))
        return cls(_number(seed, name))

    def child(self, *steps: int) -> Seed:
        """The seed under this one: ``child(i)`` is the i-th (from 0) that ``spawn`` would make."""
        return Seed(self.entropy, (*self.spawn_key, *steps))

    def sequence(self) -> SeedSequence:
        """As NumPy has it; MissingExtra without NumPy."""
        try:
            from numpy.random import SeedSequence
        except ImportError as error:
            text = "a SeedSequence needs NumPy: pip install 'rushlight[numpy]'"
            raise MissingExtra(text, extra="numpy") from error
        entropy = self.entropy if isinstance(self.entropy, int) else list(self.entropy)
        return SeedSequence(entropy, spawn_key=self.spawn_key)

    def words(self, n: int) -> list[int]:
        """``sequence().generate_state(n)``."""
        return _generate(_pool(self), n)


def encode(seed: Any, name: str = "seed") -> str:
    """A seed as text that scripts and records can carry; ConfigError for what is none."""
    made = Seed.of(seed, name)
    entropy = (made.entropy,) if isinstance(made.entropy, int) else (*made.entropy, "")
    text = ",".join(n if isinstance(n, str) else format(n, "x") for n in entropy)
    return "/".join([text, *(format(n, "x") for n in made.spawn_key)])


def public(text: str | None) -> Any:
    """A task's own seed as a user would have written it; None where it has none."""
    if text is None:
        return None
    seed = decode(text)
    plain = isinstance(seed.entropy, int) and not seed.spawn_key
    return seed.entropy if plain else seed.sequence()


def decode(text: str) -> Seed:
    """The seed ``encode`` wrote."""
    entropy, *key = text.split("/")
    numbers = tuple(int(part, 16) for part in entropy.split(",") if part)
    return Seed(numbers if "," in entropy else numbers[0], tuple(int(part, 16) for part in key))


def from_epoch(epoch: str) -> Seed:
    """The root of a network nobody gave a seed: new with every network and every reset."""
    return Seed(int.from_bytes(hashlib.sha256(epoch.encode()).digest()[:16], "big"))


def of_task(root: Callable[[], Seed], seq: int, own: Any, reseeded: int) -> Seed:
    """The seed of the task with creation number ``seq`` (from 1). ``own``: the one it was pushed with, else
    the root's is asked for; ``reseeded``: how often a retry gave it the next one."""
    seed = Seed.of(own) if own is not None else root().child(seq - 1)
    return seed.child(reseeded) if reseeded else seed


@contextmanager
def in_force(seed: Seed) -> Iterator[None]:
    """For the block, ``random`` and NumPy's global functions start from the seed; then they are as before.

    Both are the process's, not the thread's.
    """
    before = state()
    try:
        put(seed)
        yield
    finally:
        restore(before)


def state() -> tuple[Any, Any]:
    """What ``restore`` needs."""
    np_random = _np_random()
    if np_random is None:
        return random.getstate(), None
    return random.getstate(), (np_random.get_bit_generator(), np_random.get_state(legacy=False))


def put(seed: Seed) -> None:
    """Starts the global generators from the seed: ``random`` from the first 8 words of its sequence, NumPy's
    from the next 8, since the two are one algorithm and would give the same numbers from the same words."""
    np_random = _np_random()
    if np_random is None:
        words = seed.words(8)
    else:
        words = seed.sequence().generate_state(16).tolist()
        if not isinstance(np_random.get_bit_generator(), np_random.MT19937):
            np_random.set_bit_generator(np_random.MT19937())
        np_random.seed(words[8:])
    random.seed(sum(word << 32 * i for i, word in enumerate(words[:8])))


def restore(before: tuple[Any, Any]) -> None:
    """Gives the global generators back the state they had."""
    random.setstate(before[0])
    np_random = _np_random()
    if np_random is not None and before[1] is not None:
        np_random.set_bit_generator(before[1][0])
        np_random.set_state(before[1][1])


def _np_random() -> Any:
    """``numpy.random``; imported where it can be, as code that runs later may import it too."""
    if "numpy" not in sys.modules and importlib.util.find_spec("numpy") is None:
        return None
    import numpy.random

    return numpy.random


def _number(value: Any, name: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if isinstance(value, bool) or number < 0:
        raise ConfigError(
            f"{name}={value!r} must be a whole number that is not negative, or a numpy.random.SeedSequence",
            value=value,
        ) from None
    return number


# --- SeedSequence, as NumPy defines it ------------------------------------------------------------

_ALL = 0xFFFFFFFF
_POOL = 4
_INIT_A, _MULT_A = 0x43B0D7E5, 0x931E8875
_INIT_B, _MULT_B = 0x8B51F9DD, 0x58F38DED
_MIX_LEFT, _MIX_RIGHT = 0xCA01F9DD, 0x4973F715


class _Hash:
    def __init__(self, start: int, multiplier: int) -> None:
        self._constant, self._multiplier = start, multiplier

    def __call__(self, word: int) -> int:
        word ^= self._constant
        self._constant = self._constant * self._multiplier & _ALL
        word = word * self._constant & _ALL
        return word ^ word >> 16


def _mix(x: int, y: int) -> int:
    result = (_MIX_LEFT * x - _MIX_RIGHT * y) & _ALL
    return result ^ result >> 16


def _words_of(number: int) -> list[int]:
    words = [number & _ALL]
    while number := number >> 32:
        words.append(number & _ALL)
    return words


def _pool(seed: Seed) -> list[int]:
    numbers = (seed.entropy,) if isinstance(seed.entropy, int) else seed.entropy
    entropy = [word for number in numbers for word in _words_of(number)]
    if seed.spawn_key:
        entropy += [0] * (_POOL - len(entropy))
        entropy += [word for number in seed.spawn_key for word in _words_of(number)]
    hashed = _Hash(_INIT_A, _MULT_A)
    pool = [hashed(entropy[i] if i < len(entropy) else 0) for i in range(_POOL)]
    for source in range(_POOL):
        for target in range(_POOL):
            if source != target:
                pool[target] = _mix(pool[target], hashed(pool[source]))
    for word in entropy[_POOL:]:
        for target in range(_POOL):
            pool[target] = _mix(pool[target], hashed(word))
    return pool


def _generate(pool: list[int], n: int) -> list[int]:
    hashed = _Hash(_INIT_B, _MULT_B)
    return [hashed(pool[i % _POOL]) for i in range(n)]
