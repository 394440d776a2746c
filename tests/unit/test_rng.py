"""Random numbers as R makes them: every number here was printed by R 4.2.2 (see ``R_PROGRAM``)."""

# ruff: noqa: NPY002 - NumPy's old global state is among what is tested

from __future__ import annotations

import copy
import pickle
import random
from typing import Any

import numpy as np
import pytest

from rushlight import rng
from rushlight.errors import ConfigError

#: What made the table; for a seed ``s``, printed with 17 digits.
R_PROGRAM = """
RNGkind("L'Ecuyer-CMRG", "Inversion", "Rejection"); set.seed(s)
state <- .Random.seed; u <- runif(1000); u[c(1:3, 1000)]; after <- .Random.seed
set.seed(s); n <- rnorm(1000); n[c(1:3, 1000)]
set.seed(s); i <- sample.int(1000, 5, replace = TRUE); j <- sample.int(3000000000, 3, replace = TRUE)
s1 <- parallel::nextRNGStream(state); s2 <- parallel::nextRNGStream(s1)  # ... and a hundred times: s100
b1 <- parallel::nextRNGSubStream(state); b2 <- parallel::nextRNGSubStream(b1)
.Random.seed <- s2; us2 <- runif(2)
"""
# fmt: off
TABLE: dict[int, dict[str, Any]] = {
    0: {
        "state": [10407, -835792825, 1280795612, -169270483, -442010614, -603558397, -222347416],
        "u": [0.33292749227232266, 0.890352617994264, 0.1639634410628108],
        "u1000": 0.4758381042569703,
        "after": [10407, 1613837487, 530211676, 879900981, 1501944940, 384744405, -1163808225],
        "n": [-0.43184373722937547, -0.9782981621775676, -0.2656897276434057],
        "n1000": -0.3760836995068632,
        "i": [315, 506, 143, 303, 51],
        "j": [2417668171, 1916736165, 1375879079],
        "s1": [10407, -994253523, -2025289096, -1999543919, 745267815, 1237002977, 287006634],
        "s2": [10407, 992173198, -1991630577, -1823393640, 1162964974, -556911557, -830094812],
        "s100": [10407, -1025350942, 254200835, 1929223552, -1184308665, -1589303673, -247215989],
        "b1": [10407, -1353495786, 1624336640, 627421325, 1708384105, -45711463, 1969995427],
        "b2": [10407, 457271521, -1924654453, -1136175700, -1262777224, 1290399182, -448821329],
        "us2": [0.12236827063667596, 0.5916899040042191],
    },
    1: {
        "state": [10407, 1280795612, -169270483, -442010614, -603558397, -222347416, 1489374793],
        "u": [0.6775328286287442, 0.4273457228876442, 0.9103805304875483],
        "u1000": 0.06361565255375015,
        "after": [10407, 1925739030, -997089265, -971886058, 1458724851, 372690231, -1245113192],
        "n": [0.46081080381825645, 1.343102052698211, 0.9971682911907236],
        "n1000": 1.4604089501735993,
        "i": [371, 359, 271, 171, 822],
        "j": [1531473323, 1729164885, 1379645918],
        "s1": [10407, 4246464, -231956060, -471632796, 1620595781, 533443421, 594164961],
        "s2": [10407, 317200966, -183608609, -331475888, -286302502, -854727955, -608024097],
        "s100": [10407, 1816592577, 378223499, 1409783454, -1084744364, -1920379381, 437730145],
        "b1": [10407, 1758599292, 395847541, 373354099, -1616541142, 1293554115, -1180290192],
        "b2": [10407, -60666371, -1944973138, -1675998248, -108401447, -1700818425, -1090529625],
        "us2": [0.031474124767495774, 0.23320400377419612],
    },
    42: {
        "state": [10407, -2133391687, 507561766, 1260545903, 1362917092, -1772566379, -1344458670],
        "u": [0.17384558454153168, 0.5547400967650908, 0.48337712221370116],
        "u1000": 0.70705094073587,
        "after": [10407, -1684768190, 66699232, 883438358, -1983956976, -11614037, 2141644925],
        "n": [-0.9390770786492874, -0.041679428023489604, 0.8294134930161368],
        "n1000": 0.22832844582786482,
        "i": [130, 516, 959, 204, 204],
        "j": [2983485555, 71397527, 1559699771],
        "s1": [10407, -94575036, -24861725, 357812871, 346211554, -1301022835, 440649733],
        "s2": [10407, -358246211, -1411857254, -488221791, 1069515918, -1720689715, 1070199760],
        "s100": [10407, -315825910, -1220260875, -1579920249, -1521856031, -129211829, 1689221297],
        "b1": [10407, -1871565002, 1968597656, -505666782, 1055078269, 658163990, 1090264187],
        "b2": [10407, -122323274, 442418215, -314150398, -1994370242, -1572376734, -1226578877],
        "us2": [0.4174267355875953, 0.8885943463136499],
    },
    123456789: {
        "state": [10407, 782777472, 608891521, -791298482, -736011657, -356221876, 1978885341],
        "u": [0.3206322576598054, 0.6297071129034925, 0.26873632797439495],
        "u1000": 0.8298625644788644,
        "after": [10407, 1720831922, 243310993, -1800025581, -385515389, -869508035, -1069290896],
        "n": [-0.4659315145136692, -0.6166393176525202, -0.21305510714335937],
        "n1000": -0.14363096578616386,
        "i": [533, 309, 204, 283, 616],
        "j": [2670935351, 1712865217, 1794621959],
        "s1": [10407, 1389169924, 631067203, -540305831, -122008024, -494223227, -1012254838],
        "s2": [10407, 1977298039, 1350104268, -454237524, -663275626, -2146265482, 594155481],
        "s100": [10407, -1068303341, -1159847577, 1841370552, -2006428719, 563767159, -1562818147],
        "b1": [10407, -542424568, 757944268, -208455349, -118386624, 149638235, 398499557],
        "b2": [10407, 641794373, -739035986, -1608145432, -53711027, 90712882, -1475509070],
        "us2": [0.8138547505442492, 0.6073304557531921],
    },
    -7: {
        "state": [10407, 1527957300, -1453643611, 1739910434, 688823867, 1022932032, 680499009],
        "u": [0.16409968913829312, 0.49141329299052366, 0.7021782174830021],
        "u1000": 0.33121306935612077,
        "after": [10407, 787879928, 455488080, 308879901, -927027183, 2077486831, -1113669540],
        "n": [-0.9777471837737121, 0.5306756505777096, 1.4218856128739243],
        "n1000": -0.17983445331223732,
        "i": [515, 462, 962, 293, 40],
        "j": [1541370787, 194905125, 1522332557],
        "s1": [10407, 1808819806, -1014215410, 601534232, 852513277, 782743327, -1909612273],
        "s2": [10407, 1011837074, -1194588600, 842535397, 434937283, 593085301, 1572731847],
        "s100": [10407, 82922085, -1523380873, -1694880861, -321938443, 1285997817, 1558401810],
        "b1": [10407, -77413399, 1063761410, 22031304, -1215815912, 56237751, -1416455902],
        "b2": [10407, -1887794813, -1816658067, -671907390, -1636895709, -126529675, -886574830],
        "us2": [0.7512472058319065, 0.03479872649492117],
    },
    2147483647: {
        "state": [10407, -804897614, 583378059, -2044014000, 1867020817, 1162714270, 213414023],
        "u": [0.10687098284931026, 0.5491825836314768, 0.20579363005353957],
        "u1000": 0.2289831330134747,
        "after": [10407, -1079743827, -320291556, 370322279, -1490284475, 2016358858, -613152950],
        "n": [-1.2433416391667997, -0.8211035902512185, 0.7268472640489875],
        "n1000": -0.05421127655115664,
        "i": [860, 152, 175, 420, 47],
        "j": [1218565935, 2197887421, 2972196920],
        "s1": [10407, 1986407099, -258657415, -606689535, -410049274, -2023945838, -143260021],
        "s2": [10407, -84584388, -416237758, -99238161, 622503157, -676702030, 542962503],
        "s100": [10407, -117422365, -1007470292, 1413337156, -1552025690, -1721924861, -1648900822],
        "b1": [10407, 239905537, -204419120, -2001924062, -801251566, -619286284, 1979152354],
        "b2": [10407, 821952595, -677591232, 857816806, -191108657, -1836415102, -1605574151],
        "us2": [0.4074271064588889, 0.05303474399988232],
    },
}
# fmt: on
SEEDS = pytest.mark.parametrize("seed", TABLE)


