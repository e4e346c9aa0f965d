"""Checks of settings that a tiny run fails: what is read from them, and the attempt after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import audit_runner
from underpar.audit import retry, sandbox
from underpar.audit.child import advice
from underpar.audit.child.shrink import Shrinker, Sizes
from underpar.audit.facts import Job, Outcome, StreamSpec


@pytest.mark.parametrize(
    ("message", "value", "wanted"),
    [
        ("A must be in [0, 2], got 4", 4, 2),
        ("A must be between 8 and 64", 4, 8),
        ("A must be a power of two >=1024, got 256", 256, 1024),
        ("A must be a power of 2", 48, 64),
        ("A must be at least 100", 7, 100),
        ("A must be > 1", 1, 2),
        ("A must be <= 16, got 20", 20, 16),
        ("A must be < 16", 20, 15),
        ("A must be a multiple of 128", 200, 256),
        ("A must be divisible by 32", 8, 32),
        ("A must be positive", 3, 3),
        ("shape mismatch [4, 64] and [2, 64]", 3, 3),
    ],
)
def test_the_nearest_value_that_a_message_allows(message: str, value: int, wanted: int) -> None:
    assert advice.allowed(message, value) == wanted


def advised(tmp_path: Path, source: str, **settings: int) -> dict[str, Any]:
    """What is advised when `source` fails with the tiny values of `settings`."""
    shrinker = Shrinker(Sizes(), {}, {"NUM_LAYERS": 11, **settings})
    values = {n.lower(): shrinker.value(n, v) for n, v in {"NUM_LAYERS": 11, **settings}.items()}
    path = tmp_path / "script.py"
    path.write_text(source)
    with pytest.raises(Exception) as caught:  # noqa: PT011  (whatever the source raises)
        exec(compile(source, str(path), "exec"), values)
    return advice.advise(caught.value, tmp_path, shrinker)


def test_a_named_setting_gets_the_value_that_its_check_allows(tmp_path: Path) -> None:
    source = "raise ValueError(f'TABLE_BUCKETS must be >= 32768, got {table_buckets}')"
    assert advised(tmp_path, source, TABLE_BUCKETS=1 << 22) == {
        "environment": {"TABLE_BUCKETS": "32768"}
    }
    source = "raise ValueError('gate: MY_GATE must be in [0, 2], got 4')"
    assert advised(tmp_path, source) == {"environment": {"MY_GATE": "2"}}


def test_a_check_without_words_names_its_settings_in_the_statement(tmp_path: Path) -> None:
    source = "if table_buckets < num_layers * 10000:\n    raise RuntimeError('too small')"
    told = advised(tmp_path, source, TABLE_BUCKETS=1 << 22)
    assert told == {"environment": {"TABLE_BUCKETS": "131072"}, "layers": 11}
    told = advised(tmp_path, "assert hash_size % 3 == 0", HASH_SIZE=30_000)
    assert told == {"environment": {"HASH_SIZE": "30000"}}


def test_an_index_out_of_range_brings_back_all_layers(tmp_path: Path) -> None:
    assert advised(tmp_path, "[0, 1][5]") == {"layers": 11}
    assert advised(tmp_path, "import no_such_module") == {}
    assert advised(tmp_path, "open('/no/such/file')") == {}


def test_the_whole_width_is_tried_last(tmp_path: Path) -> None:
    shrinker = Shrinker(Sizes(layers=11), {}, {"NUM_LAYERS": 11, "MODEL_DIM": 512, "NUM_HEADS": 8})
    for name in shrinker.defaults:
        shrinker.setting(name)
    assert advice.advise(RuntimeError("?"), tmp_path, shrinker) == {"width": 512, "heads": 8}


def job(source: str = "", **shrink: Any) -> Job:
    return Job(source, "s.py", {}, {}, 1, StreamSpec(64, 1025, 1), 1, 60.0, 4096, shrink)


def failed(told: Any) -> Outcome:
    return Outcome("failed", 1.0, (), "", "", (), {"advice": told})


def test_advice_is_followed_as_far_as_it_is_numbers_for_sizes() -> None:
    told = {
        "layers": 11, "width": 10**9, "memory": 3, "heads": True, "steps": 9,
        "environment": {"TABLE_SIZE": "1024", "PATH": "/x", "lower": "1", "OTHER": 3},
    }  # fmt: skip
    first = job(buckets=256, environment={"BITS": "8"})
    other = retry.gentler(first, failed(told))
    assert other is not None
    assert other.shrink == {
        "buckets": 256, "layers": 11, "environment": {"BITS": "8", "TABLE_SIZE": "1024"},
    }  # fmt: skip
    assert retry.gentler(other, failed(told)) is None
    useless: list[Any] = [None, [], {}, {"environment": 3}, {"layers": "11"}]
    for nothing in useless:
        assert retry.gentler(first, failed(nothing)) is None
    finished = Outcome("finished", 1.0, (), "", "", (), {"advice": told})
    assert retry.gentler(first, finished) is None


def test_attempts_come_to_an_end() -> None:
    runs: list[Job] = []

    def run(one: Job) -> Outcome:
        runs.append(one)
        return failed({"environment": {"TABLE_SIZE": str(len(runs))}})

    last, _ = retry.settle(job(), run)
    assert len(runs) == 1 + retry.MOST
    assert last is runs[-1]


SCRIPT = """
import os
import numpy as np
import torch
from pathlib import Path
layers = int(os.environ.get("NUM_LAYERS", 11))
buckets = int(os.environ.get("NGRAM_BUCKETS", 4194304))
class H:
    skip_layers = [3, 9]
    slots = 512
if buckets < 1024 or buckets & (buckets - 1):
    raise ValueError(f"NGRAM_BUCKETS must be a power of two >=1024, got {buckets}")
blocks = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(layers))
assert all(i < layers for i in H.skip_layers)

os.makedirs("/no-data/checkpoints", exist_ok=True)
torch.save(blocks.state_dict(), "/no-data/checkpoints/a.pt")
Path("/no-workspace/runs/one").mkdir(parents=True)
Path("/no-workspace/runs/one/log.txt").write_text("said")
with open("../no-root/notes.txt", "w") as f:
    f.write("noted")
np.save("/no-data/numbers.npy", np.arange(3))
os.replace("/no-data/numbers.npy", "/no-data/other.npy")
assert not os.path.exists("/no-data/numbers.npy")
assert np.load("/no-data/other.npy").tolist() == [0, 1, 2]
blocks.load_state_dict(torch.load("/no-data/checkpoints/a.pt"))
assert os.listdir("/no-workspace/runs") == ["one"]
print(open("/no-workspace/runs/one/log.txt").read(), Path("../no-root/notes.txt").read_text())
os.chdir("/no-workspace/repository")
assert Path("script.py").exists()
assert os.path.isdir("/no-data/datasets/fineweb10B_sp1024")
assert not os.path.exists("/no-data/else")
print("buckets", buckets, "layers", layers, H.skip_layers)
"""


def test_a_script_that_checks_its_settings_runs_the_second_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sandbox, "execute", audit_runner.forked)
    last, outcome = retry.settle(job(SCRIPT, buckets=256), sandbox.run)
    assert outcome.status == "finished", outcome.error
    assert last.shrink == {"buckets": 256, "environment": {"NGRAM_BUCKETS": "1024"}}
    assert outcome.stdout.splitlines()[-2:] == ["said noted", "buckets 1024 layers 2 [0, 1]"]
    assert "paths" in outcome.stubs
    assert not Path("/no-data").exists()
    assert not Path("/no-workspace").exists()
