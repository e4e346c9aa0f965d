"""One process is a group of one; two real processes agree on every number."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import children
from underpar import dist
from underpar.errors import MachineError


def _report(folder: str) -> None:
    """What a rank saw, as a file."""
    with dist.processes():
        r = dist.rank()
        x = dist.all_reduce_sum(torch.tensor([1.0 + r, 10.0]))
        m = dist.all_reduce_mean(torch.tensor([1.0 + r]))
        dist.barrier()
        seen = {
            "rank": r,
            "world": dist.world_size(),
            "main": dist.is_main(),
            "sum": x.tolist(),
            "mean": m.tolist(),
            "float64": dist.sum_float64(0.1 + r, 1e-17),
            "gather": dist.gather({"r": r}),
            "broadcast": dist.broadcast(f"from {r}"),
            "share": dist.share(7),
        }
        Path(folder, f"{r}.json").write_text(json.dumps(seen))


def test_alone_everything_is_a_no_op() -> None:
    x = torch.tensor([1.0, 2.0])
    with dist.processes():
        assert (dist.rank(), dist.world_size(), dist.is_main()) == (0, 1, True)
        assert dist.all_reduce_sum(x) is x
        assert dist.all_reduce_mean(x) is x
        dist.barrier()
    assert x.tolist() == [1.0, 2.0]
    assert dist.sum_float64(0.1, 2) == (0.1, 2.0)
    assert dist.gather("a") == ["a"]
    assert dist.broadcast("a") == "a"
    assert dist.share(7) == (0, 7)


def test_the_environment_is_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERPAR_TEST", "before")
    taken = dist.environment()
    monkeypatch.setenv("UNDERPAR_TEST", "after")
    assert taken["UNDERPAR_TEST"] == "before"


def test_the_device_is_this_ranks_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert dist.device() == torch.device("cuda", 3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert dist.device() == torch.device("cpu")


def test_more_ranks_than_gpus_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WORLD_SIZE", "8"), ("RANK", "2"), ("LOCAL_RANK", "2")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(MachineError, match="local rank 2 with 2 GPUs"), dist.processes():
        pass


@given(st.integers(0, 10_000), st.integers(1, 64))
def test_shares_cover_everything_once_and_evenly(n: int, world: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "world_size", lambda: world)
        shares = []
        for rank in range(world):
            patch.setattr(dist, "rank", lambda rank=rank: rank)
            shares.append(dist.share(n))
    assert shares[0][0] == 0
    assert shares[-1][1] == n
    assert all(a[1] == b[0] for a, b in pairwise(shares))
    sizes = [end - start for start, end in shares]
    assert max(sizes) - min(sizes) <= 1


def test_two_processes_agree(tmp_path: Path) -> None:
    children.ranks(_report, str(tmp_path))
    outs = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [(o.pop("rank"), o.pop("main"), o.pop("share")) for o in outs] == [
        (0, True, [0, 3]),
        (1, False, [3, 7]),
    ]
    assert outs[0] == outs[1], "every rank sees the same sums, in the same bits"
    assert outs[0] == {
        "world": 2,
        "sum": [3.0, 20.0],
        "mean": [1.5],
        "float64": [0.1 + 1.1, 2e-17],
        "gather": [{"r": 0}, {"r": 1}],
        "broadcast": "from 0",
    }
