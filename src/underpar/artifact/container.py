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
gives the same bytes (for one version of zlib). Reading executes nothing, and every length is held
against the real size of the file before memory is taken for it. `docs/format.md` has the details;
a change of bytes bumps ``VERSION``.
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
from underpar.errors import ArtifactError, MachineError

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


def read_container(path: Path) -> tuple[Header, dict[str, bytes]]:
    """(header without "sections", name -> bytes) of the file, checked from end to end.

    Raises ArtifactError for anything that ``write_container`` of this version cannot have written,
    MachineError when the file cannot be read at all.
    """
    return parse_container(read_file(path), path)


def read_file(path: Path) -> bytes:
    """The bytes of the file; ArtifactError when there is none, MachineError when unreadable."""
    try:
        return Path(path).read_bytes()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ArtifactError(
            f"artifact {path}", got=error.strerror, wanted="a .upar file", do="Check the path."
        ) from error
    except OSError as error:
        raise MachineError(f"cannot read {path}", got=error.strerror or str(error)) from error


def parse_container(data: bytes, path: Path) -> tuple[Header, dict[str, bytes]]:
    """As ``read_container``, of bytes already in memory; ``path`` is for the messages only."""
    stored, length = _check_prefix(data, path)
    header = _parse_header(data[PREFIX.size : PREFIX.size + stored], length, path)
    sections: dict[str, bytes] = {}
    start, end = PREFIX.size + stored, len(data) - DIGEST_BYTES
    for name, size, crc in _section_table(header, end - start, path):
        sections[name] = data[start : start + size]
        if zlib.crc32(sections[name]) != crc:
            raise _damaged(path, f"section '{name}' with a wrong checksum")
        start += size
    if hashlib.sha256(memoryview(data)[:end]).digest() != data[end:]:
        raise _damaged(path, "a wrong SHA-256")
    return header, sections


def canonical_json(value: Any) -> bytes:
    """JSON with one spelling per value: sorted keys, no spaces, ASCII, no NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def _check_prefix(data: bytes, path: Path) -> tuple[int, int]:
    """(stored bytes, JSON bytes) of the header, both within bounds."""
    if not data.startswith(MAGIC):
        raise ArtifactError(
            f"{path} is not an underpar artifact",
            got=f"first bytes {data[:4]!r}",
            wanted=repr(MAGIC),
            do="Give the path of a .upar file.",
        )
    if len(data) < PREFIX.size + DIGEST_BYTES:
        raise _damaged(path, f"{len(data)} bytes", f"at least {PREFIX.size + DIGEST_BYTES}")
    _, version, stored, length = PREFIX.unpack_from(data)
    if version > VERSION:
        raise ArtifactError(
            f"artifact {path}",
            got=f"format version {version}",
            wanted=f"version {VERSION}, the newest this underpar knows",
            do="Update underpar, or fetch the file again if it should be older.",
        )
    if version != VERSION:
        raise _damaged(path, f"format version {version}", f"version {VERSION}")
    room = len(data) - PREFIX.size - DIGEST_BYTES
    if stored > room or length > MAX_HEADER_JSON:
        raise _damaged(
            path,
            f"a header of {stored} bytes that inflates to {length}",
            f"at most {room} and {MAX_HEADER_JSON}",
        )
    return stored, length


def _parse_header(deflated: bytes, length: int, path: Path) -> Header:
    try:
        inflater = zlib.decompressobj()
        text = inflater.decompress(deflated, length + 1)  # never more than was declared
        whole = inflater.eof and len(text) == length and not inflater.unused_data
        header = json.loads(text, object_pairs_hook=_distinct, parse_constant=_no_constant)
    except (zlib.error, ValueError, RecursionError) as error:
        raise _damaged(path, f"an unreadable header ({error})") from error
    if not whole or not isinstance(header, dict):
        raise _damaged(path, "an incomplete header")
    return header


def _section_table(header: Header, room: int, path: Path) -> list[tuple[str, int, int]]:
    """Takes the table out of the header; lengths add up to exactly ``room`` bytes."""
    table = header.pop("sections", None)
    if not isinstance(table, list):
        raise _damaged(path, "a header without section table")
    rows: list[tuple[str, int, int]] = []
    for row in table:
        match row:
            case [str(name), int(size), int(crc)] if size >= 0 and not isinstance(size, bool):
                rows.append((name, size, crc))
            case _:
                raise _damaged(path, f"section entry {row!r}", "[name, length, crc32]")
    if len({name for name, _, _ in rows}) != len(rows):
        raise _damaged(path, "two sections of one name")
    if sum(size for _, size, _ in rows) != room:
        total = sum(size for _, size, _ in rows)
        raise _damaged(path, f"{room} bytes of sections", f"the {total} that the header lists")
    return rows


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key twice in one object")
    return dict(pairs)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _damaged(path: Path, got: str, wanted: str | None = None) -> ArtifactError:
    return ArtifactError(
        f"artifact {path} is damaged or was not written by underpar",
        got=got,
        wanted=wanted,
        do="Fetch or pack it again.",
    )
