"""Makes names: networks, workers, task keys. Unique across processes, hosts and forks."""

from __future__ import annotations

import itertools
import os
import secrets

_ADJECTIVES = (  # noqa: SIM905 - a list of quoted words would fill a page
    "able amber brave bright brisk calm clear clever cosy crisp curly daring deft eager early fair fleet "
    "fond frank free fresh gentle glad golden grand green happy hardy honest humble jolly keen kind late "
    "light little lively loyal lucky mellow merry mild neat nimble noble patient plain plucky polite proud "
    "quick quiet rapid ready rosy royal sharp shy silent silver sleek smart snug sober solid spry steady "
    "still sunny sweet swift tall tender tidy tiny true vivid warm wary wild wise witty young zesty"
).split()
_ANIMALS = (  # noqa: SIM905 - as above
    "ant badger bat bear beaver bee bison boar camel cat civet crab crane crow deer dingo dove duck eagle "
    "eel egret elk falcon ferret finch fox frog gecko goat goose gull hare hawk hen heron horse ibex ibis "
    "jackal jay koala lark lemur lion lizard llama lynx magpie marten mole moose moth mouse newt ocelot orca "
    "oryx otter owl panda parrot perch pigeon pike plover pony puffin quail rabbit raven robin salmon seal "
    "shrew skunk sloth snail sparrow squid stoat stork swan swift tapir tern tiger toad trout turtle viper "
    "vole walrus wasp weasel whale wolf wombat wren yak zebra"
).split()
_ALPHABET = "0123456789abcdefghijkmnpqrstuvwxyz"


def random_name() -> str:
    """A readable random name such as ``brave-otter-3f2a91c0``."""
    return f"{secrets.choice(_ADJECTIVES)}-{secrets.choice(_ANIMALS)}-{secrets.token_hex(4)}"


def random_token() -> str:
    """Sixty random bits in twelve characters: one life of a worker, one epoch of a network."""
    return "".join(secrets.choice(_ALPHABET[:32]) for _ in range(12))


class _KeyMaker:
    """Task keys: sixty random bits per process and a counter, so that making one costs no system call."""

    def __init__(self) -> None:
        self.reseed()

    def reseed(self) -> None:
        self.keys = map(f"{random_token()}-%x".__mod__, itertools.count(1))
        self.next = self.keys.__next__
        self.sender, self.sendings = random_token(), map("%014x".__mod__, itertools.count(1))


_maker = _KeyMaker()
# A forked child would go on with its parent's prefix and counter and make the same keys.
os.register_at_fork(after_in_child=_maker.reseed)


def new_key() -> str:
    """A task key no other process makes; safe in threads and after a fork."""
    return _maker.next()


def new_sending() -> tuple[str, str]:
    """What this process and no other sends: who it is, and a number as text, higher each time."""
    return _maker.sender, next(_maker.sendings)


def new_keys(n: int) -> list[str]:
    """As many task keys."""
    return list(itertools.islice(_maker.keys, n))
