"""Traces are a stranger's bytes: good ones are read, all others are one kind of error."""

from __future__ import annotations

import io
import json
import math
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpar.audit import traces
from underpar.audit.traces import BadTrace, read


def packed(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def member(name: str, data: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}.npy", data)
    return stream.getvalue()


def header(shape: str, descr: str = "<i8") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def test_what_the_recorder_writes_is_read() -> None:
    arrays = {
        "tokens": np.arange(5, dtype=np.uint16),
        "c_pos": np.array([1, 2]),
        "c_nll": np.array([0.5, 0.25]),
        "base_bytes": np.array([1, 1, 2], np.int16),
    }
    notes = {"reported": [{"name": "val_bpb", "value": 1.5, "line": "val_bpb:1.5"}], "bytes": [7]}
    trace = read(packed(**arrays), json.dumps(notes).encode())
    assert trace.tokens.tolist() == [0, 1, 2, 3, 4]
    assert (trace.c_pos.tolist(), trace.c_nll.tolist()) == ([1, 2], [0.5, 0.25])
    assert trace.c_pos.dtype == np.int64
    assert len(trace.s_seq) == 0
    assert trace.reported == ({"name": "val_bpb", "value": 1.5, "line": "val_bpb:1.5"},)
    assert trace.bytes == (7.0,)
    assert trace.table["base_bytes"].tolist() == [1, 1, 2]


@pytest.mark.parametrize(
    "data",
    {
        "no archive": b"nothing",
        "objects": packed(c_pos=np.array([{}], dtype=object)),
        "pickle": member("c_pos", header("(3,)", "|O") + b"cos\nsystem\n(S'touch x'\ntR."),
        "two dimensions": packed(c_pos=np.zeros((2, 2), np.int64)),
        "lengths": packed(c_pos=np.zeros(2, np.int64), c_nll=np.zeros(3)),
        "floats for indices": packed(c_pos=np.array([0.5])),
        "too large a number": packed(tokens=np.array([1 << 20])),
        "strings": packed(c_pos=np.array(["a"])),
        "complex": packed(c_nll=np.array([1j])),
        "records": packed(c_pos=np.zeros(2, [("a", "<i8")])),
        "huge": member("c_pos", header("(99999999999,)")),
        "negative": member("c_pos", header("(-1,)")),
        "short": member("c_pos", header("(9,)") + b"x"),
        "no header": member("c_pos", b"\x93NUMPY\x01\x00\xff\xff"),
        "other version": member("c_pos", b"\x93NUMPY\x09\x00"),
        "code": member("c_pos", header("__import__('os').getpid()")),
    }.items(),
    ids=lambda item: item[0],
)
def test_all_else_is_bad(data: tuple[str, bytes]) -> None:
    with pytest.raises(BadTrace):
        read(data[1], b"{}")


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "MOST_FILE", 1000)
    with pytest.raises(BadTrace, match="more than 1000 bytes"):
        read(member("c_pos", header("(5000000,)") + bytes(40_000_000)), b"{}")
    with pytest.raises(BadTrace, match="more than 1000 bytes"):
        read(packed(c_pos=np.zeros(60, np.int64), c_nll=np.zeros(60)), b"{}")


@pytest.mark.parametrize(
    "notes", [b"", b"[]", b"{", b"[" * 100_000, b'{"reported": 3}', b'{"reported": [3]}', b"\xff"]
)
def test_notes_that_are_none(notes: bytes) -> None:
    with pytest.raises(BadTrace):
        read(packed(), notes)


def test_numbers_that_are_none_are_nan_or_gone() -> None:
    notes = {"reported": [{"name": 3, "value": "x" * 9}, {"value": 10**400}], "bytes": ["x", 1]}
    trace = read(packed(), json.dumps(notes).encode())
    assert all(math.isnan(entry["value"]) for entry in trace.reported)
    assert trace.bytes == (1.0,)


@given(st.binary(max_size=300), st.binary(max_size=50))
def test_noise(arrays: bytes, notes: bytes) -> None:
    with pytest.raises(BadTrace):
        read(b"\0" + arrays, notes)
