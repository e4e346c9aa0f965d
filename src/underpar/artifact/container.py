"""The `.upar` container: named byte sections under a JSON header, whole or refused.

    prefix    16 bytes   magic "UPAR", then three little-endian uint32: format version,
                         stored length of the header, length of the header's JSON
    header               canonical JSON (sorted keys, no spaces, ASCII), deflated by zlib
    sections             the bytes of each section, one after the other, no gaps
    digest    32 bytes   SHA-256 of everything before it

The header's key "sections" lists [name, length, crc32] in file order; offsets follow from it, so
sections cannot overlap and the file's length is known before anything is read into place. The
checksums say which section is damaged, the digest leaves nothing unprotected: a flipped bit
anywhere, magic and digest included, is an error.

Nothing here depends on the clock, on dict order of the header or on the machine: the same content
gives the same bytes (for one version of zlib). Reading executes nothing. ``split`` reads a file of
our own; a stranger's goes through ``check`` first, which holds every length against the real size
of the file before memory is taken for it. `docs/format.md` has the details; a change of bytes bumps
``VERSION``.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from underpar import storage

MAGIC = b"UPAR"
VERSION = 1
PREFIX = struct.Struct("<4sIII")
DIGEST_BYTES = 32

#: Largest header we would ever write; a longer one is refused before it is inflated.
MAX_HEADER_JSON = 1 << 24

Header = dict[str, Any]


def write_container(path: Path, header: Mapping[str, Any], sections: Mapping[str, bytes]) -> None:
    """Write ``sections`` (name -> bytes, kept in this order) under ``header`` to ``path``.

    ``header`` is JSON-able and has no key "sections": that one is ours. The file replaces an older
    one only when it is complete. Raises MachineError when the disk refuses; an old file is intact.
    """
    assert "sections" not in header, "the container writes this key itself"
    table = [[name, len(data), zlib.crc32(data)] for name, data in sections.items()]
    text = canonical_json({**header, "sections": table})
    assert len(text) <= MAX_HEADER_JSON, "a header this long could not be read back"
    deflated = zlib.compress(text, 9)
    digest = hashlib.sha256()
    with storage.replacing(Path(path)) as handle:
        prefix = PREFIX.pack(MAGIC, VERSION, len(deflated), len(text))
        for part in (prefix, deflated, *sections.values()):
            digest.update(part)
            handle.write(part)
        handle.write(digest.digest())


def split(data: bytes) -> tuple[Header, dict[str, bytes]]:
    """(header without "sections", name -> bytes) of a file that ``write_container`` wrote."""
    start = PREFIX.size + PREFIX.unpack_from(data)[2]
    header, sections = json.loads(zlib.decompress(data[PREFIX.size : start])), {}
    for name, size, _ in header.pop("sections"):
        sections[name] = data[start : start + size]
        start += size
    return header, sections


def canonical_json(value: Any) -> bytes:
    """JSON with one spelling per value: sorted keys, no spaces, ASCII, no NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")
