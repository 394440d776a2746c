"""Verbs that read budgets and leaderboards, and how a score becomes bytes that sort.

Writing them goes through whoever writes (a manager or a member); see ``_boards`` and ``_budget``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Literal

from ._store_base import StoreBase

Order = Literal["max", "min"]
_SIGN = 1 << 63
_ALL = (1 << 64) - 1
#: Bytes of a member between its rank bytes and its key: a zero and the number of its arrival.
_ARRIVAL = 1 + 14


@dataclass(frozen=True, slots=True)
class BudgetStanding:
    """Units of a budget that are spent for good, and those that workers hold now."""

    spent: int
    held: int


def rank_bytes(score: float, order: Order) -> bytes:
    """Eight bytes that sort like the score, best first."""
    (bits,) = struct.unpack(">Q", struct.pack(">d", score + 0.0))
    rising = bits ^ _ALL if bits & _SIGN else bits | _SIGN
    return struct.pack(">Q", rising if order == "min" else rising ^ _ALL)


def score_of(ranked: bytes, order: Order) -> float:
    """The score ``rank_bytes`` was given."""
    (rising,) = struct.unpack(">Q", ranked)
    if order == "max":
        rising ^= _ALL
    score: float = struct.unpack(
        ">d", struct.pack(">Q", rising ^ _SIGN if rising & _SIGN else rising ^ _ALL)
    )[0]
    return score


class BoardVerbs(StoreBase):
    """Reading what workers share beside their tasks; one round trip each."""

    def budget(self, name: str) -> BudgetStanding:
        """How a budget stands."""
        return BudgetStanding(*self.link.call(self.scripts.budget(name)))

    def board_length(self, name: str) -> tuple[str, int]:
        """The order of a leaderboard ('' if there is none) and the number of its keys."""
        order, length = self.link.call(self.scripts.board(name, "len"))
        return order.decode(), length

    def board_rank(self, name: str, key: str) -> tuple[str, int | None]:
        """The order, and the place of a key from 0; None if it is not on the board."""
        order, rank = self.link.call(self.scripts.board(name, "rank", key))
        return order.decode(), rank

    def board_top(self, name: str, n: int) -> tuple[str, list[tuple[str, float]]]:
        """The order, and the n best (-1: all) as (key, score), best first."""
        reply: list[Any] = self.link.call(self.scripts.board(name, "top", n))
        order: Order = "min" if reply[0] == b"min" else "max"
        at = len(name.encode()) + 1
        best = [
            (member[at + 8 + _ARRIVAL :].decode(), score_of(member[at : at + 8], order))
            for member in reply[1]
        ]
        return reply[0].decode(), best
