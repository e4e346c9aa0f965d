"""Texts to compress, four kinds, from what a machine with the demo installed has: no download.

What is not there is not replaced: a kind without a text is reported as missing, with the reason.
"""

from __future__ import annotations

import gettext
import hashlib
import platform
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from underpar.data.bytetokens import ByteTokens
from underpar.data.corpus import read_documents
from underpar.data.dataset import Dataset
from underpar.data.shards import read_shard
from underpar.errors import UnderparError

#: About 100 kB of the standard library: a parser's tables, an algorithm, much prose in comments.
CODE_FILES = ("ast.py", "heapq.py", "textwrap.py")

#: Where systems keep the translations of their tools.
LOCALES = ("/usr/share/locale", "/usr/local/share/locale", "/opt/homebrew/share/locale")
LANGUAGE_BYTES = 60_000
NOVEL_BYTES = 20_000


class Missing(Exception):
    """Why a kind has no text here."""


@dataclass(frozen=True)
class Text:
    """kind: how it is asked for; title: what a reader sees; source: where it is from, in words."""

    kind: str
    title: str
    source: str
    data: bytes

    def facts(self) -> dict[str, object]:
        digest = hashlib.sha256(self.data).hexdigest()
        return {
            "title": self.title,
            "source": self.source,
            "bytes": len(self.data),
            "sha256": digest,
        }


def texts(
    kinds: list[str], dataset: Dataset, novels: Path | None, files: Mapping[str, Path], limit: int
) -> tuple[list[Text], dict[str, str]]:
    """The texts of ``kinds``, and for each that is missing the reason.

    novels: where novels can be read; files: a file instead of the usual source, or of a new kind;
    limit: no more bytes than this of each, 0 for no limit.
    """
    makers: dict[str, Callable[[], Text]] = {
        "speeches": partial(_speeches, dataset),
        "code": _code,
        "language": _language,
        "novel": partial(_novel, novels),
    }
    makers |= {name: partial(_file, name, path) for name, path in files.items()}
    found, missing = [], {}
    for kind in kinds:
        try:
            if kind not in makers:
                raise Missing(f"unknown: give a file with --text {kind}=PATH")
            text = makers[kind]()
        except (Missing, UnderparError) as reason:
            missing[kind] = str(reason)
            continue
        data = beginning(text.data, limit) if limit else text.data
        found.append(Text(text.kind, text.title, text.source, data))
    return found, missing


def training_text(dataset: Dataset) -> bytes:
    """What the model was trained on, as a compressor can be given it."""
    return _decoded(dataset, dataset.train_files)


def beginning(data: bytes, size: int) -> bytes:
    """At most ``size`` bytes, whole lines if there is a line."""
    if len(data) <= size:
        return data
    return data[: data.rfind(b"\n", 0, size) + 1 or size]


def _speeches(dataset: Dataset) -> Text:
    n = len(dataset.validation().documents)
    data = _decoded(dataset, dataset.val_files)
    source = f"{n} held-out documents of the validation shards"
    return Text("speeches", "held-out speeches", source, data)


def _decoded(dataset: Dataset, files: list[Path]) -> bytes:
    """Documents joined by an empty line, as in the demo's comparison with compressors."""
    tokens = np.concatenate([read_shard(file) for file in files])
    starts = np.flatnonzero(tokens == dataset.tokenizer.bos_id)
    table = ByteTokens(dataset.tokenizer)
    return b"\n\n".join(table.decode(part) for part in np.split(tokens, starts[1:]))


def _code() -> Text:
    folder = Path(sysconfig.get_path("stdlib"))
    absent = [name for name in CODE_FILES if not (folder / name).is_file()]
    if absent:
        raise Missing(f"no sources {', '.join(absent)} in this Python's standard library")
    data = b"".join((folder / name).read_bytes() for name in CODE_FILES)
    source = f"{', '.join(CODE_FILES)} of Python {platform.python_version()}"
    return Text("code", "Python source", source, data)


def _language() -> Text:
    """German: the translated messages of the GNU core utilities, most of them sentences of help."""
    for folder in LOCALES:
        found = gettext.find("coreutils", folder, ["de"])
        if found:
            break
    else:
        raise Missing(
            "no German message catalogue of coreutils on this system: --text language=PATH"
        )
    with open(found, "rb") as file:
        catalogue = vars(gettext.GNUTranslations(file))["_catalog"]  # no other way to list it
    data = "\n".join(text for key, text in catalogue.items() if key).encode()  # "": its header
    source = "GNU coreutils' German messages, the beginning"
    return Text("language", "German", source, beginning(data, LANGUAGE_BYTES))


def _novel(path: Path | None) -> Text:
    """A piece from the middle of the first novel that is marked as held out, or of the first."""
    if path is None:
        raise Missing("no novels given: --novel PATH")
    documents = read_documents(path)
    document = next((d for d in documents if d.split == "val"), documents[0])
    data = document.text.encode()
    middle = data.find(b"\n", len(data) // 2) + 1
    piece = beginning(data[middle:], NOVEL_BYTES)
    return Text("novel", "English novel", f"from the middle of {document.name}", piece)


def _file(kind: str, path: Path) -> Text:
    try:
        return Text(kind, kind, path.name, path.read_bytes())
    except OSError as error:
        raise Missing(f"cannot read {path}: {error.strerror}") from error
