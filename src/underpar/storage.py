"""Files that are either whole or not there: write beside, fsync, rename."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from underpar.errors import MachineError


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary file that becomes ``path`` when the block ends well, and vanishes otherwise.

    The old content of ``path`` stays until then, so a full disk or a Ctrl-C loses nothing. An
    OSError (no space, no permission) is raised as MachineError with the path and the reason.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise MachineError(
            f"cannot write {path}",
            got=error.strerror or str(error),
            do="Nothing was changed: free some space or choose another place, and run it again.",
        ) from error
    finally:
        with suppress(OSError):  # usually renamed by now; otherwise its failure is not the news
            beside.unlink()
    with suppress(OSError):  # some file systems refuse it, and the file itself is safe by now
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a crash."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes) -> None:
    with replacing(path) as handle:
        handle.write(data)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))
