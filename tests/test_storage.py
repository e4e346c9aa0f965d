"""A file is whole or not there, whatever happens while it is written."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests import children
from underpar import storage
from underpar.errors import MachineError


def test_a_file_and_its_folders_appear(tmp_path: Path) -> None:
    storage.write_text(tmp_path / "a" / "b" / "text.txt", "grün\n")
    assert (tmp_path / "a" / "b" / "text.txt").read_bytes() == "grün\n".encode()
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["text.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_the_old_content(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "f"
    storage.write_bytes(path, b"old")

    def fail() -> None:
        with storage.replacing(path) as handle:
            handle.write(b"new, but only ha")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_the_old_content_stays_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "f"
    storage.write_bytes(path, b"old")
    with storage.replacing(path) as handle:
        handle.write(b"new")
        handle.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_a_full_disk_is_said_plainly_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    storage.write_bytes(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.os, "fsync", full)
    with pytest.raises(MachineError, match=r"cannot write .*f: got No space left.*free some space"):
        storage.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_place_that_cannot_be_written_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file" / "below", tmp_path):
        with pytest.raises(MachineError, match="cannot write"):
            storage.write_bytes(path, b"x")


def test_a_file_system_that_cannot_sync_folders_is_good_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network file systems refuse fsync on a folder; by then the file is already there."""
    sync = os.fsync

    def only_files(handle: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(22, "Invalid argument")
        sync(handle)

    monkeypatch.setattr(storage.os, "fsync", only_files)
    storage.write_bytes(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"new"


def test_a_killed_writer_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "f"
    storage.write_bytes(path, b"old")
    code = (
        "import sys, time; from pathlib import Path; from underpar import storage\n"
        "with storage.replacing(Path(sys.argv[1])) as f:\n"
        "    f.write(b'half'); f.flush(); time.sleep(60)"
    )
    child = children.start([sys.executable, "-c", code, path])
    children.wait_until(lambda: any(b"half" in p.read_bytes() for p in tmp_path.iterdir()), child)
    child.send_signal(signal.SIGKILL)
    children.end(child, code=-signal.SIGKILL)
    assert path.read_bytes() == b"old"
    start = time.monotonic()
    storage.write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert time.monotonic() - start < 10
