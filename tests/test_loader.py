"""Loaders: the published orders bit for bit, ranks, exact resume."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from underpar import dist
from underpar.data.loader import Batch, Loader, make_loader
from underpar.data.shards import write_shard
from underpar.errors import DataError
from underpar.recipe.schema import DataSpec

SIZES = (103, 30, 257, 8, 64)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Shards whose tokens are all different, so that a token tells where it came from."""
    paths, first = [], 0
    for i, size in enumerate(SIZES):
        paths.append(tmp_path / f"fineweb_train_{i:06d}.bin")
        write_shard(paths[-1], np.arange(first, first + size))
        first += size
    return paths


def as_rank(patch: pytest.MonkeyPatch, rank: int, world: int) -> None:
    patch.setattr(dist, "rank", lambda: rank)
    patch.setattr(dist, "world_size", lambda: world)


def take(loader: Loader, n: int) -> list[Batch]:
    return [loader.next_batch() for _ in range(n)]


def same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x, y) for one, two in zip(a, b) for x, y in zip(one, two)
    )


def windows(batches: list[Batch]) -> list[list[int]]:
    """Every row as its seq_len + 1 tokens; checks that targets are inputs shifted by one."""
    rows = []
    for inputs, targets in batches:
        assert inputs.dtype == targets.dtype == torch.int64
        assert torch.equal(inputs[:, 1:], targets[:, :-1])
        rows += torch.cat([inputs, targets[:, -1:]], dim=1).tolist()
    return rows


def test_sequential_reads_one_ring(files: list[Path]) -> None:
    ring = np.resize(np.arange(sum(SIZES)), 5000)
    loader = make_loader(DataSpec(loader="sequential"), files, seq_len=12, micro_tokens=36)
    for i in range(100):
        inputs, targets = loader.next_batch()
        assert inputs.shape == targets.shape == (3, 12)
        slice_ = ring[i * 37 : (i + 1) * 37].tolist()
        assert inputs.flatten().tolist() == slice_[:-1]
        assert targets.flatten().tolist() == slice_[1:]


