"""Seeds without a network: which sequence a task gets, how seeds are written down, putting one in force."""

# ruff: noqa: NPY002 - NumPy's old global state is among what is tested

from __future__ import annotations

import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import SeedSequence

from rushlight import _seeds
from rushlight._seeds import Seed
from rushlight.errors import ConfigError

numbers = st.integers(0, 2**200)
entropies = numbers | st.lists(numbers, min_size=1, max_size=7)
keys = st.lists(st.integers(0, 2**40), max_size=3).map(tuple)


@given(entropy=entropies, key=keys)
def test_the_words_are_those_of_numpy(entropy: int | list[int], key: tuple[int, ...]) -> None:
    """Without NumPy a seed means what it means with it."""
    sequence = SeedSequence(entropy, spawn_key=key)
    assert sequence.generate_state(11).tolist() == Seed.of(sequence).words(11)


@given(entropy=entropies, key=keys)
def test_what_is_written_down_is_read_back(entropy: int | list[int], key: tuple[int, ...]) -> None:
    """As short text without quotes or spaces, whatever the size of the numbers."""
    seed = Seed.of(SeedSequence(entropy, spawn_key=key))
    text = _seeds.encode(SeedSequence(entropy, spawn_key=key))
    assert set(text) <= set("0123456789abcdef,/")
    assert seed == _seeds.decode(text)
    again = _seeds.decode(text).sequence()
    assert SeedSequence(entropy, spawn_key=key).generate_state(8).tolist() == again.generate_state(8).tolist()


def test_a_plain_seed_reads_back_as_the_number_it_was() -> None:
    """And a sequence as a sequence; no seed as none."""
    assert 2**80 == _seeds.public(_seeds.encode(2**80))
    assert 5 == _seeds.public(_seeds.encode(np.uint64(5)))
    child = SeedSequence([1, 2]).spawn(3)[2]
    read = _seeds.public(_seeds.encode(child))
    assert ([1, 2], (2,)) == (list(read.entropy), read.spawn_key)
    assert _seeds.public(None) is None


@pytest.mark.parametrize("seed", [-1, 1.5, "7", True, None, [1, 2], SeedSequence, np.float64(3)])
def test_what_is_no_seed_is_refused(seed: Any) -> None:
    """Whole numbers that are not negative, and sequences; nothing is guessed."""
    with pytest.raises(ConfigError, match="seed="):
        _seeds.encode(seed)


@given(root=numbers, seq=st.integers(1, 2**40))
def test_a_task_gets_the_child_of_its_number(root: int, seq: int) -> None:
    """Task i (from 1) has the child i - 1 that ``spawn`` would make."""
    seed = _seeds.of_task(lambda: Seed(root), seq, None, 0)
    expected = SeedSequence(root, spawn_key=(seq - 1,))
    assert expected.generate_state(4).tolist() == seed.words(4)


def test_children_are_those_numpy_spawns() -> None:
    """Also below a sequence that has been spawned itself."""
    root = SeedSequence(12).spawn(2)[1]
    spawned = root.spawn(5)
    for seq in range(1, 6):
        seed = _seeds.of_task(lambda: Seed.of(root), seq, None, 0)
        assert spawned[seq - 1].generate_state(4).tolist() == seed.words(4)


def test_a_seed_of_the_tasks_own_needs_no_root() -> None:
    """It is taken as it is; the network is not asked."""

    def root() -> Seed:
        raise AssertionError("asked for the root")

    assert Seed(9) == _seeds.of_task(root, 3, 9, 0)


def test_the_next_seed_is_a_child() -> None:
    """Each retry with the next seed goes to the next child of the task's first one."""
    first, second, third = (_seeds.of_task(lambda: Seed(1), 4, None, n) for n in range(3))
    assert [(3,), (3, 1), (3, 2)] == [first.spawn_key, second.spawn_key, third.spawn_key]
    assert (7, (2,)) == (_seeds.of_task(lambda: Seed(1), 4, 7, 2).entropy, (2,))


def test_epochs_have_different_roots() -> None:
    """A network nobody gave a seed has one all the same, of 128 bits."""
    roots = {_seeds.from_epoch(f"epoch {i}").entropy for i in range(100)}
    assert 100 == len(roots)
    assert all(isinstance(root, int) and 0 <= root < 2**128 for root in roots)


def draw() -> tuple[float, ...]:
    """Numbers of both global generators, normal ones too: NumPy's keeps a second one back."""
    return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn()


def test_in_force_sets_and_restores_both_generators() -> None:
    """Inside, the seed's numbers; after it, also after an error, as if nothing had been."""
    draw()
    before = random.getstate(), str(np.random.get_state(legacy=False))
    with _seeds.in_force(Seed(3)):
        inside = draw()
    assert before == (random.getstate(), str(np.random.get_state(legacy=False)))
    with pytest.raises(KeyError), _seeds.in_force(Seed(3)):
        assert inside == draw()
        raise KeyError
    assert before == (random.getstate(), str(np.random.get_state(legacy=False)))
    with _seeds.in_force(Seed(4)):
        assert inside != draw()


def test_numpy_starts_from_words_of_its_own() -> None:
    """The two generators are one algorithm: from the same words they would give the same numbers."""
    words = SeedSequence(3).generate_state(16)
    with _seeds.in_force(Seed(3)):
        numpy_number, number = np.random.rand(), random.random()
    assert np.random.RandomState(words[8:]).rand() == numpy_number
    assert number != numpy_number
    with _seeds.in_force(Seed(3)):
        np.random.rand()
        assert number == random.random()


def test_another_global_bit_generator_is_given_back() -> None:
    """Who had put PCG64 behind NumPy's global functions has it again, where it was."""
    usual = np.random.get_bit_generator()
    mine = np.random.PCG64(5)
    np.random.set_bit_generator(mine)
    try:
        before = str(mine.state)
        with _seeds.in_force(Seed(3)):
            other = np.random.rand()
        assert np.random.get_bit_generator() is mine
        assert before == str(mine.state)
    finally:
        np.random.set_bit_generator(usual)
    with _seeds.in_force(Seed(3)):
        assert other == np.random.rand()


def test_without_numpy_random_has_the_same_numbers() -> None:
    """Seeds do not need NumPy: a worker without it gives what a worker with it gives."""
    with _seeds.in_force(Seed(11, (4,))):
        expected = random.random()
    code = (
        "import sys; sys.modules['numpy'] = None\n"
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name == 'numpy' else find(name, package)\n"
        "del sys.modules['numpy']\n"
        "import random; from rushlight import _seeds\n"
        "with _seeds.in_force(_seeds.Seed(11, (4,))): print(repr(random.random()))\n"
        "assert 'numpy' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert expected == float(done.stdout)
