"""What all sections of the report use: the data of the run, and a few HTML tags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from underpar.data.detokenizer import Detokenizer
from underpar.data.validation import ValidationSet
from underpar.report.compressors import Row
from underpar.report.curves import Losses
from underpar.report.record import Record


@dataclass(frozen=True)
class Material:
    """The data of a report. nll: only losses that belong to the record. data: folder of shards, if
    known.

    rows: compressors on the same text; empty when they were not measured.
    """

    run: Path
    record: Record
    nll: Mapping[str, Losses]
    validation: ValidationSet
    tokenizer: Detokenizer
    rows: Sequence[Row]
    data: Path | None = None

    @property
    def before(self) -> str | None:
        """The stage to compare test-time training with: scored alike, but without learning."""
        return next((s for s in ("sliding", "quantized", "float") if s in self.nll), None)

    @property
    def shown(self) -> str | None:
        """The best stage whose losses are known."""
        return "ttt" if "ttt" in self.nll else self.before


def section(title: str, *body: str) -> str:
    return f"<section><h2>{title}</h2>{''.join(body)}</section>"


def say(words: str) -> str:
    return f'<p class="say">{words}</p>'


def missing(words: str) -> str:
    return f'<p class="missing">{escape(words)}</p>'


def figure(drawing: str, caption: str = "") -> str:
    return f"<figure>{drawing}{f'<figcaption>{caption}</figcaption>' if caption else ''}</figure>"


def table(
    headers: Sequence[str], rows: Iterable[Sequence[str]], *, ours: Iterable[int] = ()
) -> str:
    """Cells are HTML. ours: numbers of the rows that are printed bold."""
    head = "".join(f"<th scope=col>{cell}</th>" for cell in headers)
    body = []
    for i, (first, *others) in enumerate(rows):
        cells = "".join(f"<td>{cell}</td>" for cell in others)
        kind = " class=ours" if i in ours else ""
        body.append(f"<tr{kind}><th scope=row>{first}</th>{cells}</tr>")
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )
