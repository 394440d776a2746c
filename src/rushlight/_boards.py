"""Leaderboards: scores that all workers of a network share, as workers and managers see them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from . import _inputs
from ._names import new_sending
from ._scripts import Author
from ._store import Store
from ._store_boards import Order, rank_bytes
from .errors import ConfigError

Write = Callable[[Callable[[Author], bytes]], list[Any]]


class Leaderboard:
    """Keys by score, the best first; of equal scores the earlier one is the better. Every call is atomic and
    costs one round trip, whatever the length (``top`` also what it returns)."""

    def __init__(self, store: Store, write: Write, name: str, order: Order | None) -> None:
        self._store = store
        self._write = write
        self.name = name
        self._order = order

    def __repr__(self) -> str:
        return f"<Leaderboard {self.name!r} of {self._store.network!r}>"

    def add(self, key: str, score: float) -> int:
        """Puts a key on the board, or moves it to a new score; returns its place, 0 for the best. Scores are
        floats; NaN is refused."""
        _inputs.one_key(key)
        value = _score(score)
        ranks = rank_bytes(value, "max"), rank_bytes(value, "min")
        sending, order = new_sending(), self._order or ""
        reply = self._write(
            lambda author: self._store.scripts.board_add(author, self.name, order, key, sending, *ranks)
        )
        self._check_order(reply[2].decode())
        rank: int = reply[3]
        return rank

    def rank(self, key: str) -> int | None:
        """The place of a key, 0 for the best; None if it is not on the board."""
        order, rank = self._store.board_rank(self.name, _inputs.one_key(key))
        self._check_order(order)
        return rank

    def top(self, n: int | None = None) -> list[tuple[str, float]]:
        """The n best (None: all) as pairs (key, score), the best first."""
        order, best = self._store.board_top(self.name, -1 if n is None else _inputs.count(n, "n"))
        self._check_order(order)
        return best

    def len(self) -> int:
        """How many keys are on the board; ``len(board)`` is the same."""
        order, length = self._store.board_length(self.name)
        self._check_order(order)
        return length

    def __len__(self) -> int:
        return self.len()

    def __bool__(self) -> bool:
        return True

    def _check_order(self, order: str) -> None:
        if self._order is not None and order not in ("", self._order):
            raise ConfigError(
                f"leaderboard {self.name!r} has order={order!r} in network {self._store.network!r}, not "
                f"order={self._order!r}: leave order= out, or use another name",
                name=self.name,
                order=order,
            )


class BoardReader:
    """The leaderboards of a network, for workers and managers."""

    _store: Store

    def leaderboard(self, name: str, order: Order | None = None) -> Leaderboard:
        """The leaderboard of that name, which all workers and managers of the network share. ``order``: the
        best score is the ``"max"`` or the ``"min"``; None takes the board as it is, a new one is ``"max"``.
        Makes no round trip; gone with the tasks at a reset."""
        if order not in (None, "max", "min"):
            raise ConfigError(f"order={order!r} must be 'max' or 'min', or None for the board's own")
        return Leaderboard(self._store, self._author, shared_name(name), order)

    def _author(self, pack: Callable[[Author], bytes]) -> list[Any]:
        """Writes something that is neither a task nor a worker, as a manager does."""
        return self._store.write(lambda epoch: pack((epoch, "", "")))


def shared_name(name: object) -> str:
    """The name of a leaderboard or budget; ConfigError for what cannot be one."""
    text = _inputs.one_key(name, "name")
    if not text or len(text) > 200 or not text.isprintable():
        raise ConfigError(f"name={text!r} must be 1 to 200 printable characters", value=name)
    return text


def _score(score: Any) -> float:
    try:
        value = float(score)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if math.isnan(value) or isinstance(score, str | bytes):
        raise ConfigError(f"score={score!r} must be a number, and not NaN", value=score)
    return value
