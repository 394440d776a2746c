"""Feeds the decoder bytes without end, guided by which code they reach; to be run by hand.

    pip install atheris
    python tests/fuzz/fuzz_decoder.py -max_total_time=300 -rss_limit_mb=3000 -timeout=10

A crash, a hang, memory without bound or an error that is no CodecError ends it, with the bytes in a file.
Options are libFuzzer's; a folder as argument keeps what was found, so that the next run goes on.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["rushlight"]):
    from rushlight import _large, _trust
    from rushlight._codec import Codec
    from rushlight._trust import Trust
    from rushlight.errors import CodecError

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

TRUST = Trust(b"a secret of the fuzzer", "net")
PLAIN, TRUSTING = Codec(), Codec(TRUST)


def one(data: bytes) -> None:
    """Whatever can read bytes that came from a server."""
    for codec in (PLAIN, TRUSTING):
        for read in (codec.decode, lambda data, codec=codec: codec.decode_rows([data], 12)):
            try:
                read(data)
            except CodecError:
                pass
    for opening in (TRUST.open, TRUST.loads):
        try:
            opening("value", data)
        except CodecError:
            pass
        else:
            raise AssertionError("an envelope that nobody sealed")
    try:
        _trust.unverified_body(data)
    except CodecError:
        pass
    try:
        _large._told(data, tuple[str, str, str, int])
    except CodecError:
        pass


def seeds(folder: Path) -> None:
    """One honest encoding of each kind, to begin from."""
    frame = {"a": [1, 2, None], "s": ["x", None, "zz"]}
    values = [
        {"a": (1, 2.5, "x"), (1,): {2}, "b": frozenset({b"x"})},
        [2**70, "\ud800", bytearray(b"ab"), 1j],
        [
            np.arange(4.0),
            np.float64(1),
            np.array(["a", b"b"], object),
            np.zeros(2, [("a", "f8"), ("b", "S2", (2,))]),
        ],
        pl.DataFrame({**frame, "l": [[1], [2, 3], None]}),
        pd.DataFrame(frame),
        pa.table({**frame, "d": pa.array(["x", "y", "x"]).dictionary_encode()}),
        ValueError("pickled"),
    ]
    for at, value in enumerate(values):
        for name, codec in (("plain", PLAIN), ("sealed", TRUSTING)):
            try:
                (folder / f"{name}-{at}").write_bytes(codec.encode(value, "xs"))
            except CodecError:
                pass


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as honest:
        seeds(Path(honest))
        atheris.Setup([*sys.argv, honest], one)
        atheris.Fuzz()
