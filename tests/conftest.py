"""What all tests share: one thread, and one whole run of the line."""

from __future__ import annotations

import os

# Before torch is imported, here and in every process that a test starts: the models are so small
# that a second thread only gets in the way, and sums keep their order.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest

from tests.coding import tiny_file
from tests.commands import Run, underpar


@pytest.fixture(scope="session")
def nano_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """``underpar train nano``, once. Read it, or change a copy."""
    out = tmp_path_factory.mktemp("nano") / "n"
    done = underpar("train", "nano", "--out", out)
    assert done.code == 0, done.err
    (data,) = (out.parent / "data").iterdir()
    return Run(out, data)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of a model of random weights, made to be fast."""
    return tiny_file(tmp_path_factory.mktemp("tiny") / "tiny.upar")
