"""What a worker process writes down of the tasks in its hands, and what is read when it is dead."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushlight._journal import Journal, Left

RESULTS = st.lists(st.tuples(st.sampled_from("fx"), st.binary(max_size=300)), max_size=20)


@pytest.fixture
def journal() -> Iterator[Journal]:
    """A small one."""
    journal = Journal(4096)
    yield journal
    journal.close()


def test_a_new_one_is_empty(journal: Journal) -> None:
    """Nothing was ever in hand."""
    assert Left() == journal.read()


def test_what_is_in_hand_and_what_is_done(journal: Journal) -> None:
    """Results so far, and the tasks that were not begun; the one between them is neither."""
    journal.open(7, [("a", 1), ("b", 2), ("c", 1), ("d", 1)])
    assert Left(7, (), ("a", "b", "c", "d")) == journal.read()
    journal.begin(1)
    journal.add("f", b"one")
    journal.begin(2)
    assert Left(7, (("a", 1, "f", b"one"),), ("c", "d")) == journal.read()
    journal.add("x", b"")
    assert Left(7, (("a", 1, "f", b"one"), ("b", 2, "x", b"")), ("c", "d")) == journal.read()


def test_what_was_sent_is_forgotten(journal: Journal) -> None:
    """But for the number of the claim; the next one begins anew."""
    journal.open(1, [("a", 1)])
    journal.begin(1)
    journal.add("f", b"one")
    journal.clear()
    assert Left(1) == journal.read()
    journal.open(2, [("b", 1)])
    assert Left(2, (), ("b",)) == journal.read()


def test_there_is_an_end_to_it(journal: Journal) -> None:
    """What has no room is told before it is written."""
    journal.open(1, [("a", 1)])
    assert not journal.add("f", b"a" * 4096)
    assert journal.add("f", b"a" * 3000)
    assert not journal.add("f", b"a" * 3000)
    assert (("a", 1, "f", b"a" * 3000),) == journal.read().results


@given(RESULTS)
def test_any_results_are_read_back(results: list[tuple[str, bytes]]) -> None:
    """Whatever their bytes."""
    journal = Journal()
    journal.open(3, [(f"k{i}", i) for i in range(20)])
    for i, result in enumerate(results, start=1):
        journal.begin(i)
        journal.add(*result)
    left = journal.read()
    assert results == [result[2:] for result in left.results]
    assert [f"k{i}" for i in range(len(results), 20)] == list(left.unbegun)
    journal.close()


def _in_a_process_that_dies(work: Callable[[], None]) -> None:
    pid = os.fork()
    if pid == 0:
        work()
        os.kill(os.getpid(), signal.SIGKILL)
    assert signal.SIGKILL == os.WTERMSIG(os.waitpid(pid, 0)[1])


def test_it_outlives_its_writer(journal: Journal) -> None:
    """What a killed process had written is all there."""

    def work() -> None:
        journal.open(1, [("a", 1), ("b", 1)])
        journal.begin(1)
        journal.add("f", b"one")
        journal.begin(2)

    _in_a_process_that_dies(work)
    assert Left(1, (("a", 1, "f", b"one"),), ()) == journal.read()
