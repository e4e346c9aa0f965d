"""Token shards in the field's own format.

    256 little-endian int32: 20240520, 1, number of tokens, 0 ...      1,024 bytes
    tokens as little-endian uint16                                     2 bytes each

Magic and version stand first, the file size is fixed by the count, so a foreign, truncated or
overlong file is recognised without reading its tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from underpar import storage
from underpar.errors import DataError

MAGIC = 20240520
VERSION = 1
HEADER_WORDS = 256
HEADER_BYTES = 4 * HEADER_WORDS

Tokens = npt.NDArray[np.uint16]


def shard_name(split: Literal["train", "val"], index: int) -> str:
    return f"fineweb_{split}_{index:06d}.bin"


def shard_files(folder: Path, split: Literal["train", "val"]) -> list[Path]:
    """The split's shards in name order; not the ``_bytes_`` sidecars, which match the same glob."""
    found = Path(folder).glob(f"fineweb_{split}_*.bin")
    return sorted(path for path in found if "_bytes_" not in path.name)


def write_shard(path: Path, tokens: npt.NDArray[np.integer]) -> None:
    """Write one shard, whole or not at all. tokens: [N] integers in 0..65535, N >= 1."""
    tokens = np.asarray(tokens)
    if tokens.ndim != 1 or not 0 < tokens.size < 2**31:
        raise DataError(
            f"writing shard {path}",
            got=f"shape {tokens.shape}",
            wanted="one dimension, 1 to 2^31 - 1 tokens",
        )
    if tokens.dtype != np.uint16 and (tokens.min() < 0 or tokens.max() > 0xFFFF):
        raise DataError(
            f"writing shard {path}",
            got=f"ids from {tokens.min()} to {tokens.max()}",
            wanted="ids that fit in 16 bits",
        )
    header = np.zeros(HEADER_WORDS, dtype="<i4")
    header[:3] = MAGIC, VERSION, tokens.size
    with storage.replacing(path) as handle:
        handle.write(header.tobytes())
        handle.write(np.ascontiguousarray(tokens, dtype="<u2").data)


def read_shard(path: Path) -> Tokens:
    """The shard's tokens, uint16 [N], memory-mapped read-only.

    Raises DataError for anything but a complete shard of this format; ``check_shard`` says why.
    """
    try:
        magic, version, count = np.fromfile(path, "<i4", HEADER_WORDS)[:3].tolist()
        whole = path.stat().st_size == HEADER_BYTES + 2 * count > HEADER_BYTES
    except (OSError, ValueError):
        whole = False
    if not whole or magic != MAGIC or version != VERSION:
        raise DataError(f"shard {path}", got="not a whole shard", wanted="fineweb_*.bin")
    return np.memmap(path, dtype="<u2", mode="r", offset=HEADER_BYTES, shape=(count,))
