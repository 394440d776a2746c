"""R's parallel random numbers: ``mrg32k3a(seed)`` is R's ``RNGkind("L'Ecuyer-CMRG"); set.seed(seed)``.

For carrying on a study that began in R: the same seed gives the same numbers, bit for bit, and the same
streams (``parallel::nextRNGStream``). Owns the generator MRG32k3a (L'Ecuyer 1999) and R's ways of making
uniforms, normals and indices from it; knows nothing of networks. New studies need none of this: see
``worker.seed_sequence``.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Self

from .errors import ConfigError, MissingExtra

_M1, _M2 = 4294967087, 4294944443
_NORM = 2.328306549295727688e-10
#: One step of each component: the new last element of its three.
_A12, _A13, _A21, _A23 = 1403580, 810728, 527612, 1370589
_STREAM, _SUBSTREAM = 127, 76
#: First element of R's ``.Random.seed``: this generator with inversion, and how ``sample`` rounds.
_KIND = 10407
_KINDS = (407, 10407)

_Matrix = tuple[tuple[int, ...], ...]


class MRG32k3a:
    """A stream of L'Ecuyer's combined multiple-recursive generator, as R has it.

    Not thread-safe. Two with the same ``state`` are equal and give the same numbers.
    """

    __slots__ = ("_kind", "_x", "_y")

    def __init__(self, state: Sequence[int]) -> None:
        self._kind, self._x, self._y = _checked(state)

    @classmethod
    def from_r_seed(cls, seed: int) -> Self:
        """The generator after R's ``RNGkind("L'Ecuyer-CMRG"); set.seed(seed)``; ``seed`` is an R integer."""
        number = _whole(seed, "seed")
        if not -(2**31) < number < 2**31:
            raise ConfigError(f"seed={seed!r} is no R integer: it must be within +-{2**31 - 1}", value=seed)
        number %= 2**32
        for _ in range(50):
            number = _scramble(number)
        words = []
        for _ in range(6):
            number = _scramble(number)
            while number >= _M2:
                number = _scramble(number)
            words.append(number)
        return cls([_KIND, *map(_signed, words)])

    @classmethod
    def from_state(cls, state: Sequence[int]) -> Self:
        """The generator at R's ``.Random.seed``: seven integers, the first 10407 or 407."""
        return cls(state)

    @property
    def state(self) -> list[int]:
        """What R would hold in ``.Random.seed``: seven signed integers."""
        return [self._kind, *map(_signed, (*self._x, *self._y))]

    def next_stream(self) -> Self:
        """A generator 2^127 numbers ahead: ``parallel::nextRNGStream``. This one stays where it is."""
        return self._jumped(_STREAM)

    def next_substream(self) -> Self:
        """A generator 2^76 numbers ahead, in the same stream: ``parallel::nextRNGSubStream``."""
        return self._jumped(_SUBSTREAM)

    def random(self, size: int | None = None) -> Any:
        """A float in (0, 1), as ``runif(1)``; with ``size`` a NumPy array, as ``runif(size)``."""
        return self._uniform() if size is None else _array(self._uniform, size)

    def normal(self, size: int | None = None) -> Any:
        """A standard normal number by inversion, R's default: ``rnorm(1)``; with ``size`` a NumPy array."""
        return self._normal() if size is None else _array(self._normal, size)

    def integers(self, low: int, high: int | None = None) -> int:
        """A whole number from ``low`` (0 if only one is given) up to, not including, ``high``: R's
        ``low - 1 + sample.int(high - low, 1)``, by rejection as R does since 3.6."""
        start, stop = (0, low) if high is None else (low, high)
        span = _whole(stop, "high") - _whole(start, "low")
        if not 0 < span <= 2**52:
            raise ConfigError(f"integers({low!r}, {high!r}): there must be 1 to 2^52 numbers to choose from")
        if self._kind == _KINDS[0]:
            # Sampling before R 3.6 rounded, which is slightly uneven for large spans.
            return start + math.floor(span * self._uniform())
        bits = (span - 1).bit_length()
        while (found := self._bits(bits)) >= span:
            continue
        return start + found

    def __eq__(self, other: object) -> bool:
        return self.state == other.state if isinstance(other, MRG32k3a) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it changes with every number

    def __repr__(self) -> str:
        return f"MRG32k3a({self.state})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.state,)

    def _uniform(self) -> float:
        x0, x1, x2 = self._x
        y0, y1, y2 = self._y
        p1 = (_A12 * x1 - _A13 * x0) % _M1
        p2 = (_A21 * y2 - _A23 * y0) % _M2
        self._x = x1, x2, p1
        self._y = y1, y2, p2
        return (p1 - p2 if p1 > p2 else p1 - p2 + _M1) * _NORM

    def _normal(self) -> float:
        big = 134217728
        head = int(big * self._uniform())
        return _quantile((head + self._uniform()) / big)

    def _bits(self, n: int) -> int:
        """As R's ``rbits``: it takes one uniform more than needed where n is a multiple of 16."""
        value = 0
        for _ in range(0, n + 1, 16):
            value = 65536 * value + math.floor(self._uniform() * 65536)
        return value & ((1 << n) - 1)

    def _jumped(self, power: int) -> Self:
        one, two = _jumps(power)
        ahead = (*_times(one, self._x, _M1), *_times(two, self._y, _M2))
        return type(self)([self._kind, *map(_signed, ahead)])