@SEEDS
def test_a_seed_gives_the_state_it_gives_in_r(seed: int) -> None:
    """``set.seed`` scrambles the seed into ``.Random.seed``; so do we."""
    assert TABLE[seed]["state"] == rng.mrg32k3a(seed).state


@SEEDS
def test_uniform_numbers_are_those_of_r(seed: int) -> None:
    """A thousand numbers, and the state after them, bit for bit."""
    stream = rng.mrg32k3a(seed)
    numbers = [stream.random() for _ in range(1000)]
    assert TABLE[seed]["u"] == numbers[:3]
    assert TABLE[seed]["u1000"] == numbers[-1]
    assert TABLE[seed]["after"] == stream.state


@SEEDS
def test_normal_numbers_are_those_of_r(seed: int) -> None:
    """Inversion as ``rnorm`` does it: two uniforms for each, to the last bit but one (logarithms differ)."""
    stream = rng.mrg32k3a(seed)
    numbers = [stream.normal() for _ in range(1000)]
    assert pytest.approx([*TABLE[seed]["n"], TABLE[seed]["n1000"]], rel=1e-15, abs=0) == [
        *numbers[:3],
        numbers[-1],
    ]


@SEEDS
def test_indices_are_those_of_r(seed: int) -> None:
    """``sample.int`` by rejection, also where one uniform is not wide enough."""
    stream = rng.mrg32k3a(seed)
    assert TABLE[seed]["i"] == [1 + stream.integers(1000) for _ in range(5)]
    assert TABLE[seed]["j"] == [stream.integers(1, 3_000_000_001) for _ in range(3)]