def test_sequential_is_the_same_for_any_world(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def make() -> Loader:
        return make_loader(DataSpec(loader="sequential"), files, seq_len=8, micro_tokens=16)

    alone = take(make(), 12)
    for world in (2, 3):
        dealt: list[Batch | None] = [None] * 12
        for rank in range(world):
            as_rank(monkeypatch, rank, world)
            dealt[rank::world] = take(make(), 12 // world)
        assert same(alone, dealt)  # type: ignore[arg-type]


def published_rows(files: list[Path], rank: int, world: int, t: int) -> Iterator[list[int]]:
    """The published shuffled order, written down from its description, one row at a time."""
    shards = [np.fromfile(path, "<u2", offset=1024) for path in files[rank::world]]
    rng = np.random.Generator(np.random.PCG64(rank))

    def cut(n: int) -> list[int]:
        largest = min(t - 1, max(0, n - t - 1))
        phase = int(rng.integers(0, largest, endpoint=True)) if largest > 0 else 0
        order = rng.permutation((n - 1 - phase) // t)
        return [phase + int(j) * t for j in order]

    while True:
        stacks = [cut(len(shard)) for shard in shards]
        while any(stacks):
            left = np.array([len(stack) for stack in stacks], dtype=np.float64)
            i = int(rng.choice(len(shards), p=left / left.sum()))
            start = stacks[i].pop()
            yield shards[i][start : start + t + 1].tolist()


@pytest.mark.parametrize(
    ("rank", "world", "seq_len"), [(0, 1, 8), (0, 2, 8), (1, 2, 8), (0, 1, 40)]
)
def test_shuffled_is_the_published_order(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, rank: int, world: int, seq_len: int
) -> None:
    as_rank(monkeypatch, rank, world)
    loader = make_loader(
        DataSpec(loader="shuffled"), files, seq_len=seq_len, micro_tokens=4 * seq_len
    )
    rows = windows(take(loader, 60))  # several times through the data
    wanted = published_rows(files, rank, world, seq_len)
    assert rows == [next(wanted) for _ in range(240)]


def test_shuffled_sees_every_sequence_once_an_epoch(files: list[Path]) -> None:
    one = files[2:3]
    loader = make_loader(DataSpec(loader="shuffled"), one, seq_len=16, micro_tokens=16)
    rows = windows(take(loader, 15))  # (257 - 1 - phase) // 16 = 15 sequences, the phase being > 0
    starts = [row[0] for row in rows]
    assert sorted(starts) == [min(starts) + 16 * j for j in range(15)] != starts


def test_shuffled_with_fewer_files_than_ranks(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[int]] = []
    for rank in range(3):
        as_rank(monkeypatch, rank, 3)
        loader = make_loader(
            DataSpec(loader="shuffled"), files[:1] + files[2:3], seq_len=8, micro_tokens=8
        )
        seen.append({token for row in windows(take(loader, 200)) for token in row})
    assert not seen[0] & seen[1]
    assert not seen[1] & seen[2]
    assert sum(map(len, seen)) > 0.9 * (103 + 257)


@pytest.mark.parametrize("kind", ["sequential", "shuffled", "recent"])
@pytest.mark.parametrize("before", [0, 3, 50])
def test_resume_is_exact(files: list[Path], kind: str, before: int) -> None:
    loader = make_loader(DataSpec(loader=kind), files, seq_len=8, micro_tokens=24)
    take(loader, before)
    state = json.loads(json.dumps(loader.bookmark()))
    wanted = take(loader, 30)
    fresh = make_loader(DataSpec(loader=kind), files, seq_len=8, micro_tokens=24)
    take(fresh, 7)
    fresh.restore(state)
    assert same(take(fresh, 30), wanted)
    assert fresh.bookmark() == loader.bookmark()


@pytest.mark.parametrize("kind", ["sequential", "shuffled", "recent"])
def test_state_is_the_same_on_every_rank(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    loaders = []
    for rank in range(2):
        as_rank(monkeypatch, rank, 2)
        loaders.append(make_loader(DataSpec(loader=kind), files, seq_len=8, micro_tokens=8))
        take(loaders[-1], 5)
    state = loaders[0].bookmark()
    assert state == loaders[1].bookmark()
    again = make_loader(DataSpec(loader=kind), files, seq_len=8, micro_tokens=8)
    again.restore(state)
    assert same(take(again, 5), take(loaders[1], 5))


@pytest.mark.parametrize("kind", ["sequential", "shuffled", "recent"])
def test_restore_refuses_a_foreign_state(files: list[Path], kind: str) -> None:
    loader = make_loader(DataSpec(loader=kind), files, seq_len=8, micro_tokens=8)
    other = make_loader(DataSpec(loader=kind), files[:2], seq_len=8, micro_tokens=8)
    with pytest.raises(DataError, match="loader state: tokens"):
        loader.restore(other.bookmark())
    other = make_loader(DataSpec(loader=kind), files, seq_len=4, micro_tokens=8)
    with pytest.raises(DataError, match="loader state: seq_len"):
        loader.restore(other.bookmark())
    with pytest.raises(DataError, match="loader state: kind"):
        loader.restore({})


@pytest.mark.parametrize("kind", ["sequential", "shuffled", "recent"])
def test_tiny_corpora(files: list[Path], kind: str) -> None:
    with pytest.raises(DataError, match=r"8 tokens.*at least seq_len"):
        make_loader(DataSpec(loader=kind), files[3:4], seq_len=8, micro_tokens=8)
    inputs, _ = make_loader(
        DataSpec(loader=kind), files[3:4], seq_len=7, micro_tokens=70
    ).next_batch()
    assert isinstance(inputs, Tensor)
    assert inputs.shape == (10, 7)


def test_recent_prefers_the_end_by_the_half_life(tmp_path: Path) -> None:
    write_shard(tmp_path / "fineweb_train_000000.bin", np.arange(60_000, dtype=np.uint16))
    spec = DataSpec(loader="recent", half_life=0.25)
    files = [tmp_path / "fineweb_train_000000.bin"]
    inputs, targets = make_loader(spec, files, seq_len=2, micro_tokens=40_000).next_batch()
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    age = (59_999 - inputs[:, 0].double()) / 60_000
    assert (inputs[:, 0] >= 0).all()
    assert (targets[:, -1] <= 59_999).all()
    # Weights 1, 1/2, 1/4, 1/8 of the four quarters, the newest first.
    shares = torch.histc(age, bins=4, min=0, max=1) / len(age)
    assert torch.allclose(shares, torch.tensor([8, 4, 2, 1.0]).double() / 15, atol=0.01)


def test_recent_deals_the_same_rows_to_any_world(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = DataSpec(loader="recent")
    alone = take(make_loader(spec, files, seq_len=8, micro_tokens=16), 6)
    for rank in range(2):
        as_rank(monkeypatch, rank, 2)
        mine = take(make_loader(spec, files, seq_len=8, micro_tokens=16), 3)
        assert same(mine, alone[rank::2])