def mrg32k3a(seed: int | Sequence[int]) -> MRG32k3a:
    """A generator from what R was seeded with: an integer (``set.seed``), or seven (``.Random.seed``)."""
    return MRG32k3a(list(seed)) if isinstance(seed, Iterable) else MRG32k3a.from_r_seed(seed)


def _checked(state: Sequence[int]) -> tuple[int, tuple[int, int, int], tuple[int, int, int]]:
    values = [_whole(value, "state") for value in state]
    if len(values) != 7 or values[0] not in _KINDS:
        raise ConfigError(
            f"state={list(state)!r} is no .Random.seed of L'Ecuyer-CMRG: seven integers, first 10407 or 407"
        )
    words = [value % 2**32 for value in values[1:]]
    x, y = tuple(words[:3]), tuple(words[3:])
    if max(x) >= _M1 or max(y) >= _M2 or not any(x) or not any(y):
        raise ConfigError(f"state={list(state)!r} is none the generator can be in")
    return values[0], (x[0], x[1], x[2]), (y[0], y[1], y[2])


def _whole(value: Any, name: str) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise ConfigError(f"{name}={value!r} must be a whole number", value=value) from None


def _scramble(number: int) -> int:
    return (69069 * number + 1) % 2**32


def _signed(word: int) -> int:
    return word - 2**32 if word >= 2**31 else word


def _times(matrix: _Matrix, vector: tuple[int, ...], modulus: int) -> tuple[int, ...]:
    return tuple(sum(a * b for a, b in zip(row, vector, strict=True)) % modulus for row in matrix)


@cache
def _jumps(power: int) -> tuple[_Matrix, _Matrix]:
    """The matrices that go 2^power steps ahead at once."""
    one: _Matrix = ((0, 1, 0), (0, 0, 1), (-_A13, _A12, 0))
    two: _Matrix = ((0, 1, 0), (0, 0, 1), (-_A23, 0, _A21))
    for _ in range(power):
        one, two = _squared(one, _M1), _squared(two, _M2)
    return one, two


def _squared(matrix: _Matrix, modulus: int) -> _Matrix:
    columns = [_times(matrix, column, modulus) for column in zip(*matrix, strict=True)]
    return tuple(zip(*columns, strict=True))


def _array(draw: Any, size: int) -> Any:
    try:
        import numpy as np
    except ImportError as error:
        text = "arrays of random numbers need NumPy: pip install 'rushlight[numpy]'"
        raise MissingExtra(text, extra="numpy") from error
    return np.array([draw() for _ in range(_whole(size, "size"))], dtype=np.float64)


#: Wichura's algorithm AS 241: numerator and denominator, highest power first, for the middle and both tails.
_MIDDLE = (
    (2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
     13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608),
    (5226.495278852545925, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867,
     5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1.0),
)  # fmt: skip
_TAIL = (
    (7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177, 1.27045825245236838258,
     3.64784832476320460504, 5.7694972214606914055, 4.6303378461565452959, 1.42343711074968357734),
    (1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459,
     0.68976733498510000455, 1.6763848301838038494, 2.05319162663775882187, 1.0),
)  # fmt: skip
_FAR_TAIL = (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 0.0012426609473880784386,
     0.026532189526576123093, 0.29656057182850489123, 1.7848265399172913358, 5.4637849111641143699,
     6.6579046435011037772),
    (2.04426310338993978564e-15, 1.4215117583164458887e-7, 1.8463183175100546818e-5,
     7.868691311456132591e-4, 0.0148753612908506148525, 0.13692988092273580531, 0.59983220655588793769, 1.0),
)  # fmt: skip


def _quantile(p: float) -> float:
    """The standard normal quantile, as R's ``qnorm``."""
    q = p - 0.5
    if abs(q) <= 0.425:
        return _ratio(_MIDDLE, 0.180625 - q * q, q)
    r = math.sqrt(-math.log(p if q < 0 else 0.5 - p + 0.5))
    value = _ratio(_TAIL, r - 1.6) if r <= 5.0 else _ratio(_FAR_TAIL, r - 5.0)
    return -value if q < 0 else value


def _ratio(fraction: tuple[tuple[float, ...], tuple[float, ...]], r: float, factor: float = 1.0) -> float:
    above = below = 0.0
    for a, b in zip(*fraction, strict=True):
        above = above * r + a
        below = below * r + b
    return factor * above / below