@SEEDS
def test_streams_are_those_of_r(seed: int) -> None:
    """Streams and substreams begin where R's begin, one after another and a hundred on."""
    start = rng.MRG32k3a.from_state(TABLE[seed]["state"])
    one, sub = start.next_stream(), start.next_substream()
    assert TABLE[seed]["s1"] == one.state
    assert TABLE[seed]["s2"] == one.next_stream().state
    assert TABLE[seed]["b1"] == sub.state
    assert TABLE[seed]["b2"] == sub.next_substream().state
    assert TABLE[seed]["state"] == start.state
    stream = one.next_stream()
    assert TABLE[seed]["us2"] == [stream.random(), stream.random()]
    far = start
    for _ in range(100):
        far = far.next_stream()
    assert TABLE[seed]["s100"] == far.state


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (1e-300, -37.047096299361201),
        (1e-20, -9.2623400897984052),
        (1e-10, -6.3613409024040557),
        (0.01, -2.3263478740408408),
        (0.075, -1.4395314709384557),
        (0.425, -0.18911842627279249),
        (0.5, 0.0),
        (0.9, 1.2815515655446008),
        (1 - 1e-10, 6.3613408896974208),
    ],
)
def test_normal_quantiles_are_those_of_r(p: float, expected: float) -> None:
    """The middle and both tails, far out, as ``qnorm``."""
    assert pytest.approx(expected, rel=1e-15, abs=0) == rng._quantile(p)


def test_old_sampling_is_kept_as_a_kind() -> None:
    """A state of an R before 3.6 begins with 407: the same uniforms, indices by rounding; it stays 407."""
    state = [407, *TABLE[1]["state"][1:]]
    stream = rng.mrg32k3a(state)
    assert [int(1000 * u) for u in TABLE[1]["u"]] == [stream.integers(1000) for _ in range(3)]
    assert [407] == stream.state[:1] == stream.next_stream().state[:1]


def test_arrays_are_the_same_numbers() -> None:
    """With a size numbers come as NumPy arrays, in the order they would come one by one."""
    one, many = rng.mrg32k3a(5), rng.mrg32k3a(5)
    numbers = many.random(10)
    assert isinstance(numbers, np.ndarray)
    assert [one.random() for _ in range(10)] == numbers.tolist()
    assert [one.normal() for _ in range(4)] == many.normal(4).tolist()
    assert 0 == many.random(0).size


def test_a_generator_can_be_copied_compared_and_sent() -> None:
    """Its state is all there is to it."""
    stream = rng.mrg32k3a(9)
    stream.random()
    twins = [copy.copy(stream), pickle.loads(pickle.dumps(stream)), rng.mrg32k3a(stream.state)]
    assert twins == [stream] * 3
    first = stream.random()
    assert [first] * 3 == [twin.random() for twin in twins]
    assert rng.mrg32k3a(9) != stream
    assert str(stream.state) in repr(stream)


def test_numpy_integers_are_integers() -> None:
    """A seed or a state may come out of an array."""
    assert rng.mrg32k3a(7) == rng.mrg32k3a(np.int64(7))  # type: ignore[arg-type]
    assert rng.mrg32k3a(7) == rng.mrg32k3a(np.array(rng.mrg32k3a(7).state))  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [True, 1.5, "1", None, 2**31, -(2**31)])
def test_what_is_no_r_seed_is_refused(seed: Any) -> None:
    """R's integers have 32 bits, and the smallest is its NA."""
    with pytest.raises(ConfigError):
        rng.MRG32k3a.from_r_seed(seed)


@pytest.mark.parametrize(
    "state",
    [
        [],
        [10407, 1, 2, 3, 4, 5],
        [10403, 1, 2, 3, 4, 5, 6],
        [10407, 0, 0, 0, 4, 5, 6],
        [10407, 1, 2, 3, 0, 0, 0],
        [10407, -1, 2, 3, 4, 5, 6],
        [10407, 1, 2, 3, -1, 5, 6],
        [10407, 1, 2, 3, 4, 5, 6.5],
    ],
)
def test_what_is_no_state_is_refused(state: list[Any]) -> None:
    """Seven integers the generator can be in, of a kind that is this generator's."""
    with pytest.raises(ConfigError, match="state="):
        rng.mrg32k3a(state)


@pytest.mark.parametrize("bounds", [(0,), (3, 3), (3, 1), (2**53,)])
def test_an_empty_or_too_wide_choice_is_refused(bounds: tuple[int, ...]) -> None:
    """There must be something to choose from, and enough bits to choose with."""
    with pytest.raises(ConfigError, match="integers"):
        rng.mrg32k3a(1).integers(*bounds)


def test_the_generators_of_python_are_left_alone() -> None:
    """Drawing from a stream changes neither ``random`` nor NumPy."""
    random.seed(1)
    np.random.seed(1)
    expected = random.random(), np.random.random()
    random.seed(1)
    np.random.seed(1)
    rng.mrg32k3a(1).normal(3)
    assert expected == (random.random(), np.random.random())
