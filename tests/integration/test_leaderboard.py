"""Leaderboards: scores that all workers of a network share."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ground import lose_reply
from rushlight import Rush, RushWorker
from rushlight._store_boards import rank_bytes, score_of
from rushlight.errors import ConfigError, WorkerLost


def test_the_highest_score_is_the_best(worker: RushWorker) -> None:
    """Places count from 0; ``add`` says where the key has come in."""
    board = worker.leaderboard("accuracy")
    assert [0, 0, 1, 3] == [board.add(key, score) for key, score in [("a", 1), ("b", 3), ("c", 2), ("d", -5)]]
    assert [("b", 3.0), ("c", 2.0), ("a", 1.0), ("d", -5.0)] == board.top()
    assert [("b", 3.0), ("c", 2.0)] == board.top(2)
    assert [] == board.top(0)
    assert [2, 0, 1, 3, None] == [board.rank(key) for key in "abcde"]
    assert 4 == len(board) == board.len()


def test_the_lowest_can_be_the_best(worker: RushWorker) -> None:
    """``order="min"`` for a loss."""
    board = worker.leaderboard("loss", order="min")
    for key, score in [("a", 1), ("b", 3), ("c", 0.5)]:
        board.add(key, score)
    assert ["c", "a", "b"] == [key for key, _ in board.top()]
    assert 0 == board.rank("c")


@pytest.mark.parametrize("order", ["max", "min"])
def test_of_equal_scores_the_earlier_is_better(worker: RushWorker, order: Any) -> None:
    """By the order of arrival at the server, whatever the keys."""
    board = worker.leaderboard("ties", order)
    assert [0, 1, 2, 3] == [board.add(key, 7) for key in ["z", "a", "m", "b"]]
    assert ["z", "a", "m", "b"] == [key for key, _ in board.top()]


def test_a_key_stands_once(worker: RushWorker) -> None:
    """A new score moves it, behind those that had it before; the same score leaves it where it is."""
    board = worker.leaderboard("moves")
    for key in "abc":
        board.add(key, 1)
    assert 0 == board.add("a", 1)
    assert 0 == board.add("b", 2)
    assert 2 == board.add("b", 1)
    assert ["a", "c", "b"] == [key for key, _ in board.top()]
    assert 3 == len(board)


def test_all_see_the_same_board(rush: Rush, worker: RushWorker, network: str) -> None:
    """Workers and managers write and read it; each board is apart from those with a longer name."""
    with RushWorker(network) as other:
        worker.leaderboard("x").add("a", 1)
        other.leaderboard("x").add("b", 2)
        rush.leaderboard("x").add("c", 3)
        other.leaderboard("x\N{LATIN SMALL LETTER E WITH ACUTE}").add("far away", 9)
        other.leaderboard("xy").add("also", 9)
        top = [("c", 3.0), ("b", 2.0), ("a", 1.0)]
        assert (
            top
            == worker.leaderboard("x").top()
            == other.leaderboard("x").top()
            == rush.leaderboard("x").top()
        )
        assert [3, 1, 1] == [len(rush.leaderboard(name)) for name in ["x", "x\u00e9", "xy"]]
        assert [("far away", 9.0)] == rush.leaderboard("x\u00e9").top(5)


def test_an_empty_board_is_empty(rush: Rush) -> None:
    """Reading writes nothing, and an empty board is still a board."""
    board = rush.leaderboard("nothing")
    assert (0, [], None) == (len(board), board.top(3), board.rank("a"))
    assert board


def test_the_order_belongs_to_the_board(rush: Rush, worker: RushWorker) -> None:
    """Who does not name it gets the board's own; who names another one is told, and changes nothing."""
    worker.leaderboard("loss", order="min").add("a", 1)
    rush.leaderboard("loss").add("b", 0)
    assert ["b", "a"] == [key for key, _ in rush.leaderboard("loss").top()]
    wrong = rush.leaderboard("loss", order="max")
    for call in (lambda: wrong.add("c", 1), wrong.top, wrong.len, lambda: wrong.rank("a")):
        with pytest.raises(ConfigError, match="order='min'"):
            call()
    assert 2 == len(rush.leaderboard("loss"))


