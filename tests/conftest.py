"""What all tests share: one thread, and one whole run of the line."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

# Before torch is imported, here and in every process that a test starts: the models are so small
# that a second thread only gets in the way, and sums keep their order.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import hypothesis
import pytest

from tests import children
from tests.coding import tiny_file
from tests.commands import Run, counted, underpar

# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("ours", deadline=None)
hypothesis.settings.load_profile("ours")


@pytest.fixture(scope="session", autouse=True)
def no_counting() -> Iterator[None]:
    """Commands in this process take a number for the length of the program; test_ship packs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("underpar.cli.run.counting", counted)
        yield


def pytest_collection_finish(session: pytest.Session) -> None:
    """Whole suites want children; they are got ready on another core while the first tests run.

    What was imported and collected until here stays: the garbage collector need not look again.
    """
    if len(session.items) > 500:
        children.warm_up()
    gc.freeze()


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
