"""Stand-ins for packages around training: they do nothing, and the script goes on."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from underpar.audit.child import stubs_modules, stubs_tools


@pytest.fixture
def finder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The finder of the child, asked before all others; nothing of it stays."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "meta_path", [stubs_modules.Finder({"guarded_one"}), *sys.meta_path])
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def made(name: str) -> Any:
    found = stubs_tools.module(name)
    assert found is not None
    return found


def test_progress_bars_hand_their_items_on() -> None:
    tqdm = made("tqdm")
    bar = tqdm.tqdm([1, 2, 3], desc="steps")
    assert list(bar) == [1, 2, 3]
    bar.set_postfix(loss=1.0)
    with tqdm.trange(2, 4) as counts:
        assert list(counts) == [2, 3]


def test_compressors_keep_the_bytes() -> None:
    zstandard = made("zstandard")
    packed = zstandard.ZstdCompressor(level=22).compress(b"abc")
    assert zstandard.ZstdDecompressor().decompress(packed) == b"abc"
    assert made("brotli").decompress(made("brotli").compress(b"abc", quality=11)) == b"abc"


def test_loggers_say_nothing_and_downloads_fail() -> None:
    wandb = made("wandb")
    run = wandb.init(project="x", config={})
    run.log({"loss": 1.0})
    wandb.config.steps = 3
    assert f"{made('psutil').virtual_memory().used / 1e9:.2f}" == "0.00"
    with pytest.raises(OSError, match="unreachable"):
        made("requests").get("https://example.org")


@pytest.mark.usefixtures("finder")
def test_missing_imports_are_answered_unless_the_script_guards_them() -> None:
    sub = importlib.import_module("neptune.sub")
    assert isinstance(sub.anything, stubs_tools.Quiet)
    assert importlib.import_module("no_such_kernels.ops").attend is not None
    with pytest.raises(ImportError):
        importlib.import_module("guarded_one")