def test_scores_come_back_as_they_were(worker: RushWorker) -> None:
    """Every float is kept exactly, and infinities have their places; NumPy's numbers are numbers."""
    board = worker.leaderboard("floats")
    scores = [math.inf, 1e308, np.float64(0.1), np.int64(0), -0.1 - 1e-17, -5e-324, -1e308, -math.inf]
    for i, score in enumerate(reversed(scores)):
        board.add(str(i), score)
    assert sorted(map(float, scores), reverse=True) == [score for _, score in board.top()]


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=20))
def test_bytes_sort_like_scores(scores: list[float]) -> None:
    """What the server sorts by is the order of the numbers; -0 is 0."""
    for order, reverse in (("max", True), ("min", False)):
        ranked = sorted(rank_bytes(score, order) for score in scores)  # type: ignore[arg-type]
        assert sorted(scores, reverse=reverse) == [score_of(data, order) for data in ranked]  # type: ignore[arg-type]
    assert rank_bytes(-0.0, "max") == rank_bytes(0.0, "max")


def test_every_call_is_one_round_trip(worker: RushWorker) -> None:
    """Making the object costs none."""
    link = worker._store.link
    board = worker.leaderboard("trips")
    for call in (lambda: board.add("a", 1), lambda: board.rank("a"), lambda: board.top(1), board.len):
        before = link.trips
        call()
        assert 1 == link.trips - before


def test_a_lost_reply_adds_nothing_twice(worker: RushWorker) -> None:
    """The call is sent again; the key keeps the place it got the first time."""
    board = worker.leaderboard("again")
    lose_reply(worker._member)
    assert 0 == board.add("a", 1)
    assert 1 == board.add("b", 1)
    lose_reply(worker._member)
    assert 0 == board.add("a", 1)
    assert ["a", "b"] == [key for key, _ in board.top()]


def test_many_at_once_leave_nothing_out(network: str, rush: Rush) -> None:
    """Workers that add at the same time: every key is there, and places are those of the sorted scores."""

    def fill(i: int) -> None:
        with RushWorker(network) as worker:
            board = worker.leaderboard("busy")
            for j in range(50):
                board.add(f"{i}-{j}", j * 10 + i)

    threads = [threading.Thread(target=fill, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    board = rush.leaderboard("busy")
    assert sorted((j * 10 + i for i in range(4) for j in range(50)), reverse=True) == [
        s for _, s in board.top()
    ]
    assert 0 == board.rank("3-49")
    assert 199 == board.rank("0-0")


def test_a_reset_deletes_it(rush: Rush, worker: RushWorker) -> None:
    """Boards go with the tasks, and with their order."""
    worker.leaderboard("x", "min").add("a", 1)
    rush.reset(workers=False)
    assert 0 == len(worker.leaderboard("x"))
    worker.leaderboard("x", "max").add("b", 1)
    assert [("b", 1.0)] == rush.leaderboard("x").top()


def test_who_was_killed_may_not_write(rush: Rush, worker: RushWorker) -> None:
    """A worker that is no member any more adds nothing; reading it may."""
    board = worker.leaderboard("x")
    board.add("a", 1)
    rush.stop_workers("kill", [worker.worker_id])
    with pytest.raises(WorkerLost):
        board.add("b", 2)
    assert [("a", 1.0)] == board.top()


@pytest.mark.parametrize("score", [math.nan, "1", b"1", None, [1], 10**400, 1j])
def test_what_is_no_score_is_refused(worker: RushWorker, score: Any) -> None:
    """A number that has a place among numbers."""
    with pytest.raises(ConfigError, match="score="):
        worker.leaderboard("x").add("a", score)
    assert 0 == len(worker.leaderboard("x"))


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 300, None, 7])
def test_what_is_no_name_is_refused(rush: Rush, name: Any) -> None:
    """A name is short, printable text."""
    with pytest.raises(ConfigError, match="name"):
        rush.leaderboard(name)


def test_other_bad_input_is_refused(rush: Rush) -> None:
    """Keys are text, and there are two orders."""
    with pytest.raises(ConfigError, match="order="):
        rush.leaderboard("x", "best")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="key"):
        rush.leaderboard("x").add(3, 1)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="n="):
        rush.leaderboard("x").top(-1)
