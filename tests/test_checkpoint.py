"""Checkpoint files: whole or not there, exact, and loud when damaged."""

import numpy as np
import pytest
import torch

from underpar.errors import MachineError, TrainingError
from underpar.train import checkpoint

TENSORS = {
    "model/a.weight": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
    "model/table": torch.tensor([1.0, 1 / 3, float("inf")], dtype=torch.bfloat16),
    "optimizer/step/a": torch.tensor(7.0),
    "average/count": torch.tensor(3),
    "empty": torch.zeros(0, 5),
}
COUNTERS = {"step": 12, "elapsed": 0.1 + 0.2, "losses": [1 / 3, 2.5], "on": True}


def test_what_goes_in_comes_out(tmp_path):
    path = checkpoint.save(tmp_path / "new", 12, TENSORS, COUNTERS)
    assert checkpoint.newest(tmp_path / "new") == path
    tensors, counters = checkpoint.load(path)
    assert counters == COUNTERS
    assert list(tensors) == list(TENSORS)
    for key, want in TENSORS.items():
        assert tensors[key].dtype == want.dtype
        assert torch.equal(tensors[key], want), key
    with np.load(path, allow_pickle=False) as archive:  # nothing in it needs pickle
        assert all(archive[name].dtype != object for name in archive.files)


def test_nothing_saved_is_none(tmp_path):
    assert checkpoint.newest(tmp_path) is None
    assert checkpoint.newest(tmp_path / "missing") is None


def test_two_are_kept_and_strays_go(tmp_path):
    (tmp_path / ".step_000000003.npz.4711.part").write_bytes(b"killed while writing")
    for step in (5, 10, 15, 20):
        checkpoint.save(tmp_path, step, TENSORS, COUNTERS)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["step_000000015.npz", "step_000000020.npz"]
    checkpoint.save(tmp_path, 2, TENSORS, COUNTERS)  # the run was started over
    assert [p.name for p in tmp_path.iterdir()] == ["step_000000002.npz"]


def test_every_damage_is_found_and_the_older_file_named(tmp_path):
    checkpoint.save(tmp_path, 5, TENSORS, COUNTERS)
    path = checkpoint.save(tmp_path, 10, TENSORS, COUNTERS)
    good = path.read_bytes()
    cases = [good[: len(good) * k // 8] for k in range(8)]
    cases += [good[:i] + bytes([good[i] ^ 0x41]) + good[i + 1 :] for i in range(0, len(good), 23)]
    found = 0
    for damaged in cases:
        path.write_bytes(damaged)
        message = ""
        try:
            tensors, counters = checkpoint.load(path)
        except TrainingError as error:
            message = str(error)
        if message:
            found += 1
            assert "step_000000005.npz" in message
        else:  # a byte that means nothing (a date, padding): then nothing may have changed
            assert counters == COUNTERS
            assert all(torch.equal(tensors[k], t) for k, t in TENSORS.items())
    assert found > len(cases) // 2
    checkpoint.load(tmp_path / "step_000000005.npz")


def test_damage_without_an_older_file_says_from_the_start(tmp_path):
    path = checkpoint.save(tmp_path, 5, TENSORS, COUNTERS)
    path.write_bytes(b"")
    with pytest.raises(TrainingError, match="from the start"):
        checkpoint.load(path)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    old = checkpoint.save(tmp_path, 5, TENSORS, COUNTERS)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(MachineError, match="No space left"):
        checkpoint.save(tmp_path, 6, TENSORS, COUNTERS)
    assert list(tmp_path.iterdir()) == [old]
    checkpoint.load(old)
