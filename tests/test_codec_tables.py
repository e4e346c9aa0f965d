"""Tables of integers from logits: the grid that two machines agree on, and the notes beside it."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from tests.coding import always_coded, compressed, decompressed, prose
from underpar.codec import blocks, session, tables
from underpar.codec.tables import GRID, GridTables, float_tables, split_notes
from underpar.codec.text import Options
from underpar.entropy.freqs import ROW_TOTAL, from_grid
from underpar.errors import CodecError

PORTABLE = Options(portable=True, lanes=16)


def random_logits(rows: int, symbols: int, seed: int = 0, spread: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(rows, symbols, generator=generator, dtype=torch.float64)


@given(
    rows=st.integers(1, 4),
    symbols=st.integers(2, 300),
    spread=st.floats(0.01, 60),
    seed=st.integers(0, 1000),
)
def test_rows_are_frequencies(rows: int, symbols: int, spread: float, seed: int) -> None:
    logits = random_logits(rows, symbols, seed, spread)
    for table in (GridTables()(logits), float_tables(logits), float_tables(logits.float())):
        assert table.shape == (rows, symbols + 1)
        assert table.dtype == np.int64
        assert (table[:, 0] == 0).all()
        assert (table[:, -1] == ROW_TOTAL).all()
        assert (np.diff(table, axis=1) >= 1).all()
    on_grid = np.round(logits.numpy() * GRID).astype(np.int64)
    freqs = from_grid(on_grid, GRID)
    for row, values in zip(freqs, on_grid):
        order = np.lexsort((row, values))  # of equal logits one has what is left of the total
        assert (np.diff(row[order]) >= 0).all()


@pytest.mark.parametrize("spread", [0.1, 1.0, 4.0])
def test_rows_are_close_to_the_softmax(spread: float) -> None:
    logits = random_logits(50, 257, spread=spread)
    p = torch.softmax(logits, dim=-1).numpy()
    for table in (GridTables()(logits), float_tables(logits)):
        q = np.diff(table, axis=1) / ROW_TOTAL
        assert (p * np.log2(p / q)).sum(axis=1).mean() < 1e-4


def test_a_grid_needs_a_float64_model() -> None:
    with pytest.raises(AssertionError, match="float64"):
        GridTables()(random_logits(1, 5).float())


# --- notes ------------------------------------------------------------------------------------


def near_a_middle(rows: int, symbols: int) -> Tensor:
    """Logits of which a third lie so near a middle that noise decides."""
    logits = random_logits(rows, symbols)
    middles = (torch.floor(logits * GRID) + 0.5) / GRID
    noise = 1e-11 * random_logits(rows, symbols, seed=1)
    return torch.where(torch.arange(symbols) % 3 == 0, middles + noise, logits)


def test_notes_settle_what_noise_would_decide() -> None:
    calls = [near_a_middle(2, 50), near_a_middle(5, 50), near_a_middle(1, 50)]
    noisy = [x + 1e-11 * random_logits(*x.shape, seed=i) for i, x in enumerate(calls)]
    writing = GridTables()
    wanted = [writing(x) for x in calls]
    near, rest = split_notes(writing.notes() + b"payload")
    assert near == writing.near
    assert rest == b"payload"
    assert len(near) == 8 * 17
    following, guessing = GridTables(near), GridTables([])
    for table, x in zip(wanted, noisy):
        np.testing.assert_array_equal(following(x), table)
    guessed = [guessing(x) for x in noisy]
    assert not all(np.array_equal(a, b) for a, b in zip(wanted, guessed))


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 65_535), st.integers(0, 1))))
def test_notes_are_read_back(near: list[tables.Near]) -> None:
    notes = GridTables(near).notes()
    assert len(notes) == 4 + 7 * len(near)
    assert split_notes(notes + b"x") == (near, b"x")


@pytest.mark.parametrize("payload", [b"", b"\0\0\0", b"\1\0\0\0", b"\xff\xff\xff\xff" + bytes(90)])
def test_notes_that_are_cut_short(payload: bytes) -> None:
    with pytest.raises(CodecError, match="notes in"):
        split_notes(payload)


def test_a_note_on_nothing() -> None:
    with pytest.raises(CodecError, match="entry 5"):
        GridTables([(1, 5, 0)])(random_logits(2, 5))


# --- another machine --------------------------------------------------------------------------


def disturbed(relative: float) -> Callable[..., GridTables]:
    """GridTables of a machine whose float64 logits differ from ours by so much."""
    generator = torch.Generator().manual_seed(3)

    class Disturbed(GridTables):
        def __call__(self, logits: Tensor) -> NDArray[np.int64]:
            noise = torch.randn(logits.shape, generator=generator, dtype=torch.float64)
            return super().__call__(logits * (1 + relative * noise))

    return Disturbed


def test_a_machine_that_adds_differently_decodes(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with always_coded():
        file, _ = compressed(prose(1500), tiny_model, PORTABLE)
    monkeypatch.setattr(session, "GridTables", disturbed(1e-12))
    assert decompressed(file, tiny_model) == prose(1500)
    monkeypatch.setattr(session, "GridTables", disturbed(1e-4))
    with pytest.raises(CodecError, match="does not decode"):
        decompressed(file, tiny_model)


def test_notes_carry_a_machine_that_is_far_off(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = prose(300)
    with always_coded(), monkeypatch.context() as patch:
        patch.setattr(tables, "MARGIN", 1e-3)
        file, _ = compressed(text, tiny_model, PORTABLE)
        few, _ = compressed(text, tiny_model, Options(lanes=16, adapt=False))
    assert len(file) > len(few) + 7 * 50
    monkeypatch.setattr(session, "GridTables", disturbed(1e-8))
    assert decompressed(file, tiny_model) == text


@pytest.mark.parametrize("blocks_of", [0, 200])
def test_a_portable_file_is_tied_to_no_machine(tiny_model: Path, blocks_of: int) -> None:
    with always_coded():
        file, _ = compressed(prose(500), tiny_model, replace(PORTABLE, block_bytes=blocks_of))
    source, moved = io.BytesIO(file), io.BytesIO()
    header = blocks.read_header(source)
    content = list(blocks.read_blocks(source, header))
    assert header.machine is not None
    assert header.machine.dtype == "float64"
    assert not header.adapts
    elsewhere = replace(
        header.machine, torch=(9, 9, 9), instruction_set="NEON", threads=3, device="cuda"
    )
    header = replace(header, machine=elsewhere)
    blocks.write_header(moved, header)
    for block in content:
        blocks.write_block(moved, block)
    blocks.write_end(moved, len(content), header)
    assert decompressed(moved.getvalue(), tiny_model) == prose(500)


def test_a_grid_costs_next_to_nothing(tiny_model: Path) -> None:
    with always_coded():
        portable, report = compressed(prose(3000), tiny_model, PORTABLE)
        plain, _ = compressed(
            prose(3000), tiny_model, replace(PORTABLE, portable=False, adapt=False)
        )
    source = io.BytesIO(portable)
    (block,) = blocks.read_blocks(source, blocks.read_header(source))
    (notes,) = struct.unpack_from("<I", block.payload)
    assert len(portable) - 4 - 7 * notes == pytest.approx(len(plain), abs=2)
    assert report.tokens == 3000
